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
import time
from dataclasses import replace

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
    by_key = {each.key.upper(): each for each in MEASURES}
    wanted = [each.strip().upper() for each in only.split(",") if each.strip()] or list(by_key)
    unknown = [each for each in wanted if each not in by_key]
    if unknown:
        there = ", ".join(each.key for each in MEASURES)
        raise SystemExit(f"no such measure: {', '.join(unknown)}; there are {there}")
    return [by_key[each] for each in wanted]


def slower(measure: Measure, delay_ms: float) -> Measure:
    """The same with slower flushes: as it is declared, with the bounds that hold there, or else by the same bounds."""
    wanted = replace(measure, flush_delay_ms=delay_ms)
    return next((each for each in MEASURES if each.key == wanted.key), wanted)


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
    parser.add_argument(
        "--flush-delay-ms", type=float, default=0.0, help="make every flush slower, in all measures"
    )
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md as it is")
    chosen = parser.parse_args()
    selected = chosen_measures(chosen.only)
    if chosen.flush_delay_ms:
        slowed = {each.id: slower(each, chosen.flush_delay_ms) for each in selected}
        selected = list(slowed.values())
    for peer in sorted({each.peer for measure in selected for each in measure.contenders} - {""}):
        peers.prepare(peer, say)
    command = "python benchmarks/run.py " + " ".join(sys.argv[1:])
    all_met = True
    for measure in selected:
        began = time.monotonic()
        say(f"{measure.key}: {measure.title} (load {os.getloadavg()[0]:.1f})")
        environment = slow_flushes(measure.flush_delay_ms) if measure.flush_delay_ms else {}
        taken = take(measure, chosen.rounds, peers.python_of, environment, say)
        say(f"{measure.key}: {time.monotonic() - began:.0f} s")
        text = render(taken, command.strip())
        sys.stdout.write(text + "\n")
        if not chosen.no_write:
            write(measure, text)
        all_met = all_met and all(met or target.goal for target, _, met in verdicts(taken))
    return 0 if all_met else 1


if __name__ == "__main__":
    sys.exit(main())
