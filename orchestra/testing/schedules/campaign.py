"""Many schedules, on several processes, and what came of them together."""

from __future__ import annotations

import re
import time
from collections.abc import Generator

import attrs

from orchestra.errors import Defect
from orchestra.statemachine.lifecycles import TABLES
from orchestra.testing.schedules.run import Violated, run
from orchestra.testing.seed_campaign import over_seeds
from orchestra.testing.seed_ledger import SeedLedger

CHUNK = 500
"""Schedules that a process plays in one go: some seconds."""

TWICE_EVERY = 100
"""Every so many schedules one is played a second time, and must give the same story and the same rows."""


TABLE = "the table"
"""Who found a move for which no lifecycle has a row: the core refuses it itself."""

CORE = "the core"
"""Who found whatever else the core refuses as a defect of its own."""

_NO_EDGE = re.compile(r"^\S+ \S+: (no edge|can not begin) ")


@attrs.frozen(slots=True)
class Broken:
    """A schedule that broke an invariant, with what the first one says; ``finder`` is its name, such as ``I3``, `TABLE` or `CORE`."""

    seed: int
    why: str
    finder: str


@attrs.frozen(slots=True)
class Tally:
    """
    What schedules came to.

    ``schedules`` were played in ``cpu_s`` seconds of CPU, ``twice`` of them a second time; they took ``steps`` steps of the core,
    ``commits`` commits and ``simulated_ms``. ``taken`` are the rows of the tables that were taken.
    """

    schedules: int = 0
    twice: int = 0
    steps: int = 0
    commits: int = 0
    simulated_ms: int = 0
    cpu_s: float = 0.0
    taken: frozenset[tuple[str, str | None, str]] = frozenset()
    broken: tuple[Broken, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.schedules + other.schedules,
            self.twice + other.twice,
            self.steps + other.steps,
            self.commits + other.commits,
            self.simulated_ms + other.simulated_ms,
            self.cpu_s + other.cpu_s,
            self.taken | other.taken,
            self.broken + other.broken,
        )

    @property
    def never_taken(self) -> tuple[str, ...]:
        """The rows of the tables that no schedule took, sorted, such as ``worker: lost --leave-->``."""
        rows = [
            (table.kind, row.source, row.verb) for table in TABLES.values() for row in table.rows
        ]
        return tuple(sorted(_told(row) for row in rows if row not in self.taken))


def _told(row: tuple[str, str | None, str]) -> str:
    kind, source, verb = row
    return f"{kind}: {source or '(new)'} --{verb}-->"


def _finder(error: AssertionError | Defect) -> str:
    if isinstance(error, Defect):
        return TABLE if _NO_EDGE.match(str(error)) else CORE
    return str(error).partition(":")[0]


def chunk(first: int, count: int) -> Tally:
    """Play the schedules of ``count`` seeds from ``first`` on; ends with the first that is broken."""
    began_s = time.process_time()
    steps = commits = simulated_ms = twice = played = 0
    taken: set[tuple[str, str | None, str]] = set()
    broken: list[Broken] = []
    for seed in range(first, first + count):
        doubled = seed % TWICE_EVERY == 0
        played += 1
        try:
            done = run(seed, told=doubled)
            if doubled:
                twice += 1
                if run(seed, told=True).digest != done.digest:
                    raise Violated(f"I21: seed {seed} gives another story at the second time")
        except (AssertionError, Defect) as error:
            broken.append(Broken(seed, str(error), _finder(error)))
            break
        steps += done.steps
        commits += done.commits
        simulated_ms += done.simulated_ms
        taken |= done.taken
    cpu_s = time.process_time() - began_s
    return Tally(
        played, twice, steps, commits, simulated_ms, cpu_s, frozenset(taken), tuple(broken)
    )


def campaign(
    schedules: int, *, seed: int = 1, processes: int = 1, ledger: SeedLedger[Tally] | None = None
) -> Generator[Tally]:
    """Play ``schedules`` schedules from ``seed`` on; the sum so far after every chunk, as `over_seeds` tells it."""
    seeds = range(seed, seed + schedules)
    ledger = ledger or SeedLedger(Tally())
    yield from over_seeds(chunk, seeds, ledger, chunk=CHUNK, processes=processes)
