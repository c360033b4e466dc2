"""
The load of the HTTP measures, and what a process on this machine used: standard library only, it runs in the peers' environments.

One process of its own holds all connections, each with one request under way: the answer that comes in sends the next. It reads no
more of an answer than its status and its length, so that the client, on another core, is never what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures import percentile, tell

if TYPE_CHECKING:
    from collections.abc import Generator

WARM_S = 0.5
"""The first requests fill caches and are not counted."""

BODY = (
    b'{"name":"bench","project":"default","priority":5,"stages":[{"name":"noop","app":"bench:noop",'
    b'"template":{"args":[17],"kwargs":{"name":"frame","scale":0.5}},"retries":3,"run_ms_max":600000,"labels":["gpu"]}]}'
)
PATH = "/api/v1/jobs"
"""A job of one task, as `POST /api/v1/jobs` of the native API takes it; every server here validates this body."""


def request_of(path: str, body: bytes) -> bytes:
    """A whole POST."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


class _Connection(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self, request: bytes, taken: list[float]) -> None:
        self._request = request
        self._taken = taken
        self._read = b""
        self._began = 0.0
        self._transport: Any = None
        self.over = False
        self.failed = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self) -> None:
        """Send one request."""
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._read = self._read + data if self._read else data
        end = self._read.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self._read.lower().find(b"content-length:", 0, end)
        length = int(self._read[at + 15 :].partition(b"\r")[0]) if at >= 0 else 0
        if len(self._read) < end + 4 + length:
            return
        if not self._read.startswith(b"HTTP/1.1 201 "):
            self.fail(f"answered {self._read[:400]!r}")
            return
        self._read = b""
        self._taken.append(time.perf_counter() - self._began)
        if not self.over:
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over:
            self.fail(f"the server closed a connection: {exc}")

    def fail(self, why: str) -> None:
        """Remember what went wrong; the measure ends with it."""
        self.failed = self.failed or why
        self.over = True

    def close(self) -> None:
        """The end."""
        self.over = True
        self._transport.close()


async def load(
    pid: int, port: int, request: bytes, *, connections: int, seconds: float
) -> dict[str, float]:
    """Ask over so many connections for so long; rate, latency, and what the server's process used for each request."""
    taken: list[float] = []
    loop = asyncio.get_running_loop()
    opened: list[_Connection] = []
    for _ in range(connections):
        _, protocol = await loop.create_connection(
            lambda: _Connection(request, taken), "127.0.0.1", port
        )
        opened.append(protocol)
    for each in opened:
        each.ask()
    await asyncio.sleep(WARM_S)
    taken.clear()
    began, before = time.perf_counter(), cpu_s(pid)
    await asyncio.sleep(seconds)
    passed, used, count = time.perf_counter() - began, cpu_s(pid) - before, len(taken)
    for each in opened:
        each.close()
    failed = next((each.failed for each in opened if each.failed), "")
    if failed or not count:
        raise SystemExit(failed or "nothing was answered")
    return {
        "requests_per_s": count / passed,
        "p50_us": percentile(taken[:count], 50) * 1e6,
        "p99_us": percentile(taken[:count], 99) * 1e6,
        "cpu_us": used / count * 1e6,
    }


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, to 10 ms (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes_of(pid: int) -> int:
    """The memory that a process holds now (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def raise_file_limit(files: int) -> None:
    """Let this process, and those that it starts, open so many files. Raises SystemExit when the system does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= files:
        return
    if hard != resource.RLIM_INFINITY and hard < files:
        raise SystemExit(
            f"{files} open files are needed, and this user may have {hard}: ulimit -Hn"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


def cores() -> tuple[set[int], set[int]]:
    """(the server's core, the client's cores); the same when there is but one."""
    if not hasattr(os, "sched_getaffinity"):
        return set(), set()
    have = sorted(os.sched_getaffinity(0))
    return {have[0]}, set(have[1:] or have)


def pin(to: set[int]) -> None:
    """Run on these cores alone, where the system can say so."""
    if to:
        os.sched_setaffinity(0, to)


def run_fast(work: Coroutine[Any, Any, Any]) -> Any:
    """Run on uvloop, which every server here uses too."""
    try:
        import uvloop
    except ImportError:
        raise SystemExit("uvloop is missing: pip install '.[fast]'") from None
    return uvloop.run(work)


@contextmanager
def served(argv: Sequence[str]) -> Generator[tuple[int, int]]:
    """(pid, port) of a server process that prints its port as its first line; killed at the end. This process leaves it a core."""
    server_core, client_cores = cores()
    # What is started inherits the cores of who starts it.
    pin(server_core)
    with subprocess.Popen([sys.executable, *argv], stdout=subprocess.PIPE, text=True) as server:
        try:
            pin(client_cores)
            assert server.stdout is not None
            told = server.stdout.readline()
            if not told.strip():
                raise SystemExit(f"{argv[0]} did not start")
            yield server.pid, int(told)
        finally:
            server.kill()


def tell_port(port: int) -> None:
    """What `served` reads."""
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


def contend(
    script: str, serve: Callable[[str], None], *, modes: Sequence[str] = ("",), version: str = ""
) -> None:
    """
    The whole of an HTTP contender: ``serve`` runs in a process of its own, and this one asks.

    Args:
        script: The contender's file, which is started again as the server.
        serve: Serves one of ``modes`` until killed, and says `tell_port`.
        modes: What ``--mode`` may be.
        version: The peer's.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true", help="be the server")
    parser.add_argument("--mode", choices=modes, default=modes[0])
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4.0)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.mode)
        return
    request = request_of(PATH, BODY)
    with served((script, "--serve", "--mode", chosen.mode)) as (pid, port):
        told = load(pid, port, request, connections=chosen.connections, seconds=chosen.seconds)
        figures: dict[str, float | str] = dict(run_fast(told))
    if version:
        figures["version"] = version
    tell(figures)
