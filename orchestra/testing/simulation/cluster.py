"""
The machines of a simulation: a server, workers, and people, each the real program over a simulated net, disk and clock.

The server is the real orchestrator behind the real HTTP and websocket server; a worker is the real agent with the real engine for
callables; all that differs is what the operating system would have given them.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any, Literal, cast

import anyio
import attrs

from orchestra.calls import TaskFunction
from orchestra.compose import engines_for, http_api
from orchestra.config import Address, Config
from orchestra.dialects.native import native_dialect
from orchestra.errors import StoreFailed, Unavailable
from orchestra.ports import Asker
from orchestra.runtime.clock import SteadyClock
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import Reconfigure
from orchestra.testing.simulation.disk import Disk, MemoryDisk
from orchestra.testing.simulation.network import Network
from orchestra.testing.simulation.plan import Plan
from orchestra.testing.simulation.sqlite_disk import SqliteDisk
from orchestra.testing.simulation.truth import Truth, WatchedEngine
from orchestra.testing.simulation.world import MachineProcess
from orchestra.testing.simulation.worlds import Program, World
from orchestra.transports.connect import connect
from orchestra.transports.door import Door
from orchestra.transports.policy import policy_for
from orchestra.worker.agent import Agent
from orchestra.worker.session import WorkerReplaced

EPOCH_S = 1_750_000_000.0
"""Where the wall clocks stand at the start."""

WAKING_S = 0.5
"""A process that was frozen gets so long to notice."""

RATE_MIN = 2 / 3
"""A worker ends what runs after two thirds of a lease that it could not renew; on a slower clock that is after the lease's end."""

CAPACITY = (("cpu", 4_000), ("memory", 1_000 * (8 << 30)))
"""Of each worker, in thousandths: four cpus and 8 GiB."""

SET_UP_AGAIN_S = 0.5

DRAIN_MS = 2_000
"""A worker that is told to leave gives what it runs so long."""

PORT = 8_440
SERVER = "server"

Transport = Literal["websocket", "http"]


@attrs.frozen(slots=True)
class Shape:
    """
    What a cluster consists of.

    Args:
        tasks: What the workers can run.
        workers: How many, each with so many ``slots``.
        transport: By which the workers are connected.
        fence: What workers do when they can not renew their lease; see `orchestra.worker.session`.
        losses_max: How often a task is lost with its worker before it is given up.
    """

    tasks: Mapping[str, TaskFunction[Any, Any, Any]]
    workers: int
    slots: int
    transport: Transport
    fence: Literal["strict", "patient"]
    losses_max: int = 100

    @property
    def names(self) -> tuple[str, ...]:
        """The workers' names."""
        return tuple(f"w{number}" for number in range(1, self.workers + 1))


class Seeds:
    """Seeds of stimuli, drawn from the plan's."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def seed(self) -> int:
        """128 bits."""
        return self._rng.getrandbits(128)


class Cluster:
    """
    All machines.

    Args:
        world: On which everything runs.
        shape: What there is.
        plan: Its seed and latency; its troubles are made by `troubles`.
    """

    def __init__(self, world: World, shape: Shape, plan: Plan) -> None:
        self.world = world
        self.shape = shape
        self.rng = Random(f"cluster {plan.seed}")
        self.network = Network(world, Random(f"network {plan.seed}"), plan.latency_ms / 1_000)
        world.network = self.network
        strict = shape.fence == "strict"
        self.truth = Truth(self.now_ms, self.is_asleep, strict=strict)
        self.disk: Disk
        if plan.store == "sqlite":
            self.disk = SqliteDisk(plan.seed, self._crash_server, self.truth)
        else:
            rng = Random(f"disk {plan.seed}")
            self.disk = MemoryDisk(rng, self._crash_server, self.truth.committed)
        self.wall_step_s = 0.0
        self.processes: dict[str, MachineProcess] = {}
        self.graves: list[MachineProcess] = []
        self.rates: dict[str, float] = {}
        """How fast the clocks of machines go, where they do not go right."""
        self.gone: set[str] = set()
        """Machines that never come back."""
        self._thawed: dict[str, float] = {}
        self._lives: dict[str, int] = {}
        self._agents: dict[str, Agent] = {}

    def now_ms(self) -> int:
        """Simulated milliseconds from the start."""
        return round(self.world.now_s * 1_000)

    def is_asleep(self, place: str) -> bool:
        """Whether a place is frozen, or was until a moment ago, or has a clock too slow for any fence."""
        if self.rates.get(place, 1.0) < RATE_MIN:
            return True
        process = self.processes.get(place)
        if process is not None and process.frozen:
            return True
        return self.world.now_s - self._thawed.get(place, -WAKING_S) < WAKING_S

    # processes ------------------------------------------------------------------------------------------------------

    def start(self, place: str) -> None:
        """Start what runs at a place, unless it runs."""
        there = self.processes.get(place)
        if there is not None and there.alive:
            return
        if place in self.gone:
            return
        process = self.processes[place] = self.world.process(place)
        process.skew(self.rates.get(place, 1.0))
        self._lives[place] = self._lives.get(place, 0) + 1
        self.truth.tell(place, "starts")
        program = self._serve if place == SERVER else lambda: self._work(place)
        self.world.start(process, lambda: self._lived(place, process, program))

    async def _lived(self, place: str, process: MachineProcess, program: Program) -> None:
        try:
            await program()
        except WorkerReplaced:
            self.truth.tell(place, "was replaced")
        except Exception as error:  # noqa: BLE001 - whatever it is, a program that ends by it is a finding
            if _is_failing_disk(error):  # its operator, or a supervisor, starts it again
                self.truth.tell(place, "does not start: its disk fails")
            else:
                told = "".join(traceback.format_exception(error))
                self.truth.violated(f"{place} crashed: {error!r}\n{told}")
        self.truth.tell(place, "has ended")
        self._bury(place, process, silent=False)
        self.later(self.rng.uniform(0.1, 3.0), lambda: self.start(place))

    def kill(self, place: str, *, silent: bool = False) -> None:
        """SIGKILL; ``silent``: its machine loses its power, and nobody is told."""
        process = self.processes.get(place)
        if process is None or not process.alive:
            return
        self.truth.tell(place, "loses its power" if silent else "is killed")
        self._bury(place, process, silent=silent)

    def lose(self, place: str) -> None:
        """A worker's machine loses its power and never comes back; the last one is spared."""
        if len(self.gone | {place}) < self.shape.workers:
            self.gone.add(place)
            self.truth.tell(place, "is gone for good")
            self.kill(place, silent=True)

    def skew(self, place: str, rate: float) -> None:
        """From now on the clock of a worker's machine goes so fast, through its starts too."""
        self.truth.tell(place, f"has a clock that goes {rate:g} times as fast")
        self.rates[place] = rate
        process = self.processes.get(place)
        if process is not None and process.alive:
            process.skew(rate)

    def _bury(self, place: str, process: MachineProcess, *, silent: bool) -> None:
        process.kill()
        self.graves.append(process)
        self.network.died(process, silent=silent)
        self.truth.all_died(place)
        if place == SERVER:
            self.disk.killed()

    def _crash_server(self) -> None:
        self.kill(SERVER)
        self.later(self.rng.uniform(0.0, 3.0), lambda: self.start(SERVER))

    def freeze(self, place: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so long."""
        process = self.processes.get(place)
        if process is None or not process.alive or process.frozen:
            return
        self.truth.tell(place, f"freezes for {seconds:g} s")
        process.freeze()
        self.later(seconds, lambda: self.thaw(place, process))

    def thaw(self, place: str, process: MachineProcess) -> None:
        """SIGCONT."""
        if process.alive and process.frozen:
            self.truth.tell(place, "thaws")
            self._thawed[place] = self.world.now_s
            process.thaw()

    def drain(self, place: str) -> None:
        """SIGTERM to a worker: it ends what it has, says goodbye, and is started again."""
        process, agent = self.processes.get(place), self._agents.get(place)
        if process is not None and process.alive and agent is not None:
            self.truth.tell(place, "is told to leave")
            self.world.beside(process, lambda: agent.drain(DRAIN_MS))

    def later(self, seconds: float, action: Any) -> None:
        """Do something to the machines, from outside of all."""
        self.world.at(self.world.now_s + seconds, action)

    def heal(self) -> None:
        """Nothing goes wrong any more, and everything that was stopped goes on."""
        self.truth.tell("world", "all heals")
        self.network.heal()
        self.disk.heal()
        for place in (SERVER, *self.shape.names):
            process = self.processes.get(place)
            if place in self.rates:
                self.skew(place, 1.0)
            if process is not None:
                self.thaw(place, process)
            self.start(place)

    # programs -----------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        clock = SteadyClock(
            lambda: EPOCH_S + self.world.now_s + self.wall_step_s, monotonic_s=self.world.time
        )
        seeds = Seeds(Random(f"seeds {self.rng.random()}"))
        store = await self.disk.open()
        orchestrator = Orchestrator(store, clock=clock, seeds=seeds)
        config = Config(listen=Address("127.0.0.1", PORT))
        policy = policy_for([native_dialect()])
        from orchestra.transports.auth import open_gate

        async with anyio.create_task_group() as group:
            await group.start(orchestrator.run)
            await self._set_up(orchestrator)
            app = http_api(orchestrator, policy=policy)
            door = Door(app, open_gate(config, policy), clock=self.world.time)
            await self.world.serve(door, config, app.close_streams)

    async def _set_up(self, orchestrator: Orchestrator) -> None:
        while True:
            try:
                await orchestrator.ask(Reconfigure(losses_max=self.shape.losses_max))
            except Unavailable:  # the disk is full, or fails
                await anyio.sleep(SET_UP_AGAIN_S)
            else:
                return

    async def _work(self, name: str) -> None:
        engines = [
            WatchedEngine(engine, self.truth, name)
            for engine in engines_for(self.shape.tasks, None)
        ]
        agent = self._agents[name] = Agent(
            self._dial,
            engines,
            name=name,
            slots=self.shape.slots,
            capacity=CAPACITY,
            host={},
            session=f"{name}-{self._lives[name]}",
            fence=self.shape.fence,
            clock=self.world.time,
            vitals=None,
            rng=Random(f"{name} {self.rng.random()}"),
        )
        await agent.run()

    def _dial(self) -> AbstractAsyncContextManager[Asker]:
        scheme = "ws" if self.shape.transport == "websocket" else "http"
        return self._dialled(f"{scheme}://127.0.0.1:{PORT}")

    @asynccontextmanager
    async def _dialled(self, url: str) -> AsyncGenerator[Asker]:
        try:
            async with connect(url) as asker:
                yield asker
        except TimeoutError as error:
            raise Unavailable(str(error)) from None

    def people(self) -> AbstractAsyncContextManager[Asker]:
        """A connection of the people's."""
        return connect(f"http://127.0.0.1:{PORT}")


def _is_failing_disk(error: Exception) -> bool:
    """Whether nothing but a store that failed ended a program."""
    if isinstance(error, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", error)
        return group.split(StoreFailed)[1] is None
    return isinstance(error, StoreFailed)
