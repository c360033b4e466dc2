"""The API inside another application, without sockets: who may use it, and what there is before and after it runs."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import orchestra
from orchestra.errors import Malformed
from orchestra.transports.mounting import MountedApp
from tests.transports.asgi_peer import Peer

pytestmark = pytest.mark.anyio

BOUND_S = 30.0
TOKEN = "correct-horse-battery-staple"


def inside(host: Starlette, ip: str = "127.0.0.1") -> httpx.AsyncClient:
    """Requests from an address, without a socket."""
    transport = httpx.ASGITransport(app=host, client=(ip, 50_000))
    return httpx.AsyncClient(transport=transport, base_url="http://farm.lab")


async def test_with_a_token_others_may_use_it_and_the_host_needs_none() -> None:
    app = orchestra.App()
    host = Starlette(routes=[Mount("/farm", app.asgi(token=TOKEN))])
    async with app.lifespan() as state, inside(host, "203.0.113.9") as far:
        assert await state["orchestra"].jobs() == []
        assert (await far.get("/farm/api/v1/jobs")).status_code == 401
        headers = {"authorization": f"Bearer {TOKEN}"}
        assert (await far.get("/farm/api/v1/jobs", headers=headers)).status_code == 200


@pytest.mark.parametrize("token", ["two words", "t\u00f6ken", "line\n"])
def test_a_token_that_no_header_can_carry_is_refused_at_once(token: str) -> None:
    with pytest.raises(Malformed, match="token"):
        orchestra.App().asgi(token=token)


async def test_without_the_lifespan_it_says_what_is_missing() -> None:
    app = orchestra.App()
    host = Starlette(routes=[Mount("/farm", app.asgi())])
    async with inside(host) as near:
        for _ in range(2):  # before it was running, and after
            told = await near.get("/farm/api/v1/jobs")
            assert told.status_code == 503
            assert "lifespan=app.lifespan" in told.json()["detail"]
            assert told.headers["retry-after"] == "1"
            async with app.lifespan():
                pass


async def test_without_it_a_websocket_is_closed_and_other_scopes_end() -> None:
    sent: list[Any] = []
    asked: list[Any] = [{"type": "websocket.connect"}]

    async def receive() -> Any:
        return asked.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    await MountedApp()({"type": "websocket", "path": "/"}, receive, send)
    assert (sent, asked) == ([{"type": "websocket.close", "code": 1013}], [])
    await MountedApp()({"type": "lifespan"}, receive, send)
    assert len(sent) == 1


async def test_streams_end_with_the_lifespan_and_when_the_host_says_so() -> None:
    app = orchestra.App()
    for close in (True, False):
        peer = Peer("GET", "/api/v1/events/stream", root="/farm", principal=None)
        peer.scope["headers"].append((b"host", b"localhost"))
        with anyio.fail_after(BOUND_S):
            async with anyio.create_task_group() as group, app.lifespan():
                group.start_soon(app.asgi(), peer.scope, peer.receive, peer.send)
                await peer.told.wait()
                if close:
                    app.asgi().close_streams()
                    late = Peer("GET", "/api/v1/events/stream", root="/farm", principal=None)
                    late.scope["headers"].append((b"host", b"localhost"))
                    await app.asgi()(late.scope, late.receive, late.send)
                    assert late.reply.problem["detail"] == "the server is about to stop"
        assert peer.reply.status == 200
