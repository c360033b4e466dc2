"""Many cuts and many faults, on several processes, and what came of them together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import anyio

from orchestra.testing.power_loss.controls import CONTROLS
from orchestra.testing.power_loss.controls import SUBSETS as FEW
from orchestra.testing.power_loss.fault_loop import Faulted, loop
from orchestra.testing.power_loss.recorder import Fails
from orchestra.testing.power_loss.scenarios import SCENARIOS
from orchestra.testing.power_loss.trial import Tally, chunk, try_scenario

LONGEST_FIRST = tuple(sorted(SCENARIOS, key=lambda name: name not in ("checkpoints", "killed")))
"""The order in which a round is handed out, so that no process is left alone with a long one."""

Pool = ProcessPoolExecutor | None


def pool_of(processes: int) -> Pool:
    """So many processes; None for one, which is the caller's."""
    # Spawned, not forked: the caller may have threads.
    if processes == 1:
        return None
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"))


def cuts(
    images: int, seed: int, pool: Pool, names: Sequence[str] = LONGEST_FIRST
) -> Iterator[dict[str, Tally]]:
    """
    Cut the power in every scenario, in rounds with seeds from ``seed`` on, until there are so many images.

    Yields what each scenario came to so far after every round, and ends after one with a broken image.
    """
    totals = {name: Tally() for name in names}
    for number in itertools.count(seed):
        seeds = [number] * len(names)
        found = map(chunk, names, seeds) if pool is None else pool.map(chunk, names, seeds)
        for name, tally in zip(names, found, strict=True):
            totals[name] += tally
        yield totals
        total = sum(totals.values(), Tally())
        if total.broken or total.images >= images:
            return


def faults(
    seed: int, stride: int, pool: Pool, names: Sequence[str] = LONGEST_FIRST
) -> dict[str, Faulted]:
    """Fail every ``stride``-th operation of each kind in each scenario, once and for ever. What each scenario came to."""
    jobs = [(name, fails) for name in names for fails in Fails]
    columns = (
        [name for name, _ in jobs],
        [seed] * len(jobs),
        [fails for _, fails in jobs],
        [stride] * len(jobs),
    )
    found = map(loop, *columns) if pool is None else pool.map(loop, *columns)
    totals = {name: Faulted() for name in names}
    for (name, _), faulted in zip(jobs, found, strict=True):
        totals[name] += faulted
    return totals


def control(name: str, seed: int) -> Tally:
    """Run one of `CONTROLS` to its end."""
    return anyio.run(CONTROLS[name], seed, 0)


def controls(seed: int, pool: Pool) -> dict[str, Tally]:
    """Run every control: each must lose or corrupt."""
    names = tuple(CONTROLS)
    seeds = [seed] * len(names)
    found = map(control, names, seeds) if pool is None else pool.map(control, names, seeds)
    return dict(zip(names, found, strict=True))


def store_alone(seed: int) -> Tally:
    """
    The same over a SQLite that never flushes a directory of its own accord: the store's own flushes must be enough to lose nothing.

    What may be left then is a first start that never ended, and does not open.
    """

    async def tried() -> Tally:
        return await try_scenario("reopening", seed, subsets=FEW, sqlite_syncs_names=False)

    return anyio.run(tried)
