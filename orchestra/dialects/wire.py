"""
What a dialect is: data and pure functions between wire words and core words. No framework is imported here.

An HTTP transport mounts any `Dialect`; a websocket transport drives any `Session`; the in-memory transport needs neither.

To plug in a further dialect, write a module here with a function that takes its `config.DialectPort` (whose ``options`` are its table in
orchestra.toml) and gives a `Dialect` with paths from its own root on, and name the function in `dialect_ports.DIALECTS`. Switched on by
``[dialects.NAME]`` or ``--dialect NAME=HOST:PORT``, it is served below ``/NAME/`` of the main port (`placed_under`) and, with an
address, at the root of that port too, by the same core and behind the same door.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

import attrs

from orchestra.dialects.asks import Ask
from orchestra.dialects.session import Session
from orchestra.errors import OrchestraError
from orchestra.statemachine.values import value

PING_S = 5.0
"""A quiet stream says this often that it is alive, so that its reader notices a dead line within three of them."""


class Role(StrEnum):
    """
    What a token opens. An operator's opens every route, a worker's those of workers, a viewer's those that read; neither of the two opens
    the other's. What is for anyone needs no token.
    """

    ANYONE = "anyone"
    WORKER = "worker"
    VIEWER = "viewer"
    OPERATOR = "operator"


@value
class WireRequest:
    """
    A request without its framework. Header names are in lower case; ``path`` parameters are decoded. ``client`` is the address that it
    came from, without port; empty where the server does not tell.
    """

    method: str
    target: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    client: str = ""


@value
class WireResponse:
    """What goes back. A status of 204 has no body."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@value
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


@value
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


@value
class Chore:
    """
    Something that a dialect asks again and again while it is served, such as the heartbeats of workers that have none of their own.

    Args:
        begin: What to ask, anew each time. A refusal ends this round; the next one begins all the same.
        every_ms: The pause between two rounds.
    """

    begin: Callable[[], Ask]
    every_ms: int


@value
class Dialect:
    """A named set of routes, and how it says no."""

    name: str
    routes: tuple[Route, ...]
    refuse: Callable[[OrchestraError], WireResponse]
    channels: tuple[Channel, ...] = ()
    hosts: tuple[str, ...] = ()
    """Further values of Host, without port, that its clients send; they are answered at a port of its own only."""
    chores: tuple[Chore, ...] = ()
    """Done once a round, however many ports serve it."""


def placed_under(dialect: Dialect, prefix: str) -> Dialect:
    """
    The dialect with every path below ``prefix``, such as ``/tango``. Names of routes and channels get the dialect's name in front, so
    that rows of the policy table stay apart.
    """
    routes = tuple(
        attrs.evolve(route, name=f"{dialect.name}.{route.name}", path=f"{prefix}{route.path}")
        for route in dialect.routes
    )
    channels = tuple(
        attrs.evolve(channel, name=f"{dialect.name}.{channel.name}", path=f"{prefix}{channel.path}")
        for channel in dialect.channels
    )
    return attrs.evolve(dialect, routes=routes, channels=channels, hosts=())
