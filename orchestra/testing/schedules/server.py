"""
The orchestrator's side: asks gather, are stepped, committed together, and only then answered.

The step function, its rules and its loading are the real ones; the store is a mapping that keeps what was committed.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from orchestra.errors import Rejected, StoreFailed
from orchestra.statemachine import Outcome, State, Stimulus, load, next_deadline, step
from orchestra.statemachine.commands import Command, RetryTask, Tick
from orchestra.statemachine.effects import StartAttempt, StopAttempt
from orchestra.statemachine.lifecycles import JOB_FINAL, TaskStatus
from orchestra.statemachine.records import KIND_OF, Job, Record, Settings, Task
from orchestra.testing.invariants import broken_by_step, broken_in_state, snapshot
from orchestra.testing.schedules.world import World

Key = tuple[str, str]

RETRY_COMMIT_MS = 500


@attrs.define(slots=True, eq=False)
class Asked:
    """A message that reached the server, and where its answer goes."""

    command: Command[object]
    principal: str
    key: str
    answer: Callable[[object], None]


class Server:
    """
    One orchestrator with its store, which crashes and comes back.

    Args:
        push: Where orders go.
    """

    def __init__(self, world: World, push: Callable[[StartAttempt | StopAttempt], None]) -> None:
        self.world = world
        self.push = push
        settings = Settings(reserve_after_ms=world.knobs.reserve_after_ms)
        self.durable: dict[Key, Record] = {("settings", settings.id): settings}
        self.state: State = load((settings,), world.now_ms)
        self.up = True
        self.steps = 0
        self.commits = 0
        self._life = 0
        self._inbox: list[Asked] = []
        self._busy = False
        self._tick_at: int | None = None
        self._stalled_until = 0

    # what comes in --------------------------------------------------------------------------------------------------

    def receive(self, asked: Asked) -> None:
        """A message arrives. One that arrives while the server is away is lost."""
        if not self.up:
            return
        self._inbox.append(asked)
        self._wake(0)

    def _wake(self, ms: int) -> None:
        if not self._busy:
            self._busy = True
            life = self._life
            self.world.after(ms, lambda: self._turn(life))

    def _arm(self) -> None:
        """Have a turn when the next deadline is due."""
        due = next_deadline(self.state)
        if due is None:
            return
        at_ms = max(due, self.world.now_ms)
        if self._tick_at is not None and self._tick_at <= at_ms:
            return
        self._tick_at = at_ms
        life = self._life

        def ring() -> None:
            if life == self._life and self._tick_at == at_ms:
                self._tick_at = None
                self._wake(0)

        self.world.after(at_ms - self.world.now_ms, ring)

    # a turn -------------------------------------------------------------------------------------------------------

    def _turn(self, life: int) -> None:
        if life != self._life:
            return
        if self.world.now_ms < self._stalled_until:
            self.world.after(self._stalled_until - self.world.now_ms, lambda: self._turn(life))
            return
        asks, self._inbox = self._inbox, []
        outcomes: list[Outcome] = []
        replies: list[tuple[Asked, object]] = []
        due = next_deadline(self.state)
        if due is not None and due <= self.world.now_ms:
            outcomes.append(self._step(Tick(), "", ""))
        for asked in asks:
            outcome = self._step(asked.command, asked.principal, asked.key)
            outcomes.append(outcome)
            replies.append((asked, outcome.reply))
        puts: dict[Key, Record] = {}
        drops: set[Key] = set()
        for outcome in outcomes:
            puts.update(outcome.changes)
            for key in outcome.drops:
                puts.pop(key, None)
                drops.add(key)
        takes_ms = self.world.rng.randint(0, 5) if puts or drops else 0
        self.world.after(takes_ms, lambda: self._committed(life, puts, drops, outcomes, replies))

    def _step(self, command: Command[object], principal: str, key: str) -> Outcome:
        self.steps += 1
        checked = self.steps % self.world.knobs.check_every == 0
        before = snapshot(self.state) if checked else {}
        seed = self.world.rng.getrandbits(128)
        outcome = step(self.state, Stimulus(command, self.world.now_ms, seed, principal, key))
        for move in outcome.story:
            self.world.taken.add((move.kind, move.source or None, move.verb))
        if checked:
            broken = broken_in_state(self.state, self.world.now_ms)
            broken += broken_by_step(
                before, self.state, self.world.now_ms, revives=isinstance(command, RetryTask)
            )
            if isinstance(outcome.reply, Rejected) and snapshot(self.state) != before:
                broken.append("I7: a refusal changed the state")
            if broken:
                self.world.violated("; ".join(broken) + f" (after {command!r})")
        return outcome

    def _committed(
        self,
        life: int,
        puts: dict[Key, Record],
        drops: set[Key],
        outcomes: list[Outcome],
        replies: list[tuple[Asked, object]],
    ) -> None:
        if life != self._life:
            return  # it crashed first: nothing of this was stored, and nobody was told
        self._busy = False
        if (puts or drops) and self.world.meets("fail_commit"):
            self._not_committed(puts, drops, replies)
            return
        self._store(puts, drops)
        for asked, reply in replies:
            asked.answer(reply)
        for outcome in outcomes:
            for effect in outcome.effects:
                self.push(effect)
        if self._inbox:
            self._wake(0)
        self._arm()

    def _store(self, puts: dict[Key, Record], drops: set[Key]) -> None:
        if puts or drops:
            self.commits += 1
        for key in drops:
            self.durable.pop(key, None)
        for key, record in puts.items():
            if isinstance(record, Task) and record.status is TaskStatus.CANCELLED:
                self._check_dead(record)
            self.durable[key] = record

    def _check_dead(self, task: Task) -> None:
        if self.world.knobs.fence == "strict" and self.world.alive.get(task.id):
            old = self.durable.get(("task", task.id))
            if isinstance(old, Task) and old.status is not TaskStatus.CANCELLED:
                where = ", ".join(self.world.alive[task.id].values())
                self.world.violated(f"I11: {task.id} shows cancelled and is alive on {where}")

    def _not_committed(
        self, puts: dict[Key, Record], drops: set[Key], replies: list[tuple[Asked, object]]
    ) -> None:
        """The medium failed. Whether it stored is unknown; the callers are told so, and what is stored is loaded again."""
        stored = self.world.chance(0.5)
        self.world.tell("server", f"a commit fails ({'stored' if stored else 'not stored'})")
        if stored:
            self._store(puts, drops)
        pulses = self.state.pulses
        self.state = self._loaded()
        self.state.pulses.update({id: p for id, p in pulses.items() if id in self.state.pulses})
        self._tick_at = None
        failure = StoreFailed("the medium failed")
        for asked, _ in replies:
            asked.answer(failure)
        self._wake(RETRY_COMMIT_MS)

    # its life -----------------------------------------------------------------------------------------------------

    def stall(self, ms: int) -> None:
        """It does nothing for so long, as a suspended machine."""
        self.world.tell("server", f"stalls for {ms} ms")
        self._stalled_until = self.world.now_ms + ms

    def crash(self, away_ms: int) -> None:
        """Killed: what was not committed is gone, and so is every message that waited. It comes back."""
        if not self.up:
            return
        self.world.tell("server", f"is killed, and away for {away_ms} ms")
        self.up = False
        self._life += 1
        self._inbox.clear()
        self._busy = False
        self._tick_at = None
        self._stalled_until = 0
        self.world.after(away_ms, self._start)

    def _start(self) -> None:
        self.world.tell("server", "is back")
        self.up = True
        self.state = self._loaded()
        self._arm()

    def _loaded(self) -> State:
        """What a store loads: everything but finished jobs and what belongs to them."""
        finished = {
            record.id
            for record in self.durable.values()
            if isinstance(record, Job) and record.status in JOB_FINAL
        }
        live = [
            record
            for record in self.durable.values()
            if getattr(record, "job_id", record.id) not in finished
            or KIND_OF[type(record)] == "receipt"
        ]
        return load(live, self.world.now_ms)
