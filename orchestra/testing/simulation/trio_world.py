"""
The machines of a simulation on trio: each process has loops of its own, as on real machines, and a turn of one is a turn of its clock.

trio runs one loop in a thread and waits in it. Here nobody waits: the loops are generators, which trio has for hosts with a loop of
their own, and are sent on in an order that the plan draws. A frozen one is not sent on, a killed one never again.
"""

from __future__ import annotations

import heapq
import logging
import math
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from importlib import import_module
from itertools import count
from random import Random
from typing import Any, NoReturn
from unittest import mock

import trio
from sniffio import thread_local

from orchestra.config import Config
from orchestra.testing.simulation.network import PEOPLE, Network
from orchestra.testing.simulation.trio_server import serve
from orchestra.testing.simulation.trio_wires import Sockets
from orchestra.testing.simulation.world import (
    MOMENT_S,
    PROCESS,
    TURN_S,
    TURNS_MAX,
    MachineProcess,
    Stuck,
)
from orchestra.testing.simulation.worlds import SPINS, UNWINDING_S, UNWINDINGS_MAX, Program
from orchestra.transports.door import Door

_loops: Any = import_module("trio._core._run")
"""How trio is told to schedule by a given chance, and how a loop is sent on by hand, has no public name."""


@contextmanager
def seeded_trio(rng: Random) -> Generator[None]:
    """Tasks that can run at the same time run in an order that ``rng`` draws, and nothing else decides it."""
    with (
        mock.patch.object(_loops, "_ALLOW_DETERMINISTIC_SCHEDULING", new=True),
        mock.patch.object(_loops, "_r", rng),
    ):
        yield


class Unwound(BaseException):
    """What is still there at the end of a simulation is told so."""


class _MachineClock(trio.abc.Clock):
    """What the clock of a process's machine shows."""

    def __init__(self, world: TrioWorld, process: TrioProcess) -> None:
        self._world = world
        self._process = process

    def start_clock(self) -> None:
        """It goes already."""

    def current_time(self) -> float:
        """In seconds."""
        return self._process.shown_s(self._world.now_s)

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """How long until then, in the time of the world."""
        return self._process.world_s(deadline) - self._world.now_s


class _Steps(trio.abc.Instrument):
    """Counts what all loops do."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002  # trio names it
        """A task goes on."""
        self.count += 1


class TrioProcess(MachineProcess):
    """
    A simulated process with a loop of its own.

    Args:
        world: Of which it is a part.
        name: For the story.
    """

    def __init__(self, world: TrioWorld, name: str) -> None:
        super().__init__(name)
        self.world = world
        self.error: BaseException | None = None
        """What ended its program."""
        self._runner: Any = None
        self._loop: Generator[float, Any] | None = None
        self._globals: dict[str, Any] = {}
        self._hooks: Any = None
        self._scope = trio.CancelScope()
        self._over = False
        """Its program has returned."""

    # its loop -----------------------------------------------------------------------------------------------------

    def begin(self, program: Callable[[], Awaitable[None]]) -> None:
        """Make its loop, in which the program is the main task."""
        copy_context().run(self._begin, program)

    def _begin(self, program: Callable[[], Awaitable[None]]) -> None:
        PROCESS.set(self)
        with self.inside():
            self._runner = _loops.setup_runner(
                _MachineClock(self.world, self),
                [self.world.steps],
                restrict_keyboard_interrupt_to_checkpoints=True,
                strict_exception_groups=True,
            )
            loop: Generator[float, Any] = _loops.unrolled_run(
                self._runner, self._live, (program,), host_uses_signal_set_wakeup_fd=True
            )
            next(loop)  # to where it would wait for the first time
            self._loop = loop

    async def _live(self, program: Callable[[], Awaitable[None]]) -> None:
        trio.socket.set_custom_socket_factory(Sockets(self.world.network, self))
        try:
            with self._scope:
                await program()
        except BaseException as error:  # noqa: BLE001  # whoever waits for the program raises it
            self.error = error
        self._over = True

    def beside(self, action: Program) -> None:
        """Let it do something beside its program."""

        async def told() -> None:
            with suppress(trio.Cancelled):
                await action()

        with self.inside():
            self._runner.spawn_system_task(told, context=self._runner.main_task.context.copy())

    @contextmanager
    def inside(self) -> Generator[None]:
        """What happens here happens in its loop, whichever runs otherwise."""
        place: dict[str, Any] = _loops.GLOBAL_RUN_CONTEXT.__dict__
        outer, hooks, library = dict(place), sys.get_asyncgen_hooks(), thread_local.name
        place.clear()
        place.update(self._globals)
        if self._hooks is not None:
            sys.set_asyncgen_hooks(*self._hooks)
        thread_local.name = "trio"
        try:
            yield
        finally:
            self._globals = dict(place)
            self._hooks = sys.get_asyncgen_hooks()
            place.clear()
            place.update(outer)
            sys.set_asyncgen_hooks(*hooks)
            thread_local.name = library

    @property
    def ended(self) -> bool:
        """Whether nothing of its loop is left."""
        return self._loop is None

    @property
    def goes_on(self) -> bool:
        """Whether there is anything to be done: what has ended by itself tidies up, what was killed does not."""
        return self._loop is not None and (self.alive or self._over)

    def due_s(self) -> float:
        """The moment of the world at which it has something to do."""
        if self._runner.runq or self._entered:
            return self.world.now_s
        deadline = self._runner.deadlines.next_deadline()
        return self.world_s(deadline) if deadline < math.inf else math.inf

    def turn(self) -> None:
        """One turn of its loop."""
        if self._loop is None:
            return
        with self.inside():
            try:
                self._loop.send(self._events())
            except StopIteration:
                self._loop = None

    def _events(self) -> Any:
        # The system is asked only when it has something of this process's own.
        return self._runner.io_manager.get_events(0) if self._entered else []

    @property
    def _entered(self) -> bool:
        entered = self._runner.entry_queue
        return bool(entered.queue or entered.idempotent_queue)

    # what is done to it --------------------------------------------------------------------------------------------

    def skew(self, rate: float) -> None:
        """As `MachineProcess.skew`."""
        self.turn_clock(self.world.now_s, rate)

    def rise(self) -> None:
        """Let it go on, and be cancelled."""
        self.alive = True
        self.frozen = False
        if not self.ended:
            with self.inside():
                self._scope.cancel()

    def drop(self) -> None:
        """What does not hear of a cancelled scope is thrown out."""

        def raise_it() -> NoReturn:
            raise Unwound

        with self.inside():
            tasks: list[Any] = [] if self._over else [self._runner.main_task]
            for task in tasks:  # grows by those that each has begun
                tasks += [each for every in task.child_nurseries for each in every.child_tasks]
            for task in tasks:
                if task._abort_func is not None:  # noqa: SLF001  # there is no public way past a shield
                    task._attempt_abort(raise_it)  # noqa: SLF001  # there is no public way past a shield


class TrioWorld:
    """See `worlds.World`: all loops, and what happens between them."""

    network: Network

    def __init__(self) -> None:
        self.now_s = 0.0
        self.steps = _Steps()
        self.people: list[TrioProcess] = []
        """What the people did; something is left of it only when it was given up."""
        self._processes: list[TrioProcess] = []
        self._numbers = count()
        self._planned: list[tuple[float, int, Callable[[], object]]] = []
        self._turns = 0
        """Of all loops together, since time last passed."""

    @property
    def callbacks(self) -> int:
        """As `World.callbacks`."""
        return self.steps.count

    def time(self) -> float:
        """As `World.time`."""
        process = PROCESS.get()
        return self.now_s if process is None else process.shown_s(self.now_s)

    def process(self, name: str) -> TrioProcess:
        """As `World.process`."""
        return TrioProcess(self, name)

    def start(self, process: TrioProcess, program: Callable[[], Awaitable[None]]) -> None:
        """As `World.start`."""
        process.begin(program)
        self._processes.append(process)

    def beside(self, process: TrioProcess, action: Program) -> None:
        """As `World.beside`."""
        process.beside(action)

    def at(self, when_s: float, action: Callable[[], object]) -> None:
        """As `World.at`."""
        heapq.heappush(self._planned, (when_s, next(self._numbers), action))

    async def serve(self, door: Door, config: Config, stopping: Callable[[], None]) -> None:
        """As `World.serve`: a small server of the same protocols, since the real one is for asyncio."""
        del stopping  # a simulated server is killed; it never stops
        await serve(door, config)

    def play(self, test: Callable[[], Awaitable[None]]) -> None:
        """As `World.play`."""
        self._run(self.process(PEOPLE), test)

    def unwind(self, processes: list[TrioProcess], last: Callable[[], Awaitable[None]]) -> None:
        """As `World.unwind`."""
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            self._planned.clear()
            for time in range(UNWINDINGS_MAX):
                left = [each for each in (*processes, *self.people) if not each.ended]
                for process in left:
                    process.rise()
                    if time > SPINS:
                        process.drop()
                self._turns = 0
                self._processes = left
                self._go_on(lambda: not self._living(), self.now_s + UNWINDING_S)
            self._run(self.process(PEOPLE), last)
        finally:
            logging.disable(level)

    # time -----------------------------------------------------------------------------------------------------------

    def _run(self, process: TrioProcess, program: Callable[[], Awaitable[None]]) -> None:
        self.start(process, program)
        self.people.append(process)
        try:
            self._go_on(lambda: process.ended, math.inf)
        finally:
            if process in self._processes:
                self._processes.remove(process)
        if process.error is not None:
            raise process.error

    def _living(self) -> list[TrioProcess]:
        self._processes = [each for each in self._processes if each.goes_on]
        return [each for each in self._processes if not each.frozen]

    def _go_on(self, until: Callable[[], bool], ends_s: float) -> None:
        while not until() and self.now_s < ends_s:
            ready = [each for each in self._living() if each.due_s() <= self.now_s]
            planned = self._planned[0][0] if self._planned else math.inf
            if ready or planned <= self.now_s:
                self._turn(ready)
            else:
                self._leap(min(planned, ends_s, *(each.due_s() for each in self._living())))

    def _turn(self, ready: list[TrioProcess]) -> None:
        while self._planned and self._planned[0][0] <= self.now_s:
            heapq.heappop(self._planned)[2]()
        _loops._r.shuffle(ready)  # noqa: SLF001  # what the plan's seed draws of all scheduling
        for process in ready:
            if process.goes_on and not process.frozen:
                process.turn()
        self._turns += 1
        if self._turns > TURNS_MAX:
            raise Stuck("somebody goes round and round, and no time passes")
        self.now_s += TURN_S

    def _leap(self, when_s: float) -> None:
        if when_s == math.inf:
            raise Stuck("nothing will ever happen again, and somebody still waits")
        if when_s - self.now_s >= MOMENT_S:
            self._turns = 0
        self.now_s = max(when_s, self.now_s) + TURN_S
