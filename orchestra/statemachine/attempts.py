"""What workers report of their attempts. A report that does not fit is ignored, with the reason; a late result is kept as evidence."""

from __future__ import annotations

from orchestra.statemachine import limits
from orchestra.statemachine.ending import complete, fail, stopped
from orchestra.statemachine.lifecycles import ATTEMPT_FINAL, AttemptStatus, TaskStatus, Verb
from orchestra.statemachine.records import Attempt, Cause, Progress, Task
from orchestra.statemachine.replies import ReportsAnswered
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening
from orchestra.statemachine.transaction import Transaction

_ENDS = (Happening.COMPLETED, Happening.FAILED, Happening.STOPPED)


def reported(tx: Transaction, command: AttemptsReported) -> ReportsAnswered:
    """Take each report in order; say for each whether it was ignored, and why."""
    ignored = [
        _take(tx, command, report)
        if number < limits.REPORTS_MAX
        else "too many reports in one message: send it again"
        for number, report in enumerate(command.reports)
    ]
    return ReportsAnswered(tuple(ignored))


def _take(tx: Transaction, command: AttemptsReported, report: AttemptReport) -> str:
    attempt = tx.find(Attempt, report.attempt_id)
    if attempt is None:
        return "no such attempt"
    over = attempt.status in ATTEMPT_FINAL
    # A process has one row in all its incarnations: what it tells late, in a later one, is evidence.
    if attempt.worker_id != command.worker_id or not (
        over or attempt.incarnation == command.incarnation
    ):
        return "the attempt is not this worker's"
    if over:
        return _late(tx, attempt, report)
    if report.happening is Happening.PROGRESS:
        return _progress(tx, attempt, report)
    if report.happening is Happening.RUNNING:
        _running(tx, attempt)
        return ""
    if report.result is not None and len(report.result) > limits.RESULT_BYTES_MAX:
        end = {"exit_code": report.exit_code, "signal": report.signal}
        told = f"the result has {len(report.result)} bytes, more than {limits.RESULT_BYTES_MAX}"
        fail(tx, attempt, Cause.ERROR, told, **end)
    else:
        _end(tx, attempt, report)
    tx.state.progress.pop(attempt.id, None)
    return ""


def _running(tx: Transaction, attempt: Attempt) -> None:
    if attempt.status is AttemptStatus.STARTED:
        tx.move(attempt, Verb.RUN, started_at_ms=tx.now_ms)
        task = tx.get(Task, attempt.task_id)
        if task.status is TaskStatus.LEASED:
            tx.move(task, Verb.RUN)


def _end(tx: Transaction, attempt: Attempt, report: AttemptReport) -> None:
    signal = report.signal[:32]
    if report.happening is Happening.COMPLETED:
        complete(tx, attempt, report.result, exit_code=report.exit_code, signal=signal)
        return
    message = report.message[: limits.REASON_CHARS_MAX]
    end: dict[str, object] = {"exit_code": report.exit_code, "signal": signal}
    if report.happening is Happening.FAILED and report.cause is not Cause.LOST:
        fail(tx, attempt, report.cause or Cause.ERROR, message, **end)
    else:
        stopped(tx, attempt, report.cause or Cause.CANCELLED, message, **end)


def _progress(tx: Transaction, attempt: Attempt, report: AttemptReport) -> str:
    known = attempt.id in tx.state.progress
    if not known and len(tx.state.progress) >= limits.PROGRESS_MAX:
        return "too many attempts tell their progress"
    tx.state.progress[attempt.id] = Progress(*report.progress, tx.now_ms)
    return ""


def _late(tx: Transaction, attempt: Attempt, report: AttemptReport) -> str:
    """The attempt is over here. Its first end may be repeated; another one is evidence of what was done in vain."""
    if report.happening not in _ENDS:
        return "the attempt is over"
    if attempt.cause not in (Cause.LOST, Cause.REJOINED):
        return "the attempt is over (a repeated report changes nothing)"
    if not attempt.late_outcome:
        result = report.result
        if result is not None and len(result) > limits.RESULT_BYTES_MAX:
            result = None
        tx.change(
            attempt,
            late_outcome=str(report.happening),
            late_result=result,
            late_at_ms=tx.now_ms,
        )
    return "too late: its lease was over and the work went elsewhere; kept as evidence"
