"""
Durable tasks through the public API only: an app with a file, 256 slots, and a body that does nothing.

``clients``: 256 submitters, each submitting one task after the other, as a job of its own, and waiting for its result.
``maps``: 256 submitters, each submitting all its tasks as one job and waiting for their results. ``bulk``: one job of all tasks.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import anyio
from figures import memory_peak_bytes, percentile, tell

import orchestra


async def measure(
    mode: str, tasks: int, submitters: int, slots: int, path: str
) -> dict[str, float]:
    app = orchestra.App(path)

    @app.task()
    async def noop(i: int) -> int:
        return i

    taken_us: list[float] = []

    async with app.run(workers=1, slots=slots) as client:
        job = await client.submit(noop, -1)
        await job.results()

        async def submit_and_wait(first: int) -> None:
            for i in range(first, tasks, submitters):
                began = time.perf_counter()
                job = await client.submit(noop, i)
                if await job.results() != [i]:
                    raise SystemExit(f"task {i} has another result")
                taken_us.append((time.perf_counter() - began) * 1e6)

        async def submit_all(items: range) -> None:
            job = await client.submit(noop.map(items))
            if await job.results() != list(items):
                raise SystemExit("the job has other results")

        began = time.perf_counter()
        async with anyio.create_task_group() as group:
            if mode == "clients":
                for first in range(submitters):
                    group.start_soon(submit_and_wait, first)
            elif mode == "maps":
                for first in range(submitters):
                    group.start_soon(submit_all, range(first, tasks, submitters))
            else:
                group.start_soon(submit_all, range(tasks))
        over = time.perf_counter()
    figures = {
        "tasks_per_s": tasks / (over - began),
        "memory_peak_mib": memory_peak_bytes() / 2**20,
    }
    if taken_us:
        figures |= {"p50_us": percentile(taken_us, 50), "p99_us": percentile(taken_us, 99)}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=("clients", "maps", "bulk"), default="clients")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--submitters", type=int, default=256)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-ours-") as folder:
        figures = anyio.run(
            measure,
            chosen.mode,
            chosen.tasks,
            chosen.submitters,
            chosen.slots,
            f"{folder}/farm.db",
            backend=chosen.backend,
        )
    tell(figures)


if __name__ == "__main__":
    main()
