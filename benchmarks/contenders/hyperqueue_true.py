# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# (HyperQueue is installed in the peer's own environment only)
"""
HyperQueue: one process for each task, ``/bin/true``, on a server and a worker of two cores on this machine. Nothing is durable.

Output goes nowhere, which is its quickest way. Its client looks once a second, so the rate is the best that any look shows.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import tempfile
import time
from typing import Any

from figures import tell
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=3_000)
    parser.add_argument("--cores", type=int, default=2)
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-hq-") as folder,
        LocalCluster(folder, WorkerConfig(cores=chosen.cores)) as cluster,
    ):
        client = cluster.client()
        warm = Job()
        warm.program(["/bin/true"], stdout=None, stderr=None)
        client.wait_for_jobs([client.submit(warm)])
        job = Job(default_workdir=folder)
        for _ in range(chosen.tasks):
            job.program(["/bin/true"], stdout=None, stderr=None)
        looks: list[tuple[float, int]] = []

        def look(jobs: Any) -> None:
            looks.append((time.perf_counter(), sum(each["finished"] for each in jobs.values())))

        began = time.perf_counter()
        submitted = client.submit(job)
        if client.connection.wait_for_jobs((submitted.id,), look):
            raise SystemExit("tasks failed")
        over = time.perf_counter()
    rates = [count / (at - began) for at, count in looks] + [chosen.tasks / (over - began)]
    tell({"tasks_per_s": max(rates), "version": importlib.metadata.version("hyperqueue")})


if __name__ == "__main__":
    main()
