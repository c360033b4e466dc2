"""
The museum: races and lost work of other systems, rebuilt as defects of this one, each with the thread in which it was reported.

What finds none of these would not find ours. An exhibit is not a copy of the other system's code; it is the same promise, broken in the
same way. `on_show` lets one in for as long as its context lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import MappingProxyType
from typing import Any
from unittest import mock

import attrs

from orchestra.statemachine import ending, leases, rules
from orchestra.statemachine.commands import CancelTask, JoinWorker, LeaveWorker
from orchestra.statemachine.lifecycles import AttemptStatus, TaskStatus
from orchestra.statemachine.records import Attempt, Cause, Task, Worker, evolve
from orchestra.statemachine.reports import Heartbeat
from orchestra.statemachine.transaction import Transaction
from orchestra.testing import museum_shell
from orchestra.testing.removed_rules import RULES, Replacement, handled
from orchestra.worker.session import Standing, WorkerSession

_ATTEMPTS = import_module("orchestra.statemachine.attempts")
_WORKERS = import_module("orchestra.statemachine.workers")
_STEP = import_module("orchestra.statemachine.step")


@attrs.frozen(slots=True)
class Exhibit:
    """
    One defect.

    Args:
        system: Whose it was.
        thread: Where it was reported: a number of the system's tracker.
        story: What happened there, in one line.
        rebuilt: What stands in for what of ours.
        around: It lies around the core: simulations of the whole system find it, the core's schedules can not.
    """

    system: str
    thread: str
    story: str
    rebuilt: Callable[[], Sequence[Replacement]]
    around: bool = False


def _crashed_then_completed() -> Sequence[Replacement]:
    def late(tx: Transaction, attempt: Attempt, report: Any) -> str:
        if report.happening == "completed":
            tx.put(evolve(attempt, status=AttemptStatus.COMPLETED, result=report.result))
        return ""

    return ((_ATTEMPTS, "_late", late),)


def _unheard_beats() -> Sequence[Replacement]:
    original = _STEP.HANDLERS[Heartbeat]

    def beat(tx: Transaction, report: Any) -> Any:
        before = tx.state.pulses.get(report.worker_id)
        answered = original(tx, report)
        if before is not None:
            tx.state.pulses[report.worker_id] = before
        return answered

    return (handled(Heartbeat, beat),)


def _visibility_timeout() -> Sequence[Replacement]:
    original = _STEP.HANDLERS[Heartbeat]

    def beat(tx: Transaction, report: Any) -> Any:
        before = tx.state.pulses.get(report.worker_id)
        answered = original(tx, report)
        if before is not None and report.holding:
            tx.state.pulses[report.worker_id] = before
        return answered

    return (handled(Heartbeat, beat),)


def _adopted_name() -> Sequence[Replacement]:
    original = _STEP.HANDLERS[JoinWorker]

    def join(tx: Transaction, command: Any) -> Any:
        known = tx.find(Worker, tx.state.index.worker_names.get(command.name) or "")
        if known is not None:
            command = attrs.evolve(command, session=known.session)
        return original(tx, command)

    return (handled(JoinWorker, join),)


def _reserved_is_lost() -> Sequence[Replacement]:
    original = ending.lose

    def lose(tx: Transaction, attempt: Attempt, cause: Cause, message: str) -> None:
        if attempt.status is not AttemptStatus.STARTED:
            original(tx, attempt, cause, message)

    return ((leases, "lose", lose),)


def _walltime_completed() -> Sequence[Replacement]:
    original = ending.stopped

    def stopped(tx: Transaction, attempt: Attempt, cause: Cause, message: str, **end: Any) -> None:
        if attempt.stop_cause is Cause.TIMEOUT:
            ending.complete(tx, attempt, None, **end)
        else:
            original(tx, attempt, cause, message, **end)

    return ((_ATTEMPTS, "stopped", stopped),)


def _orphaned_workers() -> Sequence[Replacement]:
    original = WorkerSession.beaten

    def beaten(self: WorkerSession, reply: Any, sent_s: float, now_s: float) -> Any:
        done = original(self, reply, sent_s, now_s)
        self.standing = Standing.MEMBER
        return done

    return ((WorkerSession, "beaten", beaten),)


def _re_claimed_while_draining() -> Sequence[Replacement]:
    original = _STEP.HANDLERS[LeaveWorker]

    def leave(tx: Transaction, command: Any) -> Any:
        worker = tx.find(Worker, command.worker_id)
        answered = original(tx, command)
        if worker is not None and worker.status == "online":
            tx.put(worker)
        return answered

    return (handled(LeaveWorker, leave),)


def _remote_error_and_running() -> Sequence[Replacement]:
    return (*RULES["disowned_in_silence"](), *RULES["endless_lease"]())


def _failed_after_success() -> Sequence[Replacement]:
    original = vars(rules)["_finish"]

    def finish(tx: Transaction, job_id: str) -> None:
        tally = tx.state.index.tallies.get(job_id, {})
        if tally.get(TaskStatus.COMPLETED, 0) and tx.state.index.held:
            for task in list(tx.state.each(Task)):
                if task.job_id == job_id and task.status == "completed":
                    tx.put(evolve(task, status="failed"))
        original(tx, job_id)

    return ((rules, "_finish", finish),)


def _recovered_twice() -> Sequence[Replacement]:
    original = ending.lose

    def lose(tx: Transaction, attempt: Attempt, cause: Cause, message: str) -> None:
        original(tx, attempt, cause, message)
        task = tx.get(Task, attempt.task_id)
        if task.status == "queued":
            tx.put(evolve(task, attempts=task.attempts - 1))

    return ((leases, "lose", lose),)


def _finished_runs_again() -> Sequence[Replacement]:
    def complete(tx: Transaction, attempt: Attempt, result: bytes | None, **end: Any) -> None:
        del result
        ending.stopped(tx, attempt, Cause.LOST, "the head was restarted", **end)

    return ((_ATTEMPTS, "complete", complete),)


def _cancelled_completes() -> Sequence[Replacement]:
    original = ending.complete

    def complete(tx: Transaction, attempt: Attempt, result: bytes | None, **end: Any) -> None:
        task = tx.get(Task, attempt.task_id)
        if task.status == "cancelling":
            tx.put(evolve(task, status="running"))
        original(tx, attempt, result, **end)

    return ((_ATTEMPTS, "complete", complete),)


def _zombies_keep_their_slot() -> Sequence[Replacement]:
    original = _STEP.HANDLERS[CancelTask]

    def cancel(tx: Transaction, command: Any) -> Any:
        task = tx.get(Task, command.task_id)
        answered = original(tx, command)
        now = tx.get(Task, command.task_id)
        if task.worker_id is not None and now.status == "cancelling":
            tx.put(evolve(now, status="cancelled", ended_at_ms=tx.now_ms))
        return answered

    return (handled(CancelTask, cancel),)


EXHIBITS: Mapping[str, Exhibit] = MappingProxyType(
    {
        "running_for_ever": Exhibit(
            "Prefect",
            "#16746",
            "the worker stops, its runs stay running and keep their slots",
            RULES["no_expiry"],
        ),
        "crashed_then_completed": Exhibit(
            "Prefect",
            "#16429",
            "a run that was marked crashed becomes completed",
            _crashed_then_completed,
        ),
        "healthy_marked_crashed": Exhibit(
            "Prefect", "#13020", "runs of a healthy worker are marked crashed", _unheard_beats
        ),
        "stale_read_executes": Exhibit(
            "DBOS",
            "#742",
            "work is begun from a read that its loss has overtaken",
            RULES["answers_out_of_time"],
        ),
        "stranded_recovery": Exhibit(
            "DBOS",
            "#716",
            "what was being recovered is pending for ever",
            RULES["no_backoff_alarm"],
        ),
        "re_claimed_while_draining": Exhibit(
            "DBOS",
            "#804",
            "an executor that leaves is given work again",
            _re_claimed_while_draining,
        ),
        "adopted_name": Exhibit(
            "Procrastinate",
            "#1518",
            "a new process under the old name passes for the old one",
            _adopted_name,
        ),
        "visibility_timeout": Exhibit(
            "Celery", "#5306", "long work is given out again while it runs", _visibility_timeout
        ),
        "reserved_is_lost": Exhibit(
            "Celery", "#1628", "what a killed worker had reserved is lost", _reserved_is_lost
        ),
        "cleaned_never": Exhibit(
            "Dagster",
            "#28600",
            "what never started is never looked at again",
            RULES["orders_told_once"],
        ),
        "failed_after_success": Exhibit(
            "Dagster",
            "#8729",
            "a run that succeeded is marked failed by a stale read",
            _failed_after_success,
        ),
        "alive_though_ended": Exhibit(
            "Airflow",
            "#13747",
            "the remote work runs on while the task shows ended",
            RULES["cancelled_while_alive"],
        ),
        "zombies_keep_their_slot": Exhibit(
            "Airflow",
            "#51969",
            "a task is ended, and then purged as a zombie as well",
            _zombies_keep_their_slot,
        ),
        "disagreement": Exhibit(
            "Dask",
            "#6110",
            "scheduler and worker disagree about what runs, and wait for each other",
            RULES["reports_told_once"],
        ),
        "begun_again": Exhibit(
            "Dask",
            "#6244",
            "a worker begins what it has ended, on a message that comes late",
            RULES["short_memory"],
        ),
        "walltime_completed": Exhibit(
            "Parsl",
            "#3053",
            "work that was ended by its time limit is reported completed",
            _walltime_completed,
        ),
        "vanished_job": Exhibit(
            "Parsl",
            "#1588",
            "a job vanishes between two looks, and is waited for",
            RULES["deaf_job"],
        ),
        "orphaned_workers": Exhibit(
            "HyperQueue",
            "#784",
            "workers run on, and are never given work again",
            _orphaned_workers,
        ),
        "finished_runs_again": Exhibit(
            "Nextflow",
            "#1448",
            "after the head was killed finished tasks run again",
            _finished_runs_again,
        ),
        "number_used_again": Exhibit(
            "Nextflow",
            "#5595",
            "a second run reads what the first one left under its name",
            _recovered_twice,
        ),
        "dropped_result": Exhibit(
            "FireWorks",
            "#396",
            "the work is done, the database is away, and the result is dropped",
            museum_shell.dropped_result,
            around=True,
        ),
        "connection_not_restored": Exhibit(
            "HyperQueue",
            "#978",
            "the server comes back, and workers do not come back to it",
            museum_shell.never_back,
            around=True,
        ),
        "swallowed_failure": Exhibit(
            "Nextflow",
            "#7471",
            "what could not be written is passed over in silence",
            museum_shell.swallowed_failure,
            around=True,
        ),
        "told_before_kept": Exhibit(
            "Ray",
            "#65608",
            "after its head was replaced the cluster tells otherwise what it had told before",
            museum_shell.told_before_kept,
            around=True,
        ),
        "remote_error_and_running": Exhibit(
            "jobflow-remote",
            "#36",
            "an error is recorded, and the work runs for days",
            _remote_error_and_running,
        ),
        "cancelled_completes": Exhibit(
            "Nextflow", "#1990", "what was aborted is kept as done", _cancelled_completes
        ),
        "two_lists": Exhibit(
            "AiiDA", "#4289", "two lists of what runs where drift apart", RULES["forgiven_silence"]
        ),
    }
)
"""Each by its name."""


@contextmanager
def on_show(name: str) -> Generator[None]:
    """
    Let a defect into this process, until the context ends.

    Raises:
        KeyError: There is no such exhibit.
    """
    with ExitStack() as stack:
        for target, attribute, replacement in EXHIBITS[name].rebuilt():
            stack.enter_context(mock.patch.object(target, attribute, replacement))
        yield
