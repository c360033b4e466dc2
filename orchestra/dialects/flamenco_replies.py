"""Answers and refusals of a Flamenco manager, with the statuses and bodies of the running program of 2015."""

from __future__ import annotations

from typing import cast

import msgspec

from orchestra.dialects.refusals import BodyTooLong, BodyTooSlow, MethodRefused, RouteUnknown
from orchestra.dialects.wire import WireResponse
from orchestra.errors import (
    Conflict,
    Forbidden,
    LimitReached,
    Malformed,
    NotFound,
    OrchestraError,
    Rejected,
    Unauthenticated,
    Unavailable,
)

CANCELLED = "Task Cancelled"
DISABLED = "Worker is Disabled"
DUPLICATED = "Duplicated Task"
UNREGISTERED = "Worker is not registered"
"""What a worker is told beside 403; it stops what it runs."""


def told(status: int, answer: object) -> WireResponse:
    """A body of JSON."""
    return WireResponse(status, msgspec.json.encode(answer))


NOTHING = WireResponse(204, b"")
"""Done, and nothing to tell."""

NO_WORK = WireResponse(400, b'""\n')
"""A worker that asked gets nothing now, and asks again."""


def encode(_: object, answer: object) -> WireResponse:
    """The dialogues of this dialect answer with a whole response."""
    return cast("WireResponse", answer)


_STATUSES: tuple[tuple[type[OrchestraError], int], ...] = (
    (MethodRefused, 405),
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


def refuse(error: OrchestraError) -> WireResponse:
    """A refusal as the program words it: what is wrong with a field stands behind the field's name in brackets."""
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    headers: tuple[tuple[str, str], ...] = ()
    message = error.message if isinstance(error, Rejected) else str(error)
    body: dict[str, object] = {"status": status, "message": message}
    if isinstance(error, RouteUnknown):
        body = {"code": 404, "message": "No interface defined for URL"}
    elif isinstance(error, MethodRefused):
        headers = (("allow", ", ".join(error.allow)),)
        body["message"] = "The method is not allowed for the requested URL."
    elif isinstance(error, Malformed):
        body = {"message": f"[{error.where}]: {error.message}" if error.where else error.message}
    elif isinstance(error, LimitReached):
        headers = (("retry-after", str(-(-error.retry_after_ms // 1000))),)
    elif not isinstance(error, (Rejected, Unavailable)):
        body["message"] = "a bug of ours"
    return WireResponse(status, msgspec.json.encode(body), headers=headers)
