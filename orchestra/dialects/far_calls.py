"""What a dialect asks of far ends over HTTP: calls and replies as values. `transports.far_calls` makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

STEP_MS = 2_000
"""No single step of a call takes longer, unless the call says so."""


@attrs.frozen(slots=True)
class FarCall:
    """
    One request to a far end.

    Args:
        host: Its address or name, without port.
        path: With the query, if there is one.
        form: Sent as a form; without it there is no body.
        step_ms: How long connecting, and then waiting for the answer, may take each.
    """

    host: str
    port: int
    method: str
    path: str
    form: tuple[tuple[str, str], ...] = ()
    step_ms: int = STEP_MS


@attrs.frozen(slots=True)
class FarReply:
    """Its answer."""

    status: int
    body: bytes


CallAll = Callable[[Sequence[FarCall]], Sequence[FarReply | None]]
"""Makes calls at the same time, each within a bounded time; None for one that was not answered."""
