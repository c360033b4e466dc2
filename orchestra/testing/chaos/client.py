"""
A client as a process of its own: it submits, watches, and writes down what it was told before it asks again.

``python -m orchestra.testing.chaos.client URL BOOK RUNS NAME SEED OPEN LONG PART``: jobs are submitted under keys, again with the same
key while the answer is unknown, so that at most ``OPEN`` tasks are open at a time; the part ``PART`` of the jobs is one task that lasts
``LONG`` seconds. Each line of the book begins with the time of the monotonic clock, which all processes of a machine share:

=================================== ==========================================================
``ack KEY JOB TASKS``               the job was acknowledged
``again KEY JOB``                   the same, when an acknowledged job was submitted once more
``fail KEY ERROR``                  there was no answer, or a refusal
``seen NUMBER KIND ID TARGET``      the story was told: a job or task has ended
``gap NUMBER NUMBER``               the story went on with another number than the next one
=================================== ==========================================================

SIGTERM asks it to submit nothing more, and to leave when everything that was acknowledged was seen to end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from random import Random

import anyio

from orchestra.client import Client
from orchestra.compose import connect
from orchestra.errors import LimitReached, Unavailable
from orchestra.ports import Moved
from orchestra.statemachine import ids
from orchestra.statemachine.commands import StageDraft, SubmitJob
from orchestra.statemachine.lifecycles import JOB_FINAL, TASK_FINAL
from orchestra.statemachine.records import Span

AGAIN_S = 0.02
"""A client that was not answered asks again so much later."""

FULL_S = 0.02
"""Between two looks whether there is room for another job."""

TASKS_MAX = 4
"""Of one job."""

ONCE_MORE = 0.1
"""How probable it is that a job is submitted once more after it was acknowledged."""

SHORT_S = (0.1, 0.5)
"""How long a task lasts: there is always one that ends soon."""

SCRIPT = (
    'echo "S $ORCHESTRA_TASK $ORCHESTRA_ATTEMPT_NUMBER $PWD" >> "$RUNS"; sleep "$1"; '
    'echo "\\"$ORCHESTRA_ATTEMPT\\"" > result.json; echo "E $ORCHESTRA_TASK $ORCHESTRA_ATTEMPT_NUMBER" >> "$RUNS"'
)
"""A short line that is added to a file is whole, so the file has the order of all starts and ends."""


class Book:
    """The client's own file: a line is handed to the kernel before anything else is done."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, *words: object) -> None:
        """Add one line."""
        line = " ".join(map(str, (f"{time.monotonic():.4f}", *words)))
        os.write(self._file, line.encode() + b"\n")


class ChaosClient:
    """One client; see the module."""

    def __init__(
        self,
        url: str,
        book: Book,
        *,
        runs: str,
        name: str,
        seed: int,
        most: int,
        long_s: float,
        long_part: float,
    ) -> None:
        self.url = url
        self.book = book
        self.runs = runs
        self.name = name
        self.rng = Random(seed)
        self.most = most
        self.long_s = long_s
        self.long_part = long_part
        self.leaves = False
        self.number = 0
        self.owed: list[str] = []
        """What is to be written down when the job that is asked for is acknowledged."""
        self.job = self._drawn("")
        self.cursor = 0
        self.tasks: dict[str, int] = {}
        """The tasks of each job that was acknowledged."""
        self.ends: Counter[str] = Counter()
        """How many tasks of each job were seen to end."""
        self._all_ended = anyio.Event()

    @property
    def open(self) -> int:
        """Acknowledged tasks that were not seen to end."""
        return sum(max(0, tasks - self.ends[job]) for job, tasks in self.tasks.items())

    async def run(self) -> None:
        """Submit and watch until it is asked to leave and everything has ended."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._obey)
            group.start_soon(self._watch)
            await self._submit_all()
            self._look()
            await self._all_ended.wait()
            group.cancel_scope.cancel()

    async def _obey(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                self.leaves = True

    async def _submit_all(self) -> None:
        while not (self.leaves and not self.owed):
            try:
                async with connect(self.url) as client:
                    while await self._asked(client):
                        pass
            except (Unavailable, LimitReached) as error:
                self.book.write("fail", self.key, type(error).__name__)
                await anyio.sleep(AGAIN_S)

    async def _asked(self, client: Client) -> bool:
        """Ask for one job until it is acknowledged, and sometimes once more; false when there is nothing more to ask for."""
        if not self.owed:
            if self.leaves:
                return False
            if self.open >= self.most:
                self._forget()
                await anyio.sleep(FULL_S)
                return True
            self.number += 1
            self.job = self._drawn(self.key)
            self.owed = ["ack", *["again"] * (self.rng.random() < ONCE_MORE)]
        accepted = await client.asker.ask(self.job, key=self.key)
        if self.owed[0] == "ack":
            self.tasks[accepted.job_id] = accepted.tasks
        self.book.write(self.owed.pop(0), self.key, accepted.job_id, accepted.tasks)
        return True

    @property
    def key(self) -> str:
        """The idempotency key of the job that is asked for now, and its name."""
        return f"{self.name}-{self.number}"

    def _look(self) -> None:
        if self.leaves and not self.owed and not self.open:
            self._all_ended.set()

    def _forget(self) -> None:
        """What has ended needs no counting."""
        for job in [job for job, tasks in self.tasks.items() if self.ends[job] >= tasks]:
            del self.tasks[job]
            del self.ends[job]

    def _drawn(self, key: str) -> SubmitJob:
        is_long = self.rng.random() < self.long_part
        tasks = 1 if is_long else self.rng.randint(1, TASKS_MAX)
        lasts_s = self.long_s if is_long else self.rng.uniform(*SHORT_S)
        argv = ["/bin/sh", "-c", SCRIPT, "task", f"{lasts_s:.2f}"]
        template = json.dumps({"argv": argv, "env": {"RUNS": self.runs}}).encode()
        over = Span(0, tasks) if tasks > 1 else None
        return SubmitJob(key, (StageDraft("work", "process", template, over=over),))

    async def _watch(self) -> None:
        while True:
            try:
                async with connect(self.url) as client:
                    async for moved in client.events(after=self.cursor):
                        self._told(moved)
            except (Unavailable, LimitReached):
                await anyio.sleep(AGAIN_S)

    def _told(self, moved: Moved) -> None:
        if moved.number != self.cursor + 1:
            self.book.write("gap", self.cursor, moved.number)
        self.cursor = moved.number
        is_task = moved.kind == "task" and moved.target in TASK_FINAL
        if is_task or (moved.kind == "job" and moved.target in JOB_FINAL):
            self.book.write("seen", moved.number, moved.kind, moved.id, moved.target)
        if is_task:
            self.ends[ids.job_of(moved.id)] += 1
            self._look()


def main() -> None:
    """Run one client from its command line."""
    url, book, runs, name, seed, most, long_s, part = sys.argv[1:]
    client = ChaosClient(
        url,
        Book(book),
        runs=runs,
        name=name,
        seed=int(seed),
        most=int(most),
        long_s=float(long_s),
        long_part=float(part),
    )
    anyio.run(client.run)


if __name__ == "__main__":
    main()
