"""Slow sockets: peers that connect and say nothing, or say it too slowly, while good clients go on."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Sequence

import anyio
import attrs
import httpx

from orchestra.testing.fuzz import FuzzBroken
from orchestra.testing.hostile.corpus import GET, POST

BEGINNINGS = (
    b"",
    b"GET /api",
    GET + b"X-A: b\r\n",
    POST + b"Content-Length: 100000\r\n\r\n{",
    POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
)
"""Nothing; half a request line; a header without an end; a body that does not go on, of both kinds."""

PER_ADDRESS = 400
"""Sockets from one address of the loopback net, below what the server takes of one; the next come from the next address."""

GONE_S = 15.0
"""What is promised: the longest limit is 10 s, and the server looks once a second."""

WAIT_S = 300.0
"""On a machine that is busy with other things everything takes longer; beyond this it is told as a failure."""

LOOK_S = 0.05


@attrs.frozen(slots=True)
class Slowed:
    """What came of it: when the last slow socket was gone, and what good clients waited for their answers, in seconds."""

    sockets: int
    gone_s: float
    good: int
    before_p99_s: float
    during_p99_s: float
    during_worst_s: float


async def slow(port: int, *, sockets: int, clients: int) -> Slowed:
    """
    Open so many slow sockets, and ask as so many good clients until the last of them is gone.

    Raises:
        FuzzBroken: A good client was refused.
        TimeoutError: Some are still there after `WAIT_S`.
    """
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    base = f"http://127.0.0.1:{port}/api/v1"
    left: list[socket.socket] = []
    async with httpx.AsyncClient(base_url=base, limits=limits, timeout=WAIT_S) as http:
        before: list[float] = []
        for _ in range(3):
            before.extend(await _round(http, clients))
        began = time.monotonic()
        during: list[float] = []
        try:
            for number in range(sockets):
                left.append(_slow_one(port, number))  # noqa: PERF401 - what was opened before an error is closed
            with anyio.fail_after(WAIT_S):
                while left:
                    during.extend(await _round(http, clients))
                    left = [each for each in left if not is_gone(each)]
                    await anyio.sleep(LOOK_S)
        finally:
            for each in left:
                each.close()
    gone_s = time.monotonic() - began
    return Slowed(sockets, gone_s, len(during), p99(before), p99(during), max(during))


def _slow_one(port: int, number: int) -> socket.socket:
    source = f"127.0.0.{2 + number // PER_ADDRESS}"
    opened = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
    opened.sendall(BEGINNINGS[number % len(BEGINNINGS)])
    opened.setblocking(False)
    return opened


async def _round(http: httpx.AsyncClient, clients: int) -> list[float]:
    """Each good client asks once, all at the same time."""
    waited: list[float] = []

    async def ask() -> None:
        asked = time.monotonic()
        status = (await http.get("/health")).status_code
        waited.append(time.monotonic() - asked)
        if status != 200:  # noqa: PLR2004 - as the wire has it
            raise FuzzBroken(f"a good client was answered with {status}")

    async with anyio.create_task_group() as group:
        for _ in range(clients):
            group.start_soon(ask)
    return waited


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


def p99(waits: Sequence[float]) -> float:
    """The time that one of a hundred exceeds; 0 of nothing."""
    ordered = sorted(waits)
    return ordered[math.ceil(len(ordered) * 0.99) - 1] if ordered else 0.0
