"""One request to the HTTP application, as a server would hand it over: no socket, and either event loop."""

from __future__ import annotations

import json
from typing import Any

import anyio
import attrs

from orchestra.dialects.native import native_dialect
from orchestra.dialects.wire import Role
from orchestra.testing.transport_bench import FarEnd
from orchestra.transports.auth import Principal
from orchestra.transports.http import HttpApp, http_app
from tests.transports.loopback import PATIENCE_S

OPERATOR = Principal("ann", Role.OPERATOR)
JSON = ("content-type", "application/json")
JOB = json.dumps({"name": "j", "stages": [{"name": "s", "app": "a"}]}).encode()


@attrs.define
class Reply:
    status: int = 0
    headers: dict[str, str] = attrs.field(factory=dict)
    body: bytes = b""

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        found: dict[str, Any] = json.loads(self.body)
        assert found["status"] == self.status
        return found


class Peer:
    """One request, as a server would hand it to the application."""

    def __init__(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *headers: tuple[str, str],
        principal: Principal | None = OPERATOR,
        pieces: list[bytes] | None = None,
        root: str = "",
    ) -> None:
        path, _, query = target.partition("?")
        fields = list(headers)
        if body and not any(name == "content-length" for name, _ in fields):
            fields.append(("content-length", str(len(body))))
        if pieces is not None:
            fields.append(("transfer-encoding", "chunked"))
        self.scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": root + path,
            "root_path": root,
            "query_string": query.encode(),
            "headers": [(n.encode(), v.encode("latin-1")) for n, v in fields],
            "client": ("127.0.0.1", 5),
        }
        if principal is not None:
            self.scope["orchestra.principal"] = principal
        self.reply = Reply()
        self.pieces = pieces if pieces is not None else [body]
        self.read = 0
        self.gone = anyio.Event()
        self.told = anyio.Event()

    async def receive(self) -> dict[str, Any]:
        if self.read < len(self.pieces):
            self.read += 1
            more = self.read < len(self.pieces)
            return {
                "type": "http.request",
                "body": self.pieces[self.read - 1],
                "more_body": more,
            }
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not self.reply.status
            self.reply.status = message["status"]
            self.reply.headers = {n.decode(): v.decode() for n, v in message["headers"]}
        else:
            self.reply.body += message["body"]
            self.told.set()


async def asked(far: FarEnd, *args: Any, app: HttpApp | None = None, **more: Any) -> Reply:
    peer = Peer(*args, **more)
    with anyio.fail_after(PATIENCE_S):
        await (app or http_app(far, [native_dialect()]))(peer.scope, peer.receive, peer.send)
    return peer.reply
