"""Short coroutines share tasks and nothing else: all are waited for, none holds up or meets another, and no error is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import anyio
import anyio.lowlevel
import pytest

from orchestra.engines.short_tasks import TURN_S, Spawner, spawner

pytestmark = pytest.mark.anyio

asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"])


class Broken(Exception):
    pass


@asynccontextmanager
async def spawning() -> AsyncGenerator[Spawner]:
    """A spawner; all that it started has to end."""
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            tasks = spawner(group)
            yield tasks
            await tasks.finished()


async def test_all_that_was_started_is_waited_for() -> None:
    go = anyio.Event()
    ended: list[int] = []

    async def work(number: int) -> None:
        await go.wait()
        ended.append(number)

    async with spawning() as tasks:
        for number in range(100):
            tasks.start(lambda _, number=number: work(number))
        go.set()
    assert sorted(ended) == list(range(100))


async def test_one_that_waits_holds_up_none() -> None:
    last = anyio.Event()
    ended: list[int] = []

    async def work(number: int) -> None:
        if number == 9:
            last.set()
        elif number % 3 == 0:
            await last.wait()
        ended.append(number)

    async with spawning() as tasks:
        for number in range(10):
            tasks.start(lambda _, number=number: work(number))
    assert sorted(ended) == list(range(10))


@pytest.mark.parametrize("waits", [False, True])
async def test_a_scope_that_is_cancelled_is_one_coroutines_only(waits: bool) -> None:
    seen: list[str] = []

    async def cancelled(scope: anyio.CancelScope) -> None:
        if waits:
            await anyio.lowlevel.checkpoint()
        scope.cancel()
        try:
            await anyio.sleep_forever()
        finally:
            seen.append("cancelled")

    async def other(scope: anyio.CancelScope) -> None:
        assert not scope.cancel_called
        await anyio.lowlevel.checkpoint()
        seen.append("other")

    async with spawning() as tasks:
        for work in (other, cancelled, other):
            tasks.start(work)
    assert sorted(seen) == ["cancelled", "other", "other"]


async def test_a_deadline_is_set_while_it_runs() -> None:
    seen: list[bool] = []

    async def work(scope: anyio.CancelScope) -> None:
        scope.deadline = anyio.current_time() + 0.01
        try:
            await anyio.sleep_forever()
        finally:
            seen.append(scope.cancel_called)

    async with spawning() as tasks:
        tasks.start(work)
    assert seen == [True]


async def test_each_has_a_context_of_its_own_at_every_step() -> None:
    variable: ContextVar[int] = ContextVar("variable", default=-1)
    seen: list[tuple[int, int]] = []

    async def work(number: int) -> None:
        at_first = variable.get()
        variable.set(number)
        if number % 2:
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
                assert variable.get() == number
        seen.append((at_first, variable.get()))

    variable.set(100)
    async with spawning() as tasks:
        for number in range(6):
            tasks.start(lambda _, number=number: work(number))
        variable.set(200)
    assert sorted(seen) == [(100, number) for number in range(6)]
    assert variable.get() == 200


async def test_what_one_raises_ends_the_group() -> None:
    async def work(_: anyio.CancelScope) -> None:
        raise Broken

    async def start_and_wait() -> None:
        async with anyio.create_task_group() as group:
            spawner(group).start(work)
            with anyio.fail_after(10):
                await anyio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await start_and_wait()
    assert caught.value.subgroup(Broken) is not None


@asyncio_only
async def test_those_that_do_not_wait_share_a_task_and_no_other_does() -> None:
    by: dict[int, asyncio.Task[None] | None] = {}

    async def work(number: int) -> None:
        by[number] = asyncio.current_task()
        if number in {3, 6}:
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async with spawning() as tasks:
        for number in range(9):
            tasks.start(lambda _, number=number: work(number))
    assert by[0] is by[1] is by[2] is by[3]
    assert by[4] is by[5] is by[6]
    assert by[7] is by[8]
    assert len({id(task) for task in by.values()}) == 3


@asyncio_only
async def test_one_that_cancels_its_own_task_hurts_no_other() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        if number == 1:
            task.cancel()
        else:
            await asyncio.sleep(0)
        ended.append(number)

    async with spawning() as tasks:
        for number in range(4):
            tasks.start(lambda _, number=number: work(number))
    assert sorted(ended) == [0, 1, 2, 3]


@asyncio_only
async def test_busy_ones_let_others_have_their_turn() -> None:
    turns = 0
    running = True

    async def count() -> None:
        nonlocal turns
        while running:
            turns += 1
            await asyncio.sleep(0)

    async def busy(_: anyio.CancelScope) -> None:
        until_s = time.perf_counter() + TURN_S
        while time.perf_counter() < until_s:
            pass

    async with anyio.create_task_group() as group:
        async with spawning() as tasks:
            group.start_soon(count)
            for _ in range(10):
                tasks.start(busy)
        running = False
    assert turns >= 9
