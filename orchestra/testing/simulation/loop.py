"""
An event loop whose time leaps from one event to the next, and whose callbacks belong to processes that can be frozen or killed.

The code that runs on it is the real one: what differs is `time()`, and that nothing ever waits for the outside. A callback belongs to the
process in whose context it was planned. Those of a frozen process are held until it thaws; those of a killed one never run: no clean-up,
no goodbye, exactly as after SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import selectors
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Self, TypeVarTuple, Unpack

import attrs

from orchestra.testing.simulation.world import (
    MOMENT_S,
    PROCESS,
    TURN_S,
    TURNS_MAX,
    MachineProcess,
    Stuck,
)

Ts = TypeVarTuple("Ts")

SWEEP_EVERY = 1_000
"""Tasks that have ended are let go after so many new ones."""


@attrs.define(slots=True, eq=False)
class _Planned:
    """One callback of a process. ``handle`` is what its planner may cancel."""

    callback: Callable[..., object]
    args: tuple[Any, ...]
    context: Context
    handle: asyncio.Handle | None = None


class Process(MachineProcess):
    """
    A simulated process on this loop.

    Args:
        loop: Where its callbacks run.
        name: For the story.
    """

    def __init__(self, loop: SimulatedLoop, name: str) -> None:
        super().__init__(name)
        self._loop = loop
        self._held: list[_Planned] = []
        self._context = contextvars.copy_context()
        self._context.run(PROCESS.set, self)
        self.buried: list[_Planned] = []
        """What a killed process would have done. Kept, so that nothing of it is collected and cleaned up half-way."""

    def skew(self, rate: float) -> None:
        """As `MachineProcess.skew`."""
        waits = [(handle, self.shown_s(handle.when())) for handle in self._loop.timers_of(self)]
        self.turn_clock(self._loop.now_s, rate)
        self._loop.put_off([(handle, self.world_s(when_s)) for handle, when_s in waits])

    def context(self) -> Context:
        """A context of this process."""
        return self._context.copy()

    def thaw(self) -> None:
        """As `MachineProcess.thaw`."""
        super().thaw()
        held, self._held = self._held, []
        for planned in held:
            self._loop.plan(planned)

    def kill(self) -> None:
        """As `MachineProcess.kill`."""
        super().kill()
        self.buried += self._held
        self._held = []

    def rise(self) -> None:
        """Let everything that was buried happen after all, so that it can be unwound."""
        self.alive = True
        self.thaw()
        buried, self.buried = self.buried, []
        for planned in buried:
            self._loop.plan(planned)

    def step(self, planned: _Planned) -> None:
        """A callback of this process is due."""
        if planned.handle is not None and planned.handle.cancelled():
            return
        if not self.alive:
            self.buried.append(planned)
        elif self.frozen:
            self._held.append(planned)
        else:
            planned.callback(*planned.args)


def _process_of(context: Context) -> Process | None:
    process = context.get(PROCESS)
    return process if isinstance(process, Process) else None


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address: sets of tasks are cancelled in the same order at every run."""

    number = 0

    def __new__(cls, *_: Any, **__: Any) -> Self:
        # Before `__init__`, which puts it into a set.
        made = super().__new__(cls)
        _Task.number += 1
        made.number = _Task.number
        return made

    def __hash__(self) -> int:
        return self.number


class SimulatedLoop(asyncio.SelectorEventLoop):
    """The loop. Its time is in seconds, and begins at 0."""

    def __init__(self) -> None:
        self.now_s = 0.0
        """The time of the world, whatever clocks show."""
        self.callbacks = 0
        super().__init__(_Leaping(self))
        _Task.number = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """The simulated time, as the machine of the running process shows it."""
        process = PROCESS.get()
        return self.now_s if process is None else process.shown_s(self.now_s)

    def leap(self, seconds: float) -> None:
        """Let so much time pass."""
        self.now_s += seconds

    def _make_task(self, _: object, coroutine: Any, **kwargs: Any) -> asyncio.Task[Any]:
        # Nobody else holds what a killed process was about to do; it must not be collected, and cleaned up, in the middle.
        task = _Task(coroutine, loop=self, **kwargs)
        self._tasks.append(task)
        if len(self._tasks) % SWEEP_EVERY == 0:
            self._tasks = self.unfinished()
        return task

    def unfinished(self) -> list[asyncio.Task[Any]]:
        """Tasks that have not ended, those of killed processes included."""
        return [task for task in self._tasks if not task.done()]

    def plan(self, planned: _Planned) -> asyncio.Handle:
        """Plan a callback of a process for now."""
        process = _process_of(planned.context)
        if process is None:
            return super().call_soon(planned.callback, *planned.args, context=planned.context)
        return super().call_soon(process.step, planned, context=planned.context)

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """As in any loop."""
        self.callbacks += 1
        context = copy_context() if context is None else context
        process = _process_of(context)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        planned = _Planned(callback, args, context)
        planned.handle = super().call_soon(process.step, planned, context=context)
        return planned.handle

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As in any loop."""
        context = copy_context() if context is None else context
        process = _process_of(context)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        planned = _Planned(callback, args, context)
        moment_s = process.world_s(when)
        timer = super().call_at(moment_s, process.step, planned, context=context)
        planned.handle = timer
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As in any loop; what belongs to no process goes by the time of the world."""
        if context is not None and context.get(PROCESS) is None:
            return self.call_at(self.now_s + delay, callback, *args, context=context)
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def timers_of(self, process: Process) -> list[asyncio.TimerHandle]:
        """What a process waits for."""
        every: list[asyncio.TimerHandle] = vars(self)["_scheduled"]
        return [
            timer
            for timer in every
            if any(
                isinstance(each, _Planned) and each.context.get(PROCESS) is process
                for each in _args_of(timer)
            )
        ]

    def put_off(self, timers: list[tuple[asyncio.TimerHandle, float]]) -> None:
        """Give timers other moments. Who holds one may cancel it as before."""
        for timer, when_s in timers:
            timer._when = when_s  # noqa: SLF001  there is no public way that keeps the handle
        heapq.heapify(vars(self)["_scheduled"])


def _args_of(timer: asyncio.TimerHandle) -> tuple[object, ...]:
    return getattr(timer, "_args", None) or ()


class _Leaping(selectors.SelectSelector):
    """Instead of waiting, time leaps."""

    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop
        self._turns = 0
        """Of the loop, since time last passed."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Nothing comes from outside."""
        if timeout is None:
            raise Stuck("nothing will ever happen again, and somebody still waits")
        self._turns = self._turns + 1 if timeout < MOMENT_S else 0
        if self._turns > TURNS_MAX:
            raise Stuck("somebody goes round and round, and no time passes")
        self._loop.leap(max(timeout, TURN_S))
        return []
