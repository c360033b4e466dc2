"""An ASGI application that is known before what it serves exists: the host mounts it, the lifespan fills it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_DOWN = (
    b'{"type":"about:blank","title":"Unavailable","status":503,'
    b'"detail":"the orchestrator is not running; give the host application lifespan=app.lifespan"}'
)


class MountedApp:
    """Passes everything on to the application given to `serve`; answers 503 while there is none."""

    def __init__(self) -> None:
        self._inner: Application | None = None

    def serve(self, inner: Application | None) -> None:
        """From now on pass everything on to ``inner``; None stops it."""
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._inner is not None:
            await self._inner(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1013})
        else:
            headers = [
                (b"content-type", b"application/problem+json"),
                (b"content-length", str(len(_DOWN)).encode()),
                (b"retry-after", b"1"),
            ]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": _DOWN})
