"""
The attempts that a worker holds, from their order until their end is acknowledged: what to do and what to report. No I/O, no clock.

Everything here is bounded by the worker's slots, so reports need no bound of their own: an attempt has at most one end, one
untold `running` and the latest progress. Times are seconds of one monotonic clock, and always an argument.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence

import attrs

from orchestra.ports import Ended
from orchestra.statemachine import limits
from orchestra.statemachine.records import Cause, Rung
from orchestra.statemachine.replies import Order
from orchestra.statemachine.reports import AttemptReport, Happening
from orchestra.statemachine.values import value

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


@value
class Start:
    """Start an attempt."""

    order: Order


@value
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


class Holdings:
    """What one worker holds."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._untold: deque[str] = deque()
        """Attempts whose end is ready to be reported, oldest first."""
        self._soft: dict[str, float] = {}
        """Attempts with an untold running or progress, and when it is due."""
        self._alone = 0
        """How many of the next messages carry a single report, to find the one that is refused."""
        self._acknowledged: OrderedDict[str, None] = OrderedDict()

    # Orders

    @property
    def holding(self) -> tuple[str, ...]:
        """Everything that runs here, or has ended and is not acknowledged."""
        return tuple(self._held)

    @property
    def running(self) -> int:
        """How many attempts have not ended."""
        return sum(not held.ended for held in self._held.values())

    @property
    def is_handed_in(self) -> bool:
        """Whether nothing runs and every end is acknowledged."""
        return not self._held

    def ordered(self, order: Order, *, refusal: str = "") -> Action | None:
        """An order came, perhaps not for the first time. With ``refusal``, why, nothing new is started but handed back."""
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
        if refusal:
            self._hand_back(order, refusal)
            return None
        self._held[attempt_id] = _Held(order.app)
        return Start(order)

    def disowned(self, attempt_ids: Iterable[str]) -> tuple[Action, ...]:
        """These are not this worker's any more: they are killed, and their ends still told, as evidence."""
        actions: list[Action] = []
        for attempt_id in attempt_ids:
            held = self._held.get(attempt_id)
            if held is None or held.foreign:
                continue
            held.foreign = held.muted = True
            if not held.ended:
                held.rung = _LADDER[Rung.KILL]
                actions.append(Stop(attempt_id, held.app, Rung.KILL, foreign=True))
        return tuple(actions)

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

    def reporting(self, now_s: float) -> tuple[AttemptReport, ...]:
        """
        What to tell now, empty when there is nothing; then call one of `reported`, `unreported` or `refused`.

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
        if reports:
            self._alone = max(0, self._alone - 1)
        return tuple(reports)

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

    def reported(self, sent: Iterable[AttemptReport]) -> None:
        """The orchestrator answered. An end that it ignored is done with too: it was kept as evidence, or was not ours."""
        for report in sent:
            if report.happening in (Happening.RUNNING, Happening.PROGRESS):
                continue
            if self._held.pop(report.attempt_id, None) is not None:
                self._acknowledge(report.attempt_id)

    def _acknowledge(self, attempt_id: str) -> None:
        self._acknowledged[attempt_id] = None
        if len(self._acknowledged) > ACKNOWLEDGED_MAX:
            self._acknowledged.popitem(last=False)

    def unreported(self, sent: Sequence[AttemptReport]) -> None:
        """It is unknown whether the reports arrived: they are told again, which changes nothing if they did."""
        for report in reversed(sent):
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

    def refused(self, sent: Sequence[AttemptReport], why: str) -> None:
        """
        The orchestrator refuses the message for its content, and would again.

        Several reports are told one by one, to find the one that is meant; that one becomes a plain failure, and is given up when even
        this is refused.
        """
        if len(sent) > 1:
            self._alone = len(sent)
            self.unreported(sent)
            return
        report = sent[0]
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
