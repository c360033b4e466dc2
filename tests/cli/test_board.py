"""The board of a job, fed with the story and the progress that the real core tells."""

from __future__ import annotations

from typing import TypeVar

import pytest

from orchestra.cli.board import Board
from orchestra.ports import Moved, ProgressSeen
from orchestra.statemachine.commands import Command, StageDraft
from orchestra.statemachine.queries import GetJob, ListTasks
from orchestra.statemachine.records import Cause
from orchestra.statemachine.reports import Happening
from orchestra.testing.core import Core

R = TypeVar("R")


class Watched(Core):
    """A core whose story goes to a board."""

    def __init__(self) -> None:
        super().__init__()
        self.board = Board()
        self.number = 0

    def apply(self, command: Command[R], *, principal: str = "me", key: str = "") -> R:
        reply = super().apply(command, principal=principal, key=key)
        for entry in self.last.entries if self.last is not None else ():
            self.number += 1
            self.board.moved(Moved(self.number, *entry))
        return reply

    def opened(self) -> None:
        """Somebody begins to watch now. A list does not tell which attempt runs."""
        self.board = Board()
        self.board.open(self.ask(GetJob("1")))
        self.board.load(self.ask(ListTasks("1")).items)

    def start(self) -> str:
        """The attempt that is due runs; its id."""
        self.settle()
        (order,) = self.held()
        self.report(order.attempt_id, Happening.RUNNING)
        return order.attempt_id

    def shown(self) -> tuple[int, float | None, str]:
        (running,) = self.board.running.values()
        return running.attempt, running.fraction, running.message


@pytest.mark.parametrize("loaded", [False, True], ids=["watched", "loaded"])
def test_progress_of_an_earlier_attempt_is_passed_over(*, loaded: bool) -> None:
    it = Watched()
    it.submit(StageDraft("only", "app", retries=1, backoff_ms=1))
    it.opened()
    it.join()
    first = it.start()
    it.board.progressed(ProgressSeen(first, 0.5, "half"))
    assert it.shown() == (1, 0.5, "half")
    it.report(first, Happening.FAILED, cause=Cause.EXIT)
    it.advance(100)
    second = it.start()
    if loaded:
        it.opened()
        assert it.shown() == (0, None, "")
    else:
        assert it.shown() == (2, None, "")
        it.board.progressed(ProgressSeen(first, 0.9, "late"))
        assert it.shown() == (2, None, "")
    it.board.progressed(ProgressSeen(second, 0.25, "anew"))
    it.board.progressed(ProgressSeen(first, 0.9, "late"))
    assert it.shown() == (2, 0.25, "anew")
