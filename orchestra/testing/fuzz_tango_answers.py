"""
What the far ends of TANGO answer: member containers to their Project Manager, and a Project Manager to a member that reports to it.

The bytes go through the real clients: of the manager's engine on a loop whose time stands still, of the member's reports without a socket.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from orchestra.dialects.asks import Dialogue
from orchestra.dialects.far_calls import FarCall, FarReply, Silence
from orchestra.dialects.tango_calls import Replies
from orchestra.dialects.tango_places import APP, Place
from orchestra.dialects.tango_runs import Runs
from orchestra.dialects.tango_words import MemberWord
from orchestra.engines.member_run import MemberRun
from orchestra.errors import Unavailable
from orchestra.ports import Ended
from orchestra.statemachine.reports import Happening
from orchestra.testing.check_engine import order_for
from orchestra.testing.fuzz import FuzzBroken
from orchestra.testing.fuzz_answers import (
    NO_CONTENT,
    FedConnection,
    answer,
    chunked,
    named,
    split,
)
from orchestra.testing.fuzz_sockets import Line, StandingLoop
from orchestra.testing.fuzz_tango import Crew, container
from orchestra.testing.fuzz_worlds import reframed
from orchestra.testing.invariants import snapshot
from orchestra.transports.far_calls import exchanged
from orchestra.transports.far_line import HttpLine

REPORT = "status_report"
CONTAINER = ("before", "start", "status", "stop", "resume")
"""Calls to a container: how it is before the start, the start, how it is then, a stop, and that it should go on after a failure."""

PLACE = Place("code_gen", "127.0.0.1", 8888, resumes=1)
TEMPLATE = b'{"user_id": "kyunghee", "project_id": "1"}'
LOOKS_MAX = 40
"""Questions until a run is over: a good container needs three, and a silent one is given up after fifteen."""

ROUND_MS = 61_000
"""Longer than the longest pause between two reports."""

MESSAGE_CHARS_MAX = 500
"""An answer is shown to people, cut, in a line."""

OUTCOMES = frozenset({"completed", "failed", "stopped"})


class _Answering(StandingLoop):
    """A loop on which every connection is answered with ``raw``, as soon as something was asked, and ended."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = b""

    async def create_connection(self, protocol_factory: Any, *_: Any, **__: Any) -> Any:
        """As asyncio has it."""
        protocol: asyncio.Protocol = protocol_factory()
        line = _Answered(self)
        line.set_protocol(protocol)
        protocol.connection_made(line)
        return line, protocol


class _NoSocket:
    """Addresses of a socket that is none."""

    family = socket.AF_INET

    def getsockname(self) -> tuple[str, int]:
        """Ours."""
        return ("127.0.0.1", 50_000)

    def getpeername(self) -> tuple[str, int]:
        """The container's."""
        return (PLACE.host, PLACE.port)


class _Answered(Line):
    def __init__(self, loop: _Answering) -> None:
        super().__init__(loop, stalled=False)
        self._answering = loop
        self._asked = False
        self.ends["socket"] = _NoSocket()  # whose addresses the client looks at

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever held back."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """The answer follows the end of a request's head, in two pieces."""
        super().write(data)
        if self._asked or not self.sent.endswith(b"\r\n\r\n"):
            return
        self._asked = True
        raw = self._answering.raw
        for piece in (raw[: len(raw) // 2], raw[len(raw) // 2 :]):
            self._answering.call_soon(self._deliver, piece)
        self._answering.call_soon(self.lose)

    def _deliver(self, piece: bytes) -> None:
        if piece and not self.lost:
            self.protocol.data_received(piece)


class _Container:
    """The way to a container: one call is answered by what is fed, all others as they should be."""

    def __init__(self, line: HttpLine, name: str) -> None:
        self._line = line
        self._name = name
        self._words = [MemberWord.READY, MemberWord.RUNNING]
        if name == "resume":
            self._words.append(MemberWord.FAILED)
        self._end = MemberWord.COMPLETED
        self._looks = 0
        self.used = False

    async def call(self, target: str) -> FarReply | Silence:
        """As `far_calls.FarLine.call`."""
        name = target.partition("?")[0].strip("/")
        word: str = {"start": "started", "stop": "finished"}.get(name, "resumed")
        if name == "stop":
            self._end = MemberWord.STOPPED
        if name == "status_request":
            self._looks += 1
            name = "before" if self._looks == 1 else "status"
            word = self._words.pop(0) if self._words else self._end
        if name == self._name and not self.used:
            self.used = True
            return await self._line.call(target)
        return FarReply(200, f'"{word}"'.encode())


class _Told:
    """Where the engine tells how a run goes."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    async def running(self, attempt_id: str) -> None:
        """It runs."""

    async def progress(self, attempt_id: str, fraction: float, message: str) -> None:
        """Containers tell of no progress."""
        del attempt_id, fraction, message
        raise FuzzBroken("nobody told of progress")

    async def output(self, attempt_id: str, stream: str, data: bytes) -> None:
        """One line for people."""
        del attempt_id, stream
        self.lines.append(data)

    async def ended(self, attempt_id: str, ended: Ended) -> None:
        """Told by whoever conducts the run."""
        del attempt_id, ended
        raise FuzzBroken("a run does not tell its end itself")


class AnswerWorld:
    """
    Answers of containers and of Project Managers.

    A run ends whatever is answered once, what people are shown of it is one line, and an end that was not taken is reported again, until
    it is. Accepted: the run ended as if nothing had been wrong, or the report was taken.
    """

    def __init__(self) -> None:
        self._loop = _Answering()
        self._line = HttpLine(PLACE.host, PLACE.port, PLACE.headers, PLACE.call_ms)
        self._done(self._line.__aenter__())
        self._crew = Crew("process")
        self._now_ms = self._crew.core.now_ms
        self._calls = 0
        self._answers: list[bytes] = []
        made = container(Replies.GUIDE)
        self._runs = Runs(made.draft_for, made.reporting, lambda: self._now_ms, self._call_all)
        self._fed = 0

    def __del__(self) -> None:
        self._loop.close()

    def feed(self, raw: bytes) -> bool:
        """As `fuzz.World.feed`. What has a length is fed once more with the length that fits."""
        fitting = reframed(raw)
        taken = self._feed(raw)
        return (fitting != raw and self._feed(fitting)) or taken

    def _feed(self, raw: bytes) -> bool:
        name, found = split(raw)
        if name == REPORT:
            return self._report(found)
        return name in CONTAINER and self._run(name, found)

    # answers of a container -----------------------------------------------------------------------------------------

    def _run(self, name: str, raw: bytes) -> bool:
        self._loop.raw = raw
        line, told = _Container(self._line, name), _Told()
        order = order_for(APP, TEMPLATE)
        run = MemberRun(PLACE, line, order, told, self._loop.time)
        conducted = self._loop.create_task(run.conduct(ran_before=False))
        self._loop.settle()
        if name == "stop":
            run.climb("asked")
        for _ in range(LOOKS_MAX):
            if conducted.done():
                break
            self._loop.later(PLACE.heartbeat_ms / 1_000)
        else:
            raise FuzzBroken(f"a run is not over after {LOOKS_MAX} looks")
        ended = conducted.result()
        if ended.outcome not in OUTCOMES:
            raise FuzzBroken(f"a run ended as {ended.outcome!r}")
        for text in (ended.message, *(line.decode().removesuffix("\n") for line in told.lines)):
            if not text.isprintable() or len(text) > MESSAGE_CHARS_MAX:
                raise FuzzBroken(f"people are shown {text[:200]!r}")
        return line.used and ended.outcome == ("stopped" if name == "stop" else "completed")

    def _done(self, running: Any) -> Any:
        task = self._loop.create_task(running)
        self._loop.settle()
        return task.result()

    # answers to a report --------------------------------------------------------------------------------------------

    def _report(self, raw: bytes) -> bool:
        self._fed += 1
        ids = ("kyunghee", str(self._fed))
        self._crew.carry_out(Dialogue(lambda: self._runs.start(ids)))
        self._crew.tell(Happening.COMPLETED)
        self._answers = [raw]
        taken = self._round()
        if self._calls != 1:
            raise FuzzBroken(f"an end was reported {self._calls} times at once")
        self._round()
        before = snapshot(self._crew.core.state)
        self._round()
        if self._calls:
            raise FuzzBroken("an end that was taken is reported again")
        self._crew.check(before, refused=True)
        return taken

    def _round(self) -> bool:
        """The member's chore, once; whether there is nothing to complain of."""
        self._calls = 0
        self._now_ms += ROUND_MS
        try:
            self._crew.carry_out(Dialogue(self._runs.report))
        except Unavailable:
            return False
        return True

    def _call_all(self, calls: Sequence[FarCall]) -> tuple[FarReply | None, ...]:
        self._calls += len(calls)
        good = answer(b'{"status": 200}')
        return tuple(
            exchanged(FedConnection(self._answers.pop() if self._answers else good), call)
            for call in calls
        )


def answers() -> Sequence[bytes]:
    """The corpus."""
    found: list[bytes] = []
    for word in (b"ready", b'"ready"', b'"completed"'):
        found += named("before", answer(word), chunked(word))
    found += named("before", answer(b"", NO_CONTENT))
    for word in (b"starting", b'"started"', b"running"):
        found += named("start", answer(word), answer(word, sized=False))
    for word in (b"started", b'"running"', b"completed", b'"completed"\n'):
        plain = b"Content-Type: text/plain"
        found += named("status", answer(word, b"200 OK", plain), chunked(word))
    found += named("status", answer(b"completed", b"208 Already Reported"))
    found += named(
        "stop", answer(b"finished"), answer(b'"success"'), answer(b"", b"400 Bad Request")
    )
    found += named("resume", answer(b"resumed"), answer(b'"started"'))
    told = b'{"status": 200, "message": ""}'
    found += named(REPORT, answer(told), chunked(told), answer(told, sized=False), answer())
    return found
