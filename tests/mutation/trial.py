"""
Mutants tried one after the other inside one run of pytest: collected once, then forked for each.

What a test runs through is seen beforehand, so that a mutant meets only the tests that come by its function, the quickest first.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import attrs
import pytest

from tests.mutation.operators import Mutant

PATIENCE = 10.0
"""A mutant with which the tests take so many times as long, and `ROOM_S` more, has been noticed: it does not come to an end."""

ROOM_S = 5.0

KILLED, SURVIVED, UNTESTED = "killed", "survived", "untested"


@attrs.frozen(slots=True)
class Verdict:
    """What became of a mutant."""

    mutant: Mutant
    outcome: str


class Trials:
    """A plugin of pytest that tries mutants in place of running the tests once."""

    def __init__(self, mutants: Sequence[Mutant], told: Callable[[Verdict], None]) -> None:
        self._mutants = mutants
        self._told = told
        self._failed = False
        self.failed = ""
        """The test that fails without any mutant, if one does."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run all tests once, looking on, then each mutant's."""
        tests, failed = self._look_on(session.items)
        if failed:
            self.failed = failed
            raise session.Failed(f"a test fails without any mutant: {failed}")
        functions = _living()
        running: dict[int, Mutant] = {}
        for mutant in self._mutants:
            known = functions.get((mutant.module, mutant.function), ())
            seen = tests.get((mutant.module, mutant.function), {})
            if not known or not seen:
                self._told(Verdict(mutant, UNTESTED))
                continue
            if len(running) == (os.cpu_count() or 1):
                self._await_one(running)
            ordered = sorted(seen, key=seen.__getitem__)
            limit_s = PATIENCE * sum(seen.values()) + ROOM_S
            running[self._fork(mutant, known, ordered, limit_s)] = mutant
        while running:
            self._await_one(running)
        return True

    def _await_one(self, running: dict[int, Mutant]) -> None:
        pid, status = os.wait()
        survived = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
        self._told(Verdict(running.pop(pid), SURVIVED if survived else KILLED))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember that something failed."""
        self._failed |= report.failed

    def _run(self, item: pytest.Item) -> bool:
        self._failed = False
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return not self._failed

    def _look_on(
        self, items: Sequence[pytest.Item]
    ) -> tuple[dict[tuple[str, str], dict[pytest.Item, float]], str]:
        """By function: the tests that come by it, and how long each takes in seconds."""
        found: dict[tuple[str, str], dict[pytest.Item, float]] = defaultdict(dict)
        for item in items:
            seen: set[CodeType] = set()

            def look(frame: FrameType, event: str, _: Any, seen: set[CodeType] = seen) -> None:
                if event == "call":
                    seen.add(frame.f_code)

            sys.setprofile(look)
            passed = self._run(item)
            sys.setprofile(None)
            if not passed:
                return found, item.nodeid
            began_s = time.monotonic()
            self._run(item)
            took_s = time.monotonic() - began_s
            for code in seen:
                if "/statemachine/" in code.co_filename and "/tests/" not in code.co_filename:
                    module = f"orchestra.statemachine.{Path(code.co_filename).stem}"
                    outer = code.co_qualname.partition(".<")[0]
                    found[module, outer][item] = took_s
        return found, ""

    def _fork(
        self,
        mutant: Mutant,
        functions: Sequence[FunctionType],
        tests: Sequence[pytest.Item],
        limit_s: float,
    ) -> int:
        pid = os.fork()
        if pid:
            return pid
        # The child never returns into pytest, whatever happens.
        try:
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            for function in functions:
                function.__code__ = mutant.code
            for test in tests:
                if not self._run(test):
                    os._exit(1)
            os._exit(0)
        finally:
            os._exit(2)


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
