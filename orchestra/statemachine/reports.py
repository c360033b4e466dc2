"""What already happened elsewhere. A report can not be refused, only ignored: a peer can be wrong, never fatal."""

from __future__ import annotations

from enum import StrEnum

from orchestra.statemachine.commands import Command
from orchestra.statemachine.records import Cause
from orchestra.statemachine.replies import HeartbeatAnswered, ReportsAnswered
from orchestra.statemachine.values import value


class Happening(StrEnum):
    """What a worker can tell of an attempt."""

    RUNNING = "running"
    PROGRESS = "progress"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


@value
class AttemptReport:
    """
    One thing that happened to one attempt.

    ``stopped`` means: ended by a stop, and nothing of it is alive. ``result`` goes with ``completed``; ``cause``,
    ``message``, ``exit_code`` and ``signal`` with any end; ``fraction`` (0 to 1) and ``message`` with progress.
    """

    attempt_id: str
    happening: Happening
    result: bytes | None = None
    cause: Cause = Cause.NONE
    message: str = ""
    exit_code: int | None = None
    signal: str = ""
    fraction: float = 0.0

    @property
    def progress(self) -> tuple[float, str]:
        """How far it is, as it is shown: from 0 to 1, and a message that fits a line or two."""
        return min(max(self.fraction, 0.0), 1.0), self.message[:200]


@value
class AttemptsReported(Command[ReportsAnswered]):
    """A worker tells what happened, oldest first. Repeating a report changes nothing."""

    worker_id: str
    incarnation: int
    reports: tuple[AttemptReport, ...]


@value
class Heartbeat(Command[HeartbeatAnswered]):
    """
    A worker is alive, and lists the attempts that it holds (running, or ended and not yet acknowledged).

    Renews the lease of all its attempts. The answer repairs what was lost on the way: orders it does not hold, and
    attempts that are not its own any more.
    """

    worker_id: str
    incarnation: int
    holding: tuple[str, ...] = ()
    load: float = 0.0
    memory_free_bytes: int = 0
    disk_free_bytes: int = 0
