"""Hostile input by the million: many seeds for every surface, on several processes, kept on a ledger."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from functools import partial

import attrs
import psutil

from orchestra.testing.fuzz import GROWTH_BYTES_MAX, Counted, fuzz
from orchestra.testing.fuzz_surfaces import SURFACES
from orchestra.testing.seed_campaign import over_seeds
from orchestra.testing.seed_ledger import SeedLedger

SEED_INPUTS_MAX = 5_000
"""What a surface is fed with one seed at most."""

PIECE_SEEDS = 1
"""Seeds that a process plays in one go: some seconds for each surface."""


@attrs.frozen(slots=True)
class FuzzTally:
    """
    What seeds came to.

    ``counted`` has every surface by name. ``growth_bytes`` is the most that a process grew by after its first seed, ``cpu_s`` the time of
    processors. ``broken`` tells what an input did that no input may.
    """

    counted: Mapping[str, Counted] = attrs.field(factory=dict[str, Counted])
    growth_bytes: int = 0
    cpu_s: float = 0.0
    broken: tuple[str, ...] = ()

    def __add__(self, other: FuzzTally) -> FuzzTally:
        counted = dict(self.counted)
        for name, more in other.counted.items():
            counted[name] = counted.get(name, Counted()) + more
        return FuzzTally(
            counted,
            max(self.growth_bytes, other.growth_bytes),
            self.cpu_s + other.cpu_s,
            self.broken + other.broken,
        )


def seeds_for(inputs: int) -> tuple[int, int]:
    """How many seeds so many inputs for each surface take, and how many of them each feeds; together at least as many."""
    seeds = -(-inputs // SEED_INPUTS_MAX)
    return seeds, -(-inputs // seeds)


class _Grown:
    """What this process took when it had fed its first seed; nothing before."""

    begun_bytes: int | None = None

    @classmethod
    def look(cls) -> int:
        """By how much it has grown since."""
        now_bytes: int = psutil.Process().memory_info().rss
        if cls.begun_bytes is None:
            cls.begun_bytes = now_bytes
        return max(0, now_bytes - cls.begun_bytes)


def feed_seeds(names: Sequence[str], inputs: int, first: int, count: int) -> FuzzTally:
    """Feed surfaces with ``inputs`` inputs of each of ``count`` seeds from ``first`` on; ends with the first that breaks something."""
    began_s = time.process_time()
    tally = FuzzTally()
    for seed in range(first, first + count):
        for name in names:
            try:
                done = fuzz(SURFACES[name], inputs=inputs, seed=seed)
            except Exception as error:  # noqa: BLE001 - whatever an input raises is the finding
                again = f"prove fuzz --surface {name} --inputs {inputs} --seed {seed}"
                told = "; ".join([str(error) or repr(error), *getattr(error, "__notes__", ())])
                return attrs.evolve(tally, broken=(f"{told} (again: python -m orchestra {again})",))
            counted = Counted(done.inputs, done.accepted)
            tally += FuzzTally({name: counted}, done.growth_bytes)
    growth_bytes = max(tally.growth_bytes, _Grown.look())
    broken: tuple[str, ...] = ()
    if growth_bytes > GROWTH_BYTES_MAX:
        broken = (f"memory grew by {growth_bytes:,} bytes up to seed {first + count - 1}",)
    cpu_s = time.process_time() - began_s
    return attrs.evolve(tally, growth_bytes=growth_bytes, cpu_s=cpu_s, broken=broken)


def campaign(
    names: Sequence[str],
    inputs: int,
    *,
    seed: int = 1,
    processes: int = 1,
    ledger: SeedLedger[FuzzTally] | None = None,
) -> Generator[FuzzTally]:
    """Feed surfaces with at least ``inputs`` inputs each; the sum so far after every piece, as `over_seeds` tells it."""
    seeds, each = seeds_for(inputs)
    play = partial(feed_seeds, tuple(names), each)
    ledger = ledger or SeedLedger(FuzzTally())
    yield from over_seeds(
        play, range(seed, seed + seeds), ledger, chunk=PIECE_SEEDS, processes=processes
    )
