"""``orchestra serve`` with one law broken: the first argument is the law, the others are those of the command."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping

import anyio.lowlevel

from orchestra import compose
from orchestra.cli import main
from orchestra.client import Client
from orchestra.ports import Batch, Store
from orchestra.runtime.clock import SteadyClock
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine import attempts, ids, lifecycles
from orchestra.statemachine.commands import LeaveWorker
from orchestra.statemachine.records import Attempt, Task
from orchestra.statemachine.reports import AttemptReport, Happening
from orchestra.statemachine.transaction import Transaction
from orchestra.storage.sqlite import SqliteStore

LATE_S = 0.5
HOARDED = 20_000
"""Bytes."""


class LateStore(SqliteStore):
    """Says that a batch is durable, and makes it so some time later: every reply leaves before its commit."""

    def late(self) -> None:
        self._owed: queue.Queue[tuple[float, Batch]] = queue.Queue(100_000)
        threading.Thread(target=self._pay, daemon=True).start()

    def _pay(self) -> None:
        never = threading.Event()
        while True:
            given_s, batch = self._owed.get()
            never.wait(max(0.0, given_s + LATE_S - time.monotonic()))
            self._commit(batch)

    async def commit(self, batch: Batch) -> None:
        self._owed.put((time.monotonic(), batch))
        await anyio.lowlevel.checkpoint()


async def open_late_store(path: str | None) -> Store:
    """In place of `compose.open_store`."""
    store = await LateStore.open(str(path))
    store.late()
    return store


async def requeue_everything(orchestrator: Orchestrator) -> None:
    """In place of burying the workers inside this process: all workers are taken to be gone."""
    asker = orchestrator.for_principal("local")
    for worker in await Client(asker).workers():
        await asker.ask(LeaveWorker(worker.id, worker.incarnation))


def take_late(tx: Transaction, attempt: Attempt, report: AttemptReport) -> str:
    """In place of keeping a late result as evidence: it is taken for the attempt that is live now."""
    task = tx.get(Task, attempt.task_id)
    live = tx.get(Attempt, ids.attempt_id(task.id, task.attempts))
    if live.status not in lifecycles.ATTEMPT_FINAL:
        attempts._end(tx, live, report)
    return ""


def take_late_completion(tx: Transaction, attempt: Attempt, report: AttemptReport) -> str:
    """
    The same, of what completed.

    A late stop would end the next attempt, whose own late stop would end the one after it, and so on for as long as there are some.
    """
    if report.happening != Happening.COMPLETED:
        return "the attempt is over"
    return take_late(tx, attempt, report)


def break_reply() -> None:
    compose.open_store = open_late_store


def break_adoption() -> None:
    compose._bury_embedded = requeue_everything


def break_letting_go() -> None:
    """A little of every batch is kept for good."""
    kept: list[bytes] = []
    commit = SqliteStore.commit

    async def hoard(store: SqliteStore, batch: Batch) -> None:
        kept.append(bytes(HOARDED))
        await commit(store, batch)

    SqliteStore.commit = hoard


def break_clock() -> None:
    SteadyClock.not_before = lambda self, at_ms: None  # noqa: ARG005  # whatever was stored later


def break_fence() -> None:
    attempts._late = take_late


def break_fence_of_completions() -> None:
    attempts._late = take_late_completion


LAWS: Mapping[str, Callable[[], None]] = {
    "reply after commit": break_reply,
    "adopt what runs": break_adoption,
    "fence late results": break_fence,
    "fence late completions": break_fence_of_completions,
    "never go back in time": break_clock,
    "let go of what is stored": break_letting_go,
}


if __name__ == "__main__":
    LAWS[sys.argv[1]]()
    main(sys.argv[2:])
