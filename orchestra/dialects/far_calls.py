"""What a dialect asks of far ends over HTTP: calls and replies as values. `transports.far_calls` makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

import attrs

from orchestra.statemachine.values import value

STEP_MS = 2_000
"""No single step of a call takes longer, unless the call says so."""

REPLY_BYTES_MAX = 1024 * 1024
"""Of an answer so much is read, unless the call says more: it is a word, or some lines of JSON."""


@value
class FarCall:
    """
    One request to a far end.

    Args:
        host: Its address or name, without port.
        path: With the query, if there is one.
        form: Sent as a form; without it there is no body.
        headers: Further header fields.
        step_ms: How long connecting, and then waiting for the answer, may take each.
        reply_bytes_max: Of the answer's body so much is read.
    """

    host: str
    port: int
    method: str
    path: str
    form: tuple[tuple[str, str], ...] = ()
    step_ms: int = STEP_MS
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)
    reply_bytes_max: int = REPLY_BYTES_MAX


@value
class FarReply:
    """Its answer."""

    status: int
    body: bytes


class Silence(StrEnum):
    """Why nothing came back."""

    NOBODY = "nobody listens there"
    UNANSWERED = "it did not answer"


class FarLine(Protocol):
    """The way to one far end, on the event loop. `transports.far_line` makes them."""

    async def call(self, target: str) -> FarReply | Silence:
        """Send a GET, and wait for the whole answer, for a bounded time in all. Raises nothing."""
        ...


CallAll = Callable[[Sequence[FarCall]], Sequence[FarReply | None]]
"""Makes calls at the same time, each within a bounded time; None for one that was not answered."""
