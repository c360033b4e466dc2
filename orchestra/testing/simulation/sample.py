"""A workflow to be simulated by `prove simulate`: stages that depend on one another, failures, limits, cancels, and a key used twice."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing, suppress
from typing import Any

import anyio

from orchestra.app import App
from orchestra.calls import TaskFunction
from orchestra.engines.context import Context
from orchestra.errors import Rejected, Unavailable
from orchestra.lone_errors import ungrouped
from orchestra.ports import Moved
from orchestra.testing.simulation.simulation import Simulation

TRIES = 3
LINES = 5

WATCHED = 0.5
"""In half of the simulations somebody follows the story."""

AGAIN_S = 0.5


def sample_app() -> App:
    """Its tasks: ``paint``, ``flaky``, ``heavy``, ``endless`` and ``join``."""
    app = App()

    @app.task
    async def paint(frame: int) -> str:
        await anyio.sleep((frame * 7 % 5) ** 2)
        return f"{frame:04}.png"

    @app.task(retries=TRIES - 1, backoff="500ms")
    async def flaky(ctx: Context, number: int) -> int:
        ctx.log(f"try {ctx.attempt}")
        await anyio.sleep(0.05)
        if ctx.attempt < TRIES and number % 2:
            raise RuntimeError("it was meant to fail")
        return number * number

    @app.task(needs={"cpu": 3})
    async def heavy(ctx: Context, number: int) -> int:
        for line in range(LINES):
            ctx.log(f"weight {number}, line {line}")
            await anyio.sleep(1.5 / LINES)
        return number

    @app.task(timeout="2s")
    async def endless(number: int) -> int:
        await anyio.sleep(10_000)
        return number

    @app.task
    async def join(frames: list[str]) -> str:
        return "+".join(sorted(frames))

    return app


async def _watch(sim: Simulation) -> None:
    """Follow the story, from where it broke off when the server or the net is away; what is seen has to be what is stored."""
    seen: list[Moved] = []
    papers = sim.cluster.truth.papers
    while True:
        after = seen[-1].number if seen else 0
        with suppress(Unavailable, OSError):
            async with aclosing(sim.client.events(after=after)) as events:
                async for moved in events:
                    seen.append(moved)
                    if seen != papers.story[: len(seen)]:
                        papers.read(seen)
        await anyio.sleep(AGAIN_S)


class Scenario:
    """
    What the people of the sample do.

    Args:
        tasks: The sample's.
    """

    def __init__(self, tasks: Mapping[str, TaskFunction[Any, Any, Any]]) -> None:
        self._tasks = tasks

    async def __call__(self, sim: Simulation) -> None:
        """Some of the jobs, drawn by the simulation's seed; each is checked when it has ended."""
        async with ungrouped():
            await self._play(sim)

    async def _play(self, sim: Simulation) -> None:
        async with anyio.create_task_group() as group:
            if sim.rng.random() < WATCHED:
                group.start_soon(_watch, sim)
            kinds = (
                self._film,
                self._squares,
                self._weights,
                self._limits,
                self._cancelled,
                self._one,
            )
            for play in sim.rng.sample(kinds, sim.rng.randint(1, 3)):
                await anyio.sleep(sim.rng.choice((0.0, 0.5, 4.0)))
                await play(sim)
            group.cancel_scope.cancel()

    def _task(self, name: str) -> TaskFunction[Any, Any, Any]:
        return self._tasks[name]

    async def _film(self, sim: Simulation) -> None:
        count = sim.rng.randint(1, 8)
        frames = self._task("paint").map(range(count))
        job = await sim.submit(self._task("join").call(frames), key="film")
        again = await sim.submit(self._task("join").call(frames), key="film")
        assert job.id == again.id, "one key, one job"
        await sim.until(job.done, within="1h")
        names = [f"{frame:04}.png" for frame in range(count)]
        assert await job.result() == "+".join(names)

    async def _squares(self, sim: Simulation) -> None:
        job = await sim.submit(self._task("flaky").map(range(6)), priority=5)
        await sim.until(job.done, within="1h")
        view = await job.view()
        if view.status == "completed":
            assert await job.results() == [0, 1, 4, 9, 16, 25]
        else:
            # A task that three workers took down with them, or that failed at its last try, is not tried again.
            assert view.status == "failed"

    async def _weights(self, sim: Simulation) -> None:
        job = await sim.submit(self._task("heavy").map(range(5)))
        await sim.until(job.done, within="1h")

    async def _limits(self, sim: Simulation) -> None:
        job = await sim.submit(self._task("endless").map(range(2)))
        await sim.until(job.done, within="1h")
        assert (await job.view()).status == "failed"

    async def _cancelled(self, sim: Simulation) -> None:
        job = await sim.submit(self._task("endless").map(range(3)))
        await anyio.sleep(sim.rng.choice((0.0, 1.0)))
        with suppress(Rejected):  # it may have ended already
            await job.cancel("changed their minds")
        await sim.until(job.done, within="1h")
        assert (await job.view()).status in ("cancelled", "failed")

    async def _one(self, sim: Simulation) -> None:
        """One task of several is cancelled."""
        job = await sim.submit(self._task("heavy").map(range(4)))
        await anyio.sleep(sim.rng.choice((0.0, 1.0)))
        tasks = await job.tasks()
        with suppress(Rejected):  # it may have ended already
            await sim.client.cancel_task(sim.rng.choice(tasks).id)
        await sim.until(job.done, within="1h")
