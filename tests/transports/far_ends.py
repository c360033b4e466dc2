"""A far end behind each of the transports: in process, and behind a real server in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import anyio
import anyio.to_thread

from orchestra.config import Address, Config
from orchestra.dialects.native import native_dialect
from orchestra.errors import PeerClosed
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.storage.memory import MemoryStore
from orchestra.testing.transport_bench import FarEnd, Link
from orchestra.transports.asking import AskerSource
from orchestra.transports.auth import open_gate
from orchestra.transports.connect import connect
from orchestra.transports.door import Door
from orchestra.transports.http import http_app
from orchestra.transports.memory import MemoryTransport
from orchestra.transports.policy import policy_for
from orchestra.transports.serve import serve

PATIENCE_S = 10.0


class Server:
    """What runs in the thread; `cut` may be called from any."""

    def __init__(self) -> None:
        self.address: Address | None = None
        self.up = threading.Event()
        self.over = threading.Event()
        self.source: Any = None
        self.portal: Callable[[], None] = lambda: None

    def cut(self) -> None:
        """End it at once; returns when it has ended."""
        self.portal()
        assert self.over.wait(PATIENCE_S)

    def url(self, scheme: str) -> str:
        return f"{scheme}://{self.address}"


@contextmanager
def served(
    source: Callable[[], AbstractAsyncContextManager[AskerSource]], config: Config | None = None
) -> Iterator[Server]:
    """A real server in a thread: the client may be on any event loop, or on none."""
    server = Server()
    config = config or Config(listen=Address("127.0.0.1", 0))

    async def main() -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        server.portal = lambda: None if loop.is_closed() else _threadsafe(loop, task)

        def ready(address: Address) -> None:
            server.address = address
            server.up.set()

        async with source() as orchestrator:
            server.source = orchestrator
            dialect = native_dialect()
            policy = policy_for([dialect])
            gate = open_gate(config, policy)
            app = http_app(orchestrator, [dialect], gate, policy=policy)
            await serve(Door(app, gate), config, ready=ready, stopping=app.close_streams)

    failed: list[BaseException] = []

    def run() -> None:
        import asyncio

        try:
            anyio.run(main)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001  # raised in the test that needs the server
            failed.append(error)
        finally:
            server.over.set()
            server.up.set()

    thread = threading.Thread(target=run, name="server", daemon=True)
    thread.start()
    try:
        assert server.up.wait(PATIENCE_S)
        if failed:
            raise failed[0]
        yield server
    finally:
        server.portal()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        if failed:
            raise failed[0]


def _threadsafe(loop: Any, task: Any) -> None:
    loop.call_soon_threadsafe(task.cancel)


@asynccontextmanager
async def running() -> AsyncIterator[Orchestrator]:
    """A real orchestrator over a store in memory."""
    orchestrator = Orchestrator(MemoryStore())
    async with anyio.create_task_group() as group:
        await group.start(orchestrator.run)
        yield orchestrator
        group.cancel_scope.cancel()


@asynccontextmanager
async def _as_source(far: FarEnd) -> AsyncIterator[FarEnd]:
    yield far


@asynccontextmanager
async def serve_memory(far: FarEnd) -> AsyncIterator[Link]:
    """The far end in the same process; cutting it off is its own failure."""
    lost = anyio.Event()

    class Mortal(FarEnd):
        async def take(self, arrived: Any) -> Any:
            if lost.is_set():
                raise PeerClosed("the orchestrator has stopped")
            found: list[Any] = []
            errors: list[Exception] = []
            async with anyio.create_task_group() as group:

                async def work() -> None:
                    try:
                        found.append(await far.take(arrived))
                    except Exception as error:  # noqa: BLE001  # raised outside the group
                        errors.append(error)
                    group.cancel_scope.cancel()

                group.start_soon(work)
                await lost.wait()
                errors.append(PeerClosed("the orchestrator has stopped"))
                group.cancel_scope.cancel()
            if errors:
                raise errors[0]
            return found[0]

        async def _pushes(self) -> Any:
            for push in far.pushes:
                yield push
            if far.hold:
                await lost.wait()

        def _count(self, step: int) -> None:
            far._count(step)

    async with MemoryTransport(Mortal(), principal="local") as asker:

        async def cut() -> None:
            lost.set()

        yield Link(asker, "local", cut)


def serve_over(scheme: str) -> Callable[[FarEnd], AbstractAsyncContextManager[Link]]:
    """The far end behind a real server, seen through `connect`."""

    @asynccontextmanager
    async def serve_far(far: FarEnd) -> AsyncIterator[Link]:
        with served(lambda: _as_source(far)) as server:
            async with connect(server.url(scheme)) as asker:

                async def cut() -> None:
                    await anyio.to_thread.run_sync(server.cut)

                yield Link(asker, "local", cut)

    return serve_far


SERVES = {"memory": serve_memory, "http": serve_over("http"), "websocket": serve_over("ws")}
