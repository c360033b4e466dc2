"""
What a dialect is: data and pure functions between wire words and core words. No framework is imported here.

An HTTP transport mounts any `Dialect`; a websocket transport drives any `Session`; the in-memory transport needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

import attrs

from orchestra.dialects.session import Session
from orchestra.errors import OrchestraError

PING_S = 5.0
"""A quiet stream says this often that it is alive, so that its reader notices a dead line within three of them."""


class Role(StrEnum):
    """Who may use a route. Each contains what stands before it, but a worker's token opens only worker routes and health."""

    ANYONE = "anyone"
    WORKER = "worker"
    VIEWER = "viewer"
    OPERATOR = "operator"


@attrs.frozen(slots=True)
class WireRequest:
    """A request without its framework. Header names are in lower case; ``path`` parameters are decoded."""

    method: str
    target: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@attrs.frozen(slots=True)
class WireResponse:
    """What goes back. A status of 204 has no body."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@attrs.frozen(slots=True)
class Route:
    """
    One method and path of a dialect.

    Args:
        name: Its operation id, unique in the dialect.
        method: ``GET``, ``POST``, ``PUT``, ``PATCH`` or ``DELETE``.
        path: A template such as ``/jobs/{job_id}``.
        decode: The request as something to ask. Raises `Malformed`.
        encode: The answer as a response.
        role: Who may use it: the row of the policy table. A route without one does not exist.
        body_bytes_max: The longest body that is read.
        stream: The answer is a stream: ``encode`` is called for each push, and the bodies are sent one after the other.
        stream_media_type: What a stream is.
        ping: Sent at the start of a stream and every `PING_S`; readers pass over it.
        media_types: What a body may be; another ``Content-Type`` is refused. Empty: anything.
    """

    name: str
    method: str
    path: str
    decode: Callable[[WireRequest], object]
    encode: Callable[[WireRequest, object], WireResponse]
    role: Role
    body_bytes_max: int = 1024 * 1024
    stream: bool = False
    summary: str = ""
    media_types: tuple[str, ...] = ("application/json",)
    stream_media_type: str = "text/event-stream"
    ping: bytes = b""


@attrs.frozen(slots=True)
class Channel:
    """
    One websocket address of a dialect.

    Args:
        name: Its name in the policy table.
        path: Its full path; no parameters.
        open: A new session for a connection.
    """

    name: str
    path: str
    open: Callable[[], Session]


@attrs.frozen(slots=True)
class Dialect:
    """A named set of routes, and how it says no."""

    name: str
    routes: tuple[Route, ...]
    refuse: Callable[[OrchestraError], WireResponse]
    channels: tuple[Channel, ...] = ()
