"""A way to one far end: real sockets, and far ends that answer late, badly, for ever, or not at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import anyio
import pytest

from orchestra.dialects.far_calls import FarReply, Silence
from orchestra.testing.free_port import free_port
from orchestra.transports.far_line import BODY_BYTES_MAX, HttpLine

pytestmark = pytest.mark.anyio

HERE = "127.0.0.1"
OK = b"HTTP/1.0 200 ok\r\n\r\n"


@contextmanager
def far_end(talk: Callable[[socket.socket], None]) -> Generator[tuple[int, list[bytes]]]:
    """Listens at a port, reads a request's head, and then talks as the test wants."""
    heads: list[bytes] = []
    listener = socket.create_server((HERE, 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(4_096)
                heads.append(head)
                try:
                    talk(connection)
                except OSError:
                    # Who asked has hung up.
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], heads
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)
        assert not thread.is_alive()


async def called(
    port: int, call_ms: int = 20_000, headers: tuple[tuple[str, str], ...] = ()
) -> FarReply | Silence:
    async with HttpLine(HERE, port, headers, call_ms) as line:
        return await line.call("/status_request?user_id=&project_id=")


async def test_an_answer() -> None:
    with far_end(lambda line: line.sendall(OK + b'"ready"')) as (port, heads):
        got = await called(port, headers=(("x-tango-secret", "s" * 16),))
        assert got == FarReply(200, b'"ready"')
        (head,) = heads
        assert head.startswith(b"GET /status_request?user_id=&project_id= HTTP/1.1\r\n")
        assert b"x-tango-secret: " + b"s" * 16 in head.lower()
        assert f"host: {HERE}:{port}".encode() in head.lower()


async def test_of_a_long_answer_the_beginning_counts() -> None:
    with far_end(lambda line: line.sendall(OK + b"x" * 10_000_000)) as (port, _):
        assert await called(port) == FarReply(200, b"x" * BODY_BYTES_MAX)


@pytest.mark.parametrize(
    "said", [b"", b"banana", b"HTTP/1.0 two hundred\r\n\r\n", b"HTTP/1.0 200 ok\r\ncontent-le"]
)
async def test_what_is_no_http(said: bytes) -> None:
    with far_end(lambda line: line.sendall(said)) as (port, _):
        assert await called(port) is Silence.UNANSWERED


async def test_nobody_listens() -> None:
    assert await called(free_port()) is Silence.NOBODY
    line = HttpLine("no-such-host.invalid", 80, (), 20_000)
    async with line:
        assert await line.call("/") is Silence.NOBODY
    assert await line.call("/") is Silence.NOBODY


async def test_a_far_end_that_is_silent_or_never_done_has_its_time_in_all() -> None:
    over = threading.Event()

    def dribbles(line: socket.socket) -> None:
        line.sendall(OK)
        while not over.wait(0.02):
            line.sendall(b"x")

    def is_silent(_: socket.socket) -> None:
        over.wait(30)

    for talk in (is_silent, dribbles):
        over.clear()
        with far_end(talk) as (port, _):
            with anyio.fail_after(20):
                assert await called(port, 200) is Silence.UNANSWERED
            over.set()


async def test_no_proxy_of_the_environment_stands_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://{HERE}:{free_port()}")
    with far_end(lambda line: line.sendall(OK + b"ready")) as (port, _):
        assert await called(port) == FarReply(200, b"ready")
