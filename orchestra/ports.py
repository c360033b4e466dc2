"""
The protocols between the core's shell and what is plugged in. Write your own store or engine against these.

Each has a conformance suite in `orchestra.testing`: `check_store`, `check_engine`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from orchestra.statemachine.commands import Command
from orchestra.statemachine.queries import Query
from orchestra.statemachine.records import Cause, Record
from orchestra.statemachine.replies import Order
from orchestra.statemachine.step import Stimulus
from orchestra.statemachine.story import Moved
from orchestra.statemachine.values import value

R = TypeVar("R")


@value
class LogChunk:
    """A piece of an attempt's output: ``data`` belongs at ``offset`` bytes of ``stream`` (``stdout``, ``stderr``)."""

    attempt_id: str
    stream: str
    offset: int
    data: bytes


@value
class Batch:
    """
    What one commit stores, all or nothing.

    Args:
        number: The stored batch number plus one; it fences a second writer.
        puts: New rows, the newest for each (kind, id).
        drops: Rows to delete, as (kind, id).
        story: What moved, in order; a `Told` costs least.
        logs: Pieces of output. Storing the same piece twice changes nothing.
    """

    number: int
    puts: tuple[Record, ...] = ()
    drops: tuple[tuple[str, str], ...] = ()
    story: Sequence[Moved] = ()
    logs: tuple[LogChunk, ...] = ()


@value
class Testimony:
    """
    What led to a bug of ours: from the rows that are stored, the same steps lead there again.

    Args:
        problem: The error, with its traceback and the story that it carries.
        number: Of the last batch that is stored.
        stimuli: What the core was given since, in order.
    """

    problem: str
    number: int
    stimuli: tuple[Stimulus, ...]


@value
class Quarantined:
    """A stored row that could not be read: it is set aside, named, and the rest is served."""

    kind: str
    id: str
    problem: str


@value
class Loaded:
    """
    What a store holds that is live: everything but finished jobs and what belongs to them.

    ``number`` is the last batch's, ``story_number`` the last story entry's (0 for both when new), ``at_ms`` the latest time in the
    story, so that a clock can go on from there.
    """

    number: int
    story_number: int
    at_ms: int
    rows: tuple[Record, ...]
    quarantined: tuple[Quarantined, ...] = ()


@value
class Rows:
    """
    Committed rows of one kind, in order of id.

    Args:
        kind: One of `records.KINDS`.
        prefix: Only ids that begin so; a job's id selects what belongs to it.
        after: Only ids beyond this one (in the direction of reading); empty starts at the edge.
        limit: 1 to ``limits.PAGE_MAX`` rows.
        newest_first: Read from the highest id down.
    """

    kind: str
    prefix: str = ""
    after: str = ""
    limit: int = 100
    newest_first: bool = False


@value
class Story:
    """Committed story entries with ``number > after``, oldest first; with ``job_id`` only those of one job's things."""

    after: int = 0
    limit: int = 500
    job_id: str = ""


@value
class Log:
    """Stored bytes of one stream of an attempt from ``offset`` on, at most ``limit`` bytes."""

    attempt_id: str
    stream: str
    offset: int = 0
    limit: int = 262_144


@value
class LogRead:
    """``size`` is how many bytes of the stream are stored in all."""

    data: bytes
    size: int


class Store(Protocol):
    """
    Where rows, story and output are kept.

    C1 a batch is atomic. C2 it is durable when `commit` returns. C4 ``batch.number`` must be the stored one plus one, else
    `StoreTaken`. C6 any other failure is an unknown outcome, `StoreFailed`: the caller loads again before it goes on
    (`StoreFailed.full` tells that the medium is full and nothing was stored). C8 rows carry a schema version and are
    upgraded on load. `testing.check_store` proves a store.
    """

    async def load(self) -> Loaded:
        """Read what is live. May be called again after a failed commit."""
        ...

    async def commit(self, batch: Batch) -> None:
        """
        Store one batch. When this returns it survives a crash of the process and of the machine, as far as the medium honours a flush.

        Raises:
            StoreTaken: ``batch.number`` does not follow; someone else writes here. Nothing was stored.
            StoreFailed: The outcome is unknown, or the medium is full.
        """
        ...

    async def rows(self, query: Rows) -> tuple[Record, ...]:
        """A page of committed rows. Unreadable rows are passed over."""
        ...

    async def story(self, query: Story) -> tuple[Moved, ...]:
        """A page of the committed story."""
        ...

    async def log(self, query: Log) -> LogRead:
        """Stored output."""
        ...

    async def backup(self, target: str) -> None:
        """Copy everything committed into a new file while service goes on. Raises `Rejected` when the store has no file."""
        ...

    async def aclose(self) -> None:
        """Give up the medium. Everything acknowledged stays."""
        ...


class Clock(Protocol):
    """Tells the time to the orchestrator."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch (UTC); never goes back, and does not follow steps of the wall clock."""
        ...


class Seeds(Protocol):
    """Draws what the core may not draw itself."""

    def seed(self) -> int:
        """128 random bits for one stimulus."""
        ...


@value
class OrderSeen:
    """Pushed to a worker: an order to start or to stop."""

    order: Order


@value
class ProgressSeen:
    """Pushed to whoever watches: soft, never stored."""

    attempt_id: str
    fraction: float
    message: str


@value
class Lagged:
    """The subscriber was too slow and entries were passed over: read the story on from ``after``, then subscribe again."""

    after: int


Push = OrderSeen | Moved | ProgressSeen | Lagged


@value
class WatchOrders:
    """Subscribe to the orders of one incarnation of a worker. What it should hold already comes from `JoinWorker` and `Heartbeat`."""

    worker_id: str
    incarnation: int


@value
class WatchStory:
    """
    Subscribe to the story from cursor ``after`` on, without a gap; with ``job_id`` only one job's.

    ``after=-1`` starts at the present. ``kinds`` keeps only moves of these kinds (empty: all, and progress).
    """

    after: int = -1
    job_id: str = ""
    kinds: tuple[str, ...] = ()


Watch = WatchOrders | WatchStory


class Asker(Protocol):
    """
    The one interface to a running orchestrator: the same in process, over HTTP and over a websocket.

    Every method raises the `Rejected` that the core answered, and `Unavailable` when the answer is unknown.
    """

    async def ask(self, command: Command[R], *, key: str = "") -> R:
        """Do something. When this returns, what it did is durable. ``key`` makes a repetition harmless."""
        ...

    async def answer(self, query: Query[R]) -> R:
        """Know something. Never shows what is not committed."""
        ...

    async def story(self, query: Story) -> tuple[Moved, ...]:
        """A page of the story, from the store."""
        ...

    async def log(self, query: Log) -> LogRead:
        """Output of an attempt."""
        ...

    async def append_log(
        self, worker_id: str, incarnation: int, chunks: Sequence[LogChunk]
    ) -> None:
        """Keep output. Durable on return. Raises `Conflict` when the attempt is not the worker's."""
        ...

    async def backup(self, target: str) -> None:
        """As `Store.backup`; ``target`` is a path on the orchestrator's machine."""
        ...

    def watch(self, watch: Watch) -> AbstractAsyncContextManager[AsyncIterator[Push]]:
        """Subscribe. Entering returns when the subscription stands; iterating ends when the other side closes."""
        ...


class ActingRule(Protocol):
    """Says which workers somebody who asks may act as. A name is shown to it before anything is done in that name."""

    def check_worker(self, name: str, where: str) -> None:
        """Raises `Forbidden` unless the worker ``name`` may be acted as; ``where`` is the field of the ask that it comes from."""
        ...


@value
class Ended:
    """
    How an attempt ended, as the engine saw it.

    ``outcome`` is ``completed``, ``failed`` or ``stopped``; after ``stopped`` nothing of it is alive. ``message`` says what happened in one
    or a few lines; ``signal`` is a name such as ``SIGKILL``.
    """

    outcome: str
    result: bytes | None = None
    cause: Cause = Cause.NONE
    message: str = ""
    exit_code: int | None = None
    signal: str = ""


class AttemptSink(Protocol):
    """Where an engine tells what happens to the attempts that it runs. All calls are quick and do not fail."""

    async def running(self, attempt_id: str) -> None:
        """The work itself has begun."""
        ...

    async def progress(self, attempt_id: str, fraction: float, message: str) -> None:
        """How far it is: 0 to 1."""
        ...

    async def output(self, attempt_id: str, stream: str, data: bytes) -> None:
        """More output, in order. Waits while too much is unsent (back-pressure)."""
        ...

    async def ended(self, attempt_id: str, ended: Ended) -> None:
        """It is over, and all output was told before. Called exactly once for each started attempt."""
        ...


class Engine(Protocol):
    """
    A place that runs attempts: the three verbs start, stop and query.

    An engine is entered (``async with engine:``) before use and left afterwards; leaving ends whatever still runs, to the
    last process. `testing.check_engine` proves an engine.
    """

    apps: tuple[str, ...]
    """The apps that it can run, as in `Stage.app`."""

    async def start(self, order: Order, sink: AttemptSink) -> None:
        """
        Begin an attempt and return at once. Repeating an attempt id that it already has changes nothing.

        It must not raise: what can not be started ends ``failed`` with cause `Cause.UNSTARTABLE` through the sink.
        """
        ...

    async def stop(self, attempt_id: str, rung: str) -> None:
        """
        Climb to a rung of the ladder: ``asked`` (the work may finish what it has in hand), ``term``, ``kill``. Returns at once.

        The end is told through the sink, as ``stopped``, when nothing of it is alive. Unknown ids and repetitions change nothing.
        """
        ...

    async def query(self) -> tuple[str, ...]:
        """Ids of the attempts that it runs now."""
        ...

    def extend(self, until_s: float) -> None:
        """
        The worker's lease now lasts until ``time.monotonic() == until_s``. An engine with processes of its own hands this to
        their guardian, which ends them when the time passes, even when the worker itself is frozen.
        """
        ...

    async def __aenter__(self) -> Engine: ...

    async def __aexit__(self, *exc: object) -> None: ...
