"""What would reach beyond a simulation, put in its place: threads, logs, clocks, and the order of sets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from typing import Any
from unittest import mock

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import attrs

from orchestra.config import Address
from orchestra.engines import context as engine_context
from orchestra.runtime import orchestrator
from orchestra.statemachine import Outcome, State, Stimulus
from orchestra.storage import log_length, sqlite, sqlite_files
from orchestra.testing.order import out_of_turn
from orchestra.testing.simulation.asyncio_wires import Port
from orchestra.testing.simulation.disk import Disk
from orchestra.testing.simulation.drive import Drive
from orchestra.testing.simulation.sqlite_disk import SqliteDisk
from orchestra.testing.simulation.truth import Truth
from orchestra.testing.simulation.worlds import World
from orchestra.transports import serve as serving


@contextmanager
def outside_of_time(world: World) -> Generator[None]:
    """What would reach beyond the loops: threads run in them, and logs are nobody's."""

    async def inline(function: Callable[..., Any], *args: object, **_: object) -> Any:
        await anyio.lowlevel.checkpoint()
        return function(*args)

    log = logging.getLogger("orchestra")
    with (
        mock.patch.object(log, "handlers", [logging.NullHandler()]),
        mock.patch.object(log, "propagate", False),
        mock.patch.object(anyio.to_thread, "run_sync", inline),
        mock.patch.object(anyio.from_thread, "check_cancelled"),
        mock.patch.object(engine_context, "time", _WorldTime(world)),
        # Once for the whole simulation: servers come and go, and one that was killed leaves after its successor came.
        mock.patch.object(serving, "_bind", _simulated_ports),
    ):
        yield


def _simulated_ports(address: Address) -> list[Port]:
    return [Port(address.host, address.port)]


@contextmanager
def real_store(world: World, disk: Disk) -> Generator[None]:
    """The real store measures how long its drive takes, and moves its log when it is long."""
    if not isinstance(disk, SqliteDisk):
        yield
        return
    with (
        mock.patch.object(sqlite, "time", _DriveTime(world, disk.drive)),
        mock.patch.object(sqlite_files, "CHECKPOINT_PAGES", disk.checkpoint_pages),
        mock.patch.object(log_length, "ENTRIES_BEFORE", disk.entries_before),
    ):
        yield


@contextmanager
def watched_turns(truth: Truth) -> Generator[None]:
    """Whatever a server gives out is held against whose turn it is: what is stored does not tell the steps of a commit apart."""
    original = orchestrator.step

    def watched(state: State, stimulus: Stimulus) -> Outcome:
        before = {"attempt": dict(state.rows["attempt"])}
        outcome = original(state, stimulus)
        for told in out_of_turn(before, state, stimulus.at_ms):
            truth.violated(told)
        return outcome

    with mock.patch.object(orchestrator, "step", watched):
        yield


@contextmanager
def numbered_scopes() -> Generator[None]:
    """On asyncio scopes stand in sets, and are cancelled in their order: it must not depend on where in memory they are."""
    # The class of the backend; the public name makes one of it inside a loop only.
    kind: Any = import_module("anyio._backends._asyncio").CancelScope
    numbers: dict[int, int] = {}

    def make(cls: Any, *_: Any, **__: Any) -> Any:
        scope = object.__new__(cls)
        numbers[id(scope)] = next(following)
        return scope

    def number_of(scope: Any) -> int:
        return numbers.get(id(scope)) or object.__hash__(scope)

    following = count(1)
    with (
        mock.patch.object(kind, "__new__", make),
        mock.patch.object(kind, "__hash__", number_of),
    ):
        yield


@attrs.frozen(slots=True)
class _WorldTime:
    world: World

    def monotonic(self) -> float:
        return self.world.time()


@attrs.frozen(slots=True)
class _DriveTime:
    world: World
    drive: Drive

    def perf_counter(self) -> float:
        return self.world.now_s + self.drive.busy_s
