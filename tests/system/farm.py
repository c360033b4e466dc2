"""A server and workers as real processes on one folder, to be killed, frozen and started again."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil

from orchestra.client import Client
from orchestra.compose import connect
from orchestra.errors import Unavailable
from orchestra.ports import Moved, Story
from orchestra.statemachine.commands import StageDraft
from orchestra.statemachine.lifecycles import TASK_FINAL
from orchestra.statemachine.records import Span
from orchestra.testing.free_port import free_port
from tests.tidy import ROOT

BOUND_S = 30.0
"""Nothing that a test waits for takes so long, even on a machine that is busy with other things."""

ESTABLISHED = "01"
"""Of a connection in /proc/net/tcp."""

PAUSE_S = 0.02
"""Between two looks at what another process does."""


class Child:
    """One process that a test started."""

    def __init__(self, argv: list[str], env: dict[str, str], errors: Path) -> None:
        with errors.open("ab") as stderr:
            self.process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        self._errors = errors

    @property
    def pid(self) -> int:
        return self.process.pid

    async def line(self) -> dict[str, Any]:
        """The next line of its stdout, which is JSON."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        read = b""
        with anyio.fail_after(BOUND_S):
            while not read.endswith(b"\n"):
                await anyio.wait_readable(fd)
                part = os.read(fd, 4096)
                assert part, f"it died: {self._errors.read_text()[-3000:]}"
                read += part
        return dict(json.loads(read))

    def check(self) -> None:
        """Fails with its last words when it has ended."""
        assert self.process.poll() is None, f"it died: {self._errors.read_text()[-3000:]}"

    def kill(self) -> None:
        """As ``kill -9``; it is gone on return."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def guardian(self) -> psutil.Process:
        """Of a worker that has run something."""
        (guardian,) = psutil.Process(self.pid).children()
        return guardian

    def tree(self) -> list[psutil.Process]:
        """It and all its descendants."""
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]


class Farm:
    """
    The processes, the file, and what the tasks wrote.

    Attributes:
        mark: Is in the environment of every program that the tasks start, as ``MARK``.
        port: Of the server, the same after each start.
        ready_s: When the server last said that it serves (`time.monotonic`).
    """

    def __init__(self, folder: Path, lease_ms: int) -> None:
        self.folder = folder
        self.data = folder / "farm.db"
        self.runs_folder = folder / "runs"
        self.runs_folder.mkdir()
        self.mark = secrets.token_hex(8)
        self.lease_ms = lease_ms
        self.port = free_port()
        self.ready_s = 0.0
        self.children: list[Child] = []
        self._frozen: list[psutil.Process] = []

    def url(self, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}"

    async def serve(
        self, broken: str = "", further: Sequence[str] = (), *, slots: int = 0
    ) -> Child:
        """
        Start ``orchestra serve`` with ``further`` words, or one with a law broken, and wait until it says that it serves.

        Args:
            slots: Of the worker in the server's own process; 0 for none.
        """
        program = ["tests.system.server", broken] if broken else ["orchestra"]
        words = ["serve", "--data", str(self.data), "--listen", f"127.0.0.1:{self.port}"]
        words += ["--local-worker", str(slots), "--json", *further]
        child = self._start("server", [*program, *words])
        assert (await child.line())["address"] == f"127.0.0.1:{self.port}"
        self.ready_s = time.monotonic()
        return child

    async def join(self, name: str, slots: int, *, scheme: str = "http", way: str = "") -> Child:
        """Start ``orchestra worker``, or one that goes another way, and wait until it has joined."""
        program = ["tests.system.worker", way] if way else ["orchestra"]
        words = ["worker", self.url(scheme), "--name", name, "--slots", str(slots)]
        child = self._start(name, [*program, *words, "--folder", str(self.folder / name)])

        async def joined(client: Client) -> bool:
            child.check()
            return name in {worker.name for worker in await client.workers()}

        await self.until(joined)
        return child

    def _start(self, name: str, words: list[str]) -> Child:
        env = {**os.environ, "ORCHESTRA_LEASE_MS": str(self.lease_ms)}
        env["ORCHESTRA_HEARTBEAT_MS"] = str(min(2_000, self.lease_ms // 3))
        child = Child([sys.executable, "-m", *words], env, self.folder / f"{name}.err")
        self.children.append(child)
        return child

    def stage(self, script: str, tasks: int, *, word: str = "", **fields: Any) -> StageDraft:
        """Tasks that run a script of the shell with ``word`` as ``$1``, and ``$RUNS/$ORCHESTRA_TASK`` as a file of their own."""
        env = {"MARK": self.mark, "RUNS": str(self.runs_folder)}
        template = {"argv": ["/bin/sh", "-c", script, "task", word], "env": env}
        over = Span(0, tasks) if tasks > 1 else None
        return StageDraft("work", "process", json.dumps(template).encode(), over=over, **fields)

    def runs(self) -> dict[str, list[int]]:
        """The numbers of the attempts that ran, by task."""
        return {
            path.name: [int(line) for line in path.read_text().split()]
            for path in self.runs_folder.iterdir()
        }

    @asynccontextmanager
    async def client(self, scheme: str = "http") -> AsyncGenerator[Client]:
        async with connect(self.url(scheme)) as client:
            yield client

    async def story(self) -> list[Moved]:
        """All that happened."""
        found: list[Moved] = []
        async with self.client() as client:
            while True:
                page = await client.asker.story(Story(found[-1].number if found else 0, 500))
                found.extend(page)
                if len(page) < 500:
                    return found

    async def ends(self, count: int, after: int = 0, bound_s: float = BOUND_S) -> int:
        """Wait until that many tasks ended after a cursor; the cursor where they have."""
        with anyio.fail_after(bound_s):
            async with self.client("ws") as client:
                async for moved in client.events(after=after):
                    if moved.kind == "task" and moved.target in TASK_FINAL:
                        count -= 1
                    if count <= 0:
                        return moved.number
        raise AssertionError("the server closed the subscription")

    async def until(self, met: Callable[[Client], Any], bound_s: float = BOUND_S) -> float:
        """Ask until the answer is true, over a connection that may fail; how long it took in seconds."""
        began = time.monotonic()
        with anyio.fail_after(bound_s):
            while True:
                try:
                    async with self.client() as client:
                        while not await met(client):
                            await anyio.sleep(PAUSE_S)
                    return time.monotonic() - began
                except Unavailable:
                    await anyio.sleep(PAUSE_S)

    def freeze(self, *processes: psutil.Process) -> None:
        """As ``kill -STOP``, each one by itself."""
        for process in processes:
            self._frozen.append(process)
            with contextlib.suppress(psutil.NoSuchProcess):  # a program of an attempt may just end
                process.suspend()

    def thaw(self) -> None:
        """As ``kill -CONT``, everything that was frozen."""
        for process in self._frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        self._frozen.clear()

    def unread(self) -> int:
        """How many of the server's connections carry bytes that it has not read (Linux)."""
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        fields = [line.split() for line in lines]
        return sum(
            each[1].endswith(f":{self.port:04X}")
            and each[3] == ESTABLISHED
            and each[4][9:] != "0" * 8
            for each in fields
        )

    def close(self) -> None:
        for child in self.children:
            child.kill()
        self.thaw()


async def until(met: Callable[[], bool], bound_s: float = BOUND_S) -> float:
    """Look until it is so; how long it took in seconds."""
    began = time.monotonic()
    with anyio.fail_after(bound_s):
        while not met():
            await anyio.sleep(PAUSE_S)
    return time.monotonic() - began


@asynccontextmanager
async def open_farm(folder: Path, *, lease_ms: int = 6_000) -> AsyncGenerator[Farm]:
    """A farm without anybody in it; at the end everything of it is killed."""
    farm = Farm(folder, lease_ms)
    try:
        yield farm
    finally:
        farm.close()
