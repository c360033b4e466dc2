"""``orchestra worker`` in another way, or with one law broken: the first argument says which, the others are those of the command."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping

import anyio

from orchestra.cli import main
from orchestra.worker import agent
from orchestra.worker.holdings import Holdings


def run_on_trio() -> None:
    anyio.run = functools.partial(anyio.run, backend="trio")


def be_patient() -> None:
    """Attempts outlive the lease, as with an embedder's ``fence="patient"``."""
    agent.Agent = functools.partial(agent.Agent, fence="patient")


def break_resending() -> None:
    """What may not have arrived is taken to have arrived."""
    Holdings.unreported = Holdings.reported


def break_return() -> None:
    """It is in no hurry to come back."""
    agent.BACKOFF_S = agent.BACKOFF_BUSY_S_MAX = agent.BACKOFF_IDLE_S_MAX = 8.0


WAYS: Mapping[str, Callable[[], None]] = {
    "on trio": run_on_trio,
    "patient": be_patient,
    "report until it is acknowledged": break_resending,
    "come back at once": break_return,
}


if __name__ == "__main__":
    WAYS[sys.argv[1]]()
    main(sys.argv[2:])
