"""The reducer: one stimulus in, one outcome out. Total: every refusal is a value, and leaves no trace in the state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from orchestra.errors import Defect, Rejected
from orchestra.statemachine import attempts, jobs, policy, projects, tasks, workers
from orchestra.statemachine.commands import (
    ArchiveProject,
    CancelJob,
    CancelTask,
    Command,
    JoinWorker,
    LeaveWorker,
    OpenProject,
    PauseJob,
    PauseWorker,
    Reconfigure,
    ResumeJob,
    ResumeWorker,
    RetryTask,
    SubmitJob,
    Tick,
)
from orchestra.statemachine.effects import Effect
from orchestra.statemachine.leases import expire, next_deadline
from orchestra.statemachine.receipts import recall, remember
from orchestra.statemachine.records import Record
from orchestra.statemachine.replies import Ticked
from orchestra.statemachine.reports import AttemptsReported, Heartbeat
from orchestra.statemachine.rules import drain
from orchestra.statemachine.state import State
from orchestra.statemachine.story import Entry, Move
from orchestra.statemachine.transaction import Transaction
from orchestra.statemachine.values import value


@value
class Stimulus:
    """
    All that a step depends on besides the state.

    Args:
        command: What is asked, or what happened.
        at_ms: The time, in ms since the epoch (UTC).
        seed: 128 random bits for ids and jitter.
        principal: Who asks.
        key: An idempotency key; empty without one.
    """

    command: Command[object]
    at_ms: int
    seed: int
    principal: str = ""
    key: str = ""


@value
class Outcome:
    """
    What came of a stimulus: the reply (or the `Rejected` that refuses), new and deleted rows to store, effects, and the story.

    ``entries`` are the story as it is stored; ``story`` is the same with names.
    """

    reply: object
    changes: Mapping[tuple[str, str], Record]
    drops: tuple[tuple[str, str], ...]
    effects: tuple[Effect, ...]
    entries: Sequence[Entry]

    @property
    def story(self) -> tuple[Move, ...]:
        """What moved, in order."""
        return tuple(Move(*entry[1:]) for entry in self.entries)


def _tick(tx: Transaction, _: Tick) -> Ticked:
    expire(tx)
    return Ticked(None)


HANDLERS: Mapping[type[object], Callable[[Transaction, Any], object]] = MappingProxyType(
    {
        SubmitJob: jobs.submit,
        CancelJob: jobs.cancel,
        PauseJob: jobs.pause,
        ResumeJob: jobs.resume,
        CancelTask: tasks.cancel,
        RetryTask: tasks.retry,
        OpenProject: projects.open_project,
        ArchiveProject: projects.archive,
        JoinWorker: workers.join,
        LeaveWorker: workers.leave,
        PauseWorker: workers.pause,
        ResumeWorker: workers.resume,
        Heartbeat: workers.beat,
        AttemptsReported: attempts.reported,
        Reconfigure: policy.reconfigure,
        Tick: _tick,
    }
)
"""Each takes its own command, which no type can say of a mapping; a test proves that every command has one."""

_NOTHING: Mapping[tuple[str, str], Record] = MappingProxyType({})


def step(state: State, stimulus: Stimulus) -> Outcome:
    """
    Apply one stimulus to the state.

    A refusal comes back as ``Outcome.reply``, a `Rejected`; then the state is as it was. Only a `Defect` is raised.
    """
    tx = Transaction(state, stimulus.at_ms, stimulus.seed, stimulus.principal)
    command = stimulus.command
    handler = HANDLERS.get(type(command))
    if handler is None:
        raise Defect(f"no handler for {type(command).__name__}")
    try:
        if stimulus.key and isinstance(command, SubmitJob):
            known = recall(tx, command, stimulus.key)
            if known is not None:
                return Outcome(known, _NOTHING, (), (), ())
            accepted = jobs.submit(tx, command)
            remember(tx, command, stimulus.key, accepted)
            reply: object = accepted
        else:
            reply = handler(tx, command)
    except Rejected as refusal:
        tx.undo()
        return Outcome(refusal, _NOTHING, (), (), ())
    drain(tx)
    if type(command) is Tick:
        reply = Ticked(next_deadline(state))
    return Outcome(reply, tx.changes, tuple(tx.drops), tuple(tx.effects), tx.story)
