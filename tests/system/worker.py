"""
A worker as a process of its own, for tests that kill and freeze it: as ``orchestra worker``, and with one law broken on request.

It says on stdout when it has joined, as a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping

import anyio

from orchestra.engines.process import ProcessEngine
from orchestra.transports.connect import connect
from orchestra.worker import agent
from orchestra.worker.holdings import Holdings


def break_resending() -> None:
    """What may not have arrived is taken to have arrived."""
    Holdings.unreported = Holdings.reported


def break_return() -> None:
    """It is in no hurry to come back."""
    agent.BACKOFF_S = agent.BACKOFF_BUSY_S_MAX = agent.BACKOFF_IDLE_S_MAX = 8.0


LAWS: Mapping[str, Callable[[], None]] = {
    "": lambda: None,
    "report until it is acknowledged": break_resending,
    "come back at once": break_return,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--name", required=True)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--fence", default="strict")
    parser.add_argument("--broken", choices=tuple(LAWS), default="")
    chosen = parser.parse_args()
    LAWS[chosen.broken]()
    anyio.run(run, chosen, backend=chosen.loop)


async def run(chosen: argparse.Namespace) -> None:
    worker = agent.Agent(
        lambda: connect(chosen.url),
        [ProcessEngine(chosen.folder)],
        name=chosen.name,
        slots=chosen.slots,
        fence=chosen.fence,
    )
    async with anyio.create_task_group() as group:
        worker_id = await group.start(worker.run)
        sys.stdout.write(json.dumps({"worker_id": worker_id}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
