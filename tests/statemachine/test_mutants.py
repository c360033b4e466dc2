"""Safety rules taken out one by one: the random walk must notice each, or it proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from orchestra.errors import Defect
from orchestra.statemachine import attempts, ending, leases, rules, scheduling, stopping
from orchestra.statemachine.lifecycles import TASK, Verb
from orchestra.statemachine.transaction import Transaction
from tests.statemachine.test_machine import CoreMachine

HUNT = settings(
    max_examples=500,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """Reports of any worker are taken, whoever holds the attempt."""
    original = attempts._take

    def take(tx: Transaction, command: Any, report: Any) -> str:
        holder = tx.find(attempts.Attempt, report.attempt_id)
        if holder is not None:
            command = type(command)(holder.worker_id, holder.incarnation, command.reports)
        return original(tx, command, report)

    patch.setattr(attempts, "_take", take)


def endless_losses(patch: pytest.MonkeyPatch) -> None:
    """A task that ends its workers is given to the next for ever."""

    def elsewhere(tx: Transaction, task: Any, reason: str, *, lost: bool) -> None:
        tx.move(task, Verb.RETRY, reason=reason, losses=task.losses, worker_id=None)

    patch.setattr(ending, "elsewhere", elsewhere)


def no_slot_check(patch: pytest.MonkeyPatch) -> None:
    """Workers are given more than they have room for."""
    patch.setattr(scheduling, "lacking", lambda *_: "")


def no_promotion(patch: pytest.MonkeyPatch) -> None:
    """Nothing that waits is looked at again when what it comes after completes."""
    patch.setattr(rules, "review_one", lambda *_: None)


def no_expiry(patch: pytest.MonkeyPatch) -> None:
    """A silent worker keeps what it holds."""
    patch.setattr(leases, "lose_all", lambda *_: None)


def no_backoff_alarm(patch: pytest.MonkeyPatch) -> None:
    """What waits to be tried again is not woken."""
    original = leases._task_due

    def due(state: Any, task: Any) -> int | None:
        return None if task is None or task.status == "backoff" else original(state, task)

    patch.setattr(leases, "_task_due", due)


def no_rollback(patch: pytest.MonkeyPatch) -> None:
    """A refused command leaves what it did before it was refused."""
    patch.setattr(Transaction, "undo", lambda _: None)
    # Not by an import statement: the package exports a function of this name.
    step = import_module("orchestra.statemachine.step")
    original = step.HANDLERS[step.CancelTask]

    def cancel(tx: Transaction, command: Any) -> Any:
        task = tx.get(stopping.Task, command.task_id)
        tx.change(task, losses=task.losses + 1)
        return original(tx, command)

    patch.setattr(step, "HANDLERS", {**step.HANDLERS, step.CancelTask: cancel})


def cancelled_while_alive(patch: pytest.MonkeyPatch) -> None:
    """A task shows cancelled as soon as somebody asks for it."""
    original = stopping.cancel_task

    def cancel(tx: Transaction, task: Any, reason: str, grace_ms: int | None = None) -> Any:
        task = original(tx, task, reason, grace_ms)
        if task.status == "cancelling":
            ending.close(tx, task, reason)
        return task

    patch.setattr("orchestra.statemachine.tasks.cancel_task", cancel)


def deaf_job(patch: pytest.MonkeyPatch) -> None:
    """A job does not notice that its last task ended."""
    patch.setattr(rules, "_finish", lambda *_: None)


def clockwork_ids(patch: pytest.MonkeyPatch) -> None:
    """Ids come from outside the stimulus."""
    import random

    patch.setattr(Transaction, "rng", property(lambda _: random.SystemRandom()))


def revived_completion(patch: pytest.MonkeyPatch) -> None:
    """A late report overwrites the end of an attempt."""

    def late(tx: Transaction, attempt: Any, report: Any) -> str:
        tx.change(attempt, result=b"late")
        return ""

    patch.setattr(attempts, "_late", late)


MUTANTS: list[Callable[[pytest.MonkeyPatch], None]] = [
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
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_walk_finds_every_removed_rule(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    # `InvariantBroken` is an AssertionError too
    with pytest.raises((AssertionError, Defect, ExceptionGroup, Flaky)):
        run_state_machine_as_test(CoreMachine, settings=HUNT)


def test_every_mutant_is_a_rule_of_the_table_or_the_handlers() -> None:
    assert len({mutant.__name__ for mutant in MUTANTS}) == len(MUTANTS) >= 10
    assert TASK.target("running", "complete") == "completed"
