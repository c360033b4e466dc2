"""The scenarios: what a server, its people and its workers do while every operation on the disk is written down."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from unittest import mock

import anyio.to_thread

from orchestra.statemachine.commands import (
    CancelJob,
    LeaveWorker,
    OpenProject,
    PauseWorker,
    Reconfigure,
    SubmitJob,
)
from orchestra.storage import log_length, sqlite_files, sqlite_migrate
from orchestra.storage.migrations import LATEST
from orchestra.testing.power_loss.operations import Kind
from orchestra.testing.power_loss.play import STORE_NAME, Play
from orchestra.testing.power_loss.recorder import Fails, Fault, Pair

DAY_MS = 86_400_000

Scenario = Callable[[Play], Awaitable[None]]


@contextmanager
def small_log(pages: int = 12, entries: int = 1_000) -> Generator[None]:
    """
    The write-ahead log is moved into the file after a few pages already, so that a short scenario meets it many times; it is given its
    length after so many entries.
    """
    with (
        mock.patch.object(sqlite_files, "CHECKPOINT_PAGES", pages),
        mock.patch.object(log_length, "ENTRIES_BEFORE", entries),
    ):
        yield


async def first_start(play: Play) -> None:
    """A store is made, closed unused, opened again, and used."""
    store = await play.opened()
    if store is not None:
        await store.aclose()
    async with play.serving() as server:
        await server.submit(1)


async def submits(play: Play) -> None:
    """People submit, alone and at the same time: one commit for many."""
    async with play.serving() as server:
        await server.submit(2, at_once=False)
        await server.submit(5)
        await server.submit(3, tasks=4)
        await server.ask(OpenProject("survey"))
        await server.submit(2, at_once=False)


async def reports(play: Play) -> None:
    """A worker runs a fan-out: output, results, failures, tries."""
    async with play.serving() as server:
        await server.submit(2, tasks=3)
        await server.work(5)


async def long_output(play: Play) -> None:
    """Attempts print more than fits in a page, so that one commit has many of them."""
    async with play.serving() as server:
        await server.submit(1, tasks=2)
        await server.work(2, output_bytes=20_000)


async def retention(play: Play) -> None:
    """Time goes by: receipts, workers and finished jobs leave."""
    async with play.serving() as server:
        await server.submit(3)
        await server.work(3)
        job = await server.ask(SubmitJob("unwanted", ()), key="unwanted")
        if job is not None:
            await server.ask(CancelJob(job.job_id))
        if server.worker is not None:
            worker = server.worker
            await server.ask(PauseWorker(worker.worker_id, "enough"))
            await server.ask(LeaveWorker(worker.worker_id, worker.incarnation))
        play.clock.now += 2 * DAY_MS
        await server.ask(Reconfigure(lease_ms=20_000))
        await server.submit(1)


async def checkpoints(play: Play) -> None:
    """The log is moved into the file again and again while people submit."""
    with small_log():
        async with play.serving() as server:
            for _ in range(6):
                await server.submit(2, tasks=2)
                await server.work(1)


async def reopening(play: Play) -> None:
    """The server is stopped and started in turn."""
    for _ in range(3):
        async with play.serving() as server:
            await server.submit(1)
            await server.work(1)


async def killed(play: Play) -> None:
    """The process ends where it stands, and a new one takes over the file and its log."""
    with small_log():
        for _ in range(3):
            async with play.serving() as server:
                await server.submit(2, at_once=False)
                await server.work(1)
                play.disk.kill()
        async with play.serving() as server:
            await server.submit(1)


async def lengthened(play: Play) -> None:
    """The log is given its full length at once, filled, moved and begun anew, and taken over by a new process."""
    with small_log(pages=16, entries=10):
        async with play.serving() as server:
            for _ in range(2):
                await server.submit(2, at_once=False)
                await server.work(1)
            play.disk.kill()
        async with play.serving() as server:
            for _ in range(2):
                await server.submit(2, tasks=2)
                await server.work(1)
        async with play.serving() as server:
            await server.submit(1)


async def backups(play: Play) -> None:
    """The store is copied while people submit."""
    async with play.serving() as server:
        await server.submit(2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.backup, "copy.db")
            await server.submit(2, at_once=False)
        await server.backup("second.db")
        await server.submit(1)


async def migration(play: Play) -> None:
    """A store of the first version is opened: it is copied, and brought to the present one."""
    with play.unwatched():
        async with play.serving() as server:
            await server.submit(3)
            await server.work(2)
        await anyio.to_thread.run_sync(sqlite_migrate.migrate_file, play.path, 1, play.disk)
    known = play.ledger.latest()
    if known is not None:
        play.disk.note(Kind.NEEDED, f"{STORE_NAME}.before-v{LATEST}", known.number)
    async with play.serving() as server:
        await server.submit(2)


async def return_to_old(play: Play) -> None:
    """A store is brought back to the first version, after a copy."""
    with play.unwatched():
        async with play.serving() as server:
            await server.submit(2)
            await server.work(1)
    known = play.ledger.latest()
    migrate = sqlite_migrate.migrate_file
    with play.taking_failures():
        migrated = await anyio.to_thread.run_sync(migrate, play.path, 1, play.disk)
        if known is not None:
            play.disk.note(Kind.COPIED, Path(migrated.copy).name, known.number)


async def failed_flush(play: Play) -> None:
    """One flush fails in the middle; the store is loaded again by the same process, and goes on."""
    with small_log():
        async with play.serving() as server:
            await server.submit(2)
            play.disk.fault = play.disk.fault or Fault(Fails.SYNC, play.rng.randint(1, 6))
            await server.submit(6, at_once=False)
            await server.work(2)


async def stopped_at_failed_flush(play: Play) -> None:
    """A flush fails, and the one before the store is loaded again; then the server is stopped. The next one goes on."""
    async with play.serving() as server:
        await server.submit(2, at_once=False)
    async with play.serving() as server:
        twice = Pair(Fault(Fails.SYNC, 2), Fault(Fails.SYNC, 1))
        play.disk.fault = play.disk.fault or twice
        await server.submit_in_vain(2)
    async with play.serving() as server:
        await server.submit(2, at_once=False)


async def full_disk(play: Play) -> None:
    """The disk is full for a while."""
    async with play.serving() as server:
        await server.submit(2)
        fault = play.disk.fault
        play.disk.fault = fault or Fault(Fails.FULL, play.rng.randint(1, 40), forever=True)
        await server.submit(3, at_once=False)
        if fault is None:
            play.disk.fault = None
        await server.submit(2, at_once=False)


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        scenario.__name__: scenario
        for scenario in (
            first_start,
            submits,
            reports,
            long_output,
            retention,
            checkpoints,
            reopening,
            killed,
            lengthened,
            backups,
            migration,
            return_to_old,
            failed_flush,
            stopped_at_failed_flush,
            full_disk,
        )
    }
)
"""By name."""
