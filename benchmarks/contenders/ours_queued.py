"""
A large job through the public API: submit 100,000 tasks that no worker can run yet, look at them, ask why, cancel.

Memory is what the process grew by, divided by the tasks; disk is the store's files.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
from figures import tell

import orchestra


def resident_bytes() -> int:
    """The memory that this process holds now (Linux)."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def disk_bytes(folder: str) -> int:
    """The size of the store's files."""
    return sum(path.stat().st_size for path in Path(folder).glob("farm.db*"))


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """How long it took, in ms."""
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000


async def measure(tasks: int, folder: str) -> dict[str, float]:
    app = orchestra.App(f"{folder}/farm.db")

    # The worker has no such label, so all tasks stay queued.
    @app.task(labels=("elsewhere",))
    async def noop(i: int) -> int:
        return i

    async with app.run(workers=1) as client:
        before = resident_bytes()
        began = time.perf_counter()
        job = await client.submit(noop.map(range(tasks)))
        submit_ms = (time.perf_counter() - began) * 1000
        page_ms = why_ms = 0.0
        while True:  # large jobs unfold in slices, and others are answered in between
            page_ms = max(page_ms, await timed(lambda: client.job(job.id)))
            why_ms = max(why_ms, await timed(job.why))
            if sum((await job.view()).counts.values()) >= tasks:
                break
        unfold_ms = (time.perf_counter() - began) * 1000
        bytes_per_task = (resident_bytes() - before) / tasks
        from orchestra.statemachine.queries import ListTasks

        for _ in range(3):
            page_ms = max(page_ms, await timed(lambda: client.asker.answer(ListTasks(job.id))))
            why_ms = max(why_ms, await timed(job.why))
        disk = disk_bytes(folder)
        cancel_ms = await timed(lambda: job.cancel("the benchmark is over"))
        closed_ms = cancel_ms + await timed(job.wait)
    return {
        "submit_ms": submit_ms,
        "unfold_ms": unfold_ms,
        "page_ms": page_ms,
        "why_ms": why_ms,
        "cancel_ms": cancel_ms,
        "closed_ms": closed_ms,
        "bytes_per_task": bytes_per_task,
        "disk_bytes_per_task": disk / tasks,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=100_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-ours-") as folder:
        tell(anyio.run(measure, chosen.tasks, folder))


if __name__ == "__main__":
    main()
