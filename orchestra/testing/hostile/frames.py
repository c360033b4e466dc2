"""
Hostile websockets against a real server: each is ended with its code, and the server's memory stays where it was.

The measure: by how much the memory of the server's process (RSS) grows, from before an attack to its largest while the attack lasts.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable

import anyio
import anyio.abc
import attrs
import psutil
from wsproto import ConnectionType, WSConnection, events
from wsproto.utilities import RemoteProtocolError

from orchestra.dialects.native import CHANNEL_PATH
from orchestra.testing.fuzz import FuzzBroken
from orchestra.testing.fuzz_frames import BINARY, CLOSE, CONTINUED, FINAL, PING, TEXT, Frame

GROWTH_BYTES_MAX = 8 * 1024 * 1024
"""What the server may grow by under one attack."""

END_S = 120.0
"""The slowest end is that of who does not read: two windows of 5 s. On a busy machine it is waited for longer."""

SAMPLE_S = 0.01
ATTACKERS = 2
"""So many peers do the same at the same time: each may fill a message of 1 MiB, and what waits to be read, before it is ended."""

BOMB_BYTES = 64 * 1024 * 1024
ASK = b'{"id": 1, "ask": "GetOverview", "body": {}}'
PIECE_BYTES = 65_536
OFFER = [(b"sec-websocket-extensions", b"permessage-deflate; client_max_window_bits")]
CUT = 1_006
"""Ended without a word (RFC 6455, section 7.4.1)."""


@attrs.frozen(slots=True)
class Attack:
    """
    What a peer sends once it is let in.

    Args:
        name: What it tries.
        pieces: The bytes, one piece after the other; the peer stops when it can send no more.
        codes: One of these ends the websocket. Who still sends when the server closes may lose its last word to a reset, and sees a cut.
        reads: Whether it reads what it is answered with.
    """

    name: str
    pieces: Callable[[], AsyncIterator[bytes]]
    codes: frozenset[int]
    reads: bool = True


async def _endless_message() -> AsyncIterator[bytes]:
    yield Frame(BINARY, bytes(PIECE_BYTES)).encode()
    for _ in range(100_000):
        yield Frame(CONTINUED, bytes(PIECE_BYTES)).encode()


async def _endless_frame() -> AsyncIterator[bytes]:
    yield Frame(FINAL | BINARY, length=1 << 40).encode()
    for _ in range(100_000):
        yield bytes(PIECE_BYTES)


async def _crumbs() -> AsyncIterator[bytes]:
    yield Frame(TEXT, b"x").encode()
    for _ in range(10_000):
        yield Frame(CONTINUED, b"x").encode() * 100


async def _pings() -> AsyncIterator[bytes]:
    for _ in range(10_000):
        yield Frame(FINAL | PING, bytes(125)).encode() * 100


async def _reserved() -> AsyncIterator[bytes]:
    yield Frame(FINAL | 0x20 | BINARY, b"x").encode()


async def _bomb() -> AsyncIterator[bytes]:
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    small = packed.compress(bytes(BOMB_BYTES)) + packed.flush(zlib.Z_SYNC_FLUSH)[:-4]
    yield Frame(FINAL | 0x40 | BINARY, small).encode()


async def _unread() -> AsyncIterator[bytes]:
    for _ in range(100_000):
        yield Frame(FINAL | TEXT, ASK).encode() * 500


async def _goodbye() -> AsyncIterator[bytes]:
    yield Frame(FINAL | TEXT, ASK).encode() + Frame(FINAL | CLOSE, b"\x03\xe8").encode()


WARMING = Attack("a question, and a proper end", _goodbye, frozenset({1_000}))
"""What a server loads with its first websocket is not what an attack costs it."""

ATTACKS: tuple[Attack, ...] = (
    Attack("a message that never ends", _endless_message, frozenset({1_009, CUT})),
    Attack("a frame of 1 TiB", _endless_frame, frozenset({1_009, CUT})),
    Attack("fragments of one byte", _crumbs, frozenset({1_008, CUT})),
    Attack("a flood of pings", _pings, frozenset({1_008, CUT})),
    Attack("a reserved bit", _reserved, frozenset({1_002})),
    Attack("64 MiB of zeroes, deflated", _bomb, frozenset({1_002})),
    Attack("questions, and nobody reads the answers", _unread, frozenset({CUT}), reads=False),
)


async def attack(port: int, pid: int, tried: Attack, *, peers: int = ATTACKERS) -> int:
    """
    So many peers do it at once. Returns by how many bytes the server's memory grew.

    Raises:
        FuzzBroken: The websocket ended with another code, or memory grew beyond `GROWTH_BYTES_MAX`.
        TimeoutError: It did not end.
    """
    _check(WARMING, await _acted(port, WARMING, ATTACKERS), ATTACKERS)
    process = psutil.Process(pid)
    codes: list[int] = []
    before = most = process.memory_info().rss

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, process.memory_info().rss)
            await anyio.sleep(SAMPLE_S)

    with anyio.fail_after(END_S):
        async with anyio.create_task_group() as watching:
            watching.start_soon(watch)
            codes = await _acted(port, tried, peers)
            watching.cancel_scope.cancel()
    _check(tried, codes, peers)
    if most - before > GROWTH_BYTES_MAX:
        raise FuzzBroken(f"{tried.name}: the server grew by {most - before:,} bytes")
    return most - before


def _check(tried: Attack, codes: list[int], peers: int) -> None:
    if not set(codes) <= tried.codes or len(codes) != peers:
        raise FuzzBroken(f"{tried.name}: ended with {codes}, planned is {sorted(tried.codes)}")


async def _acted(port: int, tried: Attack, peers: int) -> list[int]:
    codes: list[int] = []
    async with anyio.create_task_group() as group:
        for _ in range(peers):
            group.start_soon(_act, port, tried, codes)
    return codes


async def _act(port: int, tried: Attack, codes: list[int]) -> None:
    """One peer, from its upgrade to its end."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        wire = WSConnection(ConnectionType.CLIENT)
        target = events.Request(f"127.0.0.1:{port}", CHANNEL_PATH, extra_headers=OFFER)
        await stream.send(wire.send(target))
        if tried.reads:
            async with anyio.create_task_group() as group:
                let_in = anyio.Event()
                group.start_soon(_speak, stream, tried, let_in)
                codes.append(await _listen(stream, wire, let_in))
                group.cancel_scope.cancel()
        else:
            let_in = anyio.Event()
            let_in.set()
            await stream.receive()  # the answer to the upgrade, and nothing after it
            await _speak(stream, tried, let_in)
            codes.append(CUT)


async def _speak(stream: anyio.abc.ByteStream, tried: Attack, let_in: anyio.Event) -> None:
    await let_in.wait()
    try:
        async for piece in tried.pieces():
            await stream.send(piece)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return  # the server has ended it
    if not tried.reads:
        raise FuzzBroken(f"{tried.name}: the server took everything")


async def _listen(stream: anyio.abc.ByteStream, wire: WSConnection, let_in: anyio.Event) -> int:
    """The code that ends it."""
    while True:
        for event in wire.events():
            if isinstance(event, events.AcceptConnection):
                if event.extensions:
                    raise FuzzBroken("compression was agreed on")
                let_in.set()
            elif isinstance(event, events.CloseConnection):
                return int(event.code)
        try:
            wire.receive_data(await stream.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError, RemoteProtocolError):
            return CUT
