"""
How the native dialect says no: problem details of RFC 9457, and back to the same error at the client.

Beside the standard members a problem carries ``code`` (stable, for programs), ``where`` (the field or thing) and ``remedy``
(what to do about it); ``retry_after_ms`` with 429 and 503.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import attrs
import msgspec

from orchestra.dialects.refusals import (
    BodyTooLong,
    BodyTooSlow,
    MediaTypeRefused,
    MethodRefused,
    RouteUnknown,
)
from orchestra.dialects.wire import WireResponse
from orchestra.errors import (
    Conflict,
    EngineFailed,
    Forbidden,
    LimitReached,
    Malformed,
    NotFound,
    OrchestraError,
    PeerClosed,
    ProtocolViolation,
    Rejected,
    StoreFailed,
    StoreTaken,
    Unauthenticated,
    Unavailable,
)
from orchestra.statemachine.values import value

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_MS = 1_000
"""A store or leader that is away is usually back within seconds."""

STATUS: Mapping[type[OrchestraError], int] = {
    BodyTooLong: 413,
    BodyTooSlow: 408,
    MediaTypeRefused: 415,
    MethodRefused: 405,
    RouteUnknown: 404,
    Malformed: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    LimitReached: 429,
    Rejected: 400,
    Unavailable: 503,
    ProtocolViolation: 400,
}
"""By the nearest class in the error's ancestry. Anything else is a bug of ours: 500."""

STORE_FULL_STATUS = 507

_CODES: Mapping[str, type[Rejected | Unavailable]] = {
    cls.code: cls
    for cls in (
        Malformed,
        MediaTypeRefused,
        Unauthenticated,
        Forbidden,
        NotFound,
        Conflict,
        LimitReached,
        BodyTooLong,
        BodyTooSlow,
        Rejected,
        Unavailable,
        StoreFailed,
        StoreTaken,
        EngineFailed,
        PeerClosed,
    )
}


@value
class Problem:
    """
    Why a request was refused or could not be done.

    ``code`` is stable, ``where`` names the field or thing, ``remedy`` says what to do about it. ``retry_after_ms`` comes with 429 and 503;
    ``full`` tells that the store's medium is full and nothing was stored.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    where: str = ""
    remedy: str = ""
    retry_after_ms: int | None = None
    full: bool = False


def problem_of(error: OrchestraError) -> Problem:
    """The problem that tells of this error. A bug of ours is told without its inside."""
    status = next((STATUS[cls] for cls in type(error).__mro__ if cls in STATUS), 500)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        detail, code = "the server failed; the request may or may not have been done", "defect"
    else:
        detail = getattr(error, "message", None) or str(error)
        code = getattr(error, "code", "protocol-violation")
    full = isinstance(error, StoreFailed) and error.full
    retry_after_ms = None
    if isinstance(error, LimitReached) and status == HTTPStatus.TOO_MANY_REQUESTS:
        retry_after_ms = error.retry_after_ms
    elif isinstance(error, Unavailable):
        retry_after_ms = RETRY_AFTER_MS
    status = STORE_FULL_STATUS if full else status
    return Problem(
        type=f"urn:orchestra:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        where=getattr(error, "where", ""),
        remedy=getattr(error, "remedy", ""),
        retry_after_ms=retry_after_ms,
        full=full,
    )


def plain(problem: Problem) -> dict[str, Any]:
    """As a JSON object, without the members that say nothing."""
    return {
        name: value
        for name, value in attrs.asdict(problem).items()
        if value not in ("", None, False)
    }


def refuse(error: OrchestraError) -> WireResponse:
    """The response of the native dialect to an error."""
    problem = problem_of(error)
    headers: list[tuple[str, str]] = []
    if isinstance(error, MethodRefused):
        headers.append(("allow", ", ".join(error.allow)))
    if isinstance(error, Unauthenticated):
        headers.append(("www-authenticate", 'Bearer realm="orchestra"'))
    if problem.retry_after_ms is not None:
        # The header knows whole seconds only; rounded up, so that nobody comes too early.
        headers.append(("retry-after", str(-(-problem.retry_after_ms // 1_000))))
    body = msgspec.json.encode(plain(problem))
    return WireResponse(problem.status, body, MEDIA_TYPE, tuple(headers))


def _blames_caller(status: int) -> bool:
    return HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR


def error_of(problem: Problem) -> OrchestraError:
    """The error that a problem tells of: of the same class, with the same words."""
    cls = _CODES.get(problem.code)
    if cls is None and _blames_caller(problem.status):
        cls = Rejected
    if cls is None:
        return Unavailable(f"the server answered {problem.status}: {problem.detail}")
    if issubclass(cls, StoreFailed):
        return cls(problem.detail, full=problem.full)
    if issubclass(cls, Unavailable):
        return cls(problem.detail)
    if issubclass(cls, LimitReached) and problem.retry_after_ms is not None:
        return cls(
            problem.detail,
            where=problem.where,
            remedy=problem.remedy,
            retry_after_ms=problem.retry_after_ms,
        )
    return cls(problem.detail, where=problem.where, remedy=problem.remedy)


_decoder = msgspec.json.Decoder(Problem)


def read_problem(status: int, body: bytes) -> OrchestraError:
    """
    The error behind an answer that is no success.

    An answer without a problem in it comes from something else on the way, such as a proxy: its status decides.
    """
    try:
        return error_of(_decoder.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    if status in (401, 403):
        cls = Unauthenticated if status == HTTPStatus.UNAUTHORIZED else Forbidden
        return cls(f"refused with status {status}, not by orchestra")
    return Unavailable(f"the answer has status {status} and does not come from orchestra")
