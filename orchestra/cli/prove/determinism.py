"""``prove determinism``: the same seed is the same story, whatever strings hash to, and on any version of Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping
from contextlib import closing
from shlex import quote
from typing import Annotated

from cyclopts import Parameter

from orchestra.cli import speech
from orchestra.cli.prove.concluding import Json, Write, conclude
from orchestra.errors import Malformed
from orchestra.statemachine.values import value
from orchestra.testing.determinism import WHERE, Compared, Place, Twofold
from orchestra.testing.determinism_child import KINDS, Interpreter, Kind
from orchestra.testing.proof_page import Evidence
from orchestra.testing.simulation.plan import Backend

SEEDS_MAX = 1_000_000_000
PROCESSES_MAX = 1_024

HASH_SEEDS = (1, 2)
"""Of the two; any others would do. They are the same at every run, so that what is found is found again."""

Sums = Mapping[Kind, Compared]


@value
class _Asked:
    seed: int
    other: str
    backend: Backend

    @property
    def places(self) -> tuple[Place, Place]:
        first, second = HASH_SEEDS
        return Place(sys.executable, first), Place(self.other or sys.executable, second)

    def called(self, seed: int, seeds: Mapping[Kind, int], other: str) -> str:
        """The line that does it again."""
        words = [f"--{kind} {seeds.get(kind, 0)}" for kind in KINDS]
        words += [f"--seed {seed}"]
        words += [f"{WHERE} {quote(other)}"] if other else []
        words += [f"--backend {self.backend}"] if self.backend != "asyncio" else []
        return f"python -m orchestra prove determinism {' '.join(words)}"


def determinism(
    *,
    schedules: Annotated[int, Parameter(help="How many schedules of the core.")] = 1_000,
    simulations: Annotated[int, Parameter(help="How many simulations of the whole system.")] = 100,
    seed: Annotated[int, Parameter(help="The seed of the first; the others count on.")] = 1,
    other: Annotated[
        str,
        Parameter(
            name=WHERE,
            help="The second Python, in which orchestra is installed. [default: the one that runs this]",
        ),
    ] = "",
    backend: Annotated[
        Backend, Parameter(help="On whose event loops simulations run.")
    ] = "asyncio",
    processes: Annotated[
        int | None, Parameter(help="How many at the same time. [default: one for each cpu]")
    ] = None,
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Play each seed in two interpreters, and compare the stories and the rows.

    They hash strings by different seeds, and what they make lies at different addresses: what goes by the order of a set gives two stories.
    So does what depends on the version of Python or of a library, when the second interpreter has others. Of a seed that gives two stories
    it is shown where they part.
    """
    for name, number, least, most in (
        ("--schedules", schedules, 0, SEEDS_MAX),
        ("--simulations", simulations, 0, SEEDS_MAX),
        ("--processes", processes if processes is not None else 1, 1, PROCESSES_MAX),
    ):
        if not least <= number <= most:
            raise Malformed(f"must be from {least} to {most}, not {number}", where=name)
    if not schedules and not simulations:
        raise Malformed("nothing would be played: ask for one at least", where="--schedules")
    asked = _Asked(seed, other, backend)
    wanted: dict[Kind, int] = {"schedules": schedules, "simulations": simulations}
    sums: dict[Kind, Compared] = {}
    broken = ""
    for kind, seeds in wanted.items():
        if not seeds:
            continue
        twofold = Twofold(kind, asked.places, backend)
        sums[kind] = _reached(
            twofold.campaign(seeds, seed=seed, processes=processes or os.cpu_count() or 1)
        )
        broken = _shown(twofold, sums[kind], asked, json=json)
        if sums[kind].seeds < seeds or broken:
            break
    return conclude(_evidence(sums, asked, broken), proved=not broken, page=write, json=json)


def _reached(played: Generator[Compared]) -> Compared:
    """The last sum; Ctrl-C ends a long campaign early, with what was played until then."""
    reached = Compared()
    with closing(played):
        try:
            for reached in played:
                speech.say(f"{reached.seeds:,} played in both")
        except KeyboardInterrupt:
            if not reached.seeds:
                raise
            speech.say(f"ended early, after {reached.seeds:,}")
    return reached


def _shown(twofold: Twofold, compared: Compared, asked: _Asked, *, json: bool) -> str:
    """Show the first finding with the line that repeats it; what it says in one line, empty when there is none."""
    if not compared.findings:
        return ""
    finding = compared.findings[0]
    if not json:
        speech.put(speech.clean_lines(finding.why))
        first, parting = finding.seed, twofold.parting(finding.seed, finding.seed)
        if not parting:
            first, parting = finding.first, twofold.parting(finding.first, finding.seed)
        count = finding.seed - first + 1
        speech.put(speech.clean_lines(parting or "played once more, both came to the same"))
        speech.put("see it again:")
        speech.put(f"{asked.called(first, {twofold.kind: count}, asked.other)} --processes 1")
    return f"Broken by seed {finding.seed} of the {twofold.kind}: {finding.why.splitlines()[0]}"


def _evidence(sums: Sums, asked: _Asked, broken: str) -> Evidence:
    figures: list[tuple[str, str]] = []
    for kind, compared in sums.items():
        figures.append((f"{kind}, each played in both", f"{compared.seeds:,}"))
        figures.append((f"digest of all {kind}", compared.digest))
    (first, second), *_ = (each.interpreters for each in sums.values())
    for name, interpreter, hash_seed in zip(
        ("first interpreter", "second interpreter"), (first, second), HASH_SEEDS, strict=True
    ):
        figures.append((name, f"{interpreter.python}, PYTHONHASHSEED={hash_seed}"))
    found = sum(len(each.findings) for each in sums.values())
    figures += [
        ("libraries of different versions", _different(first, second)),
        ("seeds that gave two stories, or broke something", f"{found:,}"),
    ]
    trio = asked.backend == "trio"
    # A path of this machine is nobody's; the version is told.
    other = f"python{second.python.split()[1].rpartition('.')[0]}" if asked.other else ""
    return Evidence(
        name="determinism-trio" if trio else "determinism",
        title="The same seed, the same story" + (", on trio" if trio else ""),
        command=asked.called(asked.seed, {kind: each.seeds for kind, each in sums.items()}, other),
        figures=tuple(figures),
        seeds=", ".join(
            f"{asked.seed} to {asked.seed + each.seeds - 1} of {kind}"
            for kind, each in sums.items()
        ),
        result=broken or "Every seed gave the same story and the same rows in both interpreters.",
    )


def _different(first: Interpreter, second: Interpreter) -> str:
    told = [
        f"{name} {version} and {second.libraries[name]}"
        for name, version in first.libraries.items()
        if second.libraries[name] != version
    ]
    return ", ".join(told) or "none"
