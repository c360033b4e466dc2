"""Many simulations of the sample on several processes, and what came of them together."""

from __future__ import annotations

import time
from collections.abc import Generator
from functools import partial
from random import Random

import attrs

from orchestra.testing import faults
from orchestra.testing.seed_campaign import over_seeds
from orchestra.testing.seed_ledger import SeedLedger
from orchestra.testing.simulation.cluster import Shape
from orchestra.testing.simulation.plan import Backend, Keeping, Plan, draw
from orchestra.testing.simulation.sample import Scenario, sample_app
from orchestra.testing.simulation.simulation import Failed, Simulated, play

CHUNK = 50
"""Simulations that a process plays in one go: some seconds."""

TWICE_EVERY = 25
"""Every so many simulations one is played a second time, and must give the same story and the same rows."""


@attrs.frozen(slots=True)
class Broken:
    """A simulation that broke something: its seed, its plan, and what the first violation says."""

    seed: int
    plan: str
    why: str


@attrs.frozen(slots=True)
class Tally:
    """
    What simulations came to: how many, how many of them twice, troubles, commits, callbacks, simulated ms, and seconds of CPU.

    On simulated drives, where the real store was on one: ``operations``, operations that ``failed``, and ``cuts`` of the power, each
    followed by a look at everything that was acknowledged.
    """

    simulations: int = 0
    twice: int = 0
    troubles: int = 0
    commits: int = 0
    callbacks: int = 0
    simulated_ms: int = 0
    cpu_s: float = 0.0
    operations: int = 0
    failed: int = 0
    cuts: int = 0
    broken: tuple[Broken, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        ours, theirs = attrs.astuple(self, recurse=False), attrs.astuple(other, recurse=False)
        return Tally(*(a + b for a, b in zip(ours, theirs, strict=True)))


def drawn_shape(seed: int) -> Shape:
    """The cluster of a seed."""
    rng = Random(f"shape {seed}")
    return Shape(
        sample_app().tasks,
        workers=rng.randint(1, 3),
        slots=rng.randint(1, 3),
        transport=rng.choice(("websocket", "websocket", "http")),
        fence=rng.choice(("strict", "strict", "strict", "patient")),
    )


def play_seed(
    seed: int, store: Keeping | None = None, backend: Backend = "asyncio"
) -> tuple[Plan, Simulated]:
    """Play the sample under the plan of a seed, in which ``store`` is drawn unless it is given. Raises `Failed`."""
    shape = drawn_shape(seed)
    plan = draw(seed, faults.ALL, shape.names, store, backend)
    return plan, play(Scenario(shape.tasks), shape, plan)


def chunk(
    first: int, count: int, store: Keeping | None = None, backend: Backend = "asyncio"
) -> Tally:
    """Play the simulations of ``count`` seeds from ``first`` on; ends with the first that is broken."""
    total = Tally()
    for seed in range(first, first + count):
        total += _one(seed, store, backend)
        if total.broken:
            break
    return total


def _one(seed: int, store: Keeping | None, backend: Backend) -> Tally:
    began_s = time.process_time()
    twice = seed % TWICE_EVERY == 0
    try:
        plan, done = play_seed(seed, store, backend)
        again = play_seed(seed, store, backend)[1] if twice else done
    except Failed as failed:
        shape = drawn_shape(seed)
        told = str(draw(seed, faults.ALL, shape.names, store, backend))
        why = f"{type(failed.cause).__name__}: {failed.cause}"
        return Tally(simulations=1, broken=(Broken(seed, told, why),))
    broken: tuple[Broken, ...] = ()
    if again.digest != done.digest:
        broken = (Broken(seed, str(plan), "I21: it gives another story at the second time"),)
    return Tally(
        1,
        int(twice),
        len(plan.troubles),
        done.commits,
        done.callbacks,
        done.simulated_ms,
        time.process_time() - began_s,
        done.wear.operations,
        done.wear.failed,
        done.wear.cuts,
        broken,
    )


def campaign(
    simulations: int,
    *,
    seed: int = 1,
    processes: int = 1,
    store: Keeping | None = None,
    backend: Backend = "asyncio",
    ledger: SeedLedger[Tally] | None = None,
) -> Generator[Tally]:
    """Play ``simulations`` simulations from ``seed`` on; the sum so far after every chunk, as `over_seeds` tells it."""
    seeds = range(seed, seed + simulations)
    play_chunk = partial(chunk, store=store, backend=backend)
    ledger = ledger or SeedLedger(Tally())
    yield from over_seeds(play_chunk, seeds, ledger, chunk=CHUNK, processes=processes)
