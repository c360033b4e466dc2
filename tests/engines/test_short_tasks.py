"""Attempts in tasks of their own: all are waited for, and what one raises against the rules is not lost."""

from __future__ import annotations

import anyio
import pytest

from orchestra.engines.short_tasks import spawner

pytestmark = pytest.mark.anyio


class Broken(Exception):
    pass


async def test_all_that_was_started_is_waited_for() -> None:
    go = anyio.Event()
    ended: list[int] = []

    async def work(number: int) -> None:
        await go.wait()
        ended.append(number)

    async with anyio.create_task_group() as group:
        tasks = spawner(group)
        for number in range(100):
            tasks.start(lambda number=number: work(number))
        go.set()
        await tasks.finished()
    assert sorted(ended) == list(range(100))


async def test_what_one_raises_ends_the_group() -> None:
    async def work() -> None:
        raise Broken

    async def start_and_wait() -> None:
        async with anyio.create_task_group() as group:
            spawner(group).start(work)
            with anyio.fail_after(10):
                await anyio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await start_and_wait()
    assert caught.value.subgroup(Broken) is not None
