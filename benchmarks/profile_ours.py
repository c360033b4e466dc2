"""
Where the time of our contenders goes: ``python benchmarks/profile_ours.py P11 [--lines 30]``.

Runs each contender of a measure that is ours once under Python's own profiler, which makes calls dearer than they are: shares say more
than times. Work that other processes or threads do is not seen.
"""

from __future__ import annotations

import argparse
import os
import pstats
import subprocess
import sys
import tempfile

from frame import CONTENDERS, PROJECT
from measures import MEASURES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1] if __doc__ else None)
    parser.add_argument("measure", choices=[each.key for each in MEASURES])
    parser.add_argument("--lines", type=int, default=30, help="functions to show")
    parser.add_argument("--sort", default="tottime", help="a key of pstats, such as cumtime")
    chosen = parser.parse_args()
    (measure,) = (each for each in MEASURES if each.key == chosen.measure)
    for contender in measure.contenders:
        if contender.peer or not contender.script.startswith("ours_"):
            continue
        with tempfile.NamedTemporaryFile(suffix=".pstats") as kept:
            run = [sys.executable, "-m", "cProfile", "-o", kept.name]
            run += [str(CONTENDERS / contender.script), *contender.arguments]
            subprocess.run(run, check=True, env={**os.environ, "PYTHONPATH": str(PROJECT)})
            sys.stdout.write(f"--- {contender.name}\n")
            stats = pstats.Stats(kept.name, stream=sys.stdout)
            stats.strip_dirs().sort_stats(chosen.sort).print_stats(chosen.lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
