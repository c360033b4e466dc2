"""Slow sockets: peers that connect and say nothing, or say it too slowly, while good clients go on."""

from __future__ import annotations

import math
import re
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from functools import partial

import anyio
import anyio.abc
import anyio.to_thread
import attrs

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

WAITS_LONGER_MAX = 2.0
"""What is promised: the wait that one good answer of a hundred exceeds is at most so many times what it was before."""

WATCHED_S = 60.0
"""A slow socket is watched so long: whoever is there after four times the bound stays."""

ANSWER_S = 300.0
"""A good client waits so long for one answer, for on a busy machine everything takes longer; beyond this it is told as a failure."""

REST_S = 0.05
"""Between two rounds of the good clients, and two looks at whether the watch is to end."""

WARM_ROUNDS = 2
"""Not counted: what a server and a connection do once is not what an answer takes."""

CALM_S = 10.0
"""Good clients are asked so long before the attack: about as long as during it."""

HEALTH = GET + b"\r\n"

_ANSWER = re.compile(
    rb"HTTP/1\.1 (\d{3}) .*?\r\ncontent-length: (\d+)\b.*?\r\n\r\n", re.DOTALL | re.IGNORECASE
)
"""The head of an answer to its end, its status and the length of its body."""


@attrs.frozen(slots=True)
class Watched:
    """
    What became of slow sockets, all times in seconds.

    Args:
        opened_s: What it took to open all of them.
        gone_s: How long the one that lived longest was there, from the call that opened it: the server's queue counts too.
        left: How many were still there when the watch ended.
    """

    opened_s: float
    gone_s: float
    left: int


@attrs.frozen(slots=True)
class Slowed:
    """What came of it: what became of the slow sockets, and what good clients waited for their answers, in seconds."""

    sockets: int
    watched: Watched
    good: int
    before_p99_s: float
    during_p99_s: float
    during_worst_s: float

    def broken(self) -> tuple[str, ...]:
        """What is promised and was not kept; empty when all was."""
        told: list[str] = []
        if self.watched.left:
            told.append(f"{self.watched.left:,} of {self.sockets:,} slow sockets were not ended")
        if self.watched.gone_s > GONE_S:
            told.append(
                f"a slow socket was there for {self.watched.gone_s:.1f} s, the bound is {GONE_S:g} s"
            )
        if self.during_p99_s > WAITS_LONGER_MAX * self.before_p99_s:
            told.append(
                f"p99 of good clients was {self.during_p99_s * 1_000:,.1f} ms, more than {WAITS_LONGER_MAX:g} times"
                f" the {self.before_p99_s * 1_000:,.1f} ms before"
            )
        return tuple(told)


async def slow(
    port: int, *, sockets: int, clients: int, calm_s: float = CALM_S, watched_s: float = WATCHED_S
) -> Slowed:
    """
    Ask as so many good clients for ``calm_s``; then open so many slow sockets, and go on until the last is gone, or for ``watched_s``.

    Raises:
        FuzzBroken: A good client was refused, or its connection ended.
        TimeoutError: A good client had no answer within `ANSWER_S`.
    """
    async with GoodClients(port, clients) as good:
        for _ in range(WARM_ROUNDS):
            await good.ask()
        before: list[float] = []
        calm_until = time.monotonic() + calm_s
        while time.monotonic() < calm_until:
            before.extend(await good.ask())
        during: list[float] = []
        found: list[Watched] = []
        over = threading.Event()
        refused: list[FuzzBroken | TimeoutError] = []

        async def attack() -> None:
            watch = partial(_watch, port, sockets, watched_s, over)
            found.append(await anyio.to_thread.run_sync(watch))

        async with anyio.create_task_group() as group:
            group.start_soon(attack)
            try:
                while not found:
                    during.extend(await good.ask())
            except (FuzzBroken, TimeoutError) as error:
                refused.append(error)
            finally:
                over.set()
        if refused:
            raise refused[0]
    return Slowed(sockets, found[0], len(during), p99(before), p99(during), max(during))


def _watch(port: int, sockets: int, watched_s: float, over: threading.Event) -> Watched:
    """
    Open slow sockets and see when the server ends each. In a thread, so that nobody's waiting is measured with theirs.

    Only one with data to read, or that has ended, costs anything here.
    """
    began = time.monotonic()
    began_s: dict[socket.socket, float] = {}
    longest_s = 0.0
    with selectors.DefaultSelector() as there:
        try:
            for number in range(sockets):
                since = time.monotonic()
                opened = _slow_one(port, number)
                began_s[opened] = since
                there.register(opened, selectors.EVENT_READ)
            opened_s = time.monotonic() - began
            end = time.monotonic() + watched_s
            while began_s and time.monotonic() < end and not over.is_set():
                for key, _ in there.select(REST_S):
                    each = key.fileobj
                    if isinstance(each, socket.socket) and is_gone(each):
                        there.unregister(each)
                        each.close()
                        longest_s = max(longest_s, time.monotonic() - began_s.pop(each))
            now = time.monotonic()
            longest_s = max(longest_s, *(now - since for since in began_s.values()), 0.0)
            return Watched(opened_s, longest_s, len(began_s))
        finally:
            for each in began_s:
                each.close()


def _slow_one(port: int, number: int) -> socket.socket:
    source = f"127.0.0.{2 + number // PER_ADDRESS}"
    opened = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
    opened.sendall(BEGINNINGS[number % len(BEGINNINGS)])
    opened.setblocking(False)
    return opened


def is_gone(opened: socket.socket) -> bool:
    """Whether the server has ended this connection. What it says before is dropped."""
    try:
        while opened.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


class GoodClients:
    """
    So many clients of the server on this port, each with a connection that it keeps.

    They write and read bytes and no more: a client that takes longer for an answer than the server would be what is measured.
    """

    def __init__(self, port: int, clients: int) -> None:
        self._port = port
        self._clients = clients
        self._streams: list[anyio.abc.ByteStream] = []

    async def __aenter__(self) -> GoodClients:
        for _ in range(self._clients):
            self._streams.append(await anyio.connect_tcp("127.0.0.1", self._port))
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            for stream in self._streams:
                await anyio.aclose_forcefully(stream)

    async def ask(self) -> list[float]:
        """After `REST_S` each asks once, all at the same time: what each waited, in seconds. For the errors see `slow`."""
        await anyio.sleep(REST_S)
        waited: list[float] = []
        refused: list[FuzzBroken] = []

        async def ask(stream: anyio.abc.ByteStream) -> None:
            asked = time.monotonic()
            try:
                await _answered(stream)
            except FuzzBroken as error:
                refused.append(error)
            waited.append(time.monotonic() - asked)

        with anyio.fail_after(ANSWER_S):
            async with anyio.create_task_group() as group:
                for stream in self._streams:
                    group.start_soon(ask, stream)
        if refused:
            raise refused[0]
        return waited


async def _answered(stream: anyio.abc.ByteStream) -> None:
    """Ask for the server's health, and read the answer to its end."""
    got = b""
    try:
        await stream.send(HEALTH)
        while (answer := _ANSWER.match(got)) is None or len(got) < answer.end() + int(answer[2]):
            got += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        raise FuzzBroken(f"a good client's connection was ended, after {got[:200]!r}") from None
    if answer[1] != b"200":
        raise FuzzBroken(f"a good client was answered with {answer[1].decode()}")


def p99(waits: Sequence[float]) -> float:
    """The time that one of a hundred exceeds; 0 of nothing."""
    ordered = sorted(waits)
    return ordered[math.ceil(len(ordered) * 0.99) - 1] if ordered else 0.0
