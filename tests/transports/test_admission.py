"""Who is let in when there is no room: connections are bounded, and those that have not asked anything make room for those that do."""

from __future__ import annotations

import ssl
from pathlib import Path

import anyio
import anyio.lowlevel
import httpx
import pytest
import trustme

from orchestra.config import Address, Config, Limits
from tests.transports.loopback import (
    PATIENCE_S,
    Echo,
    ended,
    exchange,
    read_answer,
    served,
    status_of,
)

pytestmark = pytest.mark.anyio

FREE = Address("127.0.0.1", 0)
GET = b"GET /read HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server needs asyncio."""
    return "asyncio"


async def test_connections_are_bounded_in_all_and_for_each_address() -> None:
    for limits in (
        Limits(connections_max=5, stop_ms=100),
        Limits(connections_per_address_max=5, stop_ms=100),
    ):
        config = Config(listen=FREE, limits=limits)
        async with served(Echo(), config) as address:
            kept = [await anyio.connect_tcp(address.host, address.port) for _ in range(5)]
            for stream in kept:
                await stream.send(GET + b"\r\n")
                assert status_of(await read_answer(stream)) == 200
            assert status_of(await exchange(address, b"")) == 503
            await kept.pop().aclose()
            with anyio.fail_after(PATIENCE_S):
                while status_of(await exchange(address, GET + b"\r\n")) != 200:
                    await anyio.lowlevel.checkpoint()
            for stream in kept:
                await stream.aclose()


@pytest.mark.parametrize("begun", [b"", GET])
async def test_who_has_not_asked_yet_makes_room_for_who_comes_later(begun: bytes) -> None:
    """Five connections are all there may be: whoever holds them without a whole request keeps nobody out who asks."""
    config = Config(listen=FREE, limits=Limits(connections_max=5, stop_ms=100))
    async with served(Echo(), config) as address:
        kept = await anyio.connect_tcp(address.host, address.port)
        await kept.send(GET + b"\r\n")
        assert status_of(await read_answer(kept)) == 200
        silent = [await anyio.connect_tcp(address.host, address.port) for _ in range(4)]
        for stream in silent:
            await stream.send(begun or b"\r\n")
        for _ in range(5):
            assert status_of(await exchange(address, GET + b"\r\n")) == 200
        assert await ended(silent[0], PATIENCE_S), "the oldest of them has gone"
        await kept.send(GET + b"\r\n")
        assert status_of(await read_answer(kept)) == 200
        for stream in (kept, *silent):
            await stream.aclose()


async def test_tls_connections_are_counted_before_they_shake_hands(
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(tmp_path / "key.pem")
    made.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    few = Limits(connections_max=3, first_byte_ms=60_000, stop_ms=100)
    config = Config(
        listen=FREE,
        tls_cert=str(tmp_path / "cert.pem"),
        tls_key=str(tmp_path / "key.pem"),
        limits=few,
    )
    async with served(Echo(), config) as address:
        kept = [await anyio.connect_tcp(address.host, address.port) for _ in range(3)]
        with anyio.fail_after(PATIENCE_S):
            kept.append(await anyio.connect_tcp(address.host, address.port))
            assert await ended(kept.pop(0), 2), "who has been silent for longest makes room"
        for stream in kept:
            assert not await ended(stream, 0.1)
        for stream in kept:
            await stream.aclose()
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        status = 0
        with anyio.fail_after(PATIENCE_S):
            while status != 200:
                async with httpx.AsyncClient(verify=trusting) as client:
                    try:
                        status = (await client.get(f"https://{address}/health")).status_code
                    except httpx.TransportError:
                        continue
