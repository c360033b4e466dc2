"""
The dialects that can be switched on beside the native one, by name, each put together with what it needs of this machine.

Each imports its module when it is called.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from orchestra.statemachine.values import value

if TYPE_CHECKING:
    from orchestra.calls import TaskFunction
    from orchestra.config import DialectPort
    from orchestra.dialects.flamenco_compilers import TaskCompiler
    from orchestra.dialects.tango_member import Member
    from orchestra.dialects.tango_places import Place
    from orchestra.dialects.wire import Dialect
    from orchestra.engines.member import MemberEngine

_NO_TASKS: Mapping[str, TaskFunction[Any, Any, Any]] = MappingProxyType({})

LOG = logging.getLogger("orchestra.compose")

EMBEDDED = "embedded"
"""The label of workers that live in the orchestrator's own process: when it starts, those of its former life are gone."""


@value
class Staff:
    """
    The workers that a dialect brings along, which `crew` employs.

    Args:
        places: The member containers that are worked in, one worker for each.
        engines: Of those that are employed, by container.
    """

    places: tuple[Place, ...] = ()
    engines: dict[str, MemberEngine] = attrs.field(factory=dict[str, "MemberEngine"])


@value
class Staffed:
    """A dialect with its workers."""

    dialect: Dialect
    staff: Staff


Maker = Callable[["DialectPort"], "Dialect | Staffed"]
"""Makes a dialect from its table of options."""


def _job_runner(port: DialectPort) -> Dialect:
    from orchestra.dialects.job_runner import job_runner
    from orchestra.engines.paths import kind_at

    if not port.options.get("commands"):
        LOG.warning("dialect job-runner: its list of commands is empty, so nothing runs")
    return job_runner(port, kind_at)


def flamenco_dialect(port: DialectPort, further: Iterable[TaskCompiler[Any]] = ()) -> Dialect:
    """
    Flamenco's manager as a dialect of this machine.

    Args:
        further: Kinds of tasks beside the usual ones. Whoever runs the manager registers them; no request can.

    Raises:
        Malformed: An option is unknown or of another kind, or two compilers have one name.
    """
    from orchestra.dialects.flamenco import Surroundings, flamenco
    from orchestra.dialects.flamenco_compilers import Compilers
    from orchestra.dialects.flamenco_options import read_options
    from orchestra.storage.shelf import FolderShelf
    from orchestra.transports.far_calls import call_all

    def weekday_and_minute() -> tuple[int, int]:
        now = time.localtime()
        return now.tm_wday, now.tm_hour * 60 + now.tm_min

    def shelf_at(folder: str) -> FolderShelf:
        shelf = FolderShelf(Path(folder))
        shelf.clear()
        return shelf

    surroundings = Surroundings(
        lambda: time.monotonic_ns() // 1_000_000,
        weekday_and_minute,
        shelf_at,
        call_all,
    )
    usual = read_options(port).compilers().by_name.values()
    return flamenco(port, surroundings, Compilers((*usual, *further)))


def _flamenco_worker(port: DialectPort) -> Dialect:
    import socket
    import uuid

    from orchestra.dialects.flamenco_worker import flamenco_worker
    from orchestra.dialects.flamenco_worker_reports import Surroundings
    from orchestra.engines.kin import begun_with
    from orchestra.transports.far_files import FolderParcels
    from orchestra.worker.detect import host, shares

    def addresses_of(name: str) -> frozenset[str]:
        try:
            found = socket.getaddrinfo(name, None)
        except OSError:
            return frozenset()
        return frozenset(str(address[0]) for *_, address in found)

    if not port.options.get("programs"):
        LOG.warning("dialect flamenco-worker: its table of programs is empty, so nothing runs")
    facts = host()
    surroundings = Surroundings(
        lambda: time.monotonic_ns() // 1_000_000,
        FolderParcels(),
        addresses_of,
        facts.get("hostname", "worker"),
        facts.get("os", ""),
        uuid.getnode(),
        shares,
        lambda attempt_id: begun_with("ORCHESTRA_ATTEMPT", attempt_id),
        (EMBEDDED,),
    )
    return flamenco_worker(port, surroundings)


def _tango(port: DialectPort) -> Staffed:
    from orchestra.dialects.tango_manager import manager
    from orchestra.dialects.tango_options import read_options

    options = read_options(port)
    staff = Staff(tuple(options.places.values()))

    def nudge(container_id: str, ids: tuple[str, str]) -> bool:
        engine = staff.engines.get(container_id)
        return engine is not None and engine.nudge(ids)

    return Staffed(manager(options, nudge), staff)


def _tango_member(
    port: DialectPort, tasks: Mapping[str, TaskFunction[Any, Any, Any]] = _NO_TASKS
) -> Dialect:
    from orchestra.dialects.tango_member import read_member

    return member_dialect(read_member(port, tasks))


def member_dialect(member: Member) -> Dialect:
    """A member container as a dialect of this machine."""
    from orchestra.transports.far_calls import call_all

    return member.dialect(lambda: time.monotonic_ns() // 1_000_000, call_all)


DIALECTS: Mapping[str, Maker] = MappingProxyType(
    {
        "job-runner": _job_runner,
        "flamenco": flamenco_dialect,
        "flamenco-worker": _flamenco_worker,
        "tango": _tango,
        "tango-member": _tango_member,
    }
)
"""What each name in ``[dialects]`` and ``--dialect`` stands for."""


def dialects_for(
    tasks: Mapping[str, TaskFunction[Any, Any, Any]],
) -> Mapping[str, Maker]:
    """The same for a server that knows these tasks."""
    return {**DIALECTS, "tango-member": lambda port: _tango_member(port, tasks)}
