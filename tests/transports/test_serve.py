"""Starting and stopping a real server: addresses, TLS, proxies, signals, and answers in the making."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import attrs
import httpx
import pytest
import trustme

from orchestra.config import Address, Config, Limits
from orchestra.dialects.wire import Role
from orchestra.errors import Conflict, Defect, Malformed, Unavailable
from orchestra.transports.auth import LOCAL, open_gate
from orchestra.transports.door import Door
from orchestra.transports.serve import serve
from orchestra.transports.tokens import read_plain_tokens
from tests.transports.loopback import (
    BRISK,
    PATIENCE_S,
    POLICY,
    Echo,
    ended,
    exchange,
    read_answer,
    served,
    status_of,
    websocket,
)

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
FREE = Address("127.0.0.1", 0)
GET = b"GET /read HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
WAIT = GET.replace(b"/read", b"/read?wait")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server needs asyncio."""
    return "asyncio"


async def test_a_server_tells_its_real_address_and_no_more_of_itself_than_needed() -> None:
    async with served(Echo()) as address:
        assert address.port > 0
        async with httpx.AsyncClient(base_url=f"http://{address}") as client:
            answer = await client.get("/read")
    assert answer.status_code == 200
    assert "server" not in answer.headers
    assert "date" in answer.headers


async def test_a_stop_lets_answers_finish_and_takes_no_more() -> None:
    app = Echo()
    door = Door(app, open_gate(Config(), POLICY))
    config = Config(listen=FREE, limits=Limits(stop_ms=3_000))
    stop, up = anyio.Event(), anyio.Event()
    found: list[Address] = []

    def ready(address: Address) -> None:
        found.append(address)
        up.set()

    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            await serve(door, config, ready=ready, stop=stop)
            found.clear()

        tasks.start_soon(run)
        with anyio.fail_after(PATIENCE_S):
            await up.wait()
            address = found[0]
            idle = await anyio.connect_tcp(address.host, address.port)
            await idle.send(GET)
            await read_answer(idle)
            busy = await anyio.connect_tcp(address.host, address.port)
            await busy.send(WAIT)
            await app.entered.wait()
            async with websocket(address) as (peer, _):
                stop.set()
                assert (await peer.event()).code == 1012
            assert await ended(idle, 2)
            with pytest.raises(OSError, match=r".+"):
                await anyio.connect_tcp(address.host, address.port)
            app.release.set()
            assert status_of(await read_answer(busy)) == 200
            assert await ended(busy, 2)
    assert found == []


async def test_a_stop_cuts_what_does_not_finish_in_time() -> None:
    app = Echo()
    config = Config(listen=FREE, limits=Limits(stop_ms=100))
    with anyio.fail_after(PATIENCE_S):
        async with served(app, config) as address:
            busy = await anyio.connect_tcp(address.host, address.port)
            await busy.send(WAIT)
            await app.entered.wait()
        assert await ended(busy, 1)


async def test_a_stop_tells_the_app_to_end_its_streams() -> None:
    app = Echo()
    door = Door(app, open_gate(Config(), POLICY))
    stop, up = anyio.Event(), anyio.Event()
    busy: list[anyio.abc.SocketStream] = []
    found: list[Address] = []

    def ready(address: Address) -> None:
        found.append(address)
        up.set()

    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            await up.wait()
            busy.append(await anyio.connect_tcp(found[0].host, found[0].port))
            await busy[0].send(WAIT)
            await app.entered.wait()
            stop.set()

        tasks.start_soon(ask)
        with anyio.fail_after(PATIENCE_S):
            await serve(
                door,
                Config(listen=FREE, limits=Limits(stop_ms=60_000)),
                ready=ready,
                stopping=app.release.set,
                stop=stop,
            )
    assert status_of(await read_answer(busy[0])) == 200
    await busy[0].aclose()


async def test_when_cancelled_nothing_of_the_server_is_left() -> None:
    app = Echo()
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            up = anyio.Event()
            found: list[Address] = []

            def ready(address: Address) -> None:
                found.append(address)
                up.set()

            async def run() -> None:
                door = Door(app, open_gate(Config(), POLICY))
                await serve(door, Config(listen=FREE), ready=ready)

            tasks.start_soon(run)
            await up.wait()
            busy = await anyio.connect_tcp("127.0.0.1", found[0].port)
            await busy.send(WAIT)
            await app.entered.wait()
            tasks.cancel_scope.cancel()
        assert await ended(busy, 1)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", found[0].port))


async def test_a_taken_port_is_a_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = Config(listen=Address("127.0.0.1", taken.getsockname()[1]))
        door = Door(Echo(), open_gate(config, POLICY))
        with pytest.raises(Conflict, match="something else listens"):
            await serve(door, config)


async def test_without_a_door_or_in_the_open_nothing_is_served(tmp_path: Path) -> None:
    with pytest.raises(Defect, match="behind a door"):
        await serve(Echo(), Config(listen=FREE))
    door = Door(Echo(), open_gate(Config(), POLICY))
    everywhere = Address("0.0.0.0", 0)  # noqa: S104 - refusing it is what is tested
    with pytest.raises(Malformed, match="others can reach"):
        await serve(door, Config(listen=FREE, data=str(tmp_path / "x")), listen=everywhere)
    with pytest.raises(Malformed, match="others can reach"):
        await serve(door, Config(listen=everywhere, data=str(tmp_path / "x")))


async def test_an_app_that_fails_to_start_is_not_served() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    door = Door(broken, open_gate(Config(), POLICY))
    with pytest.raises(Unavailable):
        await serve(door, Config(listen=FREE))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def secured(folder: Path, authority: trustme.CA) -> Config:
    issued = authority.issue_cert("127.0.0.1", "localhost")
    cert, key = folder / "cert.pem", folder / "key.pem"
    issued.private_key_pem.write_to_path(key)
    for blob in issued.cert_chain_pems:
        blob.write_to_path(cert, append=True)
    return Config(
        data=str(folder / "farm.db"),
        listen=FREE,
        tls_cert=str(cert),
        tls_key=str(key),
        require_token=True,
        limits=BRISK,
    )


async def test_tls_serves_who_trusts_it_and_bounds_who_never_shakes_hands(
    tmp_path: Path, authority: trustme.CA
) -> None:
    config = secured(tmp_path, authority)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with served(Echo(), config) as address:
        token = read_plain_tokens(config.token_path)[Role.OPERATOR].reveal()
        async with httpx.AsyncClient(verify=trusting, base_url=f"https://{address}") as client:
            assert (await client.get("/read")).status_code == 401
            assert (await client.get("/health")).status_code == 200
            client.headers["authorization"] = f"Bearer {token}"
            big = os.urandom(300_000)
            answer = await client.post("/change", content=big)
            assert answer.content == big
        async with httpx.AsyncClient(base_url=f"https://{address}") as client:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get("/health")
        silent = await anyio.connect_tcp(address.host, address.port)
        plain = await anyio.connect_tcp(address.host, address.port)
        await plain.send(GET)
        assert await ended(silent, 2)
        assert await ended(plain, 2)


async def test_tls_below_1_2_is_refused(tmp_path: Path, authority: trustme.CA) -> None:
    config = secured(tmp_path, authority)
    old = ssl.create_default_context()
    authority.configure_trust(old)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1 "):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1 "):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with served(Echo(), config) as address:
        with pytest.raises((ssl.SSLError, anyio.BrokenResourceError, OSError)):
            await anyio.connect_tcp(
                address.host, address.port, tls=True, ssl_context=old, tls_hostname="127.0.0.1"
            )


@pytest.mark.parametrize("files", [("missing", "missing"), ("key.pem", "cert.pem"), ("x", "x")])
async def test_unfit_tls_files_are_a_clear_error(
    tmp_path: Path, authority: trustme.CA, files: tuple[str, str]
) -> None:
    config = secured(tmp_path, authority)
    (tmp_path / "x").write_text("nonsense")
    config = attrs.evolve(
        config, tls_cert=str(tmp_path / files[0]), tls_key=str(tmp_path / files[1])
    )
    door = Door(Echo(), open_gate(config, POLICY))
    with pytest.raises(Malformed) as caught:
        await serve(door, config)
    assert caught.value.where.startswith("tls_cert")


@pytest.mark.parametrize(("behind", "told"), [(True, "192.0.2.7"), (False, "127.0.0.1")])
async def test_a_forwarded_address_counts_only_behind_a_proxy(
    tmp_path: Path, behind: bool, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config(
        data=str(tmp_path / "d"), listen=FREE, behind_proxy=behind, require_token=True, limits=BRISK
    )
    with caplog.at_level("INFO", logger="orchestra.access"):
        async with served(Echo(), config) as address:
            answer = await exchange(
                address,
                b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n",
            )
    assert status_of(answer) == 200
    assert [r.getMessage().split()[0] for r in caplog.records if r.name == "orchestra.access"] == [
        told
    ]


async def test_over_the_wire_foreign_pages_and_hosts_are_refused() -> None:
    app = Echo()
    async with served(app) as address:
        for field, status in (
            (b"Host: localhost", 200),
            (b"Host: rebound.example", 403),
            (b"Host: localhost\r\nOrigin: http://evil.example", 403),
        ):
            payload = b"POST /change HTTP/1.1\r\n" + field + b"\r\nContent-Length: 0\r\n\r\n"
            assert status_of(await exchange(address, payload)) == status
        async with websocket(address, headers=(("origin", "http://evil.example"),)) as (_, event):
            assert event.status_code == 403
        async with websocket(address, host="rebound.example") as (_, event):
            assert event.status_code == 403
    assert app.principals == [LOCAL]


PROGRAM = """
import sys, anyio
from orchestra.config import Address, Config, Limits
from orchestra.transports.auth import open_gate
from orchestra.transports.door import Door
from orchestra.transports.serve import serve
from tests.transports.loopback import POLICY, Echo

config = Config(listen=Address("127.0.0.1", 0), limits=Limits(stop_ms=int(sys.argv[1])))
app = Echo()

async def main():
    def ready(address):
        print(address.port, flush=True)
    await serve(Door(app, open_gate(config, POLICY)), config, ready=ready, signals=True)
    print("stopped", flush=True)

anyio.run(main)
"""


@pytest.mark.parametrize(
    ("numbers", "stop_ms"),
    [
        ((signal.SIGTERM,), 100),
        ((signal.SIGINT,), 100),
        ((signal.SIGTERM, signal.SIGTERM), 60_000),
        ((signal.SIGINT, signal.SIGINT), 60_000),
    ],
)
async def test_signals_stop_the_program_within_a_bound(
    numbers: tuple[signal.Signals, ...], stop_ms: int
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(stop_ms)]
    with anyio.fail_after(PATIENCE_S):
        async with await anyio.open_process(command, cwd=ROOT, stderr=None) as process:
            assert process.stdout is not None
            port = int(await process.stdout.receive())
            busy = await anyio.connect_tcp("127.0.0.1", port)
            await busy.send(WAIT)
            ready = await exchange(Address("127.0.0.1", port), GET)
            assert status_of(ready) == 200
            for number in numbers:
                process.send_signal(number)
                if number is not numbers[-1] or len(numbers) > 1:
                    await _until_refused(port)
            assert await ended(busy, PATIENCE_S)
            assert await process.wait() == 0
            assert (await process.stdout.receive()).strip() == b"stopped"


async def _until_refused(port: int) -> None:
    """The first signal was taken once nobody listens any more."""
    while True:
        try:
            stream = await anyio.connect_tcp("127.0.0.1", port)
        except OSError:
            return
        await stream.aclose()
