"""
How a measure is taken: contenders one after the other, round by round, each in a process of its own, then medians.

Interleaving the contenders is what makes a ratio trustworthy on a machine whose speed moves: each round sees the same weather.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
CONTENDERS = HERE / "contenders"
RUN_SECONDS_MAX = 900
"""No contender takes a tenth of this; one that hangs must not hold up the others for ever."""


@dataclass(frozen=True)
class Contender:
    """
    One program to measure.

    Args:
        name: How the table calls it, and targets refer to it.
        script: A file in ``contenders/``; it prints one JSON line of numbers.
        arguments: Its command line.
        peer: Whose environment it runs in; empty for ours.
    """

    name: str
    script: str
    arguments: tuple[str, ...] = ()
    peer: str = ""


@dataclass(frozen=True)
class Target:
    """
    A ratio that must hold: ``figure`` of ``ours`` over the best of ``others``.

    ``at_least`` for rates, ``at_most`` for times; without ``others`` the figure itself is bounded. A ``goal`` is where we want to
    get to: it is told, and fails nothing.
    """

    text: str
    ours: str
    figure: str
    others: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    goal: bool = False


@dataclass(frozen=True)
class Measure:
    """
    One measure: what runs, which of the printed figures to show (name, heading, decimals), and what must hold.

    ``flush_delay_ms`` makes every flush of its contenders take longer, as on a disk that really flushes; several measures may have one
    ``id`` with different delays.
    """

    id: str
    title: str
    contenders: tuple[Contender, ...]
    columns: tuple[tuple[str, str, int], ...]
    targets: tuple[Target, ...] = ()
    remark: str = ""
    flush_delay_ms: float = 0.0

    @property
    def key(self) -> str:
        """What ``--only`` and RESULTS.md call it: the id, and the delay where there is one."""
        return self.id + (f"+{self.flush_delay_ms:g}ms" if self.flush_delay_ms else "")


Figures = dict[str, float]


@dataclass
class Taken:
    """What all rounds of one measure gave: for each contender the figures of each round, and versions."""

    measure: Measure
    rounds: dict[str, list[Figures]] = field(default_factory=dict[str, list[Figures]])
    versions: dict[str, str] = field(default_factory=dict[str, str])

    def spread(self, name: str, figure: str) -> tuple[float, float, float] | None:
        """(median, least, most) of a figure over the rounds; None when the contender does not tell it."""
        values = [each[figure] for each in self.rounds.get(name, ()) if figure in each]
        return (statistics.median(values), min(values), max(values)) if values else None

    def ratio(self, target: Target) -> tuple[float, float, float] | None:
        """(ratio of the medians, least, most of any round). Against the best of several others, round by round."""
        ours = self.spread(target.ours, target.figure)
        if ours is None:
            return None
        if not target.others:
            return ours
        best = max if target.at_least is not None else min
        told = [self.spread(name, target.figure) for name in target.others]
        if any(each is None for each in told):
            return None
        whole = ours[0] / best(each[0] for each in told if each is not None)
        each_round = [
            mine[target.figure]
            / best(self.rounds[name][number][target.figure] for name in target.others)
            for number, mine in enumerate(self.rounds[target.ours])
        ]
        return whole, min(each_round), max(each_round)


def is_met(target: Target, ratio: float) -> bool:
    """Whether the ratio keeps the target's bound."""
    if target.at_least is not None:
        return ratio >= target.at_least
    return target.at_most is None or ratio <= target.at_most


def take(
    measure: Measure,
    rounds: int,
    python_of: Callable[[str], Path],
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> Taken:
    """Run every contender of a measure ``rounds`` times, interleaved."""
    taken = Taken(measure)
    for number in range(rounds):
        for contender in measure.contenders:
            python = python_of(contender.peer) if contender.peer else Path(sys.executable)
            figures, version = run_one(contender, python, environment)
            taken.rounds.setdefault(contender.name, []).append(figures)
            if version:
                taken.versions[contender.name] = version
            shown = ", ".join(
                f"{figures[name]:,.{places}f} {heading}"
                for name, heading, places in measure.columns
                if name in figures
            )
            say(f"  {measure.id} round {number + 1}: {contender.name}: {shown}")
    return taken


def run_one(
    contender: Contender, python: Path, environment: Mapping[str, str]
) -> tuple[Figures, str]:
    """
    One run in a process of its own; the figures that it printed, with the CPU time and the wall time of the whole process.

    Raises SystemExit with its error output when it fails: a contender that does not work is no result.
    """
    command = [str(python), str(CONTENDERS / contender.script), *contender.arguments]
    variables = {**os.environ, **environment}
    if not contender.peer:
        variables["PYTHONPATH"] = str(PROJECT)
    began = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        ended = subprocess.run(
            command,
            env=variables,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{contender.name} took more than {RUN_SECONDS_MAX} s") from None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        raise SystemExit(f"{contender.name} failed:\n{ended.stderr[-4000:]}")
    told = json.loads(ended.stdout.strip().splitlines()[-1])
    version = str(told.pop("version", ""))
    figures = {name: float(value) for name, value in told.items()}
    cpu_s = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    figures["process_cpu_s"] = cpu_s
    figures["process_wall_s"] = time.perf_counter() - began
    return figures, version


def spread_text(
    spread: tuple[float, float, float] | None, places: int, rounds: Sequence[object]
) -> str:
    """``median [least-most]``, without the range when there was one round only."""
    if spread is None:
        return "-"
    median, least, most = spread
    text = f"{median:,.{places}f}"
    return text if len(rounds) < 2 else f"{text} [{least:,.{places}f}-{most:,.{places}f}]"
