"""``prove museum``: defects of other systems, rebuilt in this one, and how long it takes to find each."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from orchestra.cli.prove.concluding import Json, Write, conclude
from orchestra.errors import Malformed
from orchestra.testing.proof_page import Evidence

SCHEDULES_MAX = 1_000_000


def museum(
    *,
    schedules: Annotated[int, Parameter(help="How many are played at most, for each.")] = 500,
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Rebuild races and lost work of other systems in this one, and count the schedules until each is found.

    What lies around the core is looked for by simulations of the whole system. Beside the seed stands who noticed: an invariant, or the
    table of moves, in which what that exhibit does is no row. An exhibit that nothing finds is named, and the answer is then 1.
    """
    from orchestra.testing.hunt import found as hunted
    from orchestra.testing.museum import EXHIBITS
    from orchestra.testing.schedules.campaign import TABLE

    if not 1 <= schedules <= SCHEDULES_MAX:
        raise Malformed(f"must be from 1 to {SCHEDULES_MAX}, not {schedules}", where="--schedules")
    figures: list[tuple[str, str]] = []
    missed = by_table = 0
    for name, exhibit in EXHIBITS.items():
        found = hunted(name, schedules)
        about = f"{exhibit.system} {exhibit.thread}: {exhibit.story}"
        if found is None:
            missed += 1
            figures.append((about, f"not found by {schedules:,} seeds"))
            continue
        by_table += found.finder == TABLE
        where = " of a simulation" if exhibit.around else ""
        figures.append((about, f"found by seed {found.seed}{where} ({found.finder})"))
    count = len(EXHIBITS) - missed
    evidence = Evidence(
        name="museum",
        title="The museum",
        command=f"python -m orchestra prove museum --schedules {schedules}",
        figures=tuple(figures),
        seeds=f"from 1 to the one that is named, at most to {schedules}",
        result=(
            f"Of {len(EXHIBITS)} defects of other systems, rebuilt in this one, schedules and simulations found {count}:"
            f" {count - by_table} by an invariant, {by_table} because the core refuses a move that its tables do not have."
        ),
    )
    return conclude(evidence, proved=not missed, page=write, json=json)
