"""``prove core``: random schedules of the pure core."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import Annotated

from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.cli.prove.concluding import Json, Write, conclude
from orchestra.errors import Malformed
from orchestra.testing.diagram import drawn
from orchestra.testing.proof_page import Evidence
from orchestra.testing.schedules import Broken, Tally, campaign, play

SCHEDULES_MAX = 1_000_000_000
PROCESSES_MAX = 1_024
HOUR_MS = 3_600_000


def core(
    *,
    schedules: Annotated[int, Parameter(help="How many are played.")] = 10_000,
    seed: Annotated[int, Parameter(help="The seed of the first; the others count on.")] = 1,
    processes: Annotated[
        int | None, Parameter(help="How many at the same time. [default: one for each cpu]")
    ] = None,
    diagram: Annotated[bool, Parameter(help="Show what happened in it, for one schedule.")] = False,
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Play random schedules of the core: lost messages, crashes, freezes, and every invariant.

    Workers, people and an orchestrator meet over a net that loses, doubles, delays and cuts; they crash, freeze, stall and fail to commit,
    drawn from a seed. Then all heals, and everything that was accepted has to end as it should. A violation is shown with its diagram.
    """
    for name, number, most in (
        ("--schedules", schedules, SCHEDULES_MAX),
        ("--processes", processes if processes is not None else 1, PROCESSES_MAX),
    ):
        if not 1 <= number <= most:
            raise Malformed(f"must be from 1 to {most}, not {number}", where=name)
    if diagram:
        if schedules != 1:
            raise Malformed("a diagram is of one schedule: add --schedules 1", where="--diagram")
        return _shown(seed)
    began_s = time.monotonic()
    processes = processes or os.cpu_count() or 1
    tally = deque(campaign(schedules, seed=seed, processes=processes), maxlen=1)[0]
    evidence = _evidence(tally, seed, time.monotonic() - began_s)
    if tally.broken and not json:
        _show(tally.broken[0])
    return conclude(evidence, proved=not tally.broken, page=write, json=json)


def _shown(seed: int) -> int:
    lines, violation = play(seed)
    speech.put(drawn(lines))
    if violation is not None:
        speech.put(speech.clean(str(violation)))
    return exits.OK if violation is None else exits.FAILED


def _show(broken: Broken) -> None:
    lines, violation = play(broken.seed)
    speech.put(drawn(lines))
    speech.put(speech.clean(broken.why if violation is None else str(violation)))


def _evidence(tally: Tally, seed: int, seconds: float) -> Evidence:
    hours = tally.simulated_ms / HOUR_MS
    never = tally.never_taken
    figures = (
        ("schedules", f"{tally.schedules:,}, of which {tally.twice:,} were played twice"),
        ("steps of the core", f"{tally.steps:,}"),
        ("commits", f"{tally.commits:,}"),
        ("simulated time", f"{hours:,.0f} h"),
        ("rate", f"{tally.schedules / seconds:,.0f} schedules/s"),
        ("simulated hours per CPU hour", f"{hours * 3_600 / max(tally.cpu_s, 1e-9):,.0f}"),
        ("rows of the tables never taken", ", ".join(never) or "none"),
        ("violations", f"{len(tally.broken)}"),
    )
    broken = tally.broken[0] if tally.broken else None
    return Evidence(
        name="core",
        title="Schedules of the core",
        command=f"python -m orchestra prove core --schedules {tally.schedules} --seed {seed}",
        figures=figures,
        seeds=f"{seed} to {seed + tally.schedules - 1}",
        result=(
            "No schedule broke an invariant, and each that was played twice gave the same story and the same rows."
            if broken is None
            else f"Broken by seed {broken.seed}: {broken.why.splitlines()[0]}"
        ),
    )
