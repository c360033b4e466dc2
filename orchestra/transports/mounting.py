"""An ASGI application that is known before what it serves exists: the host mounts it, the lifespan fills it."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LOOK_S = 0.1
"""How often it is looked whether the host is about to stop: as often as uvicorn itself looks."""

TRY_AGAIN_LATER = 1013

_DOWN = (
    b'{"type":"about:blank","title":"Unavailable","status":503,'
    b'"detail":"the orchestrator is not running; give the host application lifespan=app.lifespan"}'
)


class Streaming(Protocol):
    """An application some of whose answers have no end of their own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        ...

    def close_streams(self) -> None:
        """End those that are open, and each that is opened from now on."""
        ...


class Host(Protocol):
    """A server that says when it is about to stop, as uvicorn's does."""

    should_exit: bool


def host_server() -> Host | None:
    """
    The server that has taken this process's signals; None for one that says nothing, or that runs outside the main thread.

    uvicorn ends a websocket when it stops, but waits for every answer under way before it tells anybody of the stop, for ever when nothing
    else was asked of it. So whoever streams has to look whether it is about to stop, and its signal handler is all that leads to it.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        server: Any = getattr(signal.getsignal(number), "__self__", None)
        if isinstance(getattr(server, "should_exit", None), bool):
            return server
    return None


class MountedApp:
    """
    Passes everything on to the application that it is `serving`; answers 503 while there is none.

    Streams end when a host that runs on uvicorn is told to stop by SIGTERM or SIGINT, also in worker processes of uvicorn and gunicorn. A
    host that is stopped in another way calls `close_streams` first, or sets uvicorn's ``timeout_graceful_shutdown``.
    """

    def __init__(self) -> None:
        self._inner: Streaming | None = None

    @asynccontextmanager
    async def serving(self, inner: Streaming) -> AsyncGenerator[None]:
        """Pass everything on to ``inner`` while the context is open. Its streams end when the host is about to stop, or it is left."""
        self._inner = inner
        try:
            async with anyio.create_task_group() as group:
                host = host_server()
                if host is not None:
                    group.start_soon(self._leave_with, host)
                yield
                group.cancel_scope.cancel()
        finally:
            inner.close_streams()
            self._inner = None

    def close_streams(self) -> None:
        """End the streams that are open, and each that is opened from now on. Call it in the loop that serves."""
        if self._inner is not None:
            self._inner.close_streams()

    async def _leave_with(self, host: Host) -> None:
        while not host.should_exit:  # noqa: ASYNC110  # a field of another's, which rings nobody
            await anyio.sleep(LOOK_S)
        self.close_streams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it. Kinds of scope that are not known end at once."""
        if self._inner is not None:
            await self._inner(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
        elif scope["type"] == "http":
            headers = [
                (b"content-type", b"application/problem+json"),
                (b"content-length", str(len(_DOWN)).encode()),
                (b"retry-after", b"1"),
            ]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": _DOWN})
