"""What HTTP says to what TANGO's interfaces refuse. Pure."""

from __future__ import annotations

from orchestra.dialects.refusals import BodyTooLong, BodyTooSlow, MediaTypeRefused, MethodRefused
from orchestra.errors import (
    Conflict,
    Forbidden,
    LimitReached,
    NotFound,
    OrchestraError,
    Rejected,
    Unauthenticated,
    Unavailable,
)

_STATUSES: tuple[tuple[type[OrchestraError], int], ...] = (
    (MethodRefused, 405),
    (MediaTypeRefused, 415),
    (BodyTooLong, 413),
    (BodyTooSlow, 408),
    (LimitReached, 429),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (Rejected, 400),
    (Unavailable, 503),
    (OrchestraError, 500),
)


def status_of_refusal(error: OrchestraError) -> tuple[int, tuple[tuple[str, str], ...]]:
    """The status, and the header fields that belong to it."""
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(error, MethodRefused):
        headers = (("allow", ", ".join(error.allow)),)
    if isinstance(error, LimitReached):
        headers = (("retry-after", str(-(-error.retry_after_ms // 1000))),)
    if isinstance(error, Unauthenticated):
        headers = (("www-authenticate", "Bearer"),)
    return status, headers
