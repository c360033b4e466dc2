"""A server, workers and clients as the processes that users start, each on its own, with a proxy between."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import attrs

from orchestra.statemachine import limits
from orchestra.testing.chaos.journal import Journal, Mark
from orchestra.testing.chaos.processes import BOUND_S, LOOK_S, Child
from orchestra.testing.chaos.proxy import Proxy, open_proxy
from orchestra.testing.chaos.undertaker import living, mark_of
from orchestra.testing.free_port import free_port

ORCHESTRA = (sys.executable, "-m", "orchestra")

SLOTS = 1
"""Of each worker."""

REACHED_S = 1.0
"""A worker is answered again so long after the server's return: twice the longest pause between the tries of one that is busy."""


@attrs.frozen(slots=True, kw_only=True)
class Plan:
    """
    What a farm consists of.

    Args:
        workers: How many, behind ``doors`` proxies in turn.
        clients: How many, each behind a proxy of its own.
        open: How many tasks each client keeps open: some wait, so that whoever has room finds work.
        long_s: How long the tasks of some jobs last, in seconds; of the others parts of a second.
        long_part: How many of the jobs these are: few, so that whoever lost its worker finds room.
        patience_s: How long it may take, after the last trouble, until everything has ended; and for how long anything is waited for
            that has no bound of its own.
        lease_ms: A worker that was silent for so long loses its work.
        server: What is run as ``serve``.
        worker: What is run as ``worker``.
        faked: The processes' clocks can be stepped: the library that is loaded for it, or None.
    """

    workers: int = 6
    doors: int = 2
    clients: int = 2
    open: int = 7
    long_s: float = 3.0
    long_part: float = 0.05
    patience_s: float = BOUND_S
    lease_ms: int = 6_000
    server: Sequence[str] = ORCHESTRA
    worker: Sequence[str] = ORCHESTRA
    faked: Path | None = None

    @property
    def heartbeat_ms(self) -> int:
        """Between two heartbeats of a worker."""
        return min(limits.HEARTBEAT_MS, self.lease_ms // 3)

    @property
    def away_s(self) -> float:
        """A server that is away for less costs no attempt: lease - margin - beat of a worker, which then has to reach it."""
        margin_ms = min(limits.FENCE_MARGIN_MS, self.lease_ms // 3)
        return (self.lease_ms - margin_ms - self.heartbeat_ms) / 1_000 - REACHED_S


@attrs.define(slots=True, eq=False)
class Worker:
    """One worker: its process, where its tasks run, and the proxy that it goes through."""

    name: str
    folder: Path
    door: Proxy
    child: Child

    @property
    def marks(self) -> tuple[str, str]:
        """What is in the environment of every process that it started."""
        return (self.child.cookie, f"{self.folder}/")


class Farm:
    """
    All processes, the file that the server keeps, and what was written down.

    Attributes:
        server: The one that serves; None before the first start.
        workers: Those that should work.
        ever: All that ever worked.
        clients: Those that ask, by name.
        data: The server's file.
        journal: What programs and clients wrote down.
        ready_s: When the server last said that it serves (`time.monotonic`).
        starts: How often the server was started.
        at_risk: How many attempts troubles may have cost: as many as the workers had slots that they struck.
    """

    def __init__(self, folder: Path, plan: Plan, seed: int) -> None:
        self.folder = folder.resolve()
        self.plan = plan
        self.seed = seed
        self.data = self.folder / "served.db"
        self.journal = Journal(self.folder)
        self.port = free_port()
        self.server: Child | None = None
        self.ready_s = 0.0
        self.starts = 0
        self.at_risk = 0
        self.workers: list[Worker] = []
        self.ever: list[Worker] = []
        self.clients: dict[str, Child] = {}
        self.doors: list[Proxy] = []
        self.client_doors: dict[str, Proxy] = {}
        self._children: list[Child] = []
        self._joined = 0

    @property
    def url(self) -> str:
        """The server without a proxy in the way."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def running_server(self) -> Child:
        """The server. Raises RuntimeError when there is none."""
        if self.server is None:
            raise RuntimeError("no server was started")
        return self.server

    async def serve(self) -> None:
        """Start the server, and wait until it says that it serves."""
        words = [*self.plan.server, "serve", "--data", str(self.data)]
        words += ["--listen", f"127.0.0.1:{self.port}", "--local-worker", "0", "--json"]
        env = {
            "ORCHESTRA_LEASE_MS": str(self.plan.lease_ms),
            "ORCHESTRA_HEARTBEAT_MS": str(self.plan.heartbeat_ms),
        }
        self.server = self._start("server", words, env)
        await self.server.first_line()
        self.ready_s = time.monotonic()
        self.starts += 1

    def join(self, name: str = "", door: Proxy | None = None) -> Worker:
        """Start a worker: under a new name, or in the place of one that had this name."""
        self._joined += 1
        name = name or f"worker-{self._joined}"
        door = door or self.doors[self._joined % len(self.doors)]
        folder = self.folder / f"place-{self._joined}"
        scheme = "ws" if self._joined % 2 else "http"
        words = [*self.plan.worker, "worker", f"{scheme}://127.0.0.1:{door.port}"]
        words += ["--name", name, "--slots", str(SLOTS), "--folder", str(folder)]
        worker = Worker(name, folder, door, self._start(f"place-{self._joined}", words, {}))
        self.workers.append(worker)
        self.ever.append(worker)
        return worker

    def ask(self, name: str, door: Proxy) -> None:
        """Start a client."""
        scheme = "ws" if len(self.clients) % 2 else "http"
        words = [sys.executable, "-m", "orchestra.testing.chaos.client"]
        words += [f"{scheme}://127.0.0.1:{door.port}", str(self.journal.book(name))]
        words += [str(self.journal.runs_file), name, str(self.seed + len(self.clients))]
        self.client_doors[name] = door
        self.clients[name] = self._start(
            name, [*words, str(self.plan.open), str(self.plan.long_s), str(self.plan.long_part)], {}
        )

    def _start(self, name: str, words: Sequence[str], env: Mapping[str, str]) -> Child:
        faked = self.plan.faked
        if faked is not None:
            env = {
                **env,
                "LD_PRELOAD": str(faked),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock_of(name)),
                "FAKETIME_CACHE_DURATION": "1",  # seconds until a step is felt
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # else a wait on a lock goes round and round
            }
            if not self.clock_of(name).exists():  # a machine's clock outlives its processes
                self.clock_of(name).write_text("+0s\n")
        child = Child(name, words, self.folder / f"{name}.err", env, mark_of(self.folder))
        self._children.append(child)
        return child

    def clock_of(self, name: str) -> Path:
        """The file that says how far the clock of a process is off."""
        return self.folder / f"{name}.clock"

    def risk(self, workers: Iterable[Worker]) -> None:
        """What these workers have in hand may be lost: an attempt for each slot, which is given no other before the loss is known."""
        self.at_risk += SLOTS * len(tuple(workers))

    async def at_work(self) -> None:
        """Wait until every worker has begun something. Raises RuntimeError when a process died instead."""
        await self.until(
            lambda: all(
                any(run.folder.startswith(f"{each.folder}/") for run in self.journal.runs)
                for each in self.workers
            ),
            BOUND_S,
        )

    async def until(self, met: Callable[[], bool], patience_s: float | None = None) -> float:
        """
        Read what is written down until a condition holds; the seconds it took.

        Raises TimeoutError after ``patience_s``, which is the plan's unless it is given.
        """
        began_s = time.monotonic()
        with anyio.fail_after(self.plan.patience_s if patience_s is None else patience_s):
            while True:
                self.journal.read()
                if met():
                    return time.monotonic() - began_s
                await anyio.sleep(LOOK_S)

    async def resumed_s(self, since: Mark, patience_s: float) -> float:
        """
        Seconds from a moment until a client was answered, and another saw the end of a task that began after it.

        Raises TimeoutError.
        """
        found: list[float] = []

        def met() -> bool:
            work_s, answer_s = self.journal.work_s(since), self.journal.answer_s(since)
            if work_s is None or answer_s is None:
                return False
            found.append(max(work_s, answer_s) - since.at_s)
            return True

        await self.until(met, patience_s)
        return found[0]

    def died(self) -> list[str]:
        """Processes that ended though nobody ended them."""
        wanted = [*(worker.child for worker in self.workers), *self.clients.values()]
        if self.server is not None:
            wanted.append(self.server)
        return [
            f"{child.name} ended with code {child.process.returncode}: {child.last_words()}"
            for child in wanted
            if child.ended
        ]

    def leftovers(self) -> list[str]:
        """What is alive of all that was ever started here."""
        cookies = [child.cookie for child in self._children]
        return [str(each) for each in living([*cookies, f"{self.folder}/"])]

    def close(self) -> None:
        """Kill whatever is left."""
        for child in self._children:
            child.thaw()
            child.kill()


@asynccontextmanager
async def open_farm(folder: Path, plan: Plan, seed: int) -> AsyncGenerator[Farm]:
    """A farm without anybody in it; at the end everything of it is killed."""
    farm = Farm(folder, plan, seed)
    async with AsyncExitStack() as stack:
        for _ in range(plan.doors):
            farm.doors.append(await stack.enter_async_context(open_proxy(farm.port)))
        try:
            yield farm
        finally:
            farm.close()


@asynccontextmanager
async def running_farm(
    folder: Path, plan: Plan, seed: int, data: Path | None = None
) -> AsyncGenerator[Farm]:
    """As `open_farm`, with everybody at work."""
    async with open_farm(folder, plan, seed) as farm, AsyncExitStack() as stack:
        farm.data = data or farm.data
        await farm.serve()
        for number in range(plan.clients):
            door = await stack.enter_async_context(open_proxy(farm.port))
            farm.ask(f"client-{number + 1}", door)
        for _ in range(plan.workers):
            farm.join()
        await farm.at_work()
        yield farm
        farm.close()
