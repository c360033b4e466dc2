"""
What the far end of a worker decides: what to start, what to stop, what to report and when to fence. No I/O, no clock, no loop.

The agent feeds in what came (orders, answers, what engines told) and carries out the `Action` values that come back. Times
are seconds of one monotonic clock and are always an argument. Everything that is held is bounded by the worker's slots, so
reports need no bound of their own: an attempt has at most one end, one untold `running` and the latest progress.

**The fence.** A lease counts from the moment when the last answered heartbeat (or join) was *sent*; the orchestrator counts
from when it *took* it, which is later, so the worker's idea of the end is never the later one. An attempt is killed
``margin`` before that end, which leaves the engine the margin (2 s at the defaults) to see the last process gone. An
unreachable server may be restarting (nothing runs elsewhere) or cut off (the work is given out again at the end of the
lease), and the worker can not know which. ``strict`` therefore always fences; a restart is survived when the worker is
answered again within lease - margin of its last beat: for certain when the server is away for less than
lease - margin - beat (6 - 2 - 2 = 2 s), at best for 4 s. With a server that takes longer to return, make the lease longer,
or choose ``patient``: attempts run through any outage, a partition may run them twice at the same time, and the
orchestrator's fencing still records one end only.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import attrs

from orchestra.errors import Conflict
from orchestra.ports import Ended
from orchestra.statemachine import limits
from orchestra.statemachine.commands import JoinWorker, LeaveWorker
from orchestra.statemachine.records import Cause, Rung
from orchestra.statemachine.replies import HeartbeatAnswered, Order, ReportsAnswered, WorkerJoined
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat

Fence = Literal["strict", "patient"]

ACKNOWLEDGED_MAX = 10_000
"""Ended attempts that are remembered, so that an order that was late on its way does not start one again: some beats' worth."""

RUNNING_LINGER_S = 0.02
"""Work that ends sooner is never reported as running: one report instead of two for what nobody could have seen."""

PROGRESS_EVERY_S = 0.5
"""People read no faster; each attempt's latest word goes out at most this often."""

REPORT_BYTES_MAX = limits.RESULT_BYTES_MAX
"""Results in one message: one of the longest, or many short ones."""

_LADDER = {Rung.NONE: 0, Rung.ASKED: 1, Rung.TERM: 2, Rung.KILL: 3, Rung.UNCONFIRMED: 3}
_RUNGS = {0: Rung.NONE, 1: Rung.ASKED, 2: Rung.TERM, 3: Rung.KILL}
_ENDS = {
    "completed": Happening.COMPLETED,
    "failed": Happening.FAILED,
    "stopped": Happening.STOPPED,
}


class WorkerReplaced(Conflict):
    """Another process joined under this worker's name: this one has ended its attempts and stops."""

    code = "worker-replaced"


class Standing(StrEnum):
    """How the orchestrator sees this process: a stranger has to join (again), a replaced one has to stop."""

    STRANGER = "stranger"
    MEMBER = "member"
    REPLACED = "replaced"


@attrs.frozen(slots=True)
class Start:
    """Start an attempt."""

    order: Order


@attrs.frozen(slots=True)
class Stop:
    """Climb to a rung of the ladder. ``foreign``: it is not ours any more, and nobody takes its output."""

    attempt_id: str
    app: str
    rung: Rung
    foreign: bool = False


Action = Start | Stop


@attrs.define(slots=True, eq=False)
class _Held:
    """One attempt that runs here, or has ended and is not yet acknowledged."""

    app: str
    rung: int = 0
    foreign: bool = False
    muted: bool = False
    """The orchestrator does not take its output any more."""
    own: tuple[Cause, str] | None = None
    """Why the worker itself stopped it; None when it did not."""
    ended: bool = False
    end: AttemptReport | None = None
    refusals: int = 0
    begun: bool = False
    told: bool = False
    progress: tuple[float, str] | None = None
    progress_due_s: float = 0.0


class WorkerSession:
    """
    The far end of one worker, from its first join to its goodbye.

    Args:
        introduction: How it joins; ``holding`` is filled in at each join.
        fence: ``strict`` ends attempts before an unrenewed lease ends, ``patient`` lets them run.
    """

    def __init__(self, introduction: JoinWorker, *, fence: Fence = "strict") -> None:
        self.introduction = introduction
        self.fence: Fence = fence
        self.standing = Standing.STRANGER
        self.worker_id = ""
        self.incarnation = 0
        self.heartbeat_ms = limits.HEARTBEAT_MS
        self.draining = False
        """No further order is started; what runs goes on."""
        self._lease_ms = limits.LEASE_MS
        self._renewed_s: float | None = None
        self._held: dict[str, _Held] = {}
        self._untold: deque[str] = deque()
        """Attempts whose end is ready to be reported, oldest first."""
        self._soft: dict[str, float] = {}
        """Attempts with an untold running or progress, and when it is due."""
        self._alone = 0
        """How many of the next messages carry a single report, to find the one that is refused."""
        self._acknowledged: OrderedDict[str, None] = OrderedDict()

    # Joining, beating, leaving

    def joining(self) -> JoinWorker:
        """
        The introduction, with all that is held.

        A worker that drains offers no app any more: it keeps what it holds and is given nothing new. Unlike a pause this is
        forgotten when the next process joins under the name.
        """
        apps = () if self.draining else self.introduction.apps
        return attrs.evolve(self.introduction, apps=apps, holding=self.holding)

    def joined(self, reply: WorkerJoined, sent_s: float) -> tuple[Action, ...]:
        """The orchestrator took the introduction that was sent at ``sent_s``."""
        self.worker_id = reply.worker_id
        self.incarnation = reply.incarnation
        self.standing = Standing.MEMBER
        self._renew(reply.lease_ms, reply.heartbeat_ms, sent_s)
        return self._repaired(reply.orders, reply.foreign, sent_s)

    def beating(self, *, load: float, memory_free_bytes: int, disk_free_bytes: int) -> Heartbeat:
        """The heartbeat to send now."""
        return Heartbeat(
            worker_id=self.worker_id,
            incarnation=self.incarnation,
            holding=self.holding,
            load=load,
            memory_free_bytes=memory_free_bytes,
            disk_free_bytes=disk_free_bytes,
        )

    def beaten(self, reply: HeartbeatAnswered, sent_s: float) -> tuple[Action, ...]:
        """The answer to a heartbeat that was sent at ``sent_s``. Look at `standing` afterwards."""
        if not reply.known:
            replaced = reply.remedy == "stop"
            self.standing = Standing.REPLACED if replaced else Standing.STRANGER
            return ()
        self.standing = Standing.MEMBER
        self._renew(reply.lease_ms, reply.heartbeat_ms, sent_s)
        return self._repaired(reply.orders, reply.foreign, sent_s)

    def forgotten(self) -> None:
        """The orchestrator does not know this worker: it has to join again."""
        self.standing = Standing.STRANGER

    def leaving(self) -> LeaveWorker:
        """The goodbye."""
        return LeaveWorker(worker_id=self.worker_id, incarnation=self.incarnation)

    def _repaired(
        self, orders: Iterable[Order], foreign: Iterable[str], now_s: float
    ) -> tuple[Action, ...]:
        actions: list[Action] = []
        for attempt_id in foreign:
            held = self._held.get(attempt_id)
            if held is not None and not held.foreign:
                held.foreign = held.muted = True
                if not held.ended:
                    held.rung = 3
                    actions.append(Stop(attempt_id, held.app, Rung.KILL, foreign=True))
        for order in orders:
            action = self.ordered(order, now_s)
            if action is not None:
                actions.append(action)
        return tuple(actions)

    # The lease and its fence

    def _renew(self, lease_ms: int, heartbeat_ms: int, sent_s: float) -> None:
        self._lease_ms = lease_ms
        self.heartbeat_ms = heartbeat_ms
        if self._renewed_s is None or sent_s > self._renewed_s:
            self._renewed_s = sent_s

    @property
    def _margin_ms(self) -> float:
        # A lease shorter than the default keeps two thirds of itself for the work.
        return min(limits.FENCE_MARGIN_MS, self._lease_ms / 3)

    @property
    def fence_s(self) -> float | None:
        """When the attempts have to be killed unless the lease is renewed; None when they never have to."""
        if self.fence == "patient" or self._renewed_s is None:
            return None
        return self._renewed_s + (self._lease_ms - self._margin_ms) / 1_000

    @property
    def guard_s(self) -> float:
        """
        Until when engines' guardians let work run that this process does not end itself, because it is frozen.

        Half the margin after the fence: the orderly kill comes first, and there is still time before the lease ends.
        """
        renewed_s = self._renewed_s or 0.0
        if self.fence == "patient":
            return renewed_s + limits.TIME_MS_MAX / 1_000
        return renewed_s + (self._lease_ms - self._margin_ms / 2) / 1_000

    def fenced(self, now_s: float) -> tuple[Action, ...]:
        """What to kill because the lease was not renewed in time."""
        fence_s = self.fence_s
        if fence_s is None or now_s < fence_s:
            return ()
        reason = "its worker could not renew the lease and ended it"
        return self.stopped_all(Rung.KILL, Cause.LOST, reason)

    def stopped_all(self, rung: Rung, cause: Cause, reason: str) -> tuple[Action, ...]:
        """
        Climb to ``rung`` with everything that runs, on this worker's own account.

        With cause ``lost`` it counts as a loss of the task (which may be what made this worker slow), with another as a hand-back.
        """
        actions: list[Action] = []
        for attempt_id, held in self._held.items():
            if held.ended or held.rung >= _LADDER[rung]:
                continue
            if not held.rung:
                held.own = (cause, reason)
            held.rung = _LADDER[rung]
            actions.append(Stop(attempt_id, held.app, rung))
        return tuple(actions)

    # Orders

    @property
    def holding(self) -> tuple[str, ...]:
        """Everything that runs here, or has ended and is not acknowledged."""
        return tuple(self._held)

    @property
    def running(self) -> int:
        """How many attempts have not ended."""
        return sum(not held.ended for held in self._held.values())

    def ordered(self, order: Order, now_s: float) -> Action | None:
        """An order came, perhaps not for the first time."""
        attempt_id = order.attempt_id
        held = self._held.get(attempt_id)
        if held is not None:
            rung = _LADDER[order.rung]
            if held.ended or rung <= held.rung:
                return None
            held.rung = rung
            # Whatever the worker had in mind, it is the orchestrator's stop now.
            held.own = None
            return Stop(attempt_id, held.app, _RUNGS[rung])
        if attempt_id in self._acknowledged:
            return None
        if order.rung:
            # The order to start it never came here, so nothing of it is alive.
            self._hand_back(order, "it was stopped before it came to its worker")
            return None
        if self.draining:
            self._hand_back(order, "its worker is about to leave")
            return None
        fence_s = self.fence_s
        if fence_s is not None and now_s >= fence_s:
            return None
        self._held[attempt_id] = _Held(order.app)
        return Start(order)

    def _hand_back(self, order: Order, reason: str) -> None:
        attempt_id = order.attempt_id
        self._held[attempt_id] = _Held(order.app, rung=3)
        self.ended(attempt_id, Ended("stopped", cause=Cause.CANCELLED, message=reason))

    # What engines tell

    def takes_output(self, attempt_id: str) -> bool:
        """Whether output of the attempt is wanted."""
        held = self._held.get(attempt_id)
        return held is not None and not held.ended and not held.muted

    def muted(self, attempt_id: str) -> None:
        """The orchestrator does not take the attempt's output."""
        held = self._held.get(attempt_id)
        if held is not None:
            held.muted = True

    def began(self, attempt_id: str, now_s: float) -> None:
        """The work itself has begun."""
        held = self._held.get(attempt_id)
        if held is None or held.ended or held.begun:
            return
        held.begun = True
        self._soft[attempt_id] = now_s + RUNNING_LINGER_S

    def progressed(self, attempt_id: str, fraction: float, message: str, now_s: float) -> None:
        """How far it is. A later word replaces an earlier one that was not told yet."""
        held = self._held.get(attempt_id)
        if held is None or held.ended:
            return
        held.begun = True
        held.progress = (min(1.0, max(0.0, fraction)), message[: limits.REASON_CHARS_MAX])
        if attempt_id not in self._soft:
            self._soft[attempt_id] = max(now_s, held.progress_due_s)

    def ended(self, attempt_id: str, ended: Ended, *, stored: bool = True) -> bool:
        """
        It is over. ``stored`` tells whether all its output is; else its end waits for `output_stored`.

        False when there is no such attempt, or it had ended before: the first end counts.
        """
        held = self._held.get(attempt_id)
        if held is None or held.ended:
            return False
        held.ended = True
        held.end = _report_of(attempt_id, ended, held.own)
        held.progress = None
        self._soft.pop(attempt_id, None)
        if stored:
            self._untold.append(attempt_id)
        return True

    def output_stored(self, attempt_id: str) -> None:
        """All output of an ended attempt is stored (or is wanted no more): its end may be told."""
        held = self._held.get(attempt_id)
        if held is not None and held.ended:
            self._untold.append(attempt_id)

    # Reports

    @property
    def soft_due_s(self) -> float | None:
        """When the next running or progress report is due; None when there is none."""
        return min(self._soft.values(), default=None)

    @property
    def is_handed_in(self) -> bool:
        """Whether nothing runs and every end is acknowledged."""
        return not self._held

    def reporting(self, now_s: float) -> AttemptsReported | None:
        """
        What to tell now, None when there is nothing; then call one of `reported`, `unreported` or `refused`.

        Ends go first and at once; running and progress when they are due.
        """
        reports: list[AttemptReport] = []
        room = 1 if self._alone else limits.REPORTS_MAX
        size = 0
        untold = self._untold
        while untold and len(reports) < room:
            held = self._held.get(untold[0])
            if held is None or held.end is None:
                untold.popleft()
                continue
            size += len(held.end.result or b"") + len(held.end.message)
            if reports and size > REPORT_BYTES_MAX:
                break
            untold.popleft()
            reports.append(held.end)
        if self._soft and len(reports) < room:
            self._add_soft(reports, room, now_s)
        if not reports:
            return None
        self._alone = max(0, self._alone - 1)
        return AttemptsReported(self.worker_id, self.incarnation, tuple(reports))

    def _add_soft(self, reports: list[AttemptReport], room: int, now_s: float) -> None:
        due = [attempt_id for attempt_id, due_s in self._soft.items() if due_s <= now_s]
        for attempt_id in due[: room - len(reports)]:
            held = self._held[attempt_id]
            del self._soft[attempt_id]
            if not held.told:
                held.told = True
                reports.append(AttemptReport(attempt_id, Happening.RUNNING))
                if held.progress is not None:
                    self._soft[attempt_id] = now_s
            elif held.progress is not None:
                fraction, message = held.progress
                held.progress = None
                held.progress_due_s = now_s + PROGRESS_EVERY_S
                reports.append(
                    AttemptReport(
                        attempt_id, Happening.PROGRESS, fraction=fraction, message=message
                    )
                )

    def reported(self, sent: AttemptsReported, reply: ReportsAnswered) -> None:
        """The orchestrator answered. An end that it ignored is done with too: it was kept as evidence, or was not ours."""
        for report in sent.reports:
            if report.happening in (Happening.RUNNING, Happening.PROGRESS):
                continue
            if self._held.pop(report.attempt_id, None) is not None:
                self._acknowledge(report.attempt_id)

    def _acknowledge(self, attempt_id: str) -> None:
        self._acknowledged[attempt_id] = None
        if len(self._acknowledged) > ACKNOWLEDGED_MAX:
            self._acknowledged.popitem(last=False)

    def unreported(self, sent: AttemptsReported) -> None:
        """It is unknown whether the reports arrived: they are told again, which changes nothing if they did."""
        for report in reversed(sent.reports):
            held = self._held.get(report.attempt_id)
            if held is None:
                continue
            if held.ended:
                if report is held.end:
                    self._untold.appendleft(report.attempt_id)
            elif report.happening is Happening.RUNNING:
                held.told = False
                self._soft.setdefault(report.attempt_id, 0.0)
            elif held.progress is None:
                held.progress = (report.fraction, report.message)
                self._soft.setdefault(report.attempt_id, held.progress_due_s)

    def refused(self, sent: AttemptsReported, why: str) -> None:
        """
        The orchestrator refuses the message for its content, and would again.

        Several reports are told one by one, to find the one that is meant; that one becomes a plain failure, and is given up when even
        this is refused.
        """
        if len(sent.reports) > 1:
            self._alone = len(sent.reports)
            self.unreported(sent)
            return
        report = sent.reports[0]
        held = self._held.get(report.attempt_id)
        if held is None or held.end is not report:
            return
        held.refusals += 1
        if held.refusals > 1:
            del self._held[report.attempt_id]
            self._acknowledge(report.attempt_id)
            return
        message = f"the orchestrator refused the report of its end ({report.happening}): {why}"
        held.end = AttemptReport(
            report.attempt_id,
            Happening.FAILED,
            cause=Cause.ERROR,
            message=message[: limits.REASON_CHARS_MAX],
        )
        self._untold.appendleft(report.attempt_id)


def _report_of(attempt_id: str, ended: Ended, own: tuple[Cause, str] | None) -> AttemptReport:
    """The report of an end, within the limits; ``own`` is why the worker itself stopped the attempt."""
    size = len(ended.result or b"")
    if size > limits.RESULT_BYTES_MAX:
        message = (
            f"the result is {size:,} bytes long, of which {limits.RESULT_BYTES_MAX:,} are allowed: "
            "write it to a file and return its name"
        )
        return AttemptReport(attempt_id, Happening.FAILED, cause=Cause.ERROR, message=message)
    happening = _ENDS[ended.outcome]
    cause, message = ended.cause, ended.message
    if own is not None and happening is Happening.STOPPED:
        cause, message = own
    return AttemptReport(
        attempt_id,
        happening,
        result=ended.result,
        cause=cause,
        message=message[: limits.REASON_CHARS_MAX],
        exit_code=ended.exit_code,
        signal=ended.signal,
    )
