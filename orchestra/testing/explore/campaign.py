"""Many small worlds, searched side by side by processes of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import as_completed

from orchestra.statemachine.lifecycles import TABLES
from orchestra.testing.explore.bounds import Bounds
from orchestra.testing.explore.search import Explored, Search
from orchestra.testing.processes import pool_of

STATES_MAX = 20_000_000
"""A search keeps what it knows in memory: some 300 bytes a state, and more for those that it has not gone on from yet."""


def explore(bounds: Bounds, *, states_max: int = STATES_MAX) -> Explored:
    """
    Search one world.

    Args:
        states_max: Where to stop although it is not all; what was found is said to be incomplete then.
    """
    return Search(bounds, states_max=states_max).run()


def explored_all(
    worlds: Iterable[Bounds], *, states_max: int = STATES_MAX, processes: int = 1
) -> Iterator[Explored]:
    """Search each world, in as many processes; each result as it comes."""
    if processes == 1:
        for bounds in worlds:
            yield explore(bounds, states_max=states_max)
        return
    with pool_of(processes, tasks_each_max=1) as pool:
        futures = [pool.submit(explore, bounds, states_max=states_max) for bounds in worlds]
        for future in as_completed(futures):
            yield future.result()


def never_taken(explored: Iterable[Explored]) -> tuple[str, ...]:
    """The rows of the tables that no search has taken, as ``kind: source --verb-->``."""
    taken = {row for each in explored for row in each.taken}
    return tuple(
        f"{kind}: {row.source or '(new)'} --{row.verb}-->"
        for kind, table in TABLES.items()
        for row in table.rows
        if (kind, row.source, row.verb) not in taken
    )
