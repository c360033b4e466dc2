"""
Mutants tried one after the other inside one run of pytest: collected once, then forked for each.

A fork has everything in memory already, and whatever the mutant does to it ends with it.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType

import attrs
import pytest

from tests.mutation.checks import Check, Reach
from tests.mutation.operators import Mutant

PATIENCE = 10.0
"""A mutant with which a check takes so many times as much CPU, and `ROOM_S` more, has been noticed: it does not come to an end."""

ROOM_S = 0.5

WAIT_S = 120.0
"""What does not even use the CPU is ended after so long: far longer than any check takes on a machine with other work."""

MEMORY_BYTES = 3 << 30
"""What grows without end is noticed before the machine suffers: ten times what the checks need."""

RECENT = 3
"""How many checks are remembered that noticed something in a function: the next change of it is shown to them first."""

NOTICED, SURVIVED, UNTESTED = "noticed", "survived", "untested"
ENDLESS = "it does not come to an end"


class Unfit(Exception):
    """The mutant could not be put in place, or its trial came to no verdict."""


@attrs.frozen(slots=True)
class Verdict:
    """What became of a mutant, and which check noticed it."""

    mutant: Mutant
    outcome: str
    by: str = ""


@attrs.frozen(slots=True)
class _Running:
    mutant: Mutant
    said: int


class Trials:
    """A plugin of pytest that tries mutants in place of running the tests once."""

    def __init__(
        self,
        mutants: Sequence[Mutant],
        told: Callable[[Verdict], None],
        walks: Sequence[Check],
        folder: Path,
        processes: int,
    ) -> None:
        self._mutants = mutants
        self._told = told
        self._walks = walks
        self._folder = folder
        self._processes = processes
        self._failed = False
        self._reach = Reach()
        self._living: Mapping[tuple[str, str], Sequence[FunctionType]] = {}
        self._keen: dict[tuple[str, str], deque[str]] = defaultdict(lambda: deque(maxlen=RECENT))
        self.failed = ""
        """The check that fails without any mutant, if one does."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run everything once, looking on, then what each mutant has to get past."""
        tests = [self._test(item) for item in session.items]
        self.failed = self._reach.look_on([*tests, *self._walks], self._folder)
        if self.failed:
            raise session.Failed(f"this fails without any mutant: {self.failed}")
        self._living = _living()
        gc.freeze()  # so that no fork copies what it only looks at
        running: dict[int, _Running] = {}
        for mutant in self._mutants:
            functions = self._living.get((mutant.module, mutant.function), ())
            checks = self._reach.through(mutant.stem, mutant.lines)
            if not functions or not checks:
                self._told(Verdict(mutant, UNTESTED))
                continue
            if len(running) == self._processes:
                self._await_one(running)
            keen = self._keen[mutant.module, mutant.function]
            checks.sort(key=lambda check: check.name not in keen)
            pid, said = self._fork(mutant, functions, checks)
            running[pid] = _Running(mutant, said)
        while running:
            self._await_one(running)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember that something failed."""
        self._failed |= report.failed

    def _test(self, item: pytest.Item) -> Check:
        def passes() -> bool:
            self._failed = False
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            return not self._failed

        return Check(item.nodeid, passes)

    def _await_one(self, running: dict[int, _Running]) -> None:
        pid, status = os.wait()
        done = running.pop(pid)
        with os.fdopen(done.said, encoding="utf-8") as said:
            by = said.read()
        mutant = done.mutant
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGALRM):
            self._told(Verdict(mutant, NOTICED, ENDLESS))
        elif by:
            self._keen[mutant.module, mutant.function].append(by)
            self._told(Verdict(mutant, NOTICED, by))
        elif status == 0:
            self._told(Verdict(mutant, SURVIVED))
        else:
            raise Unfit(f"{mutant.id}: the trial ended with {status}")

    def _fork(
        self, mutant: Mutant, functions: Sequence[FunctionType], checks: Sequence[Check]
    ) -> tuple[int, int]:
        """Its process, and where the name of what noticed it can be read."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writing)
            return pid, reading
        code = 2
        # The child never returns into pytest, whatever happens.
        try:
            gc.disable()
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            for function in functions:
                function.__code__ = mutant.code
            by = self._first_that_notices(checks)
            os.write(writing, by.encode())
            code = 0
        finally:
            os._exit(code)

    def _first_that_notices(self, checks: Sequence[Check]) -> str:
        for check in checks:
            signal.setitimer(signal.ITIMER_PROF, PATIENCE * self._reach.took_s[check] + ROOM_S)
            signal.setitimer(signal.ITIMER_REAL, WAIT_S)
            try:
                passed = check.passes()
            except Exception:  # noqa: BLE001 - a walk that breaks off has noticed the mutant, by whatever it breaks
                passed = False
            if not passed:
                return check.name
        return ""


def _living() -> dict[tuple[str, str], list[FunctionType]]:
    """The functions that live in this process, by module and qualified name: a class with slots has been made twice."""
    found: dict[tuple[str, str], list[FunctionType]] = defaultdict(list)
    for each in _functions():
        found[each.__module__, each.__qualname__].append(each)
    return found


def _functions() -> Iterator[FunctionType]:
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and str(each.__module__).startswith("orchestra."):
            yield each
