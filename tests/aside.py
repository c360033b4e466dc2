"""
Tests run beside one another, in what those leave idle that are judged by the clock.

Half of the tests wait: for a lease to end, for a process to start. So there are three rows of them:

- those marked ``prompt`` are played by the run itself. They have to see something happen within seconds, and others give way to them;
- those without a mark are played meanwhile by one more process, at a lower priority, where there are many of both;
- those marked ``aside`` need nothing but a processor, and are played by two processes at the lowest priority there is. Such a test asks
  nothing of the clock on the wall, and starts nothing that does: on a machine that is busy with other things it may stand still for as
  long as the others take.

What was played in another row is told after all that the run itself plays, as if it had run just then, with the time that it took.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Collection
from itertools import groupby, pairwise
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import attrs
import psutil
import pytest

MARKS = ("prompt", "", "aside")
"""The rows, in the order in which they are told; the second is of tests without a mark."""

MANY = 100
"""Fewer tests without a mark are played by the run itself: to collect them anew takes as long."""


Told = tuple[str, list[dict[str, Any]]]
"""A test and its reports."""


PROCESSORS_MIN = 4
"""Where there are fewer, tests without a mark are played by the run itself; ORCHESTRA_BESIDE=1 or 0 says it by hand."""


@attrs.frozen(slots=True)
class Row:
    """
    Tests that are played beside.

    Args:
        processes: How many play them. CI has two processors; where there is one, the other process waits its turn.
        nice: By how much they give way to the run itself.
        idle: Whether anybody else takes the processor from it at once.
        by_file: Whether a process takes all tests of a file, which may share what is dear to make, or one after the other.
    """

    processes: int
    nice: int
    idle: bool
    by_file: bool


UNMARKED = Row(processes=1, nice=5, idle=False, by_file=True)
"""With two of them there were ten processes for each processor, and tests that see something happen were late."""

ASIDE = Row(processes=2, nice=0, idle=True, by_file=False)


class Aside:
    """A plugin of the run that has others beside it."""

    def __init__(self) -> None:
        self._told: dict[str, list[dict[str, Any]]] = {}
        self._ended: set[str] = set()
        self._wanted: set[str] = set()
        self._processes: dict[int, BaseProcess] = {}
        self._heard: SimpleQueue[tuple[int, Told | None]] = SimpleQueue()
        self._taken: list[Synchronized[int]] = []  # kept: a lock that nobody holds is unlinked

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Row by row, each in its order."""
        items.sort(key=lambda item: MARKS.index(_mark(item)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Begin the other rows, unless there is little to play in them, or somebody wants to look on."""
        option = session.config.option
        if option.collectonly or option.usepdb or option.capture == "no":
            return
        rows: dict[str, list[pytest.Item]] = {mark: [] for mark in MARKS}
        for item in session.items:
            rows[_mark(item)].append(item)
        if rows["prompt"] and len(rows[""]) >= MANY and _has_room():
            self._begin(rows[""], UNMARKED)
        if len(rows["aside"]) > 1:
            self._begin(rows["aside"], ASIDE)

    def _begin(self, items: list[pytest.Item], row: Row) -> None:
        wanted = {item.nodeid for item in items}
        self._wanted |= wanted
        paths = sorted({str(item.path) for item in items})
        context = multiprocessing.get_context("spawn")  # not forked: the tests may have threads
        taken = context.Value("i", 0)
        self._taken.append(taken)
        for _ in range(row.processes):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=play, args=(paths, wanted, taken, theirs, row))
            process.start()
            theirs.close()
            number = len(self._processes)
            self._processes[number] = process
            # Nobody waits to be heard while the run itself plays a long one: a pipe is soon full.
            Thread(target=self._listen, args=(number, ours), name="listens", daemon=True).start()

    def _listen(self, number: int, told: Connection) -> None:
        with told, contextlib.suppress(EOFError, OSError):
            for message in iter(told.recv, None):
                self._heard.put((number, message))
        self._heard.put((number, None))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Tell what came of a test that was played beside."""
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
            self._hear()

    def _hear(self) -> None:
        number, message = self._heard.get()
        if message is None:
            self._processes.pop(number).join()
        else:
            nodeid, reports = message
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

    def __init__(
        self, wanted: Collection[str], taken: Synchronized[int], told: Connection, row: Row
    ) -> None:
        self._row = row
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
        files = [list(found) for _, found in groupby(items, key=lambda item: item.path)]
        pieces = files if self._row.by_file else [[item] for item in items]
        while (number := self._next()) < len(pieces):
            for item, later in pairwise([*pieces[number], None]):
                assert item is not None
                self._reports.clear()
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=later)
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
    paths: list[str], wanted: Collection[str], taken: Synchronized[int], told: Connection, row: Row
) -> None:
    """A run beside, as a process."""
    _give_way(row)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        words = ["-p", "no:aside", "-p", "no:cacheprovider", *paths]
        pytest.main(words, plugins=[Player(wanted, taken, told, row)])


def _has_room() -> bool:
    """With two processors a whole run is a quarter quicker with this row, and now and then a prompt test is late."""
    wanted = os.environ.get("ORCHESTRA_BESIDE")
    return wanted == "1" if wanted else (os.cpu_count() or 1) >= PROCESSORS_MIN


def _mark(item: pytest.Item) -> str:
    return next((mark for mark in MARKS if mark and item.get_closest_marker(mark)), "")


def _give_way(row: Row) -> None:
    """To the run itself, and in the last row to everybody; where a sandbox does not know of that, all are alike."""
    os.nice(row.nice)
    if row.idle and hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _like_others(process: BaseProcess) -> None:
    """Now somebody waits for it, and for what it started. Who is not root may not say so."""
    for each in _tree(process):
        with contextlib.suppress(OSError):
            if hasattr(os, "SCHED_IDLE") and os.sched_getscheduler(each.pid) == os.SCHED_IDLE:
                os.sched_setscheduler(each.pid, os.SCHED_OTHER, os.sched_param(0))


def _tree(process: BaseProcess) -> list[psutil.Process]:
    """It and all its descendants, who come first; nobody when it has ended."""
    try:
        itself = psutil.Process(process.pid)
        return [*itself.children(recursive=True), itself]
    except psutil.NoSuchProcess:
        return []
