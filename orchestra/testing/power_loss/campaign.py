"""Many cuts and many faults, on several processes, and what came of them together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import anyio

from orchestra.testing.power_loss.controls import CONTROLS
from orchestra.testing.power_loss.controls import SUBSETS as FEW
from orchestra.testing.power_loss.fault_loop import Faulted, loop
from orchestra.testing.power_loss.files import WAYS_TO_LOSE, fail_files, try_files
from orchestra.testing.power_loss.recorder import Fails
from orchestra.testing.power_loss.recovery import PAIRS, again, twice, unflushed
from orchestra.testing.power_loss.scenarios import SCENARIOS
from orchestra.testing.power_loss.trial import Tally, chunk, try_scenario

LONGEST_FIRST = tuple(sorted(SCENARIOS, key=lambda name: name not in ("checkpoints", "killed")))
"""The order in which a round is handed out, so that no process is left alone with a long one."""

Pool = ProcessPoolExecutor | None


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


PAIRED = ("submits", "killed", "migration", "failed_flush")
"""Scenarios in which pairs of operations fail: commits, a start after a kill, a migration with its copy, a second load."""

FILE_SEEDS = 20
"""Files are small: so many rounds take seconds."""


def cuts_again(
    seed: int, stride: int, pool: Pool, names: Sequence[str] = LONGEST_FIRST
) -> dict[str, Tally]:
    """In every scenario: cut the power after every ``stride``-th operation, and again after each operation of the start that follows."""
    columns = (list(names), [seed] * len(names), [stride] * len(names))
    found = map(again, *columns) if pool is None else pool.map(again, *columns)
    return dict(zip(names, found, strict=True))


def pairs(
    seed: int, stride: int, pool: Pool, names: Sequence[str] = PAIRED
) -> dict[tuple[str, str], Faulted]:
    """Fail every ``stride``-th operation of a kind and one that follows it. What each pair of kinds came to."""
    jobs = [(name, kinds) for name in names for kinds in PAIRS]
    columns = (
        [name for name, _ in jobs],
        [seed] * len(jobs),
        [kinds for _, kinds in jobs],
        [stride] * len(jobs),
    )
    found = map(twice, *columns) if pool is None else pool.map(twice, *columns)
    totals = {(first.value, second.value): Faulted() for first, second in PAIRS}
    for (_, (first, second)), faulted in zip(jobs, found, strict=True):
        totals[first.value, second.value] += faulted
    return totals


def files(seed: int) -> dict[str, Tally]:
    """Keep files beside the store, with the power cut after each operation, and with each operation failing."""
    seeds = range(seed, seed + FILE_SEEDS)
    return {
        "files kept, cut after every operation": sum(map(try_files, seeds), Tally()),
        "files kept while every operation fails in turn": sum(map(fail_files, seeds), Tally()),
    }


def files_lost(seed: int) -> dict[str, Tally]:
    """Every way to lose a file: each must lose or tear one."""
    return {name: try_files(seed, keep) for name, keep in WAYS_TO_LOSE.items()}


def unflushed_start(seed: int) -> Tally:
    """Start after a cut with a store that flushes nothing: a second cut must be seen to lose or to damage."""
    return unflushed(seed)
