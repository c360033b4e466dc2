"""
Tests that need nothing but a processor run beside the others, in what those leave idle.

Half of the tests wait: for a lease to end, for a process to start. Those that are marked ``aside`` are played meanwhile by two processes
of pytest at the lowest priority there is, which any other process takes the processor from at once: what measures time is not disturbed.
Their turn comes last; by then most of them have ended, and are told as if they had run just then, with the time that they took.

Such a test asks nothing of the clock on the wall, and starts nothing that does: on a machine that is busy with other things it may stand
still for as long as the others take.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Collection
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import psutil
import pytest

PROCESSES = 2
"""CI has two processors; where there is one, the other process waits its turn."""

MARK = "aside"


class Aside:
    """A plugin of the run that has others beside it."""

    def __init__(self) -> None:
        self._told: dict[str, list[dict[str, Any]]] = {}
        self._ended: set[str] = set()
        self._wanted: set[str] = set()
        self._processes: dict[Connection, BaseProcess] = {}
        self._taken: Synchronized[int] | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put them last, in their order."""
        items.sort(key=lambda item: item.get_closest_marker(MARK) is not None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Begin them, unless there is one only, or somebody wants to look on."""
        found = [item for item in session.items if item.get_closest_marker(MARK) is not None]
        option = session.config.option
        if len(found) < 2 or option.collectonly or option.usepdb:
            return
        self._wanted = {item.nodeid for item in found}
        paths = sorted({str(item.path) for item in found})
        context = multiprocessing.get_context("spawn")  # not forked: the tests may have threads
        taken = self._taken = context.Value("i", 0)  # kept: a lock that nobody holds is unlinked
        for _ in range(PROCESSES):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=play,
                args=(str(session.config.rootpath), paths, self._wanted, taken, theirs),
            )
            process.start()
            _last(process)
            theirs.close()
            self._processes[ours] = process

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Tell what came of a test that was played beside."""
        self._hear(0)  # who is not heard for long can say no more
        if item.nodeid not in self._wanted:
            return None
        self._await(item.nodeid)
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for each in self._told.pop(item.nodeid):
            report = item.config.hook.pytest_report_from_serializable(config=item.config, data=each)
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _await(self, nodeid: str) -> None:
        while nodeid not in self._ended:
            if not self._processes:
                raise RuntimeError(f"whoever plays the tests beside has died before {nodeid}")
            for process in self._processes.values():
                _like_others(process)
            self._hear(None)

    def _hear(self, at_most_s: float | None) -> None:
        for ready in wait(list(self._processes), at_most_s):
            assert isinstance(ready, Connection)
            try:
                nodeid, reports = ready.recv()
            except EOFError:
                self._processes.pop(ready).join()
                continue
            self._told[nodeid] = reports
            self._ended.add(nodeid)

    def pytest_unconfigure(self) -> None:
        """Nobody is left behind, also where the run was given up."""
        for process in self._processes.values():
            if self._ended < self._wanted and process.is_alive():
                for each in _tree(process):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
            process.join()
        self._processes.clear()


class Player:
    """A plugin of a run beside: what it plays nobody else does, and what comes of it is sent."""

    def __init__(self, wanted: Collection[str], taken: Synchronized[int], told: Connection) -> None:
        self._wanted = wanted
        self._taken = taken
        self._sending = told
        self._config: pytest.Config | None = None
        self._reports: list[dict[str, Any]] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """One after the other, as long as there is one that nobody has begun."""
        self._config = session.config
        items = [item for item in session.items if item.nodeid in self._wanted]
        while (number := self._next()) < len(items):
            item = items[number]
            self._reports.clear()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            self._sending.send((item.nodeid, self._reports))
        return True

    def _next(self) -> int:
        with self._taken.get_lock():
            number = self._taken.value
            self._taken.value += 1
        return number

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep it, as it is after all that other plugins say of it."""
        assert self._config is not None
        hook = self._config.hook.pytest_report_to_serializable
        self._reports.append(hook(config=self._config, report=report))


def play(
    root: str, paths: list[str], wanted: Collection[str], taken: Synchronized[int], told: Connection
) -> None:
    """A run beside, as a process."""
    os.chdir(root)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        words = ["-p", "no:aside", "-p", "no:cacheprovider", *paths]
        pytest.main(words, plugins=[Player(wanted, taken, told)])


def _last(process: BaseProcess) -> None:
    """It takes the processor only when nobody else wants it; where a sandbox does not know of that, it is one among others."""
    assert process.pid is not None
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))


def _like_others(process: BaseProcess) -> None:
    """Now somebody waits for it, and for what it started. Who is not root may not say so."""
    if hasattr(os, "SCHED_IDLE"):
        for each in _tree(process):
            with contextlib.suppress(OSError):
                os.sched_setscheduler(each.pid, os.SCHED_OTHER, os.sched_param(0))


def _tree(process: BaseProcess) -> list[psutil.Process]:
    """It and all its descendants, who come first; nobody when it has ended."""
    try:
        itself = psutil.Process(process.pid)
        return [*itself.children(recursive=True), itself]
    except psutil.NoSuchProcess:
        return []
