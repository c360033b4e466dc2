"""What follows when an attempt, a task or a job ends, and what is asked of them: tries, limits, stops, keys."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from orchestra.statemachine import (
    attempts,
    ending,
    leases,
    limits,
    rules,
    scheduling,
    stopping,
    tasks,
)
from orchestra.statemachine.commands import CancelTask
from orchestra.statemachine.index import Index
from orchestra.statemachine.lifecycles import ATTEMPT_FINAL, JOB_FINAL, TASK_FINAL, Verb
from orchestra.statemachine.records import Cause, Job, Rung, Task
from orchestra.statemachine.transaction import Transaction
from orchestra.testing.removed_rules.replacing import (
    HANDLERS,
    Replacement,
    always,
    handled,
    unrecalled,
)

_NEVER = object()
"""What nothing is equal to."""


# tries --------------------------------------------------------------------------------------------------------------


def endless_losses() -> Sequence[Replacement]:
    """A task that ends its workers is given to the next for ever."""

    def elsewhere(tx: Transaction, task: Any, reason: str, *, lost: bool) -> None:
        del lost
        tx.move(task, Verb.RETRY, reason=reason, losses=task.losses, worker_id=None)

    return ((ending, "elsewhere", elsewhere),)


def hand_back_is_loss() -> Sequence[Replacement]:
    """A task that a worker hands back is counted as one that ended its worker."""
    original = ending.elsewhere

    def elsewhere(tx: Transaction, task: Any, reason: str, *, lost: bool) -> None:
        del lost
        original(tx, task, reason, lost=True)

    return ((ending, "elsewhere", elsewhere),)


def endless_tries() -> Sequence[Replacement]:
    """A task that fails is tried again, however few tries it has."""
    original: Any = Transaction.move

    def move(self: Transaction, record: Any, verb: Verb, **fields: Any) -> Any:
        if type(record) is Task and verb is Verb.FAIL and fields["cause"] is not Cause.POISON:
            fields.pop("ended_at_ms")
            return original(self, record, Verb.BACK_OFF, retry_at_ms=self.now_ms, **fields)
        return original(self, record, verb, **fields)

    return ((Transaction, "move", move),)


def no_pause_between_tries() -> Sequence[Replacement]:
    """A task that failed is tried again at once."""
    return ((ending, "backoff_ms", always(0)),)


def no_backoff_alarm() -> Sequence[Replacement]:
    """What waits to be tried again is not woken."""
    original = vars(leases)["_task_due"]

    def due(state: Any, task: Any) -> int | None:
        return None if task is None or task.status == "backoff" else original(state, task)

    return ((leases, "_task_due", due),)


def numbers_again() -> Sequence[Replacement]:
    """Each attempt at a task has the number of the one before it."""
    original: Any = vars(scheduling)["task_leased"]

    def leased(task: Task, number: int, worker_id: str) -> Task:
        return original(task, max(1, number - 1), worker_id)

    return ((scheduling, "task_leased", leased),)


# limits -------------------------------------------------------------------------------------------------------------


def endless_waiting() -> Sequence[Replacement]:
    """Nobody looks whether a task waits for longer than it may."""
    original = vars(leases)["_task_due"]

    def due(state: Any, task: Any) -> int | None:
        return None if task is None or task.status == "queued" else original(state, task)

    return ((leases, "_task_due", due),)


def endless_run() -> Sequence[Replacement]:
    """Nobody looks whether an attempt runs for longer than it may."""
    original = vars(leases)["_attempt_due"]

    def due(state: Any, attempt: Any) -> int | None:
        climbs = attempt is not None and attempt.rung is not Rung.NONE
        return original(state, attempt) if climbs else None

    return ((leases, "_attempt_due", due),)


def overtime_forgiven() -> Sequence[Replacement]:
    """What was stopped because it ran for too long is no failure, and runs again."""
    original: Any = ending.stopped

    def stopped(tx: Transaction, attempt: Any, cause: Cause, message: str, **end: Any) -> None:
        if attempt.stop_cause is Cause.TIMEOUT:
            attempt = tx.change(attempt, stop_cause=None)
        original(tx, attempt, cause, message, **end)

    return ((attempts, "stopped", stopped),)


# stops --------------------------------------------------------------------------------------------------------------


def cancelled_while_alive() -> Sequence[Replacement]:
    """A task shows cancelled as soon as somebody asks for it."""
    original = stopping.cancel_task

    def cancel(tx: Transaction, task: Any, reason: str, grace_ms: int | None = None) -> Any:
        task = original(tx, task, reason, grace_ms)
        if task.status == "cancelling":
            ending.close(tx, task, reason)
        return task

    return ((tasks, "cancel_task", cancel),)


def never_closed() -> Sequence[Replacement]:
    """A task that is being cancelled does not end with its attempt."""
    return ((ending, "close", always(None)),)


def no_next_rung() -> Sequence[Replacement]:
    """A stop that is not heard is asked for once."""
    original = vars(leases)["_attempt_due"]

    def due(state: Any, attempt: Any) -> int | None:
        climbs = attempt is not None and attempt.rung is not Rung.NONE
        return None if climbs else original(state, attempt)

    return ((leases, "_attempt_due", due),)


def killed_at_once() -> Sequence[Replacement]:
    """A stop begins with its last rung: work has no time to end well."""
    ladder = {**stopping.NEXT_RUNG, Rung.NONE: Rung.KILL}
    return ((stopping, "NEXT_RUNG", ladder),)


def never_killed() -> Sequence[Replacement]:
    """Work that does not listen is asked again and again, and never killed."""
    ladder = {**stopping.NEXT_RUNG, Rung.TERM: Rung.TERM}
    return ((stopping, "NEXT_RUNG", ladder),)


def taken_for_dead() -> Sequence[Replacement]:
    """Where nobody confirms a stop, its work is taken for dead after the last rung."""
    original = stopping.climb

    def climb(tx: Transaction, attempt: Any) -> Any:
        attempt = original(tx, attempt)
        if attempt.rung is Rung.UNCONFIRMED and attempt.status not in ATTEMPT_FINAL:
            ending.stopped(tx, attempt, Cause.CANCELLED, "nobody answered")
        return attempt

    return ((leases, "climb", climb),)


def job_goes_on() -> Sequence[Replacement]:
    """A job that is to stop at its first failure goes on."""
    return ((rules, "OnFailure", SimpleNamespace(STOP=_NEVER)),)


def rest_is_forgotten() -> Sequence[Replacement]:
    """What waits in a job that is cancelled stays there."""
    return ((Index, "cancel_all", always(None)),)


# jobs ---------------------------------------------------------------------------------------------------------------


def deaf_job() -> Sequence[Replacement]:
    """A job does not notice that its last task ended."""
    return ((rules, "_finish", always(None)),)


def early_end() -> Sequence[Replacement]:
    """A job ends with the first of its tasks."""

    def finish(tx: Transaction, job_id: str) -> None:
        job = tx.find(Job, job_id)
        if job is not None and job.status not in JOB_FINAL and job.status != "cancelling":
            tally = tx.state.index.tallies[job_id]
            if any(tally.get(status) for status in TASK_FINAL):
                tx.move(job, Verb.FAIL, reason="one has ended", ended_at_ms=tx.now_ms)

    return ((rules, "_finish", finish),)


def always_a_success() -> Sequence[Replacement]:
    """A job whose tasks failed is told to have completed."""
    original: Any = Transaction.move

    def move(self: Transaction, record: Any, verb: Verb, **fields: Any) -> Any:
        if type(record) is Job and verb is Verb.FAIL:
            verb = Verb.COMPLETE
        return original(self, record, verb, **fields)

    return ((Transaction, "move", move),)


def retry_in_an_ended_job() -> Sequence[Replacement]:
    """A task is tried again, and its job, which had ended, is not told."""
    return ((tasks, "JOB_FINAL", frozenset[str]()),)


def retry_in_a_stop() -> Sequence[Replacement]:
    """A task is tried again while its job is being cancelled."""
    return ((tasks, "JobStatus", SimpleNamespace(CANCELLING=_NEVER)),)


# requests -----------------------------------------------------------------------------------------------------------


def no_rollback() -> Sequence[Replacement]:
    """A refused command leaves what it did before it was refused."""
    original = HANDLERS[CancelTask]

    def cancel(tx: Transaction, command: Any) -> Any:
        task = tx.get(stopping.Task, command.task_id)
        tx.change(task, losses=task.losses + 1)
        return original(tx, command)

    return ((Transaction, "undo", always(None)), handled(CancelTask, cancel))


def forgotten_keys() -> Sequence[Replacement]:
    """A submission that is repeated under its key is taken for another one."""
    return (unrecalled(),)


def short_keys() -> Sequence[Replacement]:
    """A key is forgotten before whoever used it can ask once more."""
    return ((limits, "RECEIPT_MS", 0),)


def clockwork_ids() -> Sequence[Replacement]:
    """Ids come from outside the stimulus."""
    # Chance from outside is the defect itself; nothing is guessed from it.
    return ((Transaction, "rng", property(lambda _: random.SystemRandom())),)


RULES = (
    endless_losses,
    hand_back_is_loss,
    endless_tries,
    no_pause_between_tries,
    no_backoff_alarm,
    numbers_again,
    endless_waiting,
    endless_run,
    overtime_forgiven,
    cancelled_while_alive,
    never_closed,
    no_next_rung,
    killed_at_once,
    never_killed,
    taken_for_dead,
    job_goes_on,
    rest_is_forgotten,
    deaf_job,
    early_end,
    always_a_success,
    retry_in_an_ended_job,
    retry_in_a_stop,
    no_rollback,
    forgotten_keys,
    short_keys,
    clockwork_ids,
)
