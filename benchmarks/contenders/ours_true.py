"""
One process for each task, ``/bin/true``, on a worker of two slots with the engine for programs: a directory, a clean environment, both
outputs read, and the last descendant seen gone.

``file``: every submit, lease and end is durable. ``memory``: nothing is, as with HyperQueue.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import anyio
from figures import tell

from orchestra.client import Client
from orchestra.compose import local_workers, open_orchestrator
from orchestra.statemachine.commands import StageDraft, SubmitJob
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.records import Span

PROGRAM = b'{"argv":["/bin/true"]}'


async def measure(path: str | None, folder: str, tasks: int, slots: int) -> float:
    """Tasks a second."""
    async with (
        open_orchestrator(path) as orchestrator,
        local_workers(
            orchestrator, {}, count=1, slots=slots, processes=True, folder=f"{folder}/attempts"
        ),
    ):
        client = Client(orchestrator)

        async def run(count: int) -> None:
            stage = StageDraft("true", "process", PROGRAM, over=Span(0, count))
            job = await client.submit(SubmitJob("true", (stage,)))
            ended = await job.wait()
            if ended.status is not JobStatus.COMPLETED:
                raise SystemExit(f"the job is {ended.status}")

        await run(1)
        began = time.perf_counter()
        await run(tasks)
        return tasks / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=("file", "memory"), default="file")
    parser.add_argument("--tasks", type=int, default=3_000)
    parser.add_argument("--slots", type=int, default=2)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-ours-") as folder:
        path = f"{folder}/farm.db" if chosen.mode == "file" else None
        rate = anyio.run(measure, path, folder, chosen.tasks, chosen.slots)
    tell({"tasks_per_s": rate})


if __name__ == "__main__":
    main()
