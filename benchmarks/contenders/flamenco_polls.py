"""
1,000 workers of Flamenco's pull protocol, each at an address of its own: once a second each registers and asks for work.

``--server ours`` is the orchestrator with its door, ``--server starlette`` a bare application that answers the same. The server has one
core to itself, the workers the others. After the paced part, 64 of them ask as fast as they are answered.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time

from figures import percentile, tell

FORM = b"port=7777&hostname=vm&system=Linux+6.1"
REGISTER = (
    b"POST /workers HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(FORM), FORM)
)
POLL = b"GET /tasks/compiled/0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
EAGER = 64


async def serve_ours() -> None:
    """The orchestrator in memory, with the dialect at a port of its own."""
    from orchestra import compose
    from orchestra.config import Address, Config, DialectPort, Limits

    limits = Limits(
        requests_per_s=1_000_000, requests_burst=1_000_000, connections_per_address_max=5_000
    )
    port = DialectPort("flamenco", Address("127.0.0.1", 0))
    config = Config(listen=Address("127.0.0.1", 0), limits=limits, dialects=(port,))

    def told(_name: str, address: Address) -> None:
        sys.stdout.write(f"{address.port}\n")
        sys.stdout.flush()

    await compose.serve(config, tasks={}, slots=0, ready=lambda _: None, dialect_ready=told)


async def serve_starlette() -> None:
    """Two routes that know nothing."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def register(request: Request) -> Response:
        await request.body()
        return Response(status_code=204)

    async def poll(_: Request) -> Response:
        return Response(b'""\n', 400, media_type="application/json")

    app = Starlette(
        routes=[
            Route("/workers", register, methods=["POST"]),
            Route("/tasks/compiled/{any}", poll),
        ]
    )
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", http="h11", timeout_keep_alive=75
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=2_048)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    # Whoever connects before it accepts waits in the backlog.
    await uvicorn.Server(config).serve(sockets=[listener])


class Far:
    """One worker: an address and a connection."""

    def __init__(self, number: int, port: int) -> None:
        self._address = f"127.1.{number // 250}.{number % 250 + 1}"
        self._port = port

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=(self._address, 0)
        )

    async def once(self) -> tuple[float, float]:
        """Register and ask; how long each was waited for, in seconds."""
        began = time.perf_counter()
        await self._ask(REGISTER, b" 204 ")
        between = time.perf_counter()
        await self._ask(POLL, b" 400 ")
        return between - began, time.perf_counter() - between

    async def _ask(self, request: bytes, expected: bytes) -> None:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if expected not in head.partition(b"\r\n")[0]:
            raise SystemExit(f"answered {head!r}")
        _, found, rest = head.lower().partition(b"content-length: ")
        if found:
            await self._reader.readexactly(int(rest.partition(b"\r\n")[0]))


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


async def paced(workers: list[Far], seconds: int) -> list[float]:
    """Each worker once a second, all spread over it; how long polls took."""
    taken: list[float] = []
    begin = time.perf_counter() + 0.1

    async def work(number: int, worker: Far) -> None:
        for second in range(seconds):
            due = begin + second + number / len(workers)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            taken.append((await worker.once())[1])

    async with asyncio.TaskGroup() as group:
        for number, worker in enumerate(workers):
            group.create_task(work(number, worker))
    return taken


async def eager(workers: list[Far], seconds: int) -> float:
    """As fast as they are answered; answers a second."""
    answers = 0
    until = time.perf_counter() + seconds

    async def work(worker: Far) -> None:
        nonlocal answers
        while time.perf_counter() < until:
            await worker.once()
            answers += 2

    async with asyncio.TaskGroup() as group:
        for worker in workers[:EAGER]:
            group.create_task(work(worker))
    return answers / seconds


async def measure(pid: int, port: int, count: int, seconds: int) -> dict[str, float]:
    workers = [Far(number, port) for number in range(count)]
    for worker in workers:
        await worker.connect()
        await worker.once()
    before, began = cpu_s(pid), time.perf_counter()
    taken = await paced(workers, seconds)
    passed, used = time.perf_counter() - began, cpu_s(pid) - before
    return {
        "requests_per_s": 2 * len(taken) / passed,
        "p50_ms": percentile(taken, 50) * 1e3,
        "p99_ms": percentile(taken, 99) * 1e3,
        "cpu_us": used / (2 * len(taken)) * 1e6,
        "core_percent": used / passed * 100,
        "most_requests_per_s": await eager(workers, max(seconds // 2, 1)),
    }


def pin(cores: set[int]) -> None:
    """Run on these cores alone, where the system can say so."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", choices=("ours", "starlette"), default="ours")
    parser.add_argument("--serve", action="store_true", help="be the server")
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=10)
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    if chosen.serve:
        pin({cores[0]})
        asyncio.run(serve_ours() if chosen.server == "ours" else serve_starlette())
        return
    argv = [sys.executable, __file__, "--serve", "--server", chosen.server]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        try:
            if len(cores) > 1:
                pin(set(cores[1:]))
            assert server.stdout is not None
            port = int(server.stdout.readline())
            tell(asyncio.run(measure(server.pid, port, chosen.workers, chosen.seconds)))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
