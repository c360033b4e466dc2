"""
The loop around the core: take what is asked, step each, commit once, then answer.

Nothing leaves before it is durable: replies, orders and the story are released after the one call of `Store.commit`. While a
commit runs, the next asks gather, so its cost is shared by all that wait: group commit without a timer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import TypeVar, cast

import anyio
import anyio.abc
import anyio.lowlevel
import attrs

from orchestra.errors import (
    NotFound,
    OrchestraError,
    Rejected,
    StoreFailed,
    Unavailable,
    shortage,
)
from orchestra.ports import (
    ActingRule,
    Batch,
    Clock,
    Loaded,
    Log,
    LogChunk,
    LogRead,
    Moved,
    Push,
    Seeds,
    Store,
    Story,
    Testimony,
    Watch,
    WatchStory,
)
from orchestra.runtime.acting import acted_as
from orchestra.runtime.asks import Ask
from orchestra.runtime.batches import fold
from orchestra.runtime.clock import SteadyClock, SystemSeeds
from orchestra.runtime.feed import Feed
from orchestra.runtime.history import ABOUT_JOBS, History
from orchestra.runtime.output import check_chunk
from orchestra.runtime.principal import Principal
from orchestra.runtime.promises import keep_promises
from orchestra.runtime.testimony import testimony_of
from orchestra.statemachine import (
    Outcome,
    State,
    Stimulus,
    answer,
    limits,
    load,
    next_deadline,
    step,
)
from orchestra.statemachine.commands import Command, Tick
from orchestra.statemachine.queries import ListJobs, Query
from orchestra.statemachine.replies import JobPage, Overview, ReportsAnswered
from orchestra.statemachine.reports import AttemptsReported
from orchestra.statemachine.state import recall
from orchestra.waiting import Bell, Waiter, waiter_kind

R = TypeVar("R")

_RETRY_COMMIT_S = 0.5
"""After a commit failed, time-driven work waits this long before it tries again; asks try at once."""


def _no_waiter() -> Waiter:
    raise Unavailable("the orchestrator is not running")


class Orchestrator:
    """
    One running core over one store. It is a `ports.Asker`; `run` must be running for anything to be answered.

    Args:
        store: Where everything durable goes. The orchestrator is its only writer and does not close it.
        clock: Tells the time; by default a steady one.
        seeds: Draws randomness; by default from the operating system.
        testify: Told what led to a bug of ours, before `run` raises it.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock | None = None,
        seeds: Seeds | None = None,
        testify: Callable[[Testimony], None] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock or SteadyClock()
        self._seeds = seeds or SystemSeeds()
        self._testify = testify
        self._stimuli: list[Stimulus] = []
        """What the core was given in this turn."""
        self._state = State()
        self._history = History(store)
        self._feed = Feed()
        self._asks: deque[Ask] = deque()
        self._wake = Bell()
        self._room: anyio.Event | None = None
        self._committing = False
        self._waiter: Callable[[], Waiter] = _no_waiter
        self._number = 0
        self._story_number = 0
        self._quarantined: tuple[str, ...] = ()
        self._running = False
        self._reload = False
        self._not_before_ms = 0

    # the loop ---------------------------------------------------------------------------------------------------

    async def run(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """
        Load, then serve until cancelled. ``task_status.started()`` is called when asks are answered.

        Raises:
            StoreTaken: Another orchestrator writes to the store; this one has stopped.
            StoreFailed: The store could not be read at the start.
        Defect: A bug of ours broke a promise, which was not stored. Other exceptions of a bug come through as they are.
        """
        self._waiter = waiter_kind()
        await self._load()
        self._running = True
        task_status.started()
        try:
            while True:
                await self._wait()
                await self._turn()
        except Exception as error:
            if self._testify is not None and not isinstance(error, Unavailable):
                self._testify(testimony_of(error, self._number, self._stimuli))
            raise
        finally:
            self._running = False
            self._feed.shut_all()
            self._tell_all(self._asks, Unavailable("the orchestrator has stopped"))
            self._asks.clear()
            if self._room is not None:
                self._room.set()

    async def _load(self) -> None:
        loaded: Loaded = await self._store.load()
        missed: list[Moved] = []
        if (
            self._running
        ):  # whoever watches has heard nothing of a commit that failed, and yet was stored
            missed = await self._history.story_between(self._story_number, loaded.story_number)
        if isinstance(self._clock, SteadyClock):
            self._clock.not_before(loaded.at_ms)
        now_ms = max(self._clock.now_ms(), loaded.at_ms)
        pulses, progress = self._state.pulses, self._state.progress
        state = load(loaded.rows, now_ms)
        state.pulses.update({id: pulse for id, pulse in pulses.items() if id in state.pulses})
        state.progress.update(progress)
        self._state = state
        self._number = loaded.number
        self._story_number = loaded.story_number
        self._quarantined = tuple(
            f"{row.kind} {row.id}: {row.problem}" for row in loaded.quarantined
        )
        self._reload = False
        self._feed.tell(missed)

    async def _wait(self) -> None:
        if self._asks:
            self._wake.hush()
            return
        due_ms = next_deadline(self._state)
        if due_ms is None and not self._reload:
            await self._wake.wait()
            return
        due_ms = max(due_ms or 0, self._not_before_ms)
        delay_s = (due_ms - self._clock.now_ms()) / 1000
        if delay_s > 0:
            await self._wake.wait(delay_s)
        else:
            # Work in slices goes on at once, but lets others speak in between.
            await anyio.lowlevel.checkpoint()

    async def _turn(self) -> None:
        """One batch: from what is asked to what is answered."""
        asks = [self._asks.popleft() for _ in range(min(len(self._asks), limits.BATCH_MAX))]
        if self._room is not None:
            self._room.set()
            self._room = None
        if self._reload and not await self._reloaded(asks):
            return
        try:
            outcomes = self._stepped(asks)
            batch = self._folded(outcomes, asks)
        except MemoryError as error:
            # A step that was cut off leaves memory as nobody meant it: what is stored counts.
            self._load_again(asks, error)
            return
        if batch is not None and not await self._commit(batch, asks):
            return
        for ask in asks:
            if ask.query is not None:
                ask.reply = self._answered(ask.query)
            ask.done.ring()
        for outcome in outcomes:
            if outcome.effects:
                self._feed.give_orders(outcome.effects)
        if batch is not None:
            self._feed.tell(batch.story)

    def _stepped(self, asks: list[Ask]) -> list[Outcome]:
        """Decide what is due and what is asked. Nothing of it is durable yet."""
        self._stimuli.clear()
        now_ms = self._clock.now_ms()
        outcomes: list[Outcome] = []
        due_ms = next_deadline(self._state)
        if due_ms is not None and max(due_ms, self._not_before_ms) <= now_ms:
            outcomes.append(self._step(Stimulus(Tick(), now_ms, self._seeds.seed())))
        for ask in asks:
            if ask.command is None:
                continue
            if ask.recalled:
                recall(self._state, ask.recalled)
            stimulus = Stimulus(ask.command, now_ms, self._seeds.seed(), ask.principal, ask.key)
            outcome = self._step(stimulus)
            ask.reply = outcome.reply
            outcomes.append(outcome)
        return outcomes

    def _step(self, stimulus: Stimulus) -> Outcome:
        self._stimuli.append(stimulus)
        return step(self._state, stimulus)

    def _folded(self, outcomes: list[Outcome], asks: list[Ask]) -> Batch | None:
        """What has to be stored; None when nothing has. Raises `Defect` when it breaks a promise."""
        logs = tuple(chunk for ask in asks for chunk in ask.logs)
        batch = fold(outcomes, logs, self._number + 1, self._story_number + 1)
        if batch is not None:
            keep_promises(batch.puts, self._state, batch.story)
        return batch

    async def _commit(self, batch: Batch, asks: list[Ask]) -> bool:
        """The one place where anything becomes durable. False when it did not: then the asks know already."""
        self._committing = True
        try:
            # A commit that began must be waited for: its outcome decides what the callers are told.
            with anyio.CancelScope(shield=True):
                await self._store.commit(batch)
        except StoreFailed as failure:
            self._load_again(asks, failure)
            return False
        except Unavailable as failure:
            self._tell_all(asks, failure)
            raise
        finally:
            self._committing = False
        self._number = batch.number
        self._story_number += len(batch.story)
        return True

    async def _reloaded(self, asks: list[Ask]) -> bool:
        """After a failed commit memory is ahead of the store: load again before anything else is decided."""
        try:
            await self._load()
        except (StoreFailed, MemoryError) as failure:
            self._load_again(asks, failure)
            return False
        return True

    def _load_again(self, asks: list[Ask], failure: StoreFailed | MemoryError) -> None:
        """Before anything else is decided; those who wait are told why."""
        self._reload = True
        self._not_before_ms = self._clock.now_ms() + int(_RETRY_COMMIT_S * 1000)
        self._tell_all(asks, shortage(failure) or failure)

    @staticmethod
    def _tell_all(asks: Iterable[Ask], failure: Exception) -> None:
        for ask in asks:
            ask.reply = failure
            ask.done.ring()

    # what callers use -------------------------------------------------------------------------------------------

    def for_principal(self, principal: str, acting: ActingRule | None = None) -> Principal:
        """The same orchestrator, asked by somebody; ``acting`` says which workers he may act as (None: any)."""
        return Principal(self, principal, acting)

    def acted_as(self, asked: object) -> tuple[str, str]:
        """As `acting.acted_as`."""
        return acted_as(self._state, asked)

    async def ask(self, command: Command[R], *, key: str = "", principal: str = "local") -> R:
        """Do something; see `ports.Asker.ask`."""
        plain = cast("Command[object]", command)
        reply = await self._put(Ask(self._waiter(), plain, principal=principal, key=key))
        if isinstance(reply, NotFound) and isinstance(command, ABOUT_JOBS):
            recalled = await self._history.recalled(self._state, command)
            if recalled:
                again = Ask(self._waiter(), plain, principal=principal, recalled=recalled)
                reply = await self._put(again)
        if isinstance(reply, OrchestraError):
            raise reply
        if isinstance(command, AttemptsReported):
            self._feed.tell_progress(command, cast("ReportsAnswered", reply))
        return cast("R", reply)

    async def _put(self, ask: Ask) -> object:
        while len(self._asks) >= limits.ASKS_MAX and self._running:
            self._room = self._room or anyio.Event()
            await self._room.wait()
        if not self._running:
            raise Unavailable("the orchestrator is not running")
        self._asks.append(ask)
        self._wake.ring()
        await ask.done.wait()
        return ask.reply

    def _answered(self, query: Query[object]) -> object:
        """The answer from memory, or the refusal, as a value."""
        try:
            return answer(self._state, query, self._clock.now_ms())
        except (Rejected, MemoryError) as refusal:
            return shortage(refusal) or refusal

    async def answer(self, query: Query[R]) -> R:
        """Know something; see `ports.Asker.answer`."""
        # A loop of questions must let the rest go on, timers and cancellation too: every call gives way once.
        await anyio.lowlevel.checkpoint()
        plain = cast("Query[object]", query)
        if self._committing or self._reload or not self._running:
            # What is in memory now may never be: wait for the outcome.
            reply = await self._put(Ask(self._waiter(), query=plain))
        else:
            reply = self._answered(plain)
        now_ms = self._clock.now_ms()
        if isinstance(query, ListJobs) and isinstance(reply, JobPage):
            return cast("R", await self._history.list_jobs(self._state, query, reply))
        if isinstance(reply, Overview):
            return cast("R", attrs.evolve(reply, quarantined=self._quarantined))
        if isinstance(reply, NotFound):
            return cast("R", await self._history.answer(self._state, plain, now_ms))
        if isinstance(reply, OrchestraError):
            raise reply
        return cast("R", reply)

    async def story(self, query: Story) -> tuple[Moved, ...]:
        """A page of the story; see `ports.Asker.story`."""
        return await self._store.story(query)

    async def log(self, query: Log) -> LogRead:
        """Output of an attempt; see `ports.Asker.log`."""
        return await self._store.log(query)

    async def append_log(
        self, worker_id: str, incarnation: int, chunks: Sequence[LogChunk], *, principal: str = ""
    ) -> None:
        """Keep output; see `ports.Asker.append_log`. Each piece is at most ``limits.LOG_CHUNK_BYTES_MAX`` bytes."""
        for chunk in chunks:
            check_chunk(self._state, worker_id, incarnation, chunk)
        ask = Ask(self._waiter(), principal=principal, logs=tuple(chunks))
        reply = await self._put(ask)
        if isinstance(reply, OrchestraError):
            raise reply

    async def backup(self, target: str) -> None:
        """Copy the store while service goes on; see `ports.Store.backup`."""
        await self._store.backup(target)

    def watch(self, watch: Watch) -> AbstractAsyncContextManager[AsyncIterator[Push]]:
        """Subscribe; see `ports.Asker.watch`."""
        return self._watch(watch)

    @asynccontextmanager
    async def _watch(self, watch: Watch) -> AsyncGenerator[AsyncIterator[Push]]:
        if not self._running:
            raise Unavailable("the orchestrator is not running")
        # What a running commit will tell has numbers beyond the present one, and reaches the mailbox: no gap, nothing twice.
        mailbox = self._feed.open(watch, self._waiter)
        mailbox.last_number = self._story_number
        try:
            if isinstance(watch, WatchStory) and 0 <= watch.after < self._story_number:
                # Closed here: a generator that is dropped half-way is an error on trio.
                stored_then = self._history.stored_then(watch, self._story_number, mailbox)
                async with aclosing(stored_then) as pushes:
                    yield pushes
            else:
                yield mailbox
        finally:
            self._feed.shut(mailbox)
