"""What the checks of an engine share: how to come by one, a sink that remembers, and how to say that it is broken."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import attrs

from orchestra.ports import AttemptSink, Ended, Engine
from orchestra.statemachine.records import Cause
from orchestra.statemachine.replies import Order

OUTCOMES = frozenset({"completed", "failed", "stopped"})

_numbers = itertools.count(1)


class EngineBroken(AssertionError):
    """An engine does not keep the contract. The message begins with the law that it broke."""


def expect(condition: object, law: str) -> None:
    """Raise `EngineBroken` unless ``condition`` holds."""
    if not condition:
        raise EngineBroken(law)


@attrs.frozen(slots=True, kw_only=True)
class EngineBench:
    """
    How to come by engines, and what to have them do. Templates are JSON, as in `Order.template`.

    Args:
        make: A new engine, not yet entered.
        app: Which of its apps the templates are for.
        quick: Completes soon.
        failing: Fails soon, of itself.
        lasting: Runs for minutes unless it is stopped; a stop at ``asked`` may or may not end it, ``term`` does.
        talking: Writes to ``stdout``, then completes; None when it can not write.
        said: What it writes.
        stubborn: Runs for minutes and heeds neither ``asked`` nor ``term``; None when ``kill`` can not do more than ``term``.
        broken: Can not be started.
        limits_time: The engine enforces `Order.run_ms_max`.
        end_s: How long anything may take that is due at once.
    """

    make: Callable[[], Engine]
    app: str
    quick: bytes
    failing: bytes
    lasting: bytes
    talking: bytes | None = None
    said: bytes = b""
    stubborn: bytes | None = None
    broken: bytes | None = None
    limits_time: bool = True
    end_s: float = 20.0


Check = Callable[[EngineBench], Awaitable[None]]


class Recorder(AttemptSink):
    """
    A sink that remembers everything, and refuses what may not come.

    Args:
        hold: Output waits until `release`: what an engine meets when its output is not taken away.
    """

    def __init__(self, *, hold: bool = False) -> None:
        self.calls: list[tuple[str, str]] = []
        """What came, in order: (name of the call, attempt id)."""
        self.written: dict[tuple[str, str], bytes] = {}
        """Output by attempt and stream."""
        self.told: dict[str, list[tuple[float, str]]] = {}
        """Progress by attempt."""
        self.ends: dict[str, Ended] = {}
        self._changed = anyio.Event()
        self._free = anyio.Event()
        if not hold:
            self._free.set()

    def release(self) -> None:
        """Let output through."""
        self._free.set()

    async def running(self, attempt_id: str) -> None:
        """Once at most, before the end."""
        expect(("running", attempt_id) not in self.calls, "running is told once")
        self._note("running", attempt_id)

    async def progress(self, attempt_id: str, fraction: float, message: str) -> None:
        """Between 0 and 1."""
        expect(0.0 <= fraction <= 1.0, f"progress is from 0 to 1, not {fraction}")
        self._note("progress", attempt_id)
        self.told.setdefault(attempt_id, []).append((fraction, message))

    async def output(self, attempt_id: str, stream: str, data: bytes) -> None:
        """Never empty, never after the end."""
        expect(data, "output is never empty")
        await self._free.wait()
        self._note("output", attempt_id)
        key = (attempt_id, stream)
        self.written[key] = self.written.get(key, b"") + data

    async def ended(self, attempt_id: str, ended: Ended) -> None:
        """Once, and last."""
        self._note("ended", attempt_id)
        expect(ended.outcome in OUTCOMES, f"{ended.outcome!r} is no outcome")
        if ended.outcome == "completed":
            expect(ended.result is not None, "what completed has a result, if only null")
        if ended.outcome == "failed":
            expect(ended.cause is not Cause.NONE, "a failure has a cause")
            expect(ended.message, "a failure says what happened")
        self.ends[attempt_id] = ended

    async def until(self, condition: Callable[[], bool], what: str, within_s: float) -> None:
        """Wait for something that calls bring about. Raises EngineBroken when it does not come."""
        with anyio.move_on_after(within_s):
            while not condition():
                await self._changed.wait()
        expect(condition(), f"{what} within {within_s:g} s; so far came {self.calls[-10:]}")

    async def end_of(self, attempt_id: str, within_s: float = 20.0) -> Ended:
        """Wait for an attempt's end."""
        await self.until(lambda: attempt_id in self.ends, "an end is told", within_s)
        return self.ends[attempt_id]

    async def start_of(self, attempt_id: str, within_s: float = 20.0) -> None:
        """Wait until an attempt runs."""
        mark = ("running", attempt_id)
        await self.until(lambda: mark in self.calls, "running is told", within_s)

    def _note(self, call: str, attempt_id: str) -> None:
        expect(attempt_id not in self.ends, f"{call} is not told after the end")
        self.calls.append((call, attempt_id))
        self._changed.set()
        self._changed = anyio.Event()


def order_for(
    app: str, template: bytes, *, item: bytes = b"", run_ms_max: int | None = None, **fields: Any
) -> Order:
    """An order with an attempt id of its own; ``fields`` are others of `Order`."""
    number = next(_numbers)
    task_id = f"{number:08}check-0001"
    plain = Order(
        attempt_id=f"{task_id}-0001",
        task_id=task_id,
        job_id=f"{number:08}check",
        job_number=number,
        job_name="check",
        stage="stage",
        app=app,
        template=template,
        item=item,
        position=1,
        offset=0,
        number=1,
        run_ms_max=run_ms_max,
    )
    return attrs.evolve(plain, **fields)
