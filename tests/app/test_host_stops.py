"""
A host on uvicorn that is told to stop while workers and watchers have streams open.

uvicorn waits for every answer under way before it tells its application of the stop, so a stream that looked for that alone would hold the
host up for ever.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from functools import partial

import anyio
import anyio.to_thread
import pytest

import orchestra
from orchestra.errors import PeerClosed
from orchestra.ports import ProgressSeen, Push, WatchOrders, WatchStory
from orchestra.statemachine.commands import JoinWorker
from tests.app.hosts import go_on
from tests.app.uvicorns import BOUND_S, Uvicorn, uvicorn

pytestmark = [pytest.mark.anyio, pytest.mark.system]

WAITS = "Waiting for connections to close"
STOPPED = "Application shutdown complete"
STILL = 5
"""Entries that a stream brings after its server said that it waits for its end."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The host is another process: on which loop its callers are makes no difference."""
    return "asyncio"


async def end_of(pushes: AsyncIterator[Push]) -> None:
    """A stream ends, by itself or with its connection."""
    with anyio.fail_after(BOUND_S), contextlib.suppress(PeerClosed):
        async for _ in pushes:
            pass


async def says(server: Uvicorn, words: str) -> None:
    await anyio.to_thread.run_sync(partial(server.until, words))


@pytest.mark.parametrize(
    ("host", "number"), [("starlette", signal.SIGTERM), ("fastapi", signal.SIGINT)]
)
async def test_streams_of_workers_and_watchers_do_not_hold_it_up(
    host: str, number: signal.Signals
) -> None:
    with uvicorn(host) as server:
        async with (
            orchestra.connect(f"{server.url('http')}/farm") as client,
            orchestra.connect(f"{server.url('ws')}/farm") as other,
        ):
            joined = await client.asker.ask(JoinWorker("far", "1", 1, ()))
            watch = WatchOrders(joined.worker_id, joined.incarnation)
            async with (
                client.asker.watch(watch) as orders,
                client.asker.watch(WatchStory()) as story,
                other.asker.watch(WatchStory()) as channel,
            ):
                server.tell(number)
                await says(server, STOPPED)
                for pushes in (orders, story, channel):
                    await end_of(pushes)
        await anyio.to_thread.run_sync(server.process.wait, BOUND_S)


async def test_they_would_if_nobody_saw_that_it_is_about_to_stop() -> None:
    with uvicorn("deaf") as server:
        async with orchestra.connect(f"{server.url('http')}/farm") as client:
            await client.submit(go_on)
            async with client.asker.watch(WatchStory()) as story:
                server.tell(signal.SIGTERM)
                await says(server, WAITS)
                # It has no time left over, and waits all the same for a stream that goes on and on.
                told = 0
                async for push in story:
                    told += isinstance(push, ProgressSeen)
                    if told == STILL:
                        break
                assert server.process.poll() is None
