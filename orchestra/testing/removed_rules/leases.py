"""Who holds what, for how long, and whose word counts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import attrs

from orchestra.statemachine import attempts, leases, workers
from orchestra.statemachine.lifecycles import Verb, WorkerStatus
from orchestra.statemachine.records import Cause, Pulse, Worker, evolve
from orchestra.statemachine.reports import Heartbeat
from orchestra.statemachine.transaction import Transaction
from orchestra.testing.removed_rules.replacing import HANDLERS, Replacement, always, handled

_STATE = import_module("orchestra.statemachine.state")


def no_fence() -> Sequence[Replacement]:
    """Reports of any worker are taken, whoever holds the attempt."""
    original = vars(attempts)["_take"]

    def take(tx: Transaction, command: Any, report: Any) -> str:
        holder = tx.find(attempts.Attempt, report.attempt_id)
        if holder is not None:
            command = type(command)(holder.worker_id, holder.incarnation, command.reports)
        return original(tx, command, report)

    return ((attempts, "_take", take),)


def revived_completion() -> Sequence[Replacement]:
    """A late report overwrites the end of an attempt."""

    def late(tx: Transaction, attempt: Any, report: Any) -> str:
        del report
        tx.change(attempt, result=b"late")
        return ""

    return ((attempts, "_late", late),)


def ended_again() -> Sequence[Replacement]:
    """The end of an attempt that is over counts once more when it is told once more."""
    end = vars(attempts)["_end"]

    def late(tx: Transaction, attempt: Any, report: Any) -> str:
        end(tx, attempt, report)
        return ""

    return ((attempts, "_late", late),)


def no_expiry() -> Sequence[Replacement]:
    """A silent worker keeps what it holds."""
    return ((leases, "lose_all", always(None)),)


def short_lease() -> Sequence[Replacement]:
    """A worker is given up when half its lease has passed."""
    original = vars(leases)["_worker_due"]

    def due(state: Any, worker: Any) -> int | None:
        at_ms: int | None = original(state, worker)
        if at_ms is None or worker.status is WorkerStatus.LEFT:
            return at_ms
        return at_ms - state.settings.lease_ms // 2

    return ((leases, "_worker_due", due),)


def broken_promises() -> Sequence[Replacement]:
    """A lease that is made shorter ends sooner also for workers that were told of the longer one."""

    def due(state: Any, worker: Any) -> int | None:
        kept = state.rows["settings"]["settings"]
        state.rows["settings"]["settings"] = evolve(kept, promised_until_ms=0)
        try:
            return original(state, worker)
        finally:
            state.rows["settings"]["settings"] = kept

    original = vars(leases)["_worker_due"]
    return ((leases, "_worker_due", due),)


def restart_is_silence() -> Sequence[Replacement]:
    """An orchestrator that was away takes its workers for silent, and gives their work to others at once."""
    return ((_STATE, "Pulse", always(Pulse(0))),)


def usurped_at_once() -> Sequence[Replacement]:
    """What a process held runs elsewhere as soon as another one takes its name, and not when its lease is over."""
    original = vars(workers)["_enrol"]

    def enrol(tx: Transaction, known: Worker | None, command: Any) -> Worker:
        if known is not None:
            leases.lose_all(tx, known, Cause.LOST, "a new process took its name")
        return original(tx, known, command)

    return ((workers, "_enrol", enrol),)


def reconnect_is_loss() -> Sequence[Replacement]:
    """A worker that connects again is taken for one that holds nothing any more."""
    original = vars(workers)["_reconnect"]

    def reconnect(tx: Transaction, worker: Worker, command: Any) -> Worker:
        leases.lose_all(tx, worker, Cause.LOST, "it connected again")
        return original(tx, worker, command)

    return ((workers, "_reconnect", reconnect),)


def leaves_with_work() -> Sequence[Replacement]:
    """A worker that says goodbye keeps what it held."""
    return ((workers, "lose_all", always(None)),)


def orders_told_once() -> Sequence[Replacement]:
    """An order that was lost on its way is never repeated."""
    return ((workers, "orders_of", always(())),)


def forgiven_silence() -> Sequence[Replacement]:
    """A worker that was given up goes on with its next heartbeat, and orders from before may still be on their way."""
    original = HANDLERS[Heartbeat]

    def beat(tx: Transaction, report: Any) -> Any:
        worker = tx.find(Worker, report.worker_id)
        if worker is not None and worker.status is WorkerStatus.LOST:
            tx.move(worker, Verb.RETURN)
        return original(tx, report)

    return (handled(Heartbeat, beat),)


def old_beats() -> Sequence[Replacement]:
    """Heartbeats from before a worker's return renew its lease."""
    original = HANDLERS[Heartbeat]

    def beat(tx: Transaction, report: Any) -> Any:
        worker = tx.find(Worker, report.worker_id)
        if worker is not None and worker.status is WorkerStatus.ONLINE:
            report = attrs.evolve(report, incarnation=worker.incarnation)
        return original(tx, report)

    return (handled(Heartbeat, beat),)


RULES = (
    no_fence,
    revived_completion,
    ended_again,
    no_expiry,
    short_lease,
    broken_promises,
    restart_is_silence,
    usurped_at_once,
    reconnect_is_loss,
    leaves_with_work,
    orders_told_once,
    forgiven_silence,
    old_beats,
)
