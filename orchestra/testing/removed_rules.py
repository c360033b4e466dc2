"""
Safety rules of the core and of the far end of a worker, each of which can be taken out: what looks for defects must notice it.

A rule that nobody would miss is not protected by any test. `removed` takes one out for as long as its context lasts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from types import MappingProxyType
from typing import Any
from unittest import mock

from orchestra.statemachine import (
    attempts,
    ending,
    leases,
    rules,
    scheduling,
    stopping,
    tasks,
    workers,
)
from orchestra.statemachine.commands import CancelTask
from orchestra.statemachine.index import Index
from orchestra.statemachine.lifecycles import Verb, WorkerStatus
from orchestra.statemachine.records import Worker, evolve
from orchestra.statemachine.reports import Heartbeat
from orchestra.statemachine.transaction import Transaction
from orchestra.worker.holdings import Holdings
from orchestra.worker.session import WorkerSession

Replacement = tuple[object, str, object]
"""What stands in for an attribute: the module or class, the attribute's name, the new thing."""

_STEP = import_module("orchestra.statemachine.step")
"""Not by an import statement: the package exports a function of this name."""


def no_fence() -> Sequence[Replacement]:
    """Reports of any worker are taken, whoever holds the attempt."""
    original = vars(attempts)["_take"]

    def take(tx: Transaction, command: Any, report: Any) -> str:
        holder = tx.find(attempts.Attempt, report.attempt_id)
        if holder is not None:
            command = type(command)(holder.worker_id, holder.incarnation, command.reports)
        return original(tx, command, report)

    return ((attempts, "_take", take),)


def endless_losses() -> Sequence[Replacement]:
    """A task that ends its workers is given to the next for ever."""

    def elsewhere(tx: Transaction, task: Any, reason: str, *, lost: bool) -> None:
        del lost
        tx.move(task, Verb.RETRY, reason=reason, losses=task.losses, worker_id=None)

    return ((ending, "elsewhere", elsewhere),)


def no_slot_check() -> Sequence[Replacement]:
    """Workers are given more than they have room for."""
    return ((scheduling, "lacking", _nothing("")),)


def no_promotion() -> Sequence[Replacement]:
    """Nothing that waits is looked at again when what it comes after completes."""
    return ((rules, "review", _nothing(None)),)


def no_expiry() -> Sequence[Replacement]:
    """A silent worker keeps what it holds."""
    return ((leases, "lose_all", _nothing(None)),)


def no_backoff_alarm() -> Sequence[Replacement]:
    """What waits to be tried again is not woken."""
    original = vars(leases)["_task_due"]

    def due(state: Any, task: Any) -> int | None:
        return None if task is None or task.status == "backoff" else original(state, task)

    return ((leases, "_task_due", due),)


def no_rollback() -> Sequence[Replacement]:
    """A refused command leaves what it did before it was refused."""
    original = _STEP.HANDLERS[CancelTask]

    def cancel(tx: Transaction, command: Any) -> Any:
        task = tx.get(stopping.Task, command.task_id)
        tx.change(task, losses=task.losses + 1)
        return original(tx, command)

    return ((Transaction, "undo", _nothing(None)), handled(CancelTask, cancel))


def cancelled_while_alive() -> Sequence[Replacement]:
    """A task shows cancelled as soon as somebody asks for it."""
    original = stopping.cancel_task

    def cancel(tx: Transaction, task: Any, reason: str, grace_ms: int | None = None) -> Any:
        task = original(tx, task, reason, grace_ms)
        if task.status == "cancelling":
            ending.close(tx, task, reason)
        return task

    return ((tasks, "cancel_task", cancel),)


def deaf_job() -> Sequence[Replacement]:
    """A job does not notice that its last task ended."""
    return ((rules, "_finish", _nothing(None)),)


def clockwork_ids() -> Sequence[Replacement]:
    """Ids come from outside the stimulus."""
    # Chance from outside is the defect itself; nothing is guessed from it.
    return ((Transaction, "rng", property(lambda _: random.SystemRandom())),)


def revived_completion() -> Sequence[Replacement]:
    """A late report overwrites the end of an attempt."""

    def late(tx: Transaction, attempt: Any, report: Any) -> str:
        del report
        tx.change(attempt, result=b"late")
        return ""

    return ((attempts, "_late", late),)


def forgotten_keys() -> Sequence[Replacement]:
    """A submission that is repeated under its key is taken for another one."""
    return ((_STEP, "recall", _nothing(None)),)


def orders_told_once() -> Sequence[Replacement]:
    """An order that was lost on its way is never repeated."""
    return ((workers, "orders_of", _nothing(())),)


def forgiven_silence() -> Sequence[Replacement]:
    """A worker that was given up goes on with its next heartbeat, and orders from before may still be on their way."""
    original = _STEP.HANDLERS[Heartbeat]

    def beat(tx: Transaction, report: Any) -> Any:
        worker = tx.find(Worker, report.worker_id)
        if worker is not None and worker.status is WorkerStatus.LOST:
            tx.move(worker, Verb.RETURN)
        return original(tx, report)

    return (handled(Heartbeat, beat),)


def disowned_in_silence() -> Sequence[Replacement]:
    """A worker is not told that what it runs is not its own any more."""
    return ((Holdings, "disowned", _nothing(())),)


def endless_lease() -> Sequence[Replacement]:
    """A worker that can not renew its lease goes on."""
    return ((WorkerSession, "fenced", _nothing(())),)


def answers_out_of_time() -> Sequence[Replacement]:
    """An answer that was read too late still starts work."""
    return ((WorkerSession, "fence_s", property(_nothing(None))),)


def short_memory() -> Sequence[Replacement]:
    """A worker forgets what has ended, and begins it again when its order is late."""
    return ((Holdings, "_acknowledge", _nothing(None)),)


def reports_told_once() -> Sequence[Replacement]:
    """A report that was lost on its way is never repeated."""
    return ((Holdings, "unreported", _nothing(None)),)


def priority_ignored() -> Sequence[Replacement]:
    """Work is given out in the order in which it came, whatever its priority is."""
    original = Index.offer

    def offer(self: Index, stage: Any, job: Any) -> None:
        original(self, evolve(stage, priority=0), evolve(job, priority=0))

    return ((Index, "offer", offer),)


def last_in_first_out() -> Sequence[Replacement]:
    """Of work of the same priority that which came last is given out first."""
    original = Index.offer

    def offer(self: Index, stage: Any, job: Any) -> None:
        turned = evolve(job, submitted_at_ms=-job.submitted_at_ms, number=-job.number)
        original(self, stage, turned)

    return ((Index, "offer", offer),)


def no_reservation() -> Sequence[Replacement]:
    """Small work keeps large work out for as long as there is any."""
    return ((scheduling, "_reserved", _nothing({})),)


def _nothing(value: object) -> Callable[..., Any]:
    def answer(*_: object, **__: object) -> object:
        return value

    return answer


def handled(command: type, handler: Callable[[Transaction, Any], Any]) -> Replacement:
    """A command that is handled in another way."""
    return (_STEP, "HANDLERS", {**_STEP.HANDLERS, command: handler})


RULES: Mapping[str, Callable[[], Sequence[Replacement]]] = MappingProxyType(
    {
        rule.__name__: rule
        for rule in (
            no_fence,
            endless_losses,
            no_slot_check,
            no_promotion,
            no_expiry,
            no_backoff_alarm,
            no_rollback,
            cancelled_while_alive,
            deaf_job,
            clockwork_ids,
            revived_completion,
            forgotten_keys,
            orders_told_once,
            forgiven_silence,
            disowned_in_silence,
            endless_lease,
            answers_out_of_time,
            short_memory,
            reports_told_once,
            priority_ignored,
            last_in_first_out,
            no_reservation,
        )
    }
)
"""Each defect by its name; its docstring says what goes wrong."""


@contextmanager
def removed(name: str) -> Generator[None]:
    """
    Take a rule out of this process, until the context ends.

    Raises:
        KeyError: There is no such rule.
    """
    with ExitStack() as stack:
        for target, attribute, replacement in RULES[name]():
            stack.enter_context(mock.patch.object(target, attribute, replacement))
        yield
