"""
What far ends answer to calls of ours, as bytes of HTTP: a corpus, mutations that know how an answer is built, and the ways to feed it.

An input is a line that names the call, and the bytes of what comes back for it. Every other call is answered as it should be.
"""

from __future__ import annotations

import http.client
import io
import random
from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

import attrs

from orchestra.dialects.asks import DIALOGUE_MAX, Apart, Ask, Dialogue, Known
from orchestra.dialects.wire import Dialect, Route, WireRequest
from orchestra.errors import OrchestraError
from orchestra.testing.fuzz import FuzzBroken

STATUSES = (
    b"0", b"99", b"100", b"101", b"103", b"199", b"200", b"204", b"206", b"208", b"226", b"301", b"304", b"400", b"401", b"403",
    b"404", b"408", b"409", b"418", b"429", b"500", b"501", b"503", b"599", b"600", b"999", b"2000", b"-1", b"2x0", b"",
)  # fmt: skip
VERSIONS = (b"HTTP/0.9", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/1.9", b"HTTP/2", b"ICY", b"http/1.1", b"")
HEADS = (
    b"Set-Cookie: a=b; expires=Thu, 99 Foo 99999; domain=..; path=\xff",
    b"Location: http://[::1",
    b"Location: http://xn--\xff.example:99999/",
    b"Location: /elsewhere?\x01",
    b"Content-Encoding: gzip",
    b"Content-Encoding: br, deflate, x",
    b"Content-Type: text/plain; charset=nonsense",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Connection: keep-alive, upgrade",
    b"Upgrade: websocket",
    b"Content-Length: 5",
    b"Content-Length: -5",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: 1, 1",
    b" folded: line",
    b"no colon",
    b": no name",
    b"X: \x00\x7f\xff",
    b"X: " + b"x" * 9_000,
)
"""Lines of a head that clients trip over."""

DEPTHS = (20, 900, 3_000)
"""How deep lists are nested: as anybody may do it, about as deep as Python's own stack, and deeper."""

OK, NO_CONTENT = b"200 OK", b"204 No Content"


def answer(body: bytes = b"", status: bytes = OK, *heads: bytes, sized: bool = True) -> bytes:
    """An answer. Without a size it ends with its connection."""
    lines = [b"HTTP/1.1 " + status, *heads]
    if sized and status != NO_CONTENT:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(body: bytes) -> bytes:
    """An answer whose body comes in two pieces."""
    half = len(body) // 2 + 1
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:half], body[half:]) if p)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + pieces + b"0\r\n\r\n"


def named(name: str, *answers: bytes) -> list[bytes]:
    """Inputs: these answers to the call of this name."""
    return [name.encode() + b"\n" + each for each in answers]


def split(raw: bytes) -> tuple[str, bytes]:
    """The name of the call, and what comes back for it."""
    name, _, found = raw.partition(b"\n")
    return name.decode(errors="replace"), found


# mutations --------------------------------------------------------------------------------------------------------------


def _status(rng: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """Another status, or another version of the protocol."""
    del corpus
    name, _, found = raw.partition(b"\n")
    first, end, rest = found.partition(b"\r\n")
    version, space, told = first.partition(b" ")
    if rng.randrange(4):
        told = rng.choice(STATUSES) + b" " + told.partition(b" ")[2]
    else:
        version = rng.choice(VERSIONS)
    return name + b"\n" + version + space + told + end + rest


def _head(rng: random.Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    """A further line of the head, or very many."""
    first, end, rest = raw.partition(b"\r\n")
    return first + end + (rng.choice(HEADS) + b"\r\n") * rng.choice((1, 1, 2, 150)) + rest


def _framing(rng: random.Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    """A body that is longer or shorter than it says, or says it in another way."""
    head, end, body = raw.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    match rng.randrange(5):
        case 0:
            lines.append(b"Content-Length: %d" % rng.choice((0, 1, len(body) + 9, 10**6, 2**64)))
        case 1:
            lines.append(b"Transfer-Encoding: chunked")
            size = b"%x" % len(body) + rng.choice((b"", b";x=y", b"0", b"g", b" "))
            body = (
                size
                + b"\r\n"
                + body
                + rng.choice((b"\r\n0\r\n\r\n", b"\r\n0\r\nX: y\r\n\r\n", b""))
            )
        case 2:
            body = body[: rng.randint(0, len(body))]
            lines.append(b"Content-Length: %d" % len(body))
        case 3:
            body = rng.choice((b"\xef\xbb\xbf", b" \n", b'"', b"\x1f\x8b\x08")) + body
            lines.append(b"Content-Length: %d" % len(body))
        case _:
            pass  # it ends with its connection
    return b"\r\n".join(lines) + end + body


def _interim(rng: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """Provisional answers in front."""
    del corpus
    name, _, found = raw.partition(b"\n")
    before = rng.choice((b"100 Continue", b"102 Processing", b"103 Early Hints", b"101 Switching"))
    times = rng.choice((1, 3, 150))
    return name + b"\n" + (b"HTTP/1.1 " + before + b"\r\n\r\n") * times + found


def _nested(rng: random.Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    """A further member in the JSON of the body, with lists in lists."""
    depth = rng.choice(DEPTHS)
    opened, closed = rng.choice(((b"[", b"]"), (b'{"":', b"}")))
    deep = opened * depth + b"0" + closed * depth
    places = [at + 1 for at, byte in enumerate(raw) if byte == ord("{")]
    at = rng.choice(places) if places else raw.find(b"\r\n\r\n") + 4
    more = b"" if raw[at : at + 1] == b"}" else b","
    member = b'"settings":' if rng.getrandbits(1) else b'"more":'
    put = member + deep + more if places else deep
    head, end, body = (raw[:at] + put + raw[at:]).partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + end + body


def _elsewhere(rng: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """The same answer to another call."""
    return rng.choice(corpus).partition(b"\n")[0] + b"\n" + raw.partition(b"\n")[2]


MUTATIONS = (_status, _head, _framing, _framing, _interim, _nested, _nested, _elsewhere)


# the ways to feed it ----------------------------------------------------------------------------------------------------


@attrs.define(slots=True)
class _FedSocket:
    """The end of a connection at which an answer has come already, and is followed by the end."""

    raw: bytes

    def sendall(self, data: object) -> None:
        """Nobody reads it."""

    def makefile(self, mode: str) -> io.BytesIO:
        """What came."""
        del mode
        return io.BytesIO(self.raw)

    def close(self) -> None:
        """Nothing is open."""


class FedConnection(http.client.HTTPConnection):
    """A connection of the standard library's client that is answered with ``raw``."""

    def __init__(self, raw: bytes) -> None:
        super().__init__("127.0.0.1", 1)
        self._raw = raw

    def connect(self) -> None:
        """No socket is opened."""
        self.sock = cast("Any", _FedSocket(self._raw))


def at_once(ask: Ask) -> Ask:
    """The same to ask, with what would be called in a thread called now: no world here has anything slow."""
    if isinstance(ask, Apart):
        return Known(ask.call())
    if isinstance(ask, Dialogue):
        return Dialogue(lambda: _steps(ask.begin()))
    return ask


def _steps(asks: Generator[Ask, Any, object]) -> Generator[Ask, Any, object]:
    reply: object = None
    error: OrchestraError | None = None
    try:
        for _ in range(DIALOGUE_MAX):
            try:
                ask = asks.send(reply) if error is None else asks.throw(error)
            except StopIteration as ended:
                return ended.value
            reply, error = None, None
            try:
                reply = ask.call() if isinstance(ask, Apart) else (yield ask)
            except OrchestraError as refused:
                error = refused
    finally:
        asks.close()
    raise FuzzBroken(f"a dialogue of more than {DIALOGUE_MAX} asks")


def without_threads(dialect: Dialect) -> Dialect:
    """The same dialect, whose routes ask `at_once`."""

    def decoded(route: Route) -> Callable[[WireRequest], object]:
        return lambda request: at_once(cast("Ask", route.decode(request)))

    routes = tuple(attrs.evolve(route, decode=decoded(route)) for route in dialect.routes)
    return attrs.evolve(dialect, routes=routes)
