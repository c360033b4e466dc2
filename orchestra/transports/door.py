"""
The outermost wrapper of a served app: host, origin, token, policy and rate, for HTTP and websocket by the same lines.

It is plain ASGI. A middleware that only sees HTTP would wave every websocket through.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, NoReturn, TypeAlias

import anyio
import attrs

from orchestra.dialects.wire import WireResponse
from orchestra.errors import (
    Forbidden,
    LimitReached,
    NotFound,
    OrchestraError,
    Rejected,
    Unauthenticated,
)
from orchestra.transports.auth import NOBODY, Gate, Principal
from orchestra.transports.rate import Buckets
from orchestra.transports.routing import read_headers, read_path

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

PRINCIPAL = "orchestra.principal"
"""Key of the scope under which the app finds the `Principal`."""

POLICY_VIOLATION = 1008
"""The close code of a websocket that its caller may not use (RFC 6455, section 7.4.1)."""

ACCESS_LOG = logging.getLogger("orchestra.access")
LOGGED_CHARS_MAX = 1_024
"""A path in the log is cut here: one line stays one line that a person can read."""

_STATUS: dict[type[OrchestraError], int] = {
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    LimitReached: 429,
}


def problem(status: int, detail: str, *, where: str = "", remedy: str = "") -> bytes:
    """An answer's body as problem details (RFC 9457)."""
    told: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if where:
        told["where"] = where
    if remedy:
        told["remedy"] = remedy
    return json.dumps(told).encode()


def refuse(error: OrchestraError) -> WireResponse:
    """How the door says no when no dialect's own ``refuse`` is given."""
    status = _STATUS.get(type(error), 400)
    where, remedy = (error.where, error.remedy) if isinstance(error, Rejected) else ("", "")
    message = error.message if isinstance(error, Rejected) else str(error)
    body = problem(status, message, where=where, remedy=remedy)
    return WireResponse(status, body, "application/problem+json")


def escape(text: str) -> str:
    """A text for one line of a log: control and other unprintable characters escaped, cut when long."""
    cut = text if len(text) <= LOGGED_CHARS_MAX else text[:LOGGED_CHARS_MAX] + "..."
    if cut.isprintable() and "\\" not in cut:
        return cut
    return "".join(c if c.isprintable() and c != "\\" else ascii(c)[1:-1] for c in cut)


class Door:
    """
    Lets a request in, or answers it.

    The app behind it finds who asks under ``scope["orchestra.principal"]``.

    Args:
        app: What is served.
        gate: Decides.
        buckets: How often one caller may ask; None for as often as it likes.
        refuse: How refusals are worded, such as a dialect's.
        clock: Seconds, never going back.
    """

    def __init__(
        self,
        app: ASGIApp,
        gate: Gate,
        *,
        buckets: Buckets | None = None,
        refuse: Callable[[OrchestraError], WireResponse] = refuse,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._gate = gate
        self._buckets = buckets
        self._refuse = refuse
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] not in ("http", "websocket"):
            # Unknown kinds of connection are closed by returning: default deny.
            return
        begun = self._clock()
        client = str((scope.get("client") or ("", 0))[0])
        principal = NOBODY
        try:
            principal = self._admit(scope, client)
        except (Unauthenticated, Forbidden, NotFound, LimitReached) as error:
            answer = self._word(error, scope)
            self._log(scope, client, principal, answer.status, begun)
            await _answer(scope, receive, send, answer)
            return
        scope[PRINCIPAL] = principal
        if scope["type"] == "http" and not ACCESS_LOG.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start"):
                self._log(scope, client, principal, message["status"], begun)
            elif kind == "websocket.accept":
                self._log(scope, client, principal, 101, begun)
            await send(message)

        if scope["type"] == "http":
            await self._app(scope, receive, told)
        else:
            await self._websocket(scope, receive, told, principal, f"{principal.name}@{client}")

    async def _websocket(
        self, scope: Scope, receive: Receive, send: Send, admitted: Principal, key: str
    ) -> None:
        """Serve a websocket for as long as its token is known, and opens the same: it is shown to the gate again with each message."""
        headers = read_headers(scope)
        paced = self._paced(receive, key)
        revoked = False

        async def watched() -> Message:
            nonlocal revoked
            message = await paced()
            if message["type"] == "websocket.receive":
                if not self._still(admitted, headers):
                    revoked = True
                    return {"type": "websocket.disconnect", "code": POLICY_VIOLATION}
            return message

        await self._app(scope, watched, send)
        if revoked:
            reason = "the token is not known any more, or was changed"
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": reason})

    def _still(self, admitted: Principal, headers: dict[str, str]) -> bool:
        """Whether the token that was shown at the start is what it was: of the same name, role and worker."""
        try:
            return self._gate.identify(headers).token == admitted.token
        except Unauthenticated:
            return False

    def _admit(self, scope: Scope, client: str) -> Principal:
        headers = read_headers(scope)
        kind, path = scope["type"], read_path(scope)
        method = scope.get("method", "GET")
        try:
            row = self._gate.policy.match(kind, method, path)
            if row is None:
                self._turn_away(method, path, headers)
            principal = self._gate.decide(row, headers)
        except (Unauthenticated, Forbidden, NotFound):
            self._charge(f"{NOBODY.name}@{client}")
            raise
        self._charge(f"{principal.name}@{client}")
        return principal

    def _turn_away(self, method: str, path: str, headers: dict[str, str]) -> NoReturn:
        """Nothing has a row there; and only who has a token may learn so."""
        self._gate.check_source(method, headers)
        self._gate.identify(headers)
        raise NotFound("there is nothing here under this method and path", where=path)

    def _charge(self, key: str) -> None:
        if self._buckets is None:
            return
        wait_s = self._buckets.take(key, self._clock())
        if wait_s:
            raise LimitReached(
                "too many requests", remedy="slow down", retry_after_ms=math.ceil(wait_s * 1_000)
            )

    def _paced(self, receive: Receive, key: str) -> Receive:
        """Messages of a websocket come out no faster than the caller's rate: the peer feels it as back-pressure."""
        buckets = self._buckets

        async def paced() -> Message:
            message = await receive()
            if buckets is not None and message["type"] == "websocket.receive":
                wait_s = buckets.take(key, self._clock())
                if wait_s:
                    await anyio.sleep(wait_s)
                    # The wait has earned the token that this message costs.
                    buckets.take(key, self._clock())
            return message

        return paced

    def _word(self, error: OrchestraError, scope: Scope) -> WireResponse:
        answer = self._refuse(error)
        extra: list[tuple[str, str]] = []
        if isinstance(error, Unauthenticated):
            extra.append(("www-authenticate", "Bearer"))
        if isinstance(error, LimitReached):
            extra.append(("retry-after", str(math.ceil(error.retry_after_ms / 1_000))))
        if isinstance(error, NotFound) and scope["type"] == "http":
            allowed = self._gate.policy.methods("http", read_path(scope))
            if allowed:
                extra.append(("allow", ", ".join(allowed)))
                answer = attrs.evolve(answer, status=405)
        have = {name.lower() for name, _ in answer.headers}
        added = tuple(pair for pair in extra if pair[0] not in have)
        return attrs.evolve(answer, headers=(*answer.headers, *added))

    def _log(
        self, scope: Scope, client: str, principal: Principal, status: int, begun: float
    ) -> None:
        """One line, without the query, where a careless client may have put a secret."""
        if ACCESS_LOG.isEnabledFor(logging.INFO):
            ACCESS_LOG.info(
                "%s %s %s %s %d %dms",
                escape(client) or "-",
                escape(principal.name),
                "WEBSOCKET" if scope["type"] == "websocket" else escape(scope["method"]),
                escape(str(scope["path"])),
                status,
                (self._clock() - begun) * 1_000,
            )


async def _answer(scope: Scope, receive: Receive, send: Send, answer: WireResponse) -> None:
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
    kind = "websocket.http" if scope["type"] == "websocket" else "http"
    fields = [
        ("content-type", answer.media_type),
        ("content-length", str(len(answer.body))),
        *answer.headers,
    ]
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    await send({"type": f"{kind}.response.start", "status": answer.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": answer.body, "more_body": False})
