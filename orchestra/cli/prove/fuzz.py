"""``prove fuzz``: hostile input for every surface."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from orchestra.cli import speech
from orchestra.cli.prove.concluding import Json, Ledger, Write, conclude
from orchestra.errors import Malformed
from orchestra.testing.proof_page import Evidence, commit_of
from orchestra.testing.seed_ledger import SeedLedger

if TYPE_CHECKING:
    from orchestra.testing.fuzz import Counted
    from orchestra.testing.fuzz_campaign import FuzzTally

INPUTS_MAX = 1_000_000_000
PROCESSES_MAX = 1_024


def fuzz(
    *,
    surface: Annotated[
        tuple[str, ...], Parameter(help="Only this one; may be repeated. [default: all]")
    ] = (),
    inputs: Annotated[int, Parameter(help="Inputs for each surface.")] = 10_000,
    seed: Annotated[
        int, Parameter(help="The same seed gives the same inputs; the next count on.")
    ] = 1,
    engine: Annotated[
        Literal["drawn", "atheris"],
        Parameter(help="Inputs are drawn, or (atheris) guided by what code they reach."),
    ] = "drawn",
    processes: Annotated[
        int | None, Parameter(help="How many at the same time. [default: one for each cpu]")
    ] = None,
    ledger: Ledger = None,
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Feed hostile input to every surface: it is taken or refused, nothing else.

    Nothing crashes, no request is answered with an unplanned 5xx, what is refused changes nothing, and memory stays within its bound.
    A seed is up to 5,000 inputs for each surface. A long campaign that is cut off goes on with the same ledger.
    With ``--engine atheris`` the same seed begins the same search, which then goes where new code is reached, in one process.
    """
    from orchestra.testing.fuzz_campaign import FuzzTally, campaign, seeds_for
    from orchestra.testing.fuzz_surfaces import SURFACES

    for name in surface:
        if name not in SURFACES:
            told = f"there is no surface {name!r} (there is: {', '.join(SURFACES)})"
            raise Malformed(told, where="--surface")
    for option, number, most in (
        ("--inputs", inputs, INPUTS_MAX),
        ("--processes", processes if processes is not None else 1, PROCESSES_MAX),
    ):
        if not 1 <= number <= most:
            raise Malformed(f"must be from 1 to {most}, not {number}", where=option)
    chosen = surface or tuple(SURFACES)
    words = "".join(f" --surface {name}" for name in surface)
    if engine == "atheris":
        if ledger is not None:
            raise Malformed("goes with drawn inputs alone", where="--ledger")
        evidence, broken = _guided(chosen, inputs, seed, words)
    else:
        seeds, each = seeds_for(inputs)
        of = f"fuzz {each} of {','.join(chosen)}"
        kept = SeedLedger(FuzzTally(), of, ledger, commit_of(Path.cwd()))
        processes = processes or os.cpu_count() or 1
        tallies = campaign(chosen, inputs, seed=seed, processes=processes, ledger=kept)
        tally = deque(tallies, maxlen=1)[0]
        command = f"python -m orchestra prove fuzz{words} --inputs {inputs} --seed {seed}"
        section, to = "fuzz-some" if surface else "fuzz", seed + seeds - 1
        evidence = _drawn(section, tally, command, f"{seed} to {to}", kept.commits)
        broken = tally.broken[0] if tally.broken else ""
    if broken:
        speech.warn(broken)
    return conclude(evidence, proved=not broken, page=write, json=json)


_RESULT = "No crash, no unplanned 5xx, nothing changed by what was refused."


def _row(name: str, counted: Counted, more: str = "") -> tuple[str, str]:
    from orchestra.testing.fuzz_surfaces import SURFACES

    refused = counted.inputs - counted.accepted
    told = f"{counted.inputs:,} inputs, {counted.accepted:,} taken, {refused:,} refused{more}"
    return f"{name}: {SURFACES[name].about}", told


def _growth(largest_bytes: int) -> tuple[str, str]:
    from orchestra.testing.fuzz import GROWTH_BYTES_MAX

    bound = f"{largest_bytes / 2**20:.1f} MiB (bound {GROWTH_BYTES_MAX >> 20} MiB)"
    return "largest growth of memory", bound


def _drawn(name: str, tally: FuzzTally, command: str, seeds: str, commits: str) -> Evidence:
    fed = sum(counted.inputs for counted in tally.counted.values())
    return Evidence(
        name=name,
        title="Hostile input" if name == "fuzz" else "Hostile input to some surfaces",
        command=command,
        figures=(
            *(_row(name, counted) for name, counted in tally.counted.items()),
            ("inputs in all", f"{fed:,}"),
            ("rate", f"{fed / max(tally.cpu_s, 1e-9):,.0f} inputs per second of CPU"),
            _growth(tally.growth_bytes),
            ("commits, with how many seeds each", commits),
        ),
        seeds=seeds,
        result=f"Broken: {tally.broken[0].splitlines()[0]}" if tally.broken else _RESULT,
    )


def _guided(chosen: Sequence[str], inputs: int, seed: int, words: str) -> tuple[Evidence, str]:
    from orchestra.testing.fuzz import Counted, FuzzBroken, Fuzzed
    from orchestra.testing.fuzz_guided import fuzz_guided

    figures: list[tuple[str, str]] = []
    done: list[Fuzzed] = []
    broken = ""
    try:
        for name in chosen:
            found = fuzz_guided(name, inputs=inputs, seed=seed)
            reached = f"; {found.edges_corpus:,} edges by valid inputs, {found.edges:,} in the end"
            done.append(found.fuzzed)
            counted = Counted(found.fuzzed.inputs, found.fuzzed.accepted)
            figures.append(_row(name, counted, reached))
            speech.say(": ".join(figures[-1]))
    except FuzzBroken as error:
        broken = str(error)
    evidence = Evidence(
        name="fuzz-guided",
        title="Hostile input, guided by coverage",
        command=f"python -m orchestra prove fuzz{words} --engine atheris --inputs {inputs} --seed {seed}",
        figures=(
            *figures,
            ("inputs in all", f"{sum(each.inputs for each in done):,}"),
            _growth(max([0, *(each.growth_bytes for each in done)])),
        ),
        seeds=str(seed),
        result=f"Broken: {broken.splitlines()[0]}" if broken else _RESULT,
    )
    return evidence, broken
