"""
Workers of Flamenco in the core: joined, kept alive, given up. Each is one worker of the core with one slot.

A worker of 2015 has no heartbeat: it asks once a second while it has no work, and is silent while its program is silent. So its lease
is renewed here (`Crew.round`), for as long as the time-outs of this manager allow it to be silent.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from orchestra.dialects.asks import Ask
from orchestra.dialects.flamenco_compilers import Compilers
from orchestra.dialects.flamenco_desk import LABEL, SESSION, Card, Desk, Run
from orchestra.dialects.flamenco_options import Options
from orchestra.dialects.flamenco_parsers import fraction
from orchestra.dialects.flamenco_rules import is_pushed_to, labels_for, sleeps_of
from orchestra.dialects.flamenco_tasks import piece_of
from orchestra.statemachine import limits
from orchestra.statemachine.commands import JoinWorker
from orchestra.statemachine.lifecycles import AttemptStatus, WorkerStatus
from orchestra.statemachine.queries import GetTask, ListWorkers
from orchestra.statemachine.records import Cause
from orchestra.statemachine.replies import HeartbeatAnswered, WorkerJoined, WorkerView
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat

Steps = Generator[Ask, Any, object]

DISABLED_REASON = "disabled in Flamenco"
"""Why a worker is paused in the core, so that it is known again after a restart."""

BEATS_A_LEASE = 3
ROUND_MAX = 500
"""Workers in one round of the chore, so that it ends within the bound of one dialogue; the next round begins with the others."""

AWAY_MS = 15_000
"""Workers ask once in 1 to 5 s. One that has missed three times is not given a task that it may never fetch."""

_PAGES_MAX = 1_000


class Crew:
    """The workers of one manager."""

    def __init__(
        self,
        desk: Desk,
        options: Options,
        compilers: Compilers,
        weekday_and_minute: Callable[[], tuple[int, int]],
    ) -> None:
        self.desk = desk
        self._options = options
        self._weekday_and_minute = weekday_and_minute
        self._kinds = tuple(sorted(compilers.by_kind))

    def open(self) -> Steps:
        """After a restart, lay out the desk from the core's rows. Once; later it does nothing."""
        if self.desk.opened:
            return
        after = ""
        for _ in range(_PAGES_MAX):
            page = yield ListWorkers(after=after, limit=limits.PAGE_MAX)
            for worker in page.items:
                if worker.status in (WorkerStatus.ONLINE, WorkerStatus.LOST):
                    reason = worker.pause_reason if worker.paused else ""
                    card = self.desk.restore(worker, disabled=reason == DISABLED_REASON)
                    if card is not None:
                        self._compare(card, worker)
            after = page.next
            if not after:
                break
        self.desk.opened = True

    def restore_at(self, ip: str) -> Steps:
        """Look at what restored workers of an address hold."""
        for card in self.desk.at(ip):
            if card.restored:
                yield from self.beat(card)

    def beat(self, card: Card) -> Steps:
        """Renew the lease of a worker, learn what it should hold; join it first when the core does not know it (any more)."""
        if not card.joined:
            yield from self.join(card)
            return
        held = self._holding(card)
        card.beat_ms = self.desk.now_ms()
        answer: HeartbeatAnswered = yield Heartbeat(card.id, card.incarnation, held)
        if not answer.known:
            yield from self.join(card)
            return
        card.lease_ms = answer.lease_ms
        card.paused = answer.paused
        card.disabled = card.disabled and answer.paused
        self.desk.absorb(card, answer.orders, answer.foreign)
        yield from self._look_back(card)
        if card.outdated:
            yield from self.join(card)

    def join(self, card: Card) -> Steps:
        """Introduce a worker to the core, or tell it what has changed of one."""
        card.beat_ms = self.desk.now_ms()
        card.asleep = self._sleeps(card)
        card.visited = is_pushed_to(self._options.workers, card.hostname)
        joined: WorkerJoined = yield JoinWorker(
            card.name,
            SESSION,
            1,
            self._offered(card),
            labels=self._labels(card),
            host={
                "hostname": card.hostname,
                "ip_address": card.ip,
                "port": str(card.port),
                "system": card.system,
                "blocked": ",".join(card.blocked),
            },
            holding=self._holding(card),
        )
        card.id, card.incarnation, card.joined = joined.worker_id, joined.incarnation, True
        card.outdated = False
        card.lease_ms = joined.lease_ms
        self.desk.absorb(card, joined.orders, joined.foreign)
        yield from self._look_back(card)

    def round(self) -> Steps:
        """Renew the leases of workers that may be silent, and end the tasks that have been silent for too long."""
        yield from self.open()
        desk = self.desk
        now = desk.now_ms()
        due = [card for card in desk.cards.values() if card.joined and self._due(card, now)]
        due.sort(key=lambda card: card.beat_ms)
        for card in due[:ROUND_MAX]:
            run = card.run
            if self._is_alive(card, now):
                yield from self.beat(card)
                if card.asleep is not self._sleeps(card):
                    yield from self.join(card)
                if not card.away and self._is_away(card, now):
                    yield from self._leave_alone(card)
            elif run is not None and run.delivered and not run.told and not card.visited:
                seconds = self._options.task_timeout_s
                told = f"nothing was heard of it for {seconds} s"
                yield from self.failed(run, Cause.TIMEOUT, told)
            else:
                # Its lease runs out in the core, and what it holds runs elsewhere.
                card.joined = False
        return None

    def end(
        self,
        run: Run,
        happening: Happening,
        *,
        cause: Cause = Cause.NONE,
        message: str = "",
        result: bytes | None = None,
    ) -> Generator[Ask, Any, bool]:
        """Report the end of a run; whether it was still its worker's to report."""
        card = run.card
        report = AttemptReport(
            run.order.attempt_id, happening, result=result, cause=cause, message=message
        )
        answered = yield AttemptsReported(card.id, card.incarnation, (report,))
        self.desk.drop(run)
        return not answered.ignored[0]

    def progress(self, run: Run) -> Generator[Ask, Any, bool]:
        """Tell the core how far a run is, the first time that it runs; whether it is still its worker's."""
        piece = piece_of(run.order)
        progress = AttemptReport(
            run.order.attempt_id,
            Happening.PROGRESS,
            fraction=fraction(run.activity, piece.first, piece.last),
            message=run.activity.process,
        )
        begun = AttemptReport(run.order.attempt_id, Happening.RUNNING)
        reports = (progress,) if run.started else (begun, progress)
        card = run.card
        answered = yield AttemptsReported(card.id, card.incarnation, reports)
        refused = not run.started and bool(answered.ignored[0])
        run.started = True
        if refused:
            self.desk.drop(run)
        return not refused

    def failed(self, run: Run, cause: Cause, message: str) -> Generator[Ask, Any, bool]:
        """
        Report that a worker failed at a task: another try follows, on another worker when one is free, until there were too many.

        A worker that failed at a kind too often in a row is given no more of it, unless nobody else is left.
        """
        card, kind = run.card, run.order.app
        taken = yield from self.end(run, Happening.FAILED, cause=cause, message=message)
        if not taken:
            return False
        card.failures[kind] = card.failures.get(kind, 0) + 1
        if card.failures[kind] >= self._options.block_after and self.others(card, kind):
            card.blocked = (*card.blocked, kind)
            card.failures.pop(kind)
            yield from self.join(card)
        return True

    def others(self, card: Card, kind: str) -> list[Card]:
        """Who else is there for a kind of task."""
        return [
            other
            for other in self.desk.cards.values()
            if other is not card
            and other.joined
            and not (other.paused or other.disabled)
            and kind in self._offered(other)
        ]

    def pass_on(self, run: Run) -> Steps:
        """Give a task that its worker has failed at before to another; the worker is given none of the kind until it asks again."""
        run.card.resting = run.order.app
        yield from self.join(run.card)
        yield from self.end(run, Happening.STOPPED, message="it failed on this worker before")

    def back(self, card: Card) -> Steps:
        """A worker spoke: it is given work again when it was away, asleep until now, or resting."""
        card.seen_ms = self.desk.now_ms()
        if card.away or card.resting or card.asleep is not self._sleeps(card):
            card.away, card.resting = False, ""
            yield from self.join(card)

    def _leave_alone(self, card: Card) -> Steps:
        """Give a worker that asks no more nothing new, and what it never fetched to others. That is no loss: nothing of it began."""
        card.away = True
        yield from self.join(card)
        if card.run is not None:
            message = "its worker does not ask for it"
            yield from self.end(card.run, Happening.STOPPED, message=message)

    def _offered(self, card: Card) -> tuple[str, ...]:
        if card.away or card.asleep:
            return ()
        refused = (*card.blocked, card.resting)
        return tuple(kind for kind in self._kinds if kind not in refused)

    def _labels(self, card: Card) -> tuple[str, ...]:
        return (LABEL, *labels_for(self._options.workers, card.hostname))

    def _compare(self, card: Card, worker: WorkerView) -> None:
        """The settings of this manager may not be those of the one that the worker joined."""
        # Who is called says nothing of itself: otherwise nobody would look after it any more.
        card.visited = is_pushed_to(self._options.workers, card.hostname)
        now = (self._offered(card), self._labels(card))
        card.outdated = (worker.apps, worker.labels) != now

    def _sleeps(self, card: Card) -> bool:
        schedules = sleeps_of(self._options.workers, card.hostname)
        return bool(schedules) and any(
            each.covers(*self._weekday_and_minute()) for each in schedules
        )

    def _holding(self, card: Card) -> tuple[str, ...]:
        return () if card.run is None else (card.run.order.attempt_id,)

    def _due(self, card: Card, now: int) -> bool:
        # Who asks for nothing learns of its tasks here.
        asks_not = card.visited and card.run is None
        return card.restored or asks_not or now - card.beat_ms >= card.lease_ms // BEATS_A_LEASE

    def _is_alive(self, card: Card, now: int) -> bool:
        run = card.run
        if run is not None and run.delivered and not run.told and not card.visited:
            return now - run.touched_ms < self._options.task_timeout_s * 1_000
        return now - card.seen_ms < self._options.worker_timeout_s * 1_000

    def _is_away(self, card: Card, now: int) -> bool:
        busy = card.run is not None and card.run.delivered
        return not busy and now - card.seen_ms >= AWAY_MS

    def _look_back(self, card: Card) -> Steps:
        """What a worker held before this manager started: it may have begun it, and its log is kept in part."""
        if not card.restored:
            return
        card.restored = False
        run = card.run
        if run is None:
            return
        task = yield GetTask(run.order.task_id)
        running = any(
            attempt.id == run.order.attempt_id and attempt.status is AttemptStatus.RUNNING
            for attempt in task.attempts
        )
        run.started = running
        run.delivered = True
        run.log_bytes = None
