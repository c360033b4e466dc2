"""Calls to workers: real HTTP to a real listener, and to places where nobody answers as one should."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestra.dialects.far_calls import REPLY_BYTES_MAX, FarCall, FarReply
from orchestra.testing.fuzz_answers import FedConnection, answer
from orchestra.transports.far_calls import call_all, exchanged

HERE = "127.0.0.1"


class Worker(BaseHTTPRequestHandler):
    """Answers with what it was sent."""

    def do_GET(self) -> None:
        self._answer(200, b"x" * (2 * REPLY_BYTES_MAX) if self.path == "/long" else b"{}")

    def do_POST(self) -> None:
        self._answer(200, self.rfile.read(int(self.headers["content-length"])))

    def do_DELETE(self) -> None:
        self._answer(204, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """It keeps no log."""


@pytest.fixture
def port() -> Generator[int]:
    server = ThreadingHTTPServer((HERE, 0), Worker)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def test_each_call_gets_its_own_answer(port: int) -> None:
    form = (("task_id", "12"), ("settings", '{"a": "é&="}'))
    got = call_all(
        (
            FarCall(HERE, port, "GET", "/info"),
            FarCall(HERE, port, "POST", "/execute_task", form),
            FarCall(HERE, port, "DELETE", "/kill"),
        )
    )
    sent = b"task_id=12&settings=%7B%22a%22%3A+%22%C3%A9%26%3D%22%7D"
    assert got == (FarReply(200, b"{}"), FarReply(200, sent), FarReply(204, b""))
    assert call_all(()) == ()


def test_a_long_answer_is_cut(port: int) -> None:
    (got,) = call_all((FarCall(HERE, port, "GET", "/long"),))
    assert got is not None
    assert len(got.body) == REPLY_BYTES_MAX
    (longer,) = call_all((FarCall(HERE, port, "GET", "/long", reply_bytes_max=1 << 30),))
    assert longer is not None
    assert len(longer.body) == 2 * REPLY_BYTES_MAX


def test_who_does_not_answer_is_none_and_holds_up_nobody(port: int) -> None:
    with socket.create_server((HERE, 0)) as deaf, socket.create_server((HERE, 0)) as gone:
        silent, closed = deaf.getsockname()[1], gone.getsockname()[1]
        gone.close()
        got = call_all(
            tuple(FarCall(HERE, each, "GET", "/info") for each in (silent, closed, port, 0))
        )
    assert got == (None, None, FarReply(200, b"{}"), None)


@pytest.mark.parametrize("left", [0, 5])
def test_an_answer_that_ends_too_early_is_none(left: int) -> None:
    """Whoever asks would take the rest for the whole: a report that is answered with nothing is taken, a word that is cut is another."""
    whole = answer(b'{"status": 200}')
    call = FarCall(HERE, 1, "GET", "/status_report")
    assert exchanged(FedConnection(whole), call) == FarReply(200, b'{"status": 200}')
    head = whole.index(b"\r\n\r\n") + 4
    assert exchanged(FedConnection(whole[: head + left]), call) is None


def test_an_answer_that_is_longer_than_is_read_is_not_cut() -> None:
    call = FarCall(HERE, 1, "GET", "/", reply_bytes_max=4)
    assert exchanged(FedConnection(answer(b"12345678")), call) == FarReply(200, b"1234")
