"""A campaign over seeds: in pieces on several processes, what was played put on a ledger, up to the first that broke something."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import closing
from typing import Protocol, TypeVar

from orchestra.testing.processes import in_pieces
from orchestra.testing.seed_ledger import SeedLedger, Sum


class Judged(Sum, Protocol):
    """What seeds come to; ``broken`` tells which of them broke what."""

    @property
    def broken(self) -> Collection[object]: ...


T = TypeVar("T", bound=Judged)


def over_seeds(
    play: Callable[[int, int], T],
    seeds: range,
    ledger: SeedLedger[T],
    *,
    chunk: int,
    processes: int = 1,
) -> Generator[T]:
    """
    Play all of ``seeds`` that are not on the ledger; yields the sum so far, with what is on it, after every piece.

    A piece in which nothing broke is on the ledger before its sum is told; after one in which something did it ends. Closing it gives up
    what has not begun.

    Args:
        play: What a seed and the ones after it come to, so many in all. It goes to other processes.
        chunk: Seeds that a process plays in one go at most.
    """
    pieces, total = ledger.left(seeds.start, len(seeds), chunk), ledger.total
    if not pieces:
        yield total
    with closing(in_pieces(play, pieces, min(processes, max(1, len(pieces))))) as played:
        for first, count, tally in played:
            total += tally
            if not tally.broken:
                ledger.add(first, count, tally)
            yield total
            if tally.broken:
                return
