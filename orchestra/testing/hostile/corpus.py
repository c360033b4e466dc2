"""
Bytes on a raw socket, each with the one answer that is planned: smuggling, odd framing, odd targets and names, pipelining.

What keeps its connection is followed by a request that is good, so that a server that lost its place in the bytes is found out; what ends
it is followed by one as well, which must not be answered. Source: RFC 9112, and the cases that other servers were found to take.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import anyio
import attrs

from orchestra.testing.fuzz import FuzzBroken

HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"
GET = b"GET /api/v1/health HTTP/1.1\r\n" + HOST
POST = b"POST /api/v1/jobs HTTP/1.1\r\n" + HOST + JSON
JOB = b'{"name": "j", "stages": [{"name": "s", "app": "nothing"}]}'
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = GET + b"Connection: close\r\n\r\n"
SMUGGLED = GET + b"\r\n"
UPGRADE = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
)

ANSWER_S = 30.0
"""An answer takes milliseconds; on a machine that is busy with other things it is waited for so long."""

ANSWER_BYTES_MAX = 1 << 20
"""Nothing in the corpus is answered with more than some hundred bytes."""

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@attrs.frozen(slots=True)
class Case:
    """
    What goes in, and what comes out.

    Args:
        name: What it tries.
        sent: The bytes. One more request is sent behind them.
        statuses: Of the answers, in their order, without that of the last request.
        keeps: Whether the connection goes on, so that the last request is answered too.
    """

    name: str
    sent: bytes
    statuses: tuple[int, ...]
    keeps: bool

    @property
    def planned(self) -> tuple[int, ...]:
        """All answers on the connection."""
        return (*self.statuses, 200) if self.keeps else self.statuses


def _ends(name: str, sent: bytes, status: int) -> Case:
    return Case(name, sent, (status,), keeps=False)


def _keeps(name: str, sent: bytes, *statuses: int) -> Case:
    return Case(name, sent, statuses, keeps=True)


def _lengths(*values: bytes) -> bytes:
    return POST + b"".join(b"Content-Length: %b\r\n" % value for value in values) + b"\r\n"


_FRAMING = (
    _ends(
        "length and coding", CHUNKED[:-2] + b"Content-Length: 6\r\n\r\n0\r\n\r\n" + SMUGGLED, 400
    ),
    _ends(
        "coding and length",
        _lengths(b"6")[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        400,
    ),
    _ends("two lengths", _lengths(b"2", b"44") + b"{}" + SMUGGLED, 400),
    _ends("a list of lengths", _lengths(b"2, 2") + b"{}", 400),
    _ends("a signed length", _lengths(b"+2") + b"{}", 400),
    _ends("a length beyond every bound", _lengths(b"9" * 12) + b"{}", 413),
    _ends("a coding that only ends in chunked", POST + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
    _ends("two codings", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    _ends("LF only", b"GET /api/v1/health HTTP/1.1\nHost: 127.0.0.1\n\n", 400),
    _ends("LF in one place", GET + b"X: y\nZ: w\r\n\r\n", 400),
    _ends("a folded field", GET + b"X: y\r\n z\r\n\r\n", 400),
    _ends("a NUL", GET + b"X: \0\r\n\r\n", 400),
    _ends("a space before the colon", POST + b"Content-Length : 2\r\n\r\n{}", 400),
    _ends("65 fields", GET + b"X: y\r\n" * 64 + b"\r\n", 431),
    _ends("a header of 20 KiB", GET + b"X: " + b"y" * 20_480 + b"\r\n\r\n", 431),
    _ends("a target of 20 KiB", b"GET /" + b"y" * 20_480 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431),
    _ends("HTTP/9.9", b"GET /api/v1/health HTTP/9.9\r\n" + HOST + b"\r\n", 505),
    _ends("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    _ends("an upgrade to HTTP/2", GET + UPGRADE + b"\r\n", 400),
    _ends("HTTP/0.9", b"GET /api/v1/health\r\n\r\n", 400),
    _ends("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    _ends("a chunk longer than its size", CHUNKED + b"1\r\n{}\r\n0\r\n\r\n", 400),
    _ends("a signed chunk", CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n", 400),
    _ends(
        "a chunk extension of 20 KiB", CHUNKED + b"2;" + b"x" * 20_480 + b"\r\n{}\r\n0\r\n\r\n", 400
    ),
    _ends("chunk lines with LF only", CHUNKED + b"2\n{}\n0\n\n", 400),
    _keeps("a short chunk extension", CHUNKED + b"2;a=b\r\n{}\r\n0\r\n\r\n", 400),
    _keeps("a trailer", CHUNKED + b"2\r\n{}\r\n0\r\nHost: evil.example\r\n\r\n", 400),
)

_NAMES = (
    _ends("no host", b"GET /api/v1/health HTTP/1.1\r\n\r\n", 400),
    _ends("two hosts", GET + b"Host: evil.example\r\n\r\n", 400),
    _keeps("a strange host", b"GET /api/v1/health HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
    _keeps("a host behind an at", b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1@evil\r\n\r\n", 403),
    _keeps("an empty host", b"GET /api/v1/health HTTP/1.1\r\nHost:\r\n\r\n", 403),
    _keeps("its own address in full", b"GET http://127.0.0.1/api/v1/health HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    _keeps("another server's address", b"GET http://evil.example/x HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    _keeps("a path that begins with an at", b"GET @evil/api/v1/health HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    _keeps("a path with dots", b"GET /api/v1/../v1/health HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    _keeps("a path with two slashes", b"GET //api/v1/health HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    _keeps("a NUL behind a percent", b"GET /api/v1/jobs/%00 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    _keeps("a star", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    _keeps("a tunnel", b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    _keeps("TRACE", b"TRACE /api/v1/health HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    _keeps("a method in small letters", b"get /api/v1/health HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    _keeps("a body of a GET", GET + b"Content-Length: 3\r\n\r\nabc", 415),
)  # fmt: skip

_GOOD = (
    _keeps("a request", GET + b"\r\n", 200),
    _keeps("64 fields", GET + b"X: y\r\n" * 63 + b"\r\n", 200),
    _keeps("three at once", (GET + b"\r\n") * 3, 200, 200, 200),
    _keeps("a job, and a look", _lengths(b"%d" % len(JOB)) + JOB + GET + b"\r\n", 201, 200),
    _keeps("a refusal, and a look", _lengths(b"2") + b"{}" + GET + b"\r\n", 400, 200),
)

CORPUS: tuple[Case, ...] = (*_FRAMING, *_NAMES, *_GOOD)


async def play(port: int, cases: Sequence[Case] = CORPUS) -> None:
    """
    Put each case to the server on this port, and see that what it answers is what is planned, and no more.

    Raises:
        FuzzBroken: It is not. The message names the case.
    """
    for case in cases:
        seen = await answers(port, case.sent + LAST)
        if seen != case.planned:
            raise FuzzBroken(f"{case.name}: answered with {seen}, planned is {case.planned}")


async def answers(port: int, sent: bytes) -> tuple[int, ...]:
    """The statuses that come on one connection until the server ends it."""
    got = b""
    with anyio.fail_after(ANSWER_S):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            try:
                await stream.send(sent)
                while len(got) < ANSWER_BYTES_MAX:
                    got += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass  # it has said what it says
    return tuple(int(found) for found in _STATUS.findall(got))
