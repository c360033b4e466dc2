"""
A machine with a worker on it: the real `WorkerSession` and `Holdings`, and work that truly runs, is killed, or dies with its machine.

What the worker believes and what is alive are kept apart: the world keeps the second, and invariants are about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from orchestra.errors import Rejected
from orchestra.ports import Ended
from orchestra.statemachine.commands import JoinWorker
from orchestra.statemachine.effects import StartAttempt, StopAttempt
from orchestra.statemachine.records import Cause, Rung
from orchestra.statemachine.replies import (
    HeartbeatAnswered,
    Order,
    ReportsAnswered,
    WorkerChanged,
    WorkerJoined,
)
from orchestra.statemachine.reports import AttemptReport, Happening
from orchestra.testing.schedules.net import Net
from orchestra.testing.schedules.world import World
from orchestra.worker.holdings import Action, Start
from orchestra.worker.session import Standing, WorkerSession

AGAIN_MS = 300
"""After a failure a worker tries again so much later."""

KILL_MS = 50
"""From KILL to the end of the last process of an attempt."""

HANGING_MS = 10 * 3_600_000
"""Longer than any schedule."""

ORPHANED_MS = 1_000
"""A guardian whose engine died gives what it watches over this long."""


@attrs.define(slots=True, eq=False)
class _Body:
    """The work of one attempt, as it truly runs."""

    order: Order
    ended: bool = False


class Machine:
    """One machine. Its worker crashes, freezes, leaves, and comes back as another process."""

    def __init__(self, world: World, net: Net, name: str) -> None:
        self.world = world
        self.net = net
        self.name = name
        self.runs = False
        self.subscription = 0
        """Which subscription to orders is open: each join opens the next, and nothing comes out of one that was closed."""
        self._life = 0
        self._frozen_until = 0
        self._stalled: list[Callable[[], None]] = []
        self._bodies: dict[str, _Body] = {}
        self._telling = False
        self._fence_at: float | None = None
        self.session = self._introduced()

    def _introduced(self) -> WorkerSession:
        knobs = self.world.knobs
        capacity = (("cpu", 1_000),)
        session = f"{self.name}.{self._life}"
        introduction = JoinWorker(self.name, session, knobs.slots, ("app",), (), capacity)
        return WorkerSession(introduction, fence=knobs.fence)

    # its life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """A new process begins, and joins."""
        self._life += 1
        self._bodies = {}
        self._telling = False
        self._fence_at = None
        self.subscription += 1
        self.session = self._introduced()
        self.runs = True
        self.world.tell(self.name, "starts")
        self._join()

    def crash(self) -> None:
        """Killed: it forgets everything; its guardian ends what ran, within its grace."""
        if not self.runs:
            return
        self.world.tell(self.name, "is killed")
        self.runs = False
        self._life += 1
        self._frozen_until = 0
        self._stalled.clear()
        for body in self._bodies.values():
            # The guardian goes on watching the lease that it knows of, and gives nothing beyond it.
            ms = self.world.rng.randint(0, ORPHANED_MS)
            self._end_body(body, min(ms, max(0, self._guard_ms())))

    def freeze(self, ms: int) -> None:
        """It does nothing for so long and does not know it. Its guardian ends the work when the lease passes."""
        if not self.runs or self._frozen_until > self.world.now_ms:
            return
        self.world.tell(self.name, f"freezes for {ms} ms")
        self._frozen_until = self.world.now_ms + ms
        if self.session.fence == "strict":
            life = self._life
            self.world.after(self._guard_ms(), lambda: self._guarded(life))
        self.world.after(ms, self._thaw)

    def _guard_ms(self) -> int:
        """How long from now the guardian lets work run that its engine does not end."""
        return int(self.session.guard_s * 1000) - self.world.now_ms

    def _guarded(self, life: int) -> None:
        """What a guardian does when the lease that it knows of has passed."""
        if life == self._life and self._frozen_until > self.world.now_ms:
            for id, body in self._bodies.items():
                if not body.ended:
                    self._end_body(body, 0)
                    self._heard_end(id, Ended("stopped", cause=Cause.LOST, message="the lease"))

    def _thaw(self) -> None:
        if self._frozen_until and self._frozen_until <= self.world.now_ms:
            self._frozen_until = 0
            stalled, self._stalled = self._stalled, []
            # What came meanwhile comes at once; timers have passed long ago, and the fence is looked at first.
            self._look_at_fence()
            for action in stalled:
                action()

    def _later(self, ms: int, action: Callable[[], None]) -> None:
        """Do something later, if it is still the same process then; a frozen one does it when it thaws."""
        life = self._life

        def now() -> None:
            if life == self._life and self.runs:
                if self._frozen_until > self.world.now_ms:
                    self._stalled.append(now)
                else:
                    action()

        self.world.after(ms, now)

    def _heard(self, action: Callable[[object], None]) -> Callable[[object], None]:
        """As `_later`, for an answer."""
        life = self._life

        def now(reply: object) -> None:
            if life == self._life and self.runs:
                if self._frozen_until > self.world.now_ms:
                    self._stalled.append(lambda: now(reply))
                else:
                    action(reply)

        return now

    @property
    def _now_s(self) -> float:
        return self.world.now_ms / 1000

    # joining and beating --------------------------------------------------------------------------------------

    def _join(self) -> None:
        sent_s = self._now_s

        def answered(reply: object) -> None:
            if isinstance(reply, WorkerJoined):
                self.subscription += 1
                self._act(self.session.joined(reply, sent_s, self._now_s))
                self._look_at_fence()
                self._later(self.session.heartbeat_ms, self._beat)
                self._tell()
            elif isinstance(reply, Rejected) and not self.session.holdings.holding:
                self._stop()  # another process has the name
            else:
                self._later(AGAIN_MS, self._join)

        self.net.ask(self.name, self.session.joining(), self._heard(answered))

    def _beat(self) -> None:
        sent_s = self._now_s

        def answered(reply: object) -> None:
            if isinstance(reply, HeartbeatAnswered):
                self._act(self.session.beaten(reply, sent_s, self._now_s))
                self._look_at_fence()
                if self.session.must_join:
                    self._join()
                    return
                if self.session.standing is Standing.REPLACED:
                    self._stop()
                    return
            self._later(self.session.heartbeat_ms, self._beat)

        beat = self.session.beating(load=0.0, memory_free_bytes=0, disk_free_bytes=0)
        self.net.ask(self.name, beat, self._heard(answered))

    def _stop(self) -> None:
        """Another process took the name: all ends here."""
        self.world.tell(self.name, "was replaced, and stops")
        self.crash()
        self.world.after(self.world.rng.randint(1_000, 5_000), self.restart)

    def restart(self) -> None:
        """Start again unless it runs."""
        if not self.runs:
            self.start()

    def leave(self) -> None:
        """It takes nothing new, and says goodbye when nothing of it is alive."""
        if self.runs and not self.session.draining:
            self.world.tell(self.name, "is about to leave")
            self.session.draining = True
            if self.session.standing is Standing.MEMBER:
                self._offer_nothing()
            self._later(0, self._left)

    def _offer_nothing(self) -> None:
        sent_s = self._now_s

        def answered(reply: object) -> None:
            if isinstance(reply, WorkerJoined):
                self._act(self.session.joined(reply, sent_s, self._now_s))
                self._look_at_fence()
            elif reply is None and self.session.standing is Standing.MEMBER:
                self._later(AGAIN_MS, self._offer_nothing)

        self.net.ask(self.name, self.session.joining(), self._heard(answered))

    def _left(self) -> None:
        if not self.session.worker_id or not self.session.holdings.is_handed_in:
            self._later(AGAIN_MS, self._left)
            return

        def answered(reply: object) -> None:
            if isinstance(reply, WorkerChanged | Rejected):
                self.crash()
                self.world.after(self.world.rng.randint(0, 5_000), self.restart)
            else:
                self._later(AGAIN_MS, self._left)

        self.net.ask(self.name, self.session.leaving(), self._heard(answered))

    # its lease --------------------------------------------------------------------------------------------------

    def _look_at_fence(self) -> None:
        self._act(self.session.fenced(self._now_s))
        fence_s = self.session.fence_s
        if fence_s is None or fence_s == self._fence_at:
            return
        self._fence_at = fence_s
        self._later(int(fence_s * 1000) - self.world.now_ms + 1, self._look_at_fence)

    # its work ---------------------------------------------------------------------------------------------------

    def order(self, effect: StartAttempt | StopAttempt, subscription: int) -> None:
        """An order that the server pushed into a subscription arrives."""

        def arrived(_: object) -> None:
            session = self.session
            if subscription != self.subscription:
                return
            if (effect.worker_id, effect.incarnation) == (session.worker_id, session.incarnation):
                action = session.ordered(effect.order, self._now_s)
                if action is not None:
                    self._act((action,))
                self._tell()

        self._heard(arrived)(None)

    def _act(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Start):
                self._run(action.order)
            else:
                self._climb(action.attempt_id, action.rung)
        self._tell()

    def _run(self, order: Order) -> None:
        body = self._bodies[order.attempt_id] = _Body(order)
        self.world.tell(self.name, f"runs {_called(order)}")
        self.world.born(order.task_id, order.attempt_id, self.name)
        rng = self.world.rng
        lasts_ms = rng.choice((0, 30, 400, 3_000, 12_000))
        fails = self.world.meets("failing")
        if order.run_ms_max is not None and self.world.hangs():
            lasts_ms = HANGING_MS
        if lasts_ms:
            self.session.holdings.began(order.attempt_id, self._now_s)
            self._later(30, self._tell)
        life = self._life

        def end() -> None:
            if body.ended or life != self._life:
                return
            self._end_body(body, 0)
            if fails:
                ended = Ended("failed", cause=Cause.ERROR, message="it was meant to")
            else:
                result = order.attempt_id.encode()
                self.world.done[order.attempt_id] = result
                ended = Ended("completed", result=result)
            self._heard_end(order.attempt_id, ended)

        self.world.after(lasts_ms, end)

    def _climb(self, attempt_id: str, rung: Rung) -> None:
        body = self._bodies.get(attempt_id)
        if body is None or body.ended:
            return
        if rung is not Rung.KILL and self.world.meets("stubborn"):
            return
        life = self._life

        def end() -> None:
            if not body.ended and life == self._life:
                self._end_body(body, 0)
                self._heard_end(attempt_id, Ended("stopped", cause=Cause.CANCELLED))

        self.world.after(self.world.rng.randint(0, KILL_MS), end)

    def _end_body(self, body: _Body, ms: int) -> None:
        if body.ended:
            return
        body.ended = True
        order = body.order
        self.world.tell(self.name, f"ends {_called(order)}")
        self.world.after(ms, lambda: self.world.died(order.task_id, order.attempt_id))

    def _heard_end(self, attempt_id: str, ended: Ended) -> None:
        def tell() -> None:
            self.session.holdings.ended(attempt_id, ended)
            self._tell()

        self._later(0, tell)

    def forge(self, attempt_id: str) -> None:
        """It reports the end of what it may never have held, as a stranger would who guessed an id."""
        report = AttemptReport(attempt_id, Happening.COMPLETED, result=b"forged")
        if self.runs and self.session.worker_id:
            self.net.ask(self.name, self.session.telling((report,)), lambda _: None)

    # what it tells ------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        if self._telling or self.session.standing is not Standing.MEMBER:
            return
        holdings = self.session.holdings
        reports = holdings.reporting(self._now_s)
        if not reports:
            return
        self._telling = True
        self.net.ask(
            self.name,
            self.session.telling(reports),
            self._heard(lambda reply: self._told(reports, reply)),
        )

    def _told(self, reports: tuple[AttemptReport, ...], reply: object) -> None:
        self._telling = False
        if isinstance(reply, ReportsAnswered):
            self.session.holdings.reported(reports)
            self._tell()
        else:
            self.session.holdings.unreported(reports)
            self._later(AGAIN_MS, self._tell)


def _called(order: Order) -> str:
    return f"{order.job_number}.{order.position}, try {order.number}"
