"""One durable task after the other on an idle system, through the public API: from submit to the result seen."""

from __future__ import annotations

import argparse
import tempfile
import time

import anyio
from figures import percentile, tell

import orchestra


async def measure(tasks: int, path: str) -> list[float]:
    app = orchestra.App(path)

    @app.task()
    async def noop(i: int) -> int:
        return i

    taken_us: list[float] = []
    async with app.run(workers=1) as client:
        for i in range(tasks + 20):
            began = time.perf_counter()
            job = await client.submit(noop, i)
            if await job.results() != [i]:
                raise SystemExit(f"task {i} has another result")
            if i >= 20:  # the first ones warm the caches
                taken_us.append((time.perf_counter() - began) * 1e6)
            await anyio.sleep(0.002)  # idle in between
    return taken_us


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-ours-") as folder:
        taken_us = anyio.run(measure, chosen.tasks, f"{folder}/farm.db", backend=chosen.backend)
    tell({"p50_us": percentile(taken_us, 50), "p99_us": percentile(taken_us, 99)})


if __name__ == "__main__":
    main()
