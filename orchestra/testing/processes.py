"""Processes that play parts of a campaign side by side, and none of which outlives it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import TypeVar

T = TypeVar("T")

ORPHANED = 70
"""The exit code of a process whose campaign was killed: nobody is left who would look at it."""


def pool_of(processes: int, *, tasks_each_max: int | None = None) -> ProcessPoolExecutor:
    """
    So many processes for a campaign.

    They leave Ctrl-C, which reaches every process of a terminal, to the caller, and end when the caller does, also by a signal
    that it can not catch.

    Args:
        tasks_each_max: How many parts a process plays before another takes its place; None for any number.
    """
    # Spawned, not forked: the caller may have threads.
    return ProcessPoolExecutor(
        processes, get_context("spawn"), _begin, max_tasks_per_child=tasks_each_max
    )


def in_pieces(
    play: Callable[[int, int], T], pieces: Sequence[tuple[int, int]], processes: int
) -> Generator[tuple[int, int, T]]:
    """
    Play pieces of a campaign, each the first seed and how many there are from it on; what came of each, in their order.

    With one process everything happens in the caller's. Closing it gives up what has not begun, and leaves no process.
    """
    if processes == 1:
        for first, count in pieces:
            yield first, count, play(first, count)
        return
    pool = pool_of(processes)
    try:
        firsts, counts = [first for first, _ in pieces], [count for _, count in pieces]
        for (first, count), played in zip(pieces, pool.map(play, firsts, counts), strict=True):
            yield first, count, played
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_campaign, name="end with it", daemon=True).start()


def _end_with_the_campaign() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(ORPHANED)
