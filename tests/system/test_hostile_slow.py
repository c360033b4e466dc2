"""Slow sockets against a real server under its usual limits: they are gone in time, and good clients never notice."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import anyio
import httpx
import pytest

from tests.system.farm import open_farm

pytestmark = [pytest.mark.anyio, pytest.mark.system, pytest.mark.slow]

SLOW = 200
GONE_S = 15.0
"""What is promised: the longest limit is 10 s, and the server looks once a second."""

LATENCIES = 100
"""So many of the slowest answers to good clients are added: on a machine that is busy with other things both take longer."""

HEAD = b"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n"
BEGINNINGS = (
    b"",
    b"GET /api",
    HEAD + b"X-A: b\r\n",
    HEAD + b"Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{",
    HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
)
"""Nothing; half a request line; a header without an end; a body that does not go on, of both kinds."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server needs asyncio."""
    return "asyncio"


async def test_200_slow_sockets_are_gone_in_time_and_good_clients_go_on(tmp_path: Path) -> None:
    async with open_farm(tmp_path) as farm:
        server = await farm.serve()
        left = [socket.create_connection(("127.0.0.1", farm.port)) for _ in range(SLOW)]
        try:
            for number, opened in enumerate(left):
                opened.sendall(BEGINNINGS[number % len(BEGINNINGS)])
                opened.setblocking(False)
            began = time.monotonic()
            worst_s = 0.0
            async with httpx.AsyncClient(base_url=farm.url() + "/api/v1") as http:
                with anyio.fail_after(120):
                    while left:
                        asked = time.monotonic()
                        assert (await http.get("/overview")).status_code == 200
                        worst_s = max(worst_s, time.monotonic() - asked)
                        left = [opened for opened in left if not is_gone(opened)]
                        await anyio.sleep(0.05)
            taken_s = time.monotonic() - began
        finally:
            for opened in left:
                opened.close()
        server.check()
    assert taken_s <= GONE_S + LATENCIES * worst_s
    assert taken_s > 2, "nobody waited for the limits, so they were not what ended the sockets"


def is_gone(opened: socket.socket) -> bool:
    """Whether the server has ended this connection; then this end is closed too."""
    try:
        while opened.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    opened.close()
    return True
