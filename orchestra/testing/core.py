"""A core to play with: the real step function, a clock in the hand, every stimulus kept for a replay, every invariant checked."""

from __future__ import annotations

from typing import TypeVar, cast

from orchestra.errors import Rejected
from orchestra.statemachine import Outcome, State, Stimulus, answer, load, next_deadline, step
from orchestra.statemachine.commands import (
    Command,
    JoinWorker,
    RetryTask,
    StageDraft,
    SubmitJob,
    Tick,
)
from orchestra.statemachine.effects import StartAttempt
from orchestra.statemachine.queries import Query
from orchestra.statemachine.records import Amounts, Cause
from orchestra.statemachine.replies import JobAccepted, Order, WorkerJoined
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.testing.invariants import broken_by_step, broken_in_state, snapshot

R = TypeVar("R")

START_MS = 1_000_000


class InvariantBroken(AssertionError):
    """A step broke an invariant; the message names it and the stimuli that led there."""


class Core:
    """
    A state, a time, and what was done to it.

    Args:
        checked: Check every invariant after every step (slow in large worlds).
    """

    def __init__(self, *, checked: bool = True) -> None:
        self.state: State = load((), START_MS)
        self.now_ms = START_MS
        self.checked = checked
        self.journal: list[Stimulus] = []
        self.orders: dict[str, StartAttempt] = {}
        self.last: Outcome | None = None
        self._joined: dict[str, WorkerJoined] = {}

    def apply(self, command: Command[R], *, principal: str = "me", key: str = "") -> R:
        """Step, and raise what was refused. Checks the invariants."""
        stimulus = Stimulus(
            cast("Command[object]", command), self.now_ms, len(self.journal) + 1, principal, key
        )
        before = snapshot(self.state) if self.checked else {}
        self.journal.append(stimulus)
        outcome = self.last = step(self.state, stimulus)
        for effect in outcome.effects:
            if isinstance(effect, StartAttempt):
                self.orders[effect.order.attempt_id] = effect
        if self.checked:
            broken = broken_in_state(self.state, self.now_ms)
            broken += broken_by_step(
                before, self.state, self.now_ms, revives=isinstance(command, RetryTask)
            )
            if isinstance(outcome.reply, Rejected) and snapshot(self.state) != before:
                broken.append("a refusal changed the state")
            if broken:
                told = "\n".join(repr(each) for each in self.journal[-20:])
                raise InvariantBroken("\n".join(broken) + "\nafter\n" + told)
        if isinstance(outcome.reply, Rejected):
            raise outcome.reply
        return cast("R", outcome.reply)

    def ask(self, query: Query[R]) -> R:
        """Answer a query."""
        return answer(self.state, query, self.now_ms)

    def advance(self, ms: int) -> None:
        """Let time pass, ticking at every deadline on the way."""
        until = self.now_ms + ms
        for _ in range(100_000):
            due = next_deadline(self.state)
            if due is None or due > until:
                break
            self.now_ms = max(self.now_ms, due)
            self.apply(Tick())
        self.now_ms = until

    def settle(self) -> None:
        """Do what is due now."""
        self.advance(0)

    def join(
        self,
        name: str = "w1",
        *,
        slots: int = 1,
        apps: tuple[str, ...] = ("app",),
        labels: tuple[str, ...] = (),
        capacity: Amounts = (),
        session: str = "s1",
        holding: tuple[str, ...] = (),
    ) -> WorkerJoined:
        """A worker joins."""
        joined = self.apply(JoinWorker(name, session, slots, apps, labels, capacity, {}, holding))
        self._joined[joined.worker_id] = joined
        return joined

    def beat(self, joined: WorkerJoined, *holding: str) -> object:
        """A worker's heartbeat."""
        return self.apply(Heartbeat(joined.worker_id, joined.incarnation, holding))

    def submit(
        self, *drafts: StageDraft, key: str = "", name: str = "job", priority: int = 0
    ) -> JobAccepted:
        """Submit a job of these stages; one task of the app ``app`` by default."""
        stages = drafts or (StageDraft("only", "app"),)
        return self.apply(SubmitJob(name, stages, priority=priority), key=key)

    def held(self) -> list[Order]:
        """Orders of all attempts that workers hold now, oldest first."""
        live = {id for held in self.state.index.held.values() for id in held.values()}
        return [effect.order for id, effect in self.orders.items() if id in live]

    def report(
        self,
        attempt_id: str,
        happening: Happening = Happening.COMPLETED,
        *,
        result: bytes | None = b"null",
        cause: Cause = Cause.NONE,
        message: str = "",
        worker: tuple[str, int] | None = None,
    ) -> str:
        """The holder reports; why it was ignored is returned, empty when it was taken."""
        effect = self.orders[attempt_id]
        worker_id, incarnation = worker or (effect.worker_id, effect.incarnation)
        report = AttemptReport(
            attempt_id,
            happening,
            result if happening is Happening.COMPLETED else None,
            cause,
            message,
        )
        return self.apply(AttemptsReported(worker_id, incarnation, (report,))).ignored[0]

    def run_all(self, rounds: int = 10_000) -> None:
        """Every worker completes what it holds until nothing is held."""
        for _ in range(rounds):
            self.settle()
            held = self.held()
            if not held:
                return
            for order in held:
                self.report(order.attempt_id)
