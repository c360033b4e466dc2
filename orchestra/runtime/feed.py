"""Who watches what: orders to workers, the story and progress to everyone else. Bounded; a slow watcher is told that it lags."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from orchestra.errors import LimitReached
from orchestra.ports import (
    Lagged,
    Moved,
    OrderSeen,
    ProgressSeen,
    Push,
    Watch,
    WatchOrders,
    WatchStory,
)
from orchestra.statemachine import ids, limits
from orchestra.statemachine.effects import Effect
from orchestra.statemachine.replies import ReportsAnswered
from orchestra.statemachine.reports import AttemptsReported, Happening
from orchestra.statemachine.story import Told
from orchestra.waiting import EventWaiter, Waiter

WATCHERS_MAX = 20_000
"""Each worker has one, and each page or terminal that looks on; beyond this something is leaking them."""

_OF_JOBS = frozenset({"job", "stage", "task", "attempt"})


class Mailbox:
    """Pushes for one watcher, taken by iterating. At most ``limits.FEED_BUFFER`` wait; then it ends with `Lagged`."""

    def __init__(self, watch: Watch, waiter: Callable[[], Waiter] = EventWaiter) -> None:
        self.watch = watch
        self.closed = False
        self.last_number = 0
        self._kinds: frozenset[str] = frozenset(
            watch.kinds if isinstance(watch, WatchStory) else ()
        )
        self._waiting: deque[Push] = deque()
        self._waiter = waiter
        self._wake: Waiter | None = None

    def put(self, pushes: Sequence[Push]) -> None:
        """Add pushes; never waits."""
        if self.closed:
            return
        if isinstance(self.watch, WatchOrders):
            self._put_orders(pushes)
            return
        for push in pushes:
            if len(self._waiting) >= limits.FEED_BUFFER:
                self.closed = True
                self._waiting.append(Lagged(self.last_number))
                break
            if isinstance(push, Moved):
                self.last_number = push.number
            if self._kinds and getattr(push, "kind", "") not in self._kinds:
                continue
            self._waiting.append(push)
        if self._waiting:
            self._ring()

    def _put_orders(self, pushes: Sequence[Push]) -> None:
        """Orders have no numbers and are of one kind: all at once, as far as there is room."""
        room = limits.FEED_BUFFER - len(self._waiting)
        self._waiting.extend(pushes[:room])
        if len(pushes) > room:
            self.closed = True
            self._waiting.append(Lagged(self.last_number))
        self._ring()

    def close(self) -> None:
        """No more pushes come: the iteration ends after what is there."""
        self.closed = True
        self._ring()

    def _ring(self) -> None:
        if self._wake is not None:
            self._wake.ring()
            self._wake = None

    def __aiter__(self) -> AsyncIterator[Push]:
        return self

    async def __anext__(self) -> Push:
        while not self._waiting:
            if self.closed:
                raise StopAsyncIteration
            self._wake = self._waiter()
            await self._wake.wait()
        return self._waiting.popleft()


def _kinds_of_job(watch: Watch) -> tuple[str, ...]:
    """Kinds that a watcher of one job wants, the empty one for all; nothing for other watchers."""
    if isinstance(watch, WatchStory) and watch.job_id:
        return watch.kinds or ("",)
    return ()


class Feed:
    """All mailboxes, found by what they watch, so that a push costs only those who want it."""

    def __init__(self) -> None:
        self._orders: dict[str, dict[Mailbox, None]] = {}
        self._jobs: dict[str, dict[Mailbox, None]] = {}
        self._all: dict[Mailbox, None] = {}
        self._count = 0
        self._job_kinds: Counter[str] = Counter()
        """How many of those who watch one job want entries of each kind; the empty one stands for all."""

    def open(self, watch: Watch, waiter: Callable[[], Waiter] = EventWaiter) -> Mailbox:
        """A new mailbox, waited for with what ``waiter`` makes. Raises `LimitReached`."""
        if self._count >= WATCHERS_MAX:
            raise LimitReached("too many watchers", retry_after_ms=limits.SECOND_MS)
        self._count += 1
        mailbox = Mailbox(watch, waiter)
        self._shelf(watch)[mailbox] = None
        self._job_kinds.update(_kinds_of_job(watch))
        return mailbox

    def shut(self, mailbox: Mailbox) -> None:
        """Forget a mailbox."""
        mailbox.close()
        shelf = self._shelf(mailbox.watch)
        if shelf.pop(mailbox, 0) is None:
            self._count -= 1
            self._job_kinds.subtract(_kinds_of_job(mailbox.watch))
        if not shelf and shelf is not self._all:
            self._orders.pop(getattr(mailbox.watch, "worker_id", ""), None)
            self._jobs.pop(getattr(mailbox.watch, "job_id", ""), None)

    def shut_all(self) -> None:
        """The orchestrator ends: every watcher's iteration ends."""
        for shelves in (self._orders, self._jobs):
            for shelf in shelves.values():
                for mailbox in shelf:
                    mailbox.close()
        for mailbox in self._all:
            mailbox.close()

    def _shelf(self, watch: Watch) -> dict[Mailbox, None]:
        if isinstance(watch, WatchOrders):
            return self._orders.setdefault(watch.worker_id, {})
        return self._jobs.setdefault(watch.job_id, {}) if watch.job_id else self._all

    def give_orders(self, effects: Iterable[Effect]) -> None:
        """Tell workers what to start and to stop. One that is not watching learns of it from its next heartbeat."""
        by_worker: dict[str, list[Push]] = {}
        for effect in effects:
            if effect.worker_id in self._orders:
                by_worker.setdefault(effect.worker_id, []).append(OrderSeen(effect.order))
        for worker_id, pushes in by_worker.items():
            for mailbox in self._orders[worker_id]:
                mailbox.put(pushes)

    def tell(self, story: Sequence[Moved]) -> None:
        """Publish committed story."""
        if not self._jobs and not self._all:
            return
        for mailbox in self._all:
            mailbox.put(story)
        if self._jobs:
            # Most who watch a job wait for its end: the many moves of its tasks are passed over for them.
            wanted = (
                _OF_JOBS if self._job_kinds[""] else {k for k in _OF_JOBS if self._job_kinds[k]}
            )
            by_job: dict[str, list[Push]] = {}
            told = Told.of(story)
            for number, entry in enumerate(told.entries, told.first):
                if entry[1] in wanted:
                    job_id = ids.job_of(entry[2])
                    if job_id in self._jobs:
                        by_job.setdefault(job_id, []).append(Moved(number, *entry))
            for job_id, pushes in by_job.items():
                for mailbox in self._jobs[job_id]:
                    mailbox.put(pushes)

    def tell_progress(self, told: AttemptsReported, answered: ReportsAnswered) -> None:
        """Publish soft progress, of the reports that were taken: a worker that lost its lease goes on telling for a while."""
        for report, ignored in zip(told.reports, answered.ignored, strict=True):
            if report.happening is not Happening.PROGRESS or ignored:
                continue
            seen = ProgressSeen(report.attempt_id, *report.progress)
            for mailbox in self._all:
                mailbox.put((seen,))
            for mailbox in self._jobs.get(ids.job_of(seen.attempt_id), ()):
                mailbox.put((seen,))
