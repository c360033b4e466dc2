"""The small worlds that are searched whole: each is about one kind of trouble, and together they take every row of the tables."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from orchestra.statemachine.commands import StageDraft
from orchestra.statemachine.records import OnFailure, Span
from orchestra.testing.explore.bounds import Bounds
from orchestra.testing.explore.faces import STEP_MS

ONE = (StageDraft("only", "app", backoff_ms=1, grace_ms=STEP_MS),)
TRIED_TWICE = (StageDraft("only", "app", retries=1, backoff_ms=1, grace_ms=STEP_MS),)
TWO = (StageDraft("only", "app", over=Span(0, 2), grace_ms=STEP_MS),)
WIDE = (StageDraft("only", "app", over=Span(0, 2), needs=(("cpu", 1_000),), grace_ms=STEP_MS),)
CHAIN = (
    StageDraft("mill", "app", grace_ms=STEP_MS),
    StageDraft("sell", "app", after=("mill",), grace_ms=STEP_MS),
)
PAIRS = (
    StageDraft("mill", "app", over=Span(0, 2), grace_ms=STEP_MS),
    StageDraft("sell", "app", over=Span(0, 2), pairwise=("mill",), grace_ms=STEP_MS),
)
HURRIED = (StageDraft("only", "app", queue_ms_max=STEP_MS, grace_ms=STEP_MS),)
SHORT = (StageDraft("only", "app", run_ms_max=STEP_MS, grace_ms=STEP_MS),)
URGENT = (StageDraft("only", "app", priority=1, backoff_ms=1, grace_ms=STEP_MS),)
NOTHING = (StageDraft("none", "app", over=()),)

_SMALL = (
    Bounds(
        name="silent",
        about="Two workers, one of which is not heard for a lease.",
        stages=ONE,
        flight=1,
        begins=False,
        silences=1,
    ),
    Bounds(
        name="killed",
        about="Two workers, one of which is killed and started again.",
        stages=ONE,
        flight=1,
        begins=False,
        crashes=1,
    ),
    Bounds(
        name="late",
        about="One worker that is not heard for a lease, and tells late what it did.",
        stages=ONE,
        workers=1,
        flight=2,
        silences=1,
    ),
    Bounds(
        name="cancelled",
        about="A job that is cancelled at any moment, and work that may ignore it.",
        stages=ONE,
        workers=1,
        flight=2,
        begins=False,
        cancels=1,
    ),
    Bounds(
        name="task-cancelled",
        about="A task that is cancelled, and tried again by request.",
        stages=TRIED_TWICE,
        workers=1,
        flight=1,
        failures=1,
        task_cancels=1,
        revivals=1,
    ),
    Bounds(
        name="given-up",
        about="A cancelled task of a worker that is killed.",
        stages=ONE,
        workers=1,
        flight=1,
        begins=False,
        task_cancels=1,
        crashes=1,
    ),
    Bounds(
        name="restarted",
        about="An orchestrator that is killed at any moment.",
        stages=ONE,
        workers=1,
        flight=2,
        begins=False,
        restarts=1,
    ),
    Bounds(
        name="doubled",
        about="A message that comes twice, at any later moment.",
        stages=ONE,
        workers=1,
        flight=2,
        begins=False,
        doubled=1,
    ),
    Bounds(
        name="lost",
        about="A message that does not come.",
        stages=ONE,
        workers=1,
        flight=2,
        lost=1,
    ),
    Bounds(
        name="queue",
        about="Two tasks of which one worker has room for one at a time.",
        stages=WIDE,
        workers=1,
        slots=2,
        flight=1,
        begins=False,
    ),
    Bounds(
        name="pair",
        about="Two tasks that each come after one of their own, on a worker that does two at once.",
        stages=PAIRS,
        workers=1,
        slots=2,
        flight=1,
        begins=False,
    ),
    Bounds(
        name="turns",
        about="Two jobs, of which the later one has the higher priority; both are submitted again and again under their keys.",
        stages=ONE,
        second=URGENT,
        workers=1,
        flight=1,
        begins=False,
        restarts=1,
        keyed=True,
    ),
    Bounds(
        name="chain",
        about="A task that comes after another, which fails and is tried again by request.",
        stages=CHAIN,
        workers=1,
        flight=1,
        begins=False,
        failures=1,
        revivals=1,
    ),
    Bounds(
        name="chain-cancelled",
        about="A task that comes after another, in a job that is cancelled.",
        stages=CHAIN,
        workers=1,
        flight=1,
        begins=False,
        cancels=1,
        revivals=1,
    ),
    Bounds(
        name="put-back",
        about="A task that is cancelled, before its turn or in it, and tried again by request, and the one that it comes after.",
        stages=CHAIN,
        workers=1,
        flight=1,
        begins=False,
        task_cancels=1,
        revivals=1,
    ),
    Bounds(
        name="sliced",
        about="Two tasks that are made one by one, in a job that is cancelled meanwhile.",
        stages=TWO,
        workers=1,
        flight=1,
        begins=False,
        slice=1,
        cancels=1,
    ),
    Bounds(
        name="stopping",
        about="A job that stops at its first failure.",
        stages=TWO,
        workers=1,
        flight=1,
        slots=2,
        begins=False,
        on_failure=OnFailure.STOP,
        failures=1,
    ),
    Bounds(
        name="paused",
        about="A job that is paused, whose task fails.",
        stages=ONE,
        workers=1,
        flight=1,
        begins=False,
        failures=1,
        pauses=2,
    ),
    Bounds(
        name="paused-cancelled",
        about="A job that is paused and cancelled.",
        stages=ONE,
        workers=1,
        flight=1,
        begins=False,
        pauses=1,
        cancels=1,
    ),
    Bounds(
        name="worker-paused",
        about="A worker that is paused and killed.",
        stages=ONE,
        workers=1,
        flight=1,
        begins=False,
        worker_pauses=1,
        crashes=1,
    ),
    Bounds(
        name="hurried",
        about="A task that must not wait for long.",
        stages=HURRIED,
        workers=1,
        flight=1,
        begins=False,
        crashes=1,
    ),
    Bounds(
        name="short",
        about="Work that must not last long, and is stopped by the orchestrator.",
        stages=SHORT,
        workers=1,
        flight=1,
    ),
    Bounds(
        name="leaving",
        about="A worker that drains and leaves, and answers that do not come.",
        stages=ONE,
        workers=1,
        flight=1,
        begins=False,
        leaves=1,
        lost=1,
    ),
    Bounds(
        name="leaving-killed",
        about="A worker that is killed while it leaves, whose goodbye comes late.",
        stages=NOTHING,
        workers=1,
        flight=2,
        leaves=1,
        crashes=1,
    ),
    Bounds(
        name="leaving-silent",
        about="A worker that says goodbye after it was given up.",
        stages=ONE,
        workers=1,
        flight=1,
        begins=False,
        leaves=1,
        silences=1,
    ),
    Bounds(
        name="archived",
        about="A project that is closed and opened again, and a job without tasks.",
        stages=ONE,
        second=NOTHING,
        workers=1,
        flight=1,
        archives=1,
    ),
)

WORLDS: Mapping[str, Bounds] = MappingProxyType({world.name: world for world in _SMALL})
"""The worlds that are searched whole at every change."""

_LARGE = (
    Bounds(
        name="silent-cancelled",
        about="Two workers, one of which is not heard for a lease, and a job that is cancelled.",
        stages=ONE,
        flight=2,
        begins=False,
        silences=1,
        cancels=1,
    ),
    Bounds(
        name="killed-restarted",
        about="Two workers, one of which is killed, and an orchestrator that is.",
        stages=ONE,
        flight=2,
        begins=False,
        crashes=1,
        restarts=1,
    ),
    Bounds(
        name="two-tasks",
        about="Two tasks and two workers, one of which is not heard for a lease.",
        stages=TWO,
        flight=2,
        begins=False,
        silences=1,
    ),
    Bounds(
        name="pairs",
        about="Two pairs of tasks, of which the second come after the first, and one worker that is killed.",
        stages=PAIRS,
        workers=1,
        slots=2,
        flight=1,
        begins=False,
        crashes=1,
    ),
    Bounds(
        name="three-workers",
        about="Three workers, one of which is not heard for a lease.",
        stages=ONE,
        workers=3,
        flight=1,
        begins=False,
        silences=1,
    ),
)

LARGE: Mapping[str, Bounds] = MappingProxyType({world.name: world for world in _LARGE})
"""Worlds for a campaign: millions of states each, searched as far as there is room."""
