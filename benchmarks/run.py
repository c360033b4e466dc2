"""
Measure orchestra beside its peers, in one run: ``python benchmarks/run.py [--only P1,P2] [--rounds 3]``.

Prints a table with ratios for each measure and writes it into RESULTS.md. The peers are installed from PyPI into environments
of their own under ``.peers/``. Exit code 0 when every bound holds, 1 when one does not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import peers
from frame import HERE, Measure, take
from measures import MEASURES
from report import render, verdicts, write


def say(text: str) -> None:
    """Talk goes to stderr; stdout is the tables."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def chosen_measures(only: str) -> list[Measure]:
    """The measures named in a comma-separated list; all for an empty one."""
    wanted = [each.strip().upper() for each in only.split(",") if each.strip()] or list(MEASURES)
    unknown = [each for each in wanted if each not in MEASURES]
    if unknown:
        raise SystemExit(f"no such measure: {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    return [MEASURES[each] for each in wanted]


def slow_flushes(delay_ms: float) -> dict[str, str]:
    """The variables under which every flush of a contender takes longer. Needs a C compiler, on Linux."""
    library = peers.PEERS / "slow_flush.so"
    library.parent.mkdir(exist_ok=True)
    compile_it = [
        "cc",
        "-shared",
        "-fPIC",
        "-O2",
        "-o",
        str(library),
        str(HERE / "slow_flush.c"),
        "-ldl",
    ]
    subprocess.run(compile_it, check=True)
    return {"LD_PRELOAD": str(library), "SLOW_FLUSH_US": str(round(delay_ms * 1000))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1] if __doc__ else None)
    parser.add_argument("--only", default="", help="measures to take, such as P1,P2; default all")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds, interleaved; medians are shown"
    )
    parser.add_argument("--flush-delay-ms", type=float, default=0.0, help="make every flush slower")
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md as it is")
    chosen = parser.parse_args()
    selected = chosen_measures(chosen.only)
    for peer in sorted({each.peer for measure in selected for each in measure.contenders} - {""}):
        peers.prepare(peer, say)
    environment = slow_flushes(chosen.flush_delay_ms) if chosen.flush_delay_ms else {}
    command = "python benchmarks/run.py " + " ".join(sys.argv[1:])
    all_met = True
    for measure in selected:
        say(f"{measure.id}: {measure.title} (load {os.getloadavg()[0]:.1f})")
        taken = take(measure, chosen.rounds, peers.python_of, environment, say)
        text = render(taken, command.strip(), chosen.flush_delay_ms)
        sys.stdout.write(text + "\n")
        if not chosen.no_write:
            write(measure, text, chosen.flush_delay_ms)
        all_met = all_met and all(met or target.goal for target, _, met in verdicts(taken))
    return 0 if all_met else 1


if __name__ == "__main__":
    sys.exit(main())
