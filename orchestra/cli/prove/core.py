"""``prove core``: random schedules of the pure core."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.cli.prove.concluding import Json, Ledger, Write, conclude
from orchestra.errors import Malformed
from orchestra.testing.diagram import drawn
from orchestra.testing.proof_page import Evidence, commit_of
from orchestra.testing.schedules import Broken, Tally, campaign, play
from orchestra.testing.seed_ledger import SeedLedger

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
    ledger: Ledger = None,
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Play random schedules of the core: lost messages, crashes, freezes, and every invariant.

    Workers, people and an orchestrator meet over a net that loses, doubles, delays and cuts; they crash, freeze, stall and fail to commit,
    drawn from a seed. Then all heals, and everything that was accepted has to end as it should. A violation is shown with its diagram.
    A long campaign that is cut off goes on with the same ledger.
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
    kept = SeedLedger(Tally(), "core", ledger, commit_of(Path.cwd()))
    processes = processes or os.cpu_count() or 1
    tallies = campaign(schedules, seed=seed, processes=processes, ledger=kept)
    tally = deque(tallies, maxlen=1)[0]
    evidence = _evidence(tally, seed, kept.commits)
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


def _evidence(tally: Tally, seed: int, commits: str) -> Evidence:
    hours = tally.simulated_ms / HOUR_MS
    cpu_s = max(tally.cpu_s, 1e-9)
    never = tally.never_taken
    figures = (
        ("schedules", f"{tally.schedules:,}, of which {tally.twice:,} were played twice"),
        ("steps of the core", f"{tally.steps:,}"),
        ("commits", f"{tally.commits:,}"),
        ("simulated time", f"{hours:,.0f} h"),
        ("rate of one processor", f"{tally.schedules / cpu_s:,.0f} schedules/s"),
        ("simulated hours per CPU hour", f"{hours * 3_600 / cpu_s:,.0f}"),
        ("commits, with how many schedules of each", commits),
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
