"""Bodies that are long or slow, and streams that go on: the HTTP application as ASGI, on both event loops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from orchestra.dialects.native import native_dialect
from orchestra.dialects.native_calls import BODY_BYTES_MAX
from orchestra.ports import Moved
from orchestra.statemachine.commands import SubmitJob
from orchestra.statemachine.replies import JobAccepted
from orchestra.testing.transport_bench import FarEnd
from orchestra.transports import bodies
from orchestra.transports.auth import Principal
from orchestra.transports.http import http_app
from tests.transports.asgi_peer import JOB, JSON, OPERATOR, Peer, asked
from tests.transports.loopback import PATIENCE_S

pytestmark = pytest.mark.anyio


@pytest.fixture
def far() -> FarEnd:
    end = FarEnd()
    end.answers[SubmitJob] = JobAccepted("job-1", 1, 1)
    return end


async def test_a_long_body_is_refused_before_it_is_read(far: FarEnd) -> None:
    told = ("content-length", str(BODY_BYTES_MAX + 1))
    peer = Peer("POST", "/api/v1/jobs/17/cancel", b"", JSON, told)
    await http_app(far, [native_dialect()])(peer.scope, peer.receive, peer.send)
    assert peer.reply.status == 413
    assert peer.reply.headers["connection"] == "close"
    assert peer.read == 0


async def test_a_long_body_is_refused_while_it_comes(far: FarEnd) -> None:
    pieces = [b" " * 65_536] * 20
    peer = Peer("POST", "/api/v1/jobs/17/cancel", b"", JSON, pieces=pieces)
    await http_app(far, [native_dialect()])(peer.scope, peer.receive, peer.send)
    assert peer.reply.status == 413
    assert peer.read == 17
    assert not far.arrived


async def test_the_server_s_bound_counts_where_a_route_would_read_more(far: FarEnd) -> None:
    for bound, status in ((len(JOB), 201), (len(JOB) - 1, 413), (None, 201)):
        app = http_app(far, [native_dialect()], body_bytes_max=bound)
        assert (await asked(far, "POST", "/api/v1/jobs", JOB, JSON, app=app)).status == status


async def test_a_body_in_pieces_is_joined(far: FarEnd) -> None:
    pieces = [JOB[i : i + 7] for i in range(0, len(JOB), 7)]
    assert (await asked(far, "POST", "/api/v1/jobs", b"", JSON, pieces=pieces)).status == 201


class Everyone:
    def authorise(self, *_request: Any) -> Principal:
        return OPERATOR


async def test_a_slow_body_is_given_up(far: FarEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE_S", 0.05)
    length = ("content-length", "500")
    peer = Peer("POST", "/api/v1/jobs", b"", JSON, length, principal=None)
    peer.pieces = [b"{", b""]

    async def receive() -> dict[str, Any]:
        if peer.read:
            await anyio.sleep_forever()
        return {**await Peer.receive(peer), "more_body": True}

    with anyio.fail_after(PATIENCE_S):
        await http_app(far, [native_dialect()], Everyone())(peer.scope, receive, peer.send)
    assert peer.reply.status == 408
    assert not far.arrived


def moved(number: int) -> Moved:
    return Moved(number, 1, "job", "x", "", "create", "queued", "")


async def test_a_browser_s_stream_goes_on_where_it_was(far: FarEnd) -> None:
    far.pushes = [moved(8)]
    last = ("last-event-id", "7")
    reply = await asked(far, "GET", "/api/v1/events/stream", b"", last)
    assert far.arrived[0].asked.after == 7  # type: ignore[attr-defined]
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.body.startswith(b": still here\n\n")
    assert reply.body.endswith(b"\n\n")
    assert b"id: 8\nevent: moved\ndata: {" in reply.body


async def test_a_stream_ends_when_its_reader_is_gone(far: FarEnd) -> None:
    far.hold = True
    peer = Peer("GET", "/api/v1/events/stream")
    app = http_app(far, [native_dialect()])
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(app, peer.scope, peer.receive, peer.send)
            await peer.told.wait()
            assert far.watching == 1
            peer.gone.set()
    assert far.watching == 0


async def test_streams_end_when_the_server_stops(far: FarEnd) -> None:
    far.hold = True
    peer = Peer("GET", "/api/v1/events/stream")
    app = http_app(far, [native_dialect()])
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(app, peer.scope, peer.receive, peer.send)
            await peer.told.wait()
            app.close_streams()
    assert far.watching == 0


async def test_a_stream_that_is_opened_while_the_server_stops_is_refused(far: FarEnd) -> None:
    far.hold = True
    app = http_app(far, [native_dialect()])
    app.close_streams()
    reply = await asked(far, "GET", "/api/v1/events/stream", app=app)
    assert (reply.status, reply.problem["detail"]) == (503, "the server is about to stop")


async def test_one_that_is_not_begun_yet_when_the_server_stops_is_refused_too() -> None:
    opening = anyio.Event()

    class Slow(FarEnd):
        @asynccontextmanager
        async def watch(self, principal: str, watch: Any) -> AsyncIterator[AsyncIterator[Any]]:
            opening.set()
            await anyio.sleep_forever()
            async with super().watch(principal, watch) as pushes:
                yield pushes

    far = Slow()
    peer = Peer("GET", "/api/v1/events/stream")
    app = http_app(far, [native_dialect()])
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(app, peer.scope, peer.receive, peer.send)
            await opening.wait()
            app.close_streams()
    assert (peer.reply.status, peer.reply.problem["detail"]) == (503, "the server is about to stop")


async def test_it_lives_and_dies_with_its_server(far: FarEnd) -> None:
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await http_app(far, [native_dialect()])({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
