"""Hostile bytes against a real server: each case with the one status that it must get."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
import uvicorn

from orchestra.config import Address, Config, Limits
from orchestra.transports.auth import open_gate
from orchestra.transports.door import Door
from orchestra.transports.guard import GuardedHttp
from orchestra.transports.serve import INSPECTED_AT_ONCE
from tests.transports.loopback import (
    PATIENCE_S,
    POLICY,
    Echo,
    ended,
    exchange,
    read_answer,
    served,
    status_of,
)

pytestmark = pytest.mark.anyio

HOST = b"Host: 127.0.0.1\r\n"
GET = b"GET /read HTTP/1.1\r\n" + HOST
POST = b"POST /change HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /stream HTTP/1.1\r\n" + HOST + b"\r\n"
UPGRADE = (
    b"GET /session HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def fields(count: int) -> bytes:
    return b"".join(b"X-%d: y\r\n" % number for number in range(count))


CORPUS: list[tuple[str, bytes, int]] = [
    ("a request", GET + b"\r\n", 200),
    ("a body with its length", POST + b"Content-Length: 3\r\n\r\nabc", 200),
    ("a body in chunks", CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n", 200),
    ("an empty line first", b"\r\n" + GET + b"\r\n", 200),
    ("64 fields", GET + fields(63) + b"\r\n", 200),
    ("65 fields", GET + fields(64) + b"\r\n", 431),
    ("2000 fields", GET + fields(2_000) + b"\r\n", 431),
    ("a header of 20 KiB", GET + b"X: " + b"y" * 20_480 + b"\r\n\r\n", 431),
    ("a target of 20 KiB", b"GET /" + b"y" * 20_480 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431),
    (
        "length and coding",
        POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        400,
    ),
    (
        "coding and length",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n" + SMUGGLED,
        400,
    ),
    ("two lengths", POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
    ("one length twice", POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    ("a list of lengths", POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    ("a signed length", POST + b"Content-Length: +3\r\n\r\nabc", 400),
    ("a negative length", POST + b"Content-Length: -3\r\n\r\nabc", 400),
    ("a length in hexadecimal", POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
    ("a length of 30 digits", POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
    ("a foreign coding", POST + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
    ("two codings", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    ("chunked twice", POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n", 400),
    ("a folded coding", POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    ("a tab in a coding", POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    (
        "a coding in HTTP/1.0",
        b"POST /change HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("LF only", b"GET /read HTTP/1.1\nHost: 127.0.0.1\n\n", 400),
    ("LF in one place", GET + b"X: y\nZ: w\r\n\r\n", 400),
    ("LF at the end", GET + b"X: y\r\n\n", 400),
    ("a bare CR", GET + b"X: y\rZ: w\r\n\r\n", 400),
    ("a NUL", GET + b"X: y\0z\r\n\r\n", 400),
    ("a folded field", GET + b"X: y\r\n z\r\n\r\n", 400),
    ("a space before the colon", GET + b"X : y\r\n\r\n", 400),
    ("a field without a name", GET + b": y\r\n\r\n", 400),
    ("a field without a colon", GET + b"nonsense\r\n\r\n", 400),
    ("a name that is no token", GET + b"X(y): z\r\n\r\n", 400),
    ("no host", b"GET /read HTTP/1.1\r\n\r\n", 400),
    ("two hosts", GET + HOST + b"\r\n", 400),
    ("HTTP/9.9", b"GET /read HTTP/9.9\r\n" + HOST + b"\r\n", 505),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("HTTP/1.1.1", b"GET /read HTTP/1.1.1\r\n" + HOST + b"\r\n", 400),
    ("no version", b"GET /read\r\n" + HOST + b"\r\n", 400),
    ("two spaces", b"GET  /read HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("a space in the target", b"GET /re ad HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("a control byte in the target", b"GET /re\x1bad HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    (
        "another server's address",
        b"GET http://evil.example/read HTTP/1.1\r\n" + HOST + b"\r\n",
        404,
    ),
    ("a chunk without a size", CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n", 400),
    ("a chunk of 16 digits", CHUNKED + b"1000000000000000\r\nabc\r\n", 400),
    ("a signed chunk", CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n", 400),
    ("a chunk longer than its size", CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", 400),
    ("chunk lines with LF only", CHUNKED + b"3\nabc\n0\n\n", 400),
    ("a chunk extension of 20 KiB", CHUNKED + b"3;" + b"x" * 20_480 + b"\r\nabc\r\n0\r\n\r\n", 400),
    ("a folded trailer", CHUNKED + b"0\r\nT: v\r\n w\r\n\r\n", 400),
    ("trailers of 20 KiB", CHUNKED + b"0\r\n" + b"T: v\r\n" * 3_400 + b"\r\n", 400),
    ("an upgrade with a body", UPGRADE + b"Content-Length: 3\r\n\r\nabc", 400),
    ("an upgrade with more behind it", UPGRADE + b"\r\n\x81\x85abcdefghi", 400),
    ("an upgrade by POST", UPGRADE.replace(b"GET", b"POST") + b"\r\n", 400),
    ("an upgrade", UPGRADE + b"\r\n", 101),
    ("an upgrade without a key", UPGRADE.partition(b"Sec-WebSocket-Key")[0] + b"\r\n", 400),
]


BARE = [
    "65 fields",
    "a header of 20 KiB",
    "length and coding",
    "coding and length",
    "LF only",
    "a folded field",
    "HTTP/9.9",
]
"""What the server alone answers with 200."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server needs asyncio."""
    return "asyncio"


async def test_each_case_of_the_corpus_gets_its_status() -> None:
    app = Echo()
    got: list[tuple[str, int]] = []
    async with served(app) as address:
        for name, payload, _ in CORPUS:
            answer = await exchange(address, payload)
            if b"upgrade" in answer.lower() and status_of(answer) == 101:
                answer = answer.partition(b"\r\n\r\n")[0]
            got.append((name, status_of(answer)))
        # Nobody was hurt: a good client is still served.
        assert status_of(await exchange(address, GET + b"\r\n")) == 200
    assert got == [(name, status) for name, _, status in CORPUS]
    assert "GET /stream" not in app.asked


async def test_the_bare_server_takes_what_the_guard_refuses() -> None:
    """The control: the corpus finds what the guard adds, and not what the server does anyhow."""
    app = Door(Echo(), open_gate(Config(), POLICY))
    server = uvicorn.Server(
        uvicorn.Config(app, http="h11", ws="wsproto", log_config=None, timeout_keep_alive=1)
    )
    differs: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address("127.0.0.1", listener.getsockname()[1])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            for name, payload, status in CORPUS:
                if status not in {200, 404}:
                    got = status_of(await exchange(address, payload)) if name in BARE else status
                    differs += [name] if got == 200 else []
            server.should_exit = True
    assert differs == BARE


async def test_bytes_that_come_one_by_one_mean_the_same() -> None:
    async with served(Echo()) as address:
        for name, payload, status in CORPUS:
            if len(payload) > 300 or status == 101:
                continue
            async with await anyio.connect_tcp(address.host, address.port) as stream:
                try:
                    for byte in payload:
                        await stream.send(bytes([byte]))
                except (anyio.BrokenResourceError, OSError):
                    pass
                answer = await read_answer(stream)
                # An upgrade is answered before what is behind it comes, when that comes alone.
                expected = {status, 101} if b"Upgrade" in payload else {status}
                assert status_of(answer) in expected, name


async def test_requests_in_a_row_on_one_connection_are_answered_in_order() -> None:
    app = Echo()
    async with served(app) as address:
        async with await anyio.connect_tcp(address.host, address.port) as stream:
            bodies = [b"a" * size for size in (1, 1_000, 70_000)]
            await stream.send(
                b"".join(POST + b"Content-Length: %d\r\n\r\n" % len(b) + b for b in bodies[:2])
            )
            first = await read_answer(stream)
            while first.count(b"HTTP/1.1 200") < 2:
                first += await stream.receive()
            await stream.send(POST + b"Content-Length: 70000\r\n\r\n" + bodies[2])
            third = await read_answer(stream)
    assert first.endswith(bodies[1])
    assert third.endswith(bodies[2])
    assert len(app.asked) == 3


async def test_what_comes_before_the_answer_is_held_within_a_bound() -> None:
    """Reading is paused, so the peer can fill the system's buffers and no more."""
    app = Echo()
    sent = 0
    async with served(app) as address:
        async with await anyio.connect_tcp(address.host, address.port) as stream:
            await stream.send(GET.replace(b"/read", b"/read?wait") + b"\r\n")
            with anyio.fail_after(PATIENCE_S):
                await app.entered.wait()
            with anyio.move_on_after(0.5), contextlib.suppress(anyio.BrokenResourceError):
                while sent < 1 << 28:
                    await stream.send(bytes(65_536))
                    sent += 65_536
        app.release.set()
    assert sent < 1 << 25


async def silent(stream: anyio.abc.ByteStream) -> None:
    """Connects and says nothing."""


async def dribbling_header(stream: anyio.abc.ByteStream) -> None:
    await stream.send(GET)
    for _ in range(100):
        await stream.send(b"X: y\r\n")
        await anyio.sleep(0.05)


async def dribbling_body(stream: anyio.abc.ByteStream) -> None:
    await stream.send(POST + b"Content-Length: 100000\r\n\r\n")
    for _ in range(100):
        await stream.send(b"x")
        await anyio.sleep(0.05)


async def idle(stream: anyio.abc.ByteStream) -> None:
    await stream.send(GET + b"\r\n")
    assert status_of(await read_answer(stream)) == 200


async def half_a_header(stream: anyio.abc.ByteStream) -> None:
    await stream.send(b"GET /re")


SLOW: list[tuple[Callable[[anyio.abc.ByteStream], Awaitable[None]], int]] = [
    (silent, 0),
    (half_a_header, 408),
    (dribbling_header, 408),
    (dribbling_body, 408),
    (idle, 0),
]


@pytest.mark.parametrize(("peer", "status"), SLOW)
async def test_a_slow_peer_is_ended_in_time(
    peer: Callable[[anyio.abc.ByteStream], Awaitable[None]], status: int
) -> None:
    async with served(Echo()) as address:
        async with await anyio.connect_tcp(address.host, address.port) as stream:
            async with anyio.create_task_group() as tasks:

                async def act() -> None:
                    with anyio.move_on_after(3):
                        with contextlib.suppress(anyio.BrokenResourceError):
                            await peer(stream)

                if peer is idle:
                    await idle(stream)
                else:
                    tasks.start_soon(act)
                answer = b""
                with anyio.fail_after(PATIENCE_S):
                    try:
                        while True:
                            answer += await stream.receive()
                    except (anyio.EndOfStream, anyio.BrokenResourceError):
                        tasks.cancel_scope.cancel()
    assert status_of(answer) == status


async def test_without_the_limits_slow_peers_stay() -> None:
    """The control: what ends them above is the limits, not the test."""
    config = Config(listen=Address("127.0.0.1", 0), limits=Limits(stop_ms=100))
    async with served(Echo(), config) as address:
        async with await anyio.connect_tcp(address.host, address.port) as stream:
            await half_a_header(stream)
            assert not await ended(stream, 0.9)


async def test_200_slow_connections_are_gone_while_good_ones_go_on() -> None:
    app = Echo()
    gone = 0
    slow: list[anyio.abc.ByteStream] = []
    async with served(app) as address:

        async def watch(stream: anyio.abc.ByteStream) -> None:
            nonlocal gone
            if await ended(stream, 3):
                gone += 1

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                stream = await anyio.connect_tcp(address.host, address.port)
                slow.append(stream)
                await stream.send((b"", b"GET /re", GET, CHUNKED)[number % 4] or b"G")
                tasks.start_soon(watch, stream)
            for _ in range(50):
                assert status_of(await exchange(address, GET + b"\r\n")) == 200
        for stream in slow:
            await stream.aclose()
    assert gone == 200


async def test_many_slow_ones_are_ended_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between them the loop has its turns, in which others are answered."""
    turn = 0
    looked_at: Counter[int] = Counter()
    inspect = GuardedHttp.inspect

    def counted(connection: GuardedHttp, now: float) -> None:
        looked_at[turn] += 1
        inspect(connection, now)

    def turned() -> None:
        nonlocal turn
        turn += 1
        handles[0] = asyncio.get_running_loop().call_soon(turned)

    monkeypatch.setattr(GuardedHttp, "inspect", counted)
    many = 5 * INSPECTED_AT_ONCE
    async with served(Echo()) as address:
        handles = [asyncio.get_running_loop().call_soon(turned)]
        slow = [await anyio.connect_tcp(address.host, address.port) for _ in range(many)]
        for stream in slow:
            assert await ended(stream, PATIENCE_S)
            await stream.aclose()
        handles[0].cancel()
    assert max(looked_at.values()) == INSPECTED_AT_ONCE


async def test_who_does_not_read_an_answer_is_cut_off() -> None:
    app = Echo()
    async with served(app) as address:
        async with await anyio.connect_tcp(address.host, address.port) as stream:
            await stream.send(GET.replace(b"/read", b"/stream") + b"\r\n")
            with anyio.fail_after(PATIENCE_S):
                await app.entered.wait()
            # Nothing is read until the server has given up: what comes then breaks off short.
            with anyio.fail_after(PATIENCE_S):
                await app.streamed.wait()
            taken = 0
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    taken += len(await stream.receive())
    assert taken < 4_000 * 65_536


async def test_who_waits_for_100_continue_is_not_slow() -> None:
    app = Echo()
    async with served(app) as address:
        async with await anyio.connect_tcp(address.host, address.port) as stream:
            await stream.send(POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            assert (await stream.receive()).startswith(b"HTTP/1.1 100")
            await stream.send(b"abc")
            assert (await read_answer(stream)).endswith(b"abc")
