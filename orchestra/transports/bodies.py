"""Request bodies, read within bounds of length and of time. Plain ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import anyio

from orchestra.dialects.refusals import BodyTooLong, BodyTooSlow, MediaTypeRefused
from orchestra.dialects.wire import Route
from orchestra.errors import Malformed, PeerClosed

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

GRACE_S = 10.0
"""A body may be late by this much: a stalled packet is sent again within seconds."""

RATE_BYTES_PER_S = 1_024
"""Beyond the grace a body comes at least this fast; slower senders only hold a connection."""


def check_headers(route: Route, headers: Mapping[str, str]) -> bool:
    """
    Whether a body is to be expected, from the header alone.

    Raises:
        BodyTooLong: It says that it is longer than the route reads.
        MediaTypeRefused: It is of another kind.
        Malformed: ``Content-Length`` is no number.
    """
    told = headers.get("content-length", "")
    if told and not (told.isascii() and told.isdecimal()):
        raise Malformed("is no number", where="Content-Length")
    expected = "transfer-encoding" in headers or (bool(told) and int(told) > 0)
    kind = headers.get("content-type")
    if route.media_types and (expected or kind is not None) and not _fits(route, kind or ""):
        raise MediaTypeRefused(
            f"{kind[:100]!r} is not read here" if kind else "the kind of the body is not told",
            where="Content-Type",
            remedy=f"send {' or '.join(route.media_types)}",
        )
    if told and int(told) > route.body_bytes_max:
        raise _too_long(route)
    return expected


def _fits(route: Route, kind: str) -> bool:
    return kind.partition(";")[0].strip().lower() in route.media_types


def _too_long(route: Route) -> BodyTooLong:
    return BodyTooLong(
        f"the body is longer than {route.body_bytes_max} bytes",
        where="body",
        remedy="send less at once",
    )


async def read_body(route: Route, receive: Receive, *, timed: bool = True) -> bytes:
    """
    The whole body.

    Args:
        route: Says how long it may be.
        receive: As ASGI has it.
        timed: Nobody in front watches over the pace.

    Raises:
        BodyTooLong: More came than the route reads.
        BodyTooSlow: It came slower than `RATE_BYTES_PER_S`, after `GRACE_S`.
        PeerClosed: The sender is gone.
    """
    if not timed:
        return await _pieces(route, receive, None)
    with anyio.CancelScope(deadline=anyio.current_time() + GRACE_S) as scope:
        return await _pieces(route, receive, scope)
    raise BodyTooSlow(f"the body came slower than {RATE_BYTES_PER_S} bytes a second", where="body")


async def _pieces(route: Route, receive: Receive, scope: anyio.CancelScope | None) -> bytes:
    """The body; each byte that comes gives the rest more time in ``scope``."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise PeerClosed("the sender closed the connection in the middle of the body")
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > route.body_bytes_max:
            raise _too_long(route)
        pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if scope is not None:
            scope.deadline += len(piece) / RATE_BYTES_PER_S
