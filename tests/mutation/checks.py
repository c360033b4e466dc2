"""
What a mutant has to get past: tests, and walks of the core under its invariants. And which of them run through which lines.

A mutant meets only those that run through its line: the quickest first, so that what is noticed at all is noticed in milliseconds.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
from coverage import Coverage

from orchestra.testing.explore import WORLDS, explore
from orchestra.testing.schedules.campaign import chunk

SCHEDULES = 60
"""A second of them: nearly every rule of the core that is taken out is missed within as many."""

EXPLORED = ("chain", "restarted", "short", "task-cancelled")
"""Worlds that are different in kind."""

STATES_MAX = 1_000
"""A quarter of a second of each."""


@attrs.frozen(slots=True, eq=False)
class Check:
    """
    Something that passes as long as the core is right.

    Args:
        name: Of a test its id.
        passes: Does it, and whether it passed. An exception is as much as no.
    """

    name: str
    passes: Callable[[], bool]


def walks() -> Iterator[Check]:
    """What goes through the core with nothing but the invariants to say what is right: for mutants that pass the tests."""
    yield Check("schedules", lambda: not chunk(1, SCHEDULES).broken)
    for name in EXPLORED:
        yield Check(f"explorer: {name}", lambda name=name: _explored(name))


def _explored(name: str) -> bool:
    return not explore(WORLDS[name], states_max=STATES_MAX).broken


class Reach:
    """Which checks run through which lines, and how long each takes."""

    def __init__(self) -> None:
        self.took_s: dict[Check, float] = {}
        self._through: dict[tuple[str, int], set[Check]] = defaultdict(set)

    def look_on(self, checks: Sequence[Check], folder: Path) -> str:
        """Run each once and remember the lines of the files of a folder that it ran. Returns the name of one that fails, or nothing."""
        # Coverage follows the lines in C, and a context says whose they are.
        watch = Coverage(data_file=None, include=[f"{folder}/*"], config_file=False, messages=False)
        by_name = {check.name: check for check in checks}
        watch.start()
        try:
            for check in checks:
                watch.switch_context(check.name)
                began_s = time.process_time()
                if not check.passes():
                    return check.name
                self.took_s[check] = time.process_time() - began_s
        finally:
            watch.stop()
        seen = watch.get_data()
        for path in seen.measured_files():
            for line, names in seen.contexts_by_lineno(path).items():
                self._through[Path(path).stem, line].update(by_name[name] for name in names if name)
        return ""

    def through(self, stem: str, lines: frozenset[int]) -> list[Check]:
        """The checks that run through one of these lines of a module, the quickest first."""
        found = {check for line in lines for check in self._through.get((stem, line), ())}
        return sorted(found, key=lambda check: (self.took_s[check], check.name))
