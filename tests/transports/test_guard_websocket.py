"""Hostile frames against a real server: each case with the one code that closes it."""

from __future__ import annotations

import os

import anyio
import pytest
from wsproto import events

from orchestra.config import Address, Config, Limits
from tests.transports.loopback import PATIENCE_S, Echo, ended, exchange, served, websocket

pytestmark = pytest.mark.anyio

GET = b"GET /read HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server needs asyncio."""
    return "asyncio"


async def test_a_websocket_echoes_and_compression_is_off() -> None:
    offer = (("sec-websocket-extensions", "permessage-deflate"),)
    async with (
        served(Echo()) as address,
        websocket(address, headers=offer) as (peer, accepted),
    ):
        assert isinstance(accepted, events.AcceptConnection)
        assert accepted.extensions == []
        payload = os.urandom(300_000)
        await peer.send(events.BytesMessage(data=payload))
        got = b""
        while len(got) < len(payload):
            event = await peer.event()
            assert isinstance(event, events.BytesMessage)
            got += event.data
        assert got == payload
        for number in range(5_000):
            await peer.send(events.BytesMessage(data=b"%d" % number))
            event = await peer.event()
            assert event.data == b"%d" % number


def frame(opcode: int, payload: bytes, *, last: bool) -> bytes:
    """A masked client frame (mask 0) with a payload under 126 bytes."""
    return bytes([opcode | (0x80 if last else 0), 0x80 | len(payload)]) + bytes(4) + payload


FRAMES: list[tuple[str, bytes, int]] = [
    ("a message that is too long", b"\x82\xff" + (70_000).to_bytes(8, "big") + bytes(70_004), 1009),
    (
        "a message too long in pieces",
        frame(2, bytes(125), last=False) + frame(0, bytes(125), last=False) * 60,
        1009,
    ),
    (
        "too many fragments",
        frame(2, bytes(70), last=False) + frame(0, bytes(70), last=False) * 65,
        1008,
    ),
    ("fragments of one byte", frame(2, b"x", last=False) + frame(0, b"x", last=False) * 9, 1008),
    ("a flood of pings", frame(9, b"x", last=True) * 30, 1008),
    ("a reserved bit", b"\xc2\x80" + bytes(4), 1002),
    ("an unknown opcode", frame(3, b"", last=True), 1002),
    ("an unmasked frame", b"\x82\x01x", 1002),
    ("a length longer than needed", b"\x82\xff" + (9).to_bytes(8, "big") + bytes(13), 1002),
    ("a ping in two frames", frame(9, b"x", last=False), 1002),
    ("a continuation of nothing", frame(0, b"x", last=True), 1002),
    ("text that is not UTF-8", frame(1, b"\xff\xff", last=True), 1007),
    ("a message that never ends", frame(2, bytes(100), last=False), 1008),
    ("a proper end", frame(8, (1000).to_bytes(2, "big"), last=True), 1000),
]


@pytest.mark.parametrize(("name", "payload", "code"), FRAMES, ids=[row[0] for row in FRAMES])
async def test_bad_frames_close_the_websocket_with_their_code(
    name: str, payload: bytes, code: int
) -> None:
    limits = Limits(message_bytes_max=6_000, message_ms=200, first_byte_ms=200, stop_ms=100)
    config = Config(listen=Address("127.0.0.1", 0), limits=limits)
    app = Echo()
    async with served(app, config) as address:
        async with websocket(address) as (peer, accepted):
            assert isinstance(accepted, events.AcceptConnection)
            await peer.raw(payload)
            event = await peer.event()
            while not isinstance(event, events.CloseConnection):
                event = await peer.event()
            assert event.code == code
        async with websocket(address) as (_, accepted):
            assert isinstance(accepted, events.AcceptConnection)


async def test_who_goes_on_sending_after_a_violation_still_reads_why_it_was_closed() -> None:
    async with served(Echo()) as address, websocket(address) as (peer, _):
        # More than the system holds on the way: were the connection closed at once, this would be reset.
        with anyio.fail_after(PATIENCE_S):
            await peer.raw(frame(3, b"", last=True) + bytes(16 << 20))
        event = await peer.event()
        assert isinstance(event, events.CloseConnection)
        assert event.code == 1002
        assert await ended(peer.stream, PATIENCE_S)


async def test_who_does_not_read_a_websocket_is_cut_off() -> None:
    app = Echo()
    async with served(app) as address, websocket(address) as (peer, _):
        await peer.send(events.TextMessage(data="flood"))
        with anyio.fail_after(PATIENCE_S):
            await app.entered.wait()
        with anyio.fail_after(PATIENCE_S):
            while not app.closed:
                await exchange(address, GET)
    assert app.closed
