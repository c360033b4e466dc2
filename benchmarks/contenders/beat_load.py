"""
Thousands of workers on websockets, from one process: each joins, waits for orders, and beats. Standard library only.

Frames are made once and sent again and again, and of an answer no more than its length is read, so that the client, on another core, is
not what is measured.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Callable
from typing import Any, cast

from figures import percentile
from http_load import cpu_s, resident_bytes_of

PERIOD_S = 2.0
"""Between two beats of one worker: what the orchestrator asks for by default."""

CONNECTING_AT_ONCE = 64
EAGER = 1_000
"""Workers that beat as fast as they are answered, in the last part."""

START_S_MAX = 120.0
"""All connections stand within this, on a busy machine too; a quiet one takes a tenth."""

TEXT, PING, PONG = 1, 9, 10
"""Kinds of frames (RFC 6455, section 5.2)."""


def frame_of(kind: int, payload: bytes) -> bytes:
    """One masked frame, as a client sends it."""
    key = os.urandom(4)
    masked = bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))
    if len(payload) < 126:
        return bytes((0x80 | kind, 0x80 | len(payload))) + key + masked
    return bytes((0x80 | kind, 0xFE)) + len(payload).to_bytes(2, "big") + key + masked


class Worker(asyncio.Protocol):
    """One connection. ``heard`` holds the answers of the beginning; afterwards they are only counted."""

    def __init__(self, path: str, taken: list[float]) -> None:
        self._path = path
        self._taken = taken
        self._read = b""
        self._open = False
        self._asked_at = 0.0
        self._next: asyncio.Future[bytes] | None = None
        self._transport: Any = None
        self.opened: asyncio.Future[bytes] | None = None
        self.beat = b""
        self.eager = False
        self.waiting = False
        self.failed = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        # From the beginning, because the server may be quicker than whoever waits for it.
        self.opened = self._next = asyncio.get_running_loop().create_future()
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            (
                f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
            ).encode()
        )

    async def answer(self, frame: bytes) -> bytes:
        """Send a frame, and wait for what comes back."""
        self._next = asyncio.get_running_loop().create_future()
        self._transport.write(frame)
        return await self._next

    def ask(self) -> None:
        """Beat once; the answer's time goes into ``taken``."""
        self.waiting = True
        self._asked_at = time.perf_counter()
        self._transport.write(self.beat)

    def data_received(self, data: bytes) -> None:
        self._read = self._read + data if self._read else data
        if not self._open:
            end = self._read.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self._read.startswith(b"HTTP/1.1 101 "):
                self.fail(f"the upgrade was answered {self._read[:200]!r}")
                return
            self._open, self._read = True, self._read[end + 4 :]
            self._heard(b"")
        while len(self._read) >= 2:
            start, length = 2, self._read[1]
            if length == 126:
                start, length = 4, int.from_bytes(self._read[2:4], "big")
            stop = start + length
            if len(self._read) < stop:
                return
            kind, payload = self._read[0] & 0x0F, self._read[start:stop]
            self._read = self._read[stop:]
            if kind == PING:
                self._transport.write(frame_of(PONG, payload))
            elif kind == TEXT:
                self._heard(payload)

    def _heard(self, payload: bytes) -> None:
        if self._next is not None:
            if not self._next.done():
                self._next.set_result(payload)
            self._next = None
            return
        self.waiting = False
        self._taken.append(time.perf_counter() - self._asked_at)
        if b'"problem"' in payload:
            self.fail(payload.decode())
        elif self.eager:
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(f"the server closed the connection: {exc}")

    def fail(self, why: str) -> None:
        """Remember what went wrong first."""
        self.failed = self.failed or why
        self.eager = False
        if self._next is not None and not self._next.done():
            self._next.set_exception(SystemExit(why))


async def joined(worker: Worker, number: int) -> None:
    """As the agent begins: it joins, then waits for orders."""
    introduction = {
        "name": f"worker-{number}",
        "session": f"session-{number}",
        "slots": 2,
        "apps": ["process"],
        "labels": [],
        "host": {"system": "Linux"},
    }
    asked = json.dumps({"id": 1, "ask": "JoinWorker", "body": introduction}).encode()
    reply = json.loads(await worker.answer(frame_of(TEXT, asked)))
    if "reply" not in reply:
        raise SystemExit(f"the worker was refused: {reply}")
    me = {
        "worker_id": reply["reply"]["worker_id"],
        "incarnation": reply["reply"]["incarnation"],
    }
    watch = json.dumps({"id": 2, "watch": {"orders": me}}).encode()
    told = await worker.answer(frame_of(TEXT, watch))
    if b"watching" not in told:
        raise SystemExit(f"the watch was refused: {told!r}")
    beat = {**me, "load": 0.25, "memory_free_bytes": 2**33, "disk_free_bytes": 2**37}
    worker.beat = frame_of(TEXT, json.dumps({"id": 3, "ask": "Heartbeat", "body": beat}).encode())


async def echoed(worker: Worker, number: int) -> None:
    """The bare echo gets a message as long as a heartbeat."""
    beat = {"worker_id": f"w{number:07}", "incarnation": 1, "load": 0.25}
    beat |= {"memory_free_bytes": 2**33, "disk_free_bytes": 2**37}
    worker.beat = frame_of(TEXT, json.dumps({"id": 3, "ask": "Heartbeat", "body": beat}).encode())


class Farm:
    """All workers, and the clock by which they beat."""

    def __init__(self, pid: int, port: int, path: str, count: int) -> None:
        self._pid = pid
        self._port = port
        self._path = path
        self._count = count
        self._taken: list[float] = []
        self._workers: list[Worker] = []
        self._stopped = False
        self._missed = 0

    async def measure(
        self, begin: Callable[[Worker, int], Any], seconds: float
    ) -> dict[str, float]:
        """Connect all, let them beat for so long, then as fast as they can."""
        before_bytes = resident_bytes_of(self._pid)
        beating = asyncio.create_task(self._beat())
        began = time.perf_counter()
        await asyncio.wait_for(self._connect(begin), START_S_MAX)
        connect_s = time.perf_counter() - began
        await asyncio.sleep(PERIOD_S)
        self._check()
        grown_bytes = resident_bytes_of(self._pid) - before_bytes
        self._taken.clear()
        self._missed = 0
        began, before = time.perf_counter(), cpu_s(self._pid)
        await asyncio.sleep(seconds)
        passed, used = time.perf_counter() - began, cpu_s(self._pid) - before
        paced = self._taken[:]
        self._stopped = True
        await beating
        figures = {
            "connects_per_s": self._count / connect_s,
            "kib_per_connection": grown_bytes / self._count / 1024,
            "beats_per_s": len(paced) / passed,
            "missed_percent": self._missed / (len(paced) + self._missed) * 100,
            "p50_ms": percentile(paced, 50) * 1e3,
            "p99_ms": percentile(paced, 99) * 1e3,
            "cpu_us": used / len(paced) * 1e6,
            "core_for_10000_percent": used / len(paced) * (10_000 / PERIOD_S) * 100,
            "core_percent": used / passed * 100,
            "most_beats_per_s": await self._most(max(seconds / 2, 1.0)),
        }
        self._check()
        return figures

    async def _connect(self, begin: Callable[[Worker, int], Any]) -> None:
        loop = asyncio.get_running_loop()
        waiting = iter(range(self._count))

        async def connecting() -> None:
            for number in waiting:
                # An address for every thousand, as farms have; ports of one address would run out.
                local = (f"127.0.2.{number // 1_000 + 1}", 0)
                _, worker = await loop.create_connection(
                    lambda: Worker(self._path, self._taken),
                    "127.0.0.1",
                    self._port,
                    local_addr=local,
                )
                await cast("asyncio.Future[bytes]", worker.opened)
                await begin(worker, number)
                self._workers.append(worker)

        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTING_AT_ONCE):
                group.create_task(connecting())

    async def _beat(self) -> None:
        """Each worker once a period, all spread over it."""
        begin = time.perf_counter()
        done = 0
        while not self._stopped:
            due = int((time.perf_counter() - begin) / PERIOD_S * self._count)
            for turn in range(done, due):
                place = turn % self._count
                if place >= len(self._workers) or self._workers[place].failed:
                    continue
                # As the agent does, who waits for an answer before it beats again.
                if self._workers[place].waiting:
                    self._missed += 1
                else:
                    self._workers[place].ask()
            done = due
            await asyncio.sleep(0.002)

    async def _most(self, seconds: float) -> float:
        await asyncio.sleep(0.5)  # the last paced answers come in
        for worker in self._workers[:EAGER]:
            worker.eager = True
            if not worker.waiting:
                worker.ask()
        await asyncio.sleep(0.5)
        self._taken.clear()
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        return len(self._taken) / (time.perf_counter() - began)

    def _check(self) -> None:
        failed = [worker.failed for worker in self._workers if worker.failed]
        if failed:
            raise SystemExit(
                f"{len(failed)} of {len(self._workers)} failed, the first: {failed[0]}"
            )
