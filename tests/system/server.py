"""
A server as a process of its own, for tests that kill it: as ``orchestra serve``, and with one law broken on request.

It says on stdout where it listens, as a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
from collections.abc import Callable, Mapping

import anyio

from orchestra import compose
from orchestra.client import Client
from orchestra.config import Address, Config
from orchestra.ports import Batch, Store
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine import attempts, ids, lifecycles
from orchestra.statemachine.commands import LeaveWorker
from orchestra.statemachine.records import Attempt, Task
from orchestra.statemachine.reports import AttemptReport
from orchestra.statemachine.transaction import Transaction
from orchestra.storage.sqlite import SqliteStore

LATE_S = 0.3


class LateStore(SqliteStore):
    """Says that a batch is durable, and makes it so some time later: every reply leaves before its commit."""

    def late(self) -> None:
        self._owed: queue.Queue[Batch] = queue.Queue(100_000)
        threading.Thread(target=self._pay, daemon=True).start()

    def _pay(self) -> None:
        never = threading.Event()
        while True:
            batch = self._owed.get()
            never.wait(LATE_S)
            while True:
                self._commit(batch)
                try:
                    batch = self._owed.get_nowait()
                except queue.Empty:
                    break

    async def commit(self, batch: Batch) -> None:
        self._owed.put(batch)
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


def break_reply() -> None:
    compose.open_store = open_late_store


def break_adoption() -> None:
    compose._bury_embedded = requeue_everything


def break_fence() -> None:
    attempts._late = take_late


LAWS: Mapping[str, Callable[[], None]] = {
    "": lambda: None,
    "reply after commit": break_reply,
    "adopt what runs": break_adoption,
    "fence late results": break_fence,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--lease-ms", type=int, default=6_000)
    parser.add_argument("--broken", choices=tuple(LAWS), default="")
    chosen = parser.parse_args()
    LAWS[chosen.broken]()
    config = Config(
        data=chosen.data,
        listen=Address("127.0.0.1", chosen.port),
        lease_ms=chosen.lease_ms,
        heartbeat_ms=min(2_000, chosen.lease_ms // 3),
    )

    def ready(address: Address) -> None:
        sys.stdout.write(json.dumps({"port": address.port}) + "\n")
        sys.stdout.flush()

    async def run() -> None:
        await compose.serve(config, tasks={}, slots=0, ready=ready, signals=True)

    anyio.run(run)


if __name__ == "__main__":
    main()
