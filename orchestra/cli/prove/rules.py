"""``prove rules``: each safety rule taken out, and how long it takes to notice."""

from __future__ import annotations

import inspect
from typing import Annotated

from cyclopts import Parameter

from orchestra.cli.prove.concluding import Json, Write, conclude
from orchestra.errors import Malformed
from orchestra.testing.proof_page import Evidence

SCHEDULES_MAX = 1_000_000


def rules(
    *,
    schedules: Annotated[int, Parameter(help="How many are played at most, for each.")] = 500,
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Take out each safety rule of the core in turn, and count the schedules until it is missed.

    What finds nothing proves nothing: a rule whose absence no schedule notices is named, and the answer is then 1.
    """
    from orchestra.testing.hunt import missed
    from orchestra.testing.removed_rules import AROUND, RULES

    if not 1 <= schedules <= SCHEDULES_MAX:
        raise Malformed(f"must be from 1 to {SCHEDULES_MAX}, not {schedules}", where="--schedules")
    figures: list[tuple[str, str]] = []
    unnoticed = 0
    for name, rule in RULES.items():
        noticed = missed(name, schedules)
        about = f"{name}: {inspect.getdoc(rule)}"
        if noticed is not None:
            where = " of a simulation" if name in AROUND else ""
            figures.append((about, f"found by seed {noticed.seed}{where} ({noticed.finder})"))
        else:
            unnoticed += 1
            figures.append((about, f"not found by {schedules:,} seeds"))
    found = len(RULES) - unnoticed
    evidence = Evidence(
        name="rules",
        title="Rules taken out",
        command=f"python -m orchestra prove rules --schedules {schedules}",
        figures=tuple(figures),
        seeds=f"from 1 to the one that is named, at most to {schedules}",
        result=f"Of {len(RULES)} safety rules that were taken out one by one, schedules of the core and simulations noticed {found}.",
    )
    return conclude(evidence, proved=not unnoticed, page=write, json=json)
