"""
Durable tasks through the public API only: an app with a file, 256 slots, and a body that does nothing.

``clients``: 256 submitters, each submitting one task after the other and waiting for its result. ``bulk``: one job of as
many tasks. ``drain``: the submitters submit everything first, then wait.
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

        began = time.perf_counter()
        if mode == "clients":
            async with anyio.create_task_group() as group:
                for first in range(submitters):
                    group.start_soon(submit_and_wait, first)
            submitted = time.perf_counter()
        else:
            job = await client.submit(noop.map(range(tasks)))
            submitted = time.perf_counter()
            if await job.results() != list(range(tasks)):
                raise SystemExit("the job has other results")
        over = time.perf_counter()
    figures = {
        "tasks_per_s": tasks / (over - began),
        "submits_per_s": tasks / (submitted - began),
        "memory_peak_mib": memory_peak_bytes() / 2**20,
    }
    if taken_us:
        figures |= {"p50_us": percentile(taken_us, 50), "p99_us": percentile(taken_us, 99)}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=("clients", "bulk"), default="clients")
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
