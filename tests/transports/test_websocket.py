"""The channel's server as ASGI, without a server: roles, slow readers, endings. On both event loops."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from orchestra.dialects.native import CHANNEL_PATH, native_dialect
from orchestra.dialects.native_frames import ask_frame, watch_frame
from orchestra.dialects.wire import Role
from orchestra.ports import Moved, WatchOrders, WatchStory
from orchestra.statemachine.commands import CancelJob
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.queries import GetJob, GetOverview
from orchestra.statemachine.replies import HeartbeatAnswered, JobChanged
from orchestra.statemachine.reports import Heartbeat
from orchestra.testing.transport_bench import FarEnd
from orchestra.transports import websocket
from orchestra.transports.auth import Principal
from orchestra.transports.http import http_app
from tests.transports.loopback import PATIENCE_S

pytestmark = pytest.mark.anyio

OPERATOR = Principal("ann", Role.OPERATOR)


class Peer:
    """A connected client, as a server would hand it to the application."""

    def __init__(
        self,
        frames: list[str | bytes],
        principal: Principal | None = OPERATOR,
        path: str = CHANNEL_PATH,
    ) -> None:
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "path": path,
            "headers": [],
            "client": ("127.0.0.1", 5),
            "extensions": {"websocket.http.response": {}},
        }
        if principal is not None:
            self.scope["orchestra.principal"] = principal
        self.incoming: deque[dict[str, Any]] = deque([{"type": "websocket.connect"}])
        for frame in frames:
            kind = "text" if isinstance(frame, str) else "bytes"
            self.incoming.append({"type": "websocket.receive", kind: frame})
        self.sent: list[dict[str, Any]] = []
        self.changed = anyio.Event()
        self.readable = anyio.Event()
        self.readable.set()

    def say(self, message: dict[str, Any]) -> None:
        self.incoming.append(message)
        self._ring()

    def leave(self) -> None:
        self.say({"type": "websocket.disconnect", "code": 1005})

    def _ring(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    async def receive(self) -> dict[str, Any]:
        while not self.incoming:
            await self.changed.wait()
        return self.incoming.popleft()

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.send":
            await self.readable.wait()
        self.sent.append(message)
        self._ring()

    async def until(self, count: int) -> list[Any]:
        """The first so many messages."""
        with anyio.fail_after(PATIENCE_S):
            while self.texts < count:
                await self.changed.wait()
        return self.said

    @property
    def texts(self) -> int:
        return sum(message["type"] == "websocket.send" for message in self.sent)

    @property
    def said(self) -> list[Any]:
        return [json.loads(m["text"]) for m in self.sent if m["type"] == "websocket.send"]

    @property
    def code(self) -> int:
        return int(self.sent[-1]["code"]) if "code" in self.sent[-1] else 0


async def run(far: FarEnd, peer: Peer) -> None:
    app = http_app(far, [native_dialect()])
    with anyio.fail_after(PATIENCE_S):
        await app(peer.scope, peer.receive, peer.send)


@pytest.fixture
def far() -> FarEnd:
    end = FarEnd()
    end.answers[CancelJob] = JobChanged("17", JobStatus.CANCELLING)
    return end


async def test_questions_are_answered_by_number(far: FarEnd) -> None:
    peer = Peer([ask_frame(n, CancelJob("17"), "").decode() for n in (3, 1, 2)])
    heard: list[Any] = []
    async with anyio.create_task_group() as group:
        group.start_soon(run, far, peer)
        heard = await peer.until(3)
        peer.leave()
    assert {said["id"] for said in heard} == {1, 2, 3}
    assert all(said["reply"] == {"job_id": "17", "status": "cancelling"} for said in heard)
    assert far.arrived[0].principal == "ann"


@pytest.mark.parametrize(
    ("held", "opened"),
    [
        (Role.WORKER, {"watch-orders"}),
        (Role.VIEWER, {"get", "watch-story"}),
        (Role.OPERATOR, {"get", "cancel", "watch-orders", "watch-story"}),
    ],
)
async def test_each_message_needs_the_role_of_its_route(
    far: FarEnd, held: Role, opened: set[str]
) -> None:
    far.hold = True
    names = {1: "get", 2: "cancel", 3: "watch-orders", 4: "watch-story"}
    frames = [
        ask_frame(1, GetJob("17"), ""),
        ask_frame(2, CancelJob("17"), ""),
        watch_frame(3, WatchOrders("w", 1)),
        watch_frame(4, WatchStory()),
    ]
    peer = Peer([frame.decode() for frame in frames], Principal("x", held))
    heard: list[Any] = []
    async with anyio.create_task_group() as group:
        group.start_soon(run, far, peer)
        heard = await peer.until(4)
        peer.leave()
    forbidden = {
        names[said["id"]] for said in heard if said.get("problem", {}).get("code") == "forbidden"
    }
    assert forbidden == set(names.values()) - opened
    assert len(far.arrived) == len(opened)


async def test_nobody_connects_by_default(far: FarEnd) -> None:
    peer = Peer([], None)
    await run(far, peer)
    assert peer.sent[0]["type"] == "websocket.http.response.start"
    assert peer.sent[0]["status"] == 403
    assert json.loads(peer.sent[1]["body"])["code"] == "forbidden"
    plain = Peer([], None)
    plain.scope["extensions"] = {}
    await run(far, plain)
    assert plain.sent == [{"type": "websocket.close", "code": 1008}]


async def test_an_unknown_path_is_not_found(far: FarEnd) -> None:
    peer = Peer([], path="/api/v1/jobs")
    await run(far, peer)
    assert peer.sent[0]["status"] == 404


async def test_bytes_end_the_connection(far: FarEnd) -> None:
    peer = Peer([b"\x00"])
    await run(far, peer)
    assert peer.code == 1003


async def test_a_message_beyond_the_bound_ends_the_connection(far: FarEnd) -> None:
    peer = Peer(["x" * 1_100_000])
    await run(far, peer)
    assert peer.code == 1009


async def test_answers_in_the_making_do_not_outlive_the_connection(far: FarEnd) -> None:
    far.stalled.add(GetOverview)
    far.hold = True
    peer = Peer(
        [
            ask_frame(1, GetOverview(), "").decode(),
            watch_frame(2, WatchStory()).decode(),
        ]
    )
    async with anyio.create_task_group() as group:
        group.start_soon(run, far, peer)
        await peer.until(1)
        assert far.watching == 1
        peer.leave()
    assert far.watching == 0


async def test_a_slow_reader_is_cut_off(far: FarEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "UNSENT_BYTES_MAX", 10_000)
    monkeypatch.setattr(websocket, "CLOSE_S", 0.05)
    far.pushes = [
        Moved(n, 1, "job", "x", "", "create", "queued", "a reason " * 20) for n in range(1, 500)
    ]
    far.hold = True
    peer = Peer([watch_frame(1, WatchStory()).decode()])
    peer.readable = anyio.Event()
    await run(far, peer)
    assert peer.code == 1013
    assert far.watching == 0
    assert peer.said == []


async def test_a_patient_reader_gets_everything(
    far: FarEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "UNSENT_BYTES_MAX", 300_000)
    far.pushes = [
        Moved(n, 1, "job", "x", "", "create", "queued", "a reason " * 20) for n in range(1, 500)
    ]
    peer = Peer([watch_frame(1, WatchStory()).decode()])
    heard: list[Any] = []
    async with anyio.create_task_group() as group:
        group.start_soon(run, far, peer)
        heard = await peer.until(501)
        peer.leave()
    assert [said["push"]["moved"]["number"] for said in heard[1:-1]] == list(range(1, 500))
    assert heard[-1] == {"id": 1, "ended": True}


async def test_a_reader_that_is_gone_ends_the_writer(far: FarEnd) -> None:
    peer = Peer([ask_frame(1, CancelJob("17"), "").decode()])

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            peer.leave()
            raise OSError("nobody is there")
        peer.sent.append(message)

    peer.send = send
    await run(far, peer)
    assert [message["type"] for message in peer.sent] == ["websocket.accept"]


async def test_a_bug_in_one_question_leaves_the_others(far: FarEnd) -> None:
    far.answers[GetOverview] = 7
    peer = Peer(
        [
            ask_frame(1, GetOverview(), "").decode(),
            ask_frame(2, CancelJob("17"), "").decode(),
        ]
    )
    heard: list[Any] = []
    async with anyio.create_task_group() as group:
        group.start_soon(run, far, peer)
        heard = await peer.until(2)
        peer.leave()
    by_id = {said["id"]: said for said in heard}
    assert by_id[1]["problem"]["status"] == 500
    assert "reply" in by_id[2]


async def test_want_of_memory_is_no_bug(
    far: FarEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_asker: object, _ask: object) -> object:
        raise MemoryError

    monkeypatch.setattr(websocket, "put", fail)
    peer = Peer([ask_frame(1, GetOverview(), "").decode()])
    heard: list[Any] = []
    async with anyio.create_task_group() as group:
        group.start_soon(run, far, peer)
        heard = await peer.until(1)
        peer.leave()
    assert heard[0]["problem"]["status"] == 503
    assert "memory is short" in caplog.text


BEAT = Heartbeat("w1", 1)


async def test_a_beat_is_answered_before_what_comes_after_it(far: FarEnd) -> None:
    far.answers[Heartbeat] = HeartbeatAnswered(True, 6_000, 2_000)
    frames = [ask_frame(1, BEAT, ""), ask_frame(2, CancelJob("17"), ""), ask_frame(3, BEAT, "")]
    peer = Peer([frame.decode() for frame in frames], Principal("w", Role.OPERATOR))
    heard: list[Any] = []
    async with anyio.create_task_group() as group:
        group.start_soon(run, far, peer)
        heard = await peer.until(3)
        peer.leave()
    assert heard[0]["id"] == 1
    assert {said["id"] for said in heard if said["reply"]} == {1, 2, 3}


async def test_a_beat_needs_its_role_and_a_bug_in_it_is_told(far: FarEnd) -> None:
    far.answers[Heartbeat] = 7
    for role, status in ((Role.VIEWER, 403), (Role.WORKER, 500)):
        peer = Peer([ask_frame(1, BEAT, "").decode()], Principal("x", role))
        heard: list[Any] = []
        async with anyio.create_task_group() as group:
            group.start_soon(run, far, peer)
            heard = await peer.until(1)
            peer.leave()
        assert heard[0]["problem"]["status"] == status
    assert len(far.arrived) == 1


async def test_a_beat_waits_behind_the_frame_that_a_slow_reader_has_not_taken(far: FarEnd) -> None:
    far.answers[Heartbeat] = HeartbeatAnswered(True, 6_000, 2_000)
    far.pushes = [Moved(1, 1, "job", "x", "", "create", "queued", "")]
    peer = Peer([watch_frame(1, WatchStory()).decode()])
    peer.readable = anyio.Event()
    heard: list[Any] = []
    async with anyio.create_task_group() as group:
        group.start_soon(run, far, peer)
        peer.say({"type": "websocket.receive", "text": ask_frame(2, BEAT, "").decode()})
        with anyio.fail_after(PATIENCE_S):
            while len(far.arrived) < 2:
                await checkpoint()
        assert peer.said == []
        peer.readable.set()
        heard = await peer.until(3)
        peer.leave()
    assert {"id": 1, "watching": True} in heard
    assert [said["id"] for said in heard if "reply" in said] == [2]


async def test_channels_end_when_the_server_stops(far: FarEnd) -> None:
    far.hold = True
    peer = Peer([watch_frame(1, WatchStory()).decode()])
    app = http_app(far, [native_dialect()])
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as group:
            group.start_soon(app, peer.scope, peer.receive, peer.send)
            await peer.until(1)
            app.close_streams()
    assert far.watching == 0
    assert peer.code == 1012


async def test_a_channel_that_is_opened_while_the_server_stops_is_closed_at_once(
    far: FarEnd,
) -> None:
    peer = Peer([])
    app = http_app(far, [native_dialect()])
    app.close_streams()
    with anyio.fail_after(PATIENCE_S):
        await app(peer.scope, peer.receive, peer.send)
    assert peer.code == 1012
