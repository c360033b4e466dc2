"""What the fuzz driver feeds: the real decoders, sessions, scanner, door and application over the real core, without a socket or a loop."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

import attrs
import h11

from orchestra.dialects.asks import Keyed
from orchestra.dialects.native import native_dialect
from orchestra.dialects.native_session import NativeSession
from orchestra.dialects.session import Action, Put, SendFrame
from orchestra.dialects.wire import Dialect
from orchestra.errors import NotFound, OrchestraError
from orchestra.ports import LogRead
from orchestra.statemachine.commands import Command
from orchestra.testing.core import Core
from orchestra.testing.fuzz import FuzzBroken
from orchestra.testing.invariants import broken_in_state, snapshot
from orchestra.transports.auth import LOCAL_HOSTS, Gate
from orchestra.transports.door import Door
from orchestra.transports.framing import Framing, Phase, RefusedRequest
from orchestra.transports.http import http_app
from orchestra.transports.policy import policy_for

T = TypeVar("T")

HEAD_BYTES_MAX = 16_384
FIELDS_MAX = 64
REFUSED_BELOW_APP = frozenset({400, 408, 431, 501, 505})
"""What the scanner answers with; 501 and 505 tell of codings and versions that are not spoken here."""

SERVER_ERROR = 500
REFUSAL = 400


def stepped(running: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        running.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    running.close()
    raise FuzzBroken("it waited for something that never comes")


class Small:
    """The core with one job of two tasks and a worker that holds the first, asked as a transport asks."""

    def __init__(self) -> None:
        self.core = Core(checked=False)
        self.worker = self.core.join()
        self.core.submit(name="first")
        self.job_id = self.core.submit(name="second").job_id
        self.core.settle()
        (self.attempt_id,) = [order.attempt_id for order in self.core.held()]
        self.words = {
            b"WORKER": self.worker.worker_id.encode(),
            b"ATTEMPT": self.attempt_id.encode(),
            b"JOB": self.job_id.encode(),
        }

    def for_principal(self, principal: str, acting: object = None) -> Any:
        """As `transports.asking.AskerSource` has it. Nobody needs a token here."""
        del principal, acting
        return self

    async def ask(self, command: Command[Any], *, key: str = "") -> Any:
        """As `ports.Asker.ask`."""
        return self.core.apply(command, key=key)

    async def answer(self, query: Any) -> Any:
        """As `ports.Asker.answer`."""
        return self.core.ask(query)

    async def story(self, query: object) -> tuple[()]:
        """Nothing happened."""
        del query
        return ()

    async def log(self, query: object) -> LogRead:
        """No attempt has written."""
        del query
        raise NotFound("there is no output")

    async def append_log(self, worker_id: str, incarnation: int, chunks: Sequence[object]) -> None:
        """It is kept elsewhere."""

    async def backup(self, target: str) -> None:
        """It is written elsewhere."""

    def check(self, before: object, *, refused: bool) -> None:
        """What was refused changed nothing; what was done broke no invariant. Raises `FuzzBroken`."""
        if refused:
            if snapshot(self.core.state) != before:
                raise FuzzBroken("what was refused changed the state")
            return
        self.core.settle()
        broken = broken_in_state(self.core.state, self.core.now_ms)
        if broken:
            raise FuzzBroken("; ".join(broken))

    def filled(self, text: bytes) -> bytes:
        """With the ids of this world in the places of WORKER, ATTEMPT, JOB and whatever else is in ``words``."""
        for word, id in self.words.items():
            text = text.replace(word, id)
        return text


@attrs.define
class _Exchange:
    """One request as ASGI has it; its answer."""

    scope: dict[str, Any]
    body: bytes
    status: int = 0
    answer: bytes = b""

    async def receive(self) -> dict[str, Any]:
        """The whole body at once."""
        return {"type": "http.request", "body": self.body, "more_body": False}

    async def send(self, message: Any) -> None:
        """Keep the status and the body."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.answer += message.get("body", b"")


def _native(_: Small) -> Dialect:
    return native_dialect()


class HttpWorld:
    """
    Bytes of one request: scanner, parser, door, application, core.

    Args:
        make: The dialect that is spoken, by default the native one.
        faithful: What is refused changes nothing. Some old protocols say no to a worker that is known to be alive by its asking.
        small: The core that is asked, by default a new one.
    """

    def __init__(
        self,
        make: Callable[[Small], Dialect] = _native,
        *,
        faithful: bool = True,
        small: Small | None = None,
    ) -> None:
        self.small = small or Small()
        self.faithful = faithful
        dialect = make(self.small)
        # Streams go on for ever; what they ask is read by the same decoders as on a channel.
        routes = tuple(route for route in dialect.routes if not route.stream)
        dialect = attrs.evolve(dialect, routes=routes)
        policy = policy_for([dialect])
        app = http_app(self.small, [dialect], policy=policy)
        self.door = Door(app, Gate(policy, None, LOCAL_HOSTS), refuse=dialect.refuse)

    def call(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """A well-formed request: its answer's status and body."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
        request = parsed(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        if request is None:
            raise FuzzBroken(f"{method} {path} can not be read")
        stepped(self.door(request.scope, request.receive, request.send))
        self.small.core.settle()
        return request.status, request.answer

    def is_refusal(self, status: int, answer: bytes) -> bool:
        """Whether an answer says no. Some old protocols do so with status 200."""
        del answer
        return status >= REFUSAL

    def is_planned(self, status: int, answer: bytes) -> bool:
        """Whether an answer may be given at all. Some old protocols have a plan for a 5xx."""
        del answer
        return 200 <= status < SERVER_ERROR  # noqa: PLR2004 - the ranges of RFC 9110

    def feed(self, raw: bytes) -> bool:
        """As `fuzz.World.feed`. What has a length is fed once more with the length that fits, so that it gets past the scanner."""
        raw = self.small.filled(raw)
        taken = self._feed_bytes(raw)
        fitting = reframed(raw)
        return (fitting != raw and self._feed_bytes(fitting)) or taken

    def _feed_bytes(self, raw: bytes) -> bool:
        whole = scanned([raw])
        middle = len(raw) // 2
        if scanned([raw[:middle], raw[middle:]]) != whole:
            raise FuzzBroken("the scanner reads bytes in two pieces differently from those in one")
        if not isinstance(whole, bytes):
            return False
        request = parsed(whole)
        if request is None:
            return False
        before = snapshot(self.small.core.state)
        stepped(self.door(request.scope, request.receive, request.send))
        if not self.is_planned(request.status, request.answer):
            raise FuzzBroken(f"it was answered with {request.status}")
        refused = self.is_refusal(request.status, request.answer)
        self.small.check(before, refused=refused and self.faithful)
        return not refused


def reframed(raw: bytes) -> bytes:
    """The same request, with the length that its body or its only chunk has."""
    head, end, body = raw.partition(b"\r\n\r\n")
    chunk = re.fullmatch(rb"[0-9a-f]+\r\n(.*)\r\n0\r\n\r\n", body, re.DOTALL)
    if chunk is not None:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(chunk[1]), chunk[1])
    return (
        re.sub(rb"(?i)content-length: *\d+", b"Content-Length: %d" % len(body), head) + end + body
    )


def scanned(pieces: Sequence[bytes]) -> bytes | int | None:
    """What the scanner lets through of the first request; the status with which it refuses; None when more is to come."""
    framing = Framing(HEAD_BYTES_MAX, FIELDS_MAX)
    seen = b""
    try:
        for piece in pieces:
            passed, _ = framing.feed(piece)
            seen += passed
    except RefusedRequest as error:
        if error.status not in REFUSED_BELOW_APP:
            raise FuzzBroken(f"the scanner refuses with {error.status}") from error
        return error.status
    return seen if framing.phase is Phase.DONE else None


def parsed(raw: bytes) -> _Exchange | None:
    """The request that the parser reads; None when it refuses it. Raises `FuzzBroken` when it sees another end than the scanner."""
    parser = h11.Connection(h11.SERVER, HEAD_BYTES_MAX + 1_024)
    parser.receive_data(raw)
    body = b""
    request: h11.Request | None = None
    for _ in range(len(raw) + 3):
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError:
            return None
        if isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            break
        else:
            raise FuzzBroken(f"the scanner saw an end where the parser tells {event!r}")
    if request is None or parser.trailing_data[0]:
        raise FuzzBroken("the scanner let more through than one request")
    path, _, query = request.target.partition(b"?")
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": request.http_version.decode(),
        "method": request.method.decode(),
        "path": unquote_to_bytes(path).decode(errors="replace"),
        "raw_path": path,
        "root_path": "",
        "query_string": query,
        "headers": list(request.headers),
        "client": ("127.0.0.1", 5),
        "extensions": {},
    }
    return _Exchange(scope, body)


class ChannelWorld:
    """Messages of one channel, one a line: session, core, session."""

    def __init__(self) -> None:
        self.small = Small()
        self.session = NativeSession()

    def feed(self, raw: bytes) -> bool:
        """As `fuzz.World.feed`."""
        accepted = False
        self.session = NativeSession()
        for line in self.small.filled(raw).split(b"\n"):
            before = snapshot(self.small.core.state)
            # As the websocket layer: text that is not UTF-8 never comes through.
            actions = self.session.received(line.decode(errors="replace"))
            done = sum(map(self._carry_out, actions)) > 0
            self.small.check(before, refused=not done)
            accepted = accepted or done
        return accepted

    def _carry_out(self, action: Action) -> bool:
        """Whether something was asked, and not refused."""
        if isinstance(action, SendFrame):
            action.text.encode()
        if not isinstance(action, Put):
            return False
        ask = action.ask
        command, key = (ask.command, ask.key) if isinstance(ask, Keyed) else (ask, "")
        try:
            if isinstance(command, Command):
                reply = stepped(self.small.ask(command, key=key))
            elif action.route in ("Story", "Log", "AppendLog", "Backup"):
                raise NotFound("not here")
            else:
                reply = stepped(self.small.answer(command))
        except OrchestraError as error:
            self.session.refused(action.tag, error)
            return False
        self.session.answered(action.tag, reply)
        return True
