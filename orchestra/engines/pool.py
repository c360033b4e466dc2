"""
Functions in processes of their own, which can be killed: one call at a time in each, started through a guardian and kept for the next.

A process speaks frames of msgpack over a socket. To it: ``["call", {...}]`` and ``["asked"]``. From it: ``["running"]``,
``["progress", fraction, message]``, ``["log", bytes]``, ``["completed", result]``, ``["failed", message]`` and ``["stopped"]``.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import anyio
import attrs
import msgspec
from anyio.abc import TaskGroup

from orchestra.engines import outcomes
from orchestra.engines.frames import Unpacker, packed
from orchestra.engines.guard import Guard, Ward
from orchestra.engines.registered import Registered
from orchestra.errors import Malformed
from orchestra.ports import AttemptSink, Ended
from orchestra.statemachine.records import Cause
from orchestra.statemachine.replies import Order
from orchestra.statemachine.values import value

IDLE_MAX = max(2, os.cpu_count() or 1)
"""Idle processes that are kept: more could not compute at the same time."""

LINE_FD = 3
"""The number under which a process finds its socket."""

_LAST = ("completed", "failed", "stopped")


@attrs.define(slots=True, eq=False)
class Worker:
    """A process that runs one call after another."""

    ward: Ward
    line: socket.socket
    unpacker: Unpacker = attrs.Factory(Unpacker)


@attrs.define(slots=True, eq=False)
class Call:
    """One call in a process."""

    order: Order
    entry: Registered
    sink: AttemptSink
    rung: str = ""
    timed_out: bool = False
    worker: Worker | None = None
    guard: Guard | None = None

    def climb(self, rung: str) -> None:
        """``asked`` reaches the context; ``term`` and ``kill`` end the process and its children."""
        self.rung = rung
        if self.worker is None or self.guard is None:
            return
        if rung == "asked":
            self.ask()
        else:
            self.guard.climb(self.worker.ward, rung)

    def ask(self) -> None:
        """Tell the context that a stop is asked for."""
        if self.worker is not None:
            try:
                self.worker.line.send(packed(msgspec.msgpack.encode(["asked"])))
            except OSError:
                return  # it is gone, or does not listen: the next rung needs no ear


@value
class Place:
    """Where a process finds a function: a module, or the file of the main program, and a name inside."""

    module: str
    path: str
    name: str


def place_of(entry: Registered) -> Place:
    """Raises Malformed for a function that another process can not find by its name."""
    fn = entry.fn
    name = getattr(fn, "__qualname__", "")
    if not name or "<" in name:
        remedy = "define it at the top of a module"
        message = f"{name or fn!r} can not be found by another process"
        raise Malformed(message, where=entry.name, remedy=remedy)
    module, path = fn.__module__, ""
    if module == "__main__":
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        path = "" if spec is not None else getattr(main, "__file__", None) or ""
        if spec is None and not path:
            remedy = "put it into a file"
            message = f"{name} was typed at a prompt, where no other process can find it"
            raise Malformed(message, where=entry.name, remedy=remedy)
        module = "" if spec is None else spec.name
    return Place(module, str(Path(path).absolute()) if path else "", name)


class Pool:
    """Processes for calls. They are made when they are needed, and end with the engine and with the engine's process."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._guard = Guard(tasks)
        self._idle: list[Worker] = []

    def extend(self, until_s: float) -> None:
        """As `ports.Engine.extend`."""
        self._guard.extend(until_s)

    async def aclose(self) -> None:
        """End all processes."""
        await self._guard.aclose()
        for worker in self._idle:
            worker.line.close()
        self._idle.clear()

    async def run(self, call: Call) -> Ended:
        """Run one call to its end. After a stop or a time limit nothing of its process is alive when this returns."""
        ended: Ended | None = None
        with anyio.CancelScope(shield=True):
            ended = await self._run(call)
        return ended or Ended("failed", cause=Cause.LOST, message="its engine was torn down")

    async def _run(self, call: Call) -> Ended:
        try:
            place = place_of(call.entry)
            worker = self._idle.pop() if self._idle else self._started()
        except (Malformed, OSError, ValueError) as problem:
            return Ended("failed", cause=Cause.UNSTARTABLE, message=outcomes.bounded(str(problem)))
        call.worker, call.guard = worker, self._guard
        answer: list[Any] | None = None
        try:
            answer = await self._within_limit(call, place)
        finally:
            fit = answer is not None and not worker.ward.gone.is_set() and not call.rung
            if fit and not call.timed_out and len(self._idle) < IDLE_MAX:
                self._idle.append(worker)
            else:
                await self._ended(worker)
        return _told(call, answer, worker.ward)

    async def _within_limit(self, call: Call, place: Place) -> list[Any] | None:
        limit_ms = call.order.run_ms_max
        if limit_ms is None:
            return await self._conversation(call, place)
        answer = None
        with anyio.move_on_after(limit_ms / 1000) as limit:
            answer = await self._conversation(call, place)
        if limit.cancelled_caught and not call.rung and call.worker is not None:
            call.timed_out = True
            self._guard.climb(call.worker.ward, "term")
            with anyio.move_on_after(call.order.grace_ms / 1000):
                await call.worker.ward.gone.wait()
        return answer

    async def _ended(self, worker: Worker) -> None:
        self._guard.climb(worker.ward, "kill")
        await worker.ward.gone.wait()
        worker.line.close()

    def _started(self) -> Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from orchestra.engines.pool_worker import serve; serve({LINE_FD})"
        )
        files = {LINE_FD: theirs.detach()}
        for number in (1, 2):  # what it prints goes where this process prints
            try:
                files[number] = os.dup(number)
            except OSError:
                continue  # a service may have none
        try:
            argv = [sys.executable, "-c", code]
            ward = self._guard.spawn(argv, os.environ, str(Path.cwd()), files)
        except BaseException:
            ours.close()
            raise
        return Worker(ward, ours)

    async def _conversation(self, call: Call, place: Place) -> list[Any] | None:
        """Hand over the call and pass on what it tells. None when the process ended before the call did."""
        order, worker = call.order, call.worker
        if worker is None:
            return None
        words = {
            "place": attrs.asdict(place),
            "param": call.entry.param,
            "task_id": order.task_id,
            "attempt": order.number,
            "template": order.template,
            "item": order.item,
        }
        try:
            await _send(worker.line, packed(msgspec.msgpack.encode(["call", words])))
            if call.rung == "asked":
                call.ask()
            return await self._listen(call, worker)
        except OSError:
            return None

    async def _listen(self, call: Call, worker: Worker) -> list[Any] | None:
        id = call.order.attempt_id
        while True:
            try:
                data = worker.line.recv(262_144)
            except BlockingIOError:
                await anyio.wait_readable(worker.line)
                continue
            if not data:
                return None
            for payload in worker.unpacker.feed(data):
                words: list[Any] = msgspec.msgpack.decode(payload)
                match words[0]:
                    case "running":
                        await call.sink.running(id)
                    case "progress":
                        await call.sink.progress(id, words[1], words[2])
                    case "log":
                        await call.sink.output(id, "stdout", words[1])
                    case _:
                        return words


async def _send(line: socket.socket, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[line.send(left) :]
        except BlockingIOError:
            await anyio.wait_writable(line)


def _told(call: Call, answer: list[Any] | None, ward: Ward) -> Ended:
    if call.timed_out:
        limit_s = (call.order.run_ms_max or 0) / 1000
        message = f"ran longer than its limit of {limit_s:g} s"
        return Ended("failed", cause=Cause.TIMEOUT, message=message)
    if call.rung:
        return outcomes.stopped(ward)
    if answer is None:
        if ward.refused:
            return outcomes.refused(ward)
        return outcomes.ended_by_guardian(ward, 0) or outcomes.died(ward.status)
    if answer[0] == "completed":
        return Ended("completed", result=answer[1])
    message = (
        answer[1] if answer[0] == "failed" else "it raised Stopped, and nobody had asked for it"
    )
    return Ended("failed", cause=Cause.ERROR, message=message)
