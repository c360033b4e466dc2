# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# (dask.distributed is installed in the peer's own environment only)
"""
dask.distributed on a graph of chains: scheduler, one worker and client in this process, no sockets beyond the loop's own.

Its time a task is everything between submitting the graph and the last result, since its scheduler can not be run without the rest. It
gets 5,000 tasks: its cost a task does not fall with more of them, and 100,000 take minutes. ``--mode local`` is dask's own loop over a
graph in one thread, without scheduler, worker or messages.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import time
from typing import Any

import dask
from distributed import Client, LocalCluster
from figures import tell


def step(before: int) -> int:
    return before + 1


def chains(count: int, length: int) -> list[Any]:
    """The last call of each chain."""
    ends: list[Any] = [0] * count
    delayed = dask.delayed(step, pure=False)
    for _ in range(length):
        ends = [delayed(end) for end in ends]
    return ends


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=("distributed", "local"), default="distributed")
    parser.add_argument("--chains", type=int, default=50)
    parser.add_argument("--length", type=int, default=100)
    chosen = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.ERROR)
    ends = chains(chosen.chains, chosen.length)
    # Fusing chains into single tasks would leave nothing to coordinate.
    with dask.config.set({"optimization.fuse.active": False}):
        if chosen.mode == "local":
            began = time.process_time()
            results = dask.compute(*ends, scheduler="sync", optimize_graph=False)
            spent_s = time.process_time() - began
        else:
            with (
                LocalCluster(
                    n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
                ) as cluster,
                Client(cluster) as client,
            ):
                began = time.process_time()
                results = dask.compute(*ends, scheduler=client, optimize_graph=False)
                spent_s = time.process_time() - began
    if list(results) != [chosen.length] * chosen.chains:
        raise SystemExit("dask returned other results")
    tasks = chosen.chains * chosen.length
    version = importlib.metadata.version("distributed")
    tell({"task_us": spent_s / tasks * 1e6, "tasks": tasks, "version": version})


if __name__ == "__main__":
    main()
