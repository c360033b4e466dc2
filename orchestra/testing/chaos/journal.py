"""What the programs of tasks and the clients wrote down, read as it is written."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import attrs


class Run(NamedTuple):
    """A program of a task began (``S``) or came to its end (``E``), in the order in which they did."""

    kind: str
    task: str
    number: int
    folder: str


class Told(NamedTuple):
    """One line of a client's book; ``at_s`` is the monotonic clock's."""

    client: str
    at_s: float
    kind: str
    words: tuple[str, ...]


class Mark(NamedTuple):
    """A moment: how much was written down until then."""

    runs: int
    told: int
    at_s: float


class _Lines:
    """A file to which whole lines are added."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def new(self) -> list[str]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.decode().splitlines()


@attrs.define(slots=True)
class Journal:
    """
    Everything that was written down so far.

    Attributes:
        runs: What the programs wrote.
        told: What clients were told.
        ended: When each task was first seen to end by a client.
    """

    folder: Path
    runs: list[Run] = attrs.field(factory=list[Run])
    told: list[Told] = attrs.field(factory=list[Told])
    ended: dict[str, float] = attrs.field(factory=dict[str, float])
    _runs: _Lines = attrs.field(init=False)
    _books: dict[str, _Lines] = attrs.field(factory=dict[str, _Lines])

    def __attrs_post_init__(self) -> None:
        self._runs = _Lines(self.runs_file)

    @property
    def runs_file(self) -> Path:
        """Where the programs write."""
        return self.folder / "runs"

    def book(self, client: str) -> Path:
        """Where a client writes."""
        self._books.setdefault(client, _Lines(self.folder / f"{client}.book"))
        return self.folder / f"{client}.book"

    def read(self) -> None:
        """Read on."""
        for line in self._runs.new():
            kind, task, number, *folder = line.split(" ", 3)
            self.runs.append(Run(kind, task, int(number), folder[0] if folder else ""))
        for client, lines in self._books.items():
            for line in lines.new():
                at_s, kind, *words = line.split(" ")
                self.told.append(Told(client, float(at_s), kind, tuple(words)))
                if kind == "seen" and words[1] == "task":
                    self.ended.setdefault(words[2], float(at_s))

    def mark(self) -> Mark:
        """Now."""
        self.read()
        return Mark(len(self.runs), len(self.told), time.monotonic())

    def held(self, folder: Path) -> dict[str, int]:
        """Tasks that began in a worker's folder and were not seen to end, each with the number of its attempt."""
        inside = f"{folder}/"
        last = {run.task: run for run in self.runs if run.kind == "S"}
        return {
            task: run.number
            for task, run in last.items()
            if run.folder.startswith(inside) and task not in self.ended
        }

    def moved_on(self, held: dict[str, int], since: Mark) -> bool:
        """Whether each of these has ended, or runs as a later attempt."""
        later = {(run.task, run.number) for run in self.runs[since.runs :] if run.kind == "S"}
        newest: dict[str, int] = {}
        for task, number in later:
            newest[task] = max(number, newest.get(task, 0))
        return all(
            task in self.ended or newest.get(task, 0) > number for task, number in held.items()
        )

    def work_s(self, since: Mark, folder: Path | None = None) -> float | None:
        """When a client first saw the end of a task that began after a moment (below a folder); None while there is none."""
        inside = f"{folder}/" if folder else ""
        began = {
            run.task
            for run in self.runs[since.runs :]
            if run.kind == "S" and run.folder.startswith(inside)
        }
        seen = [self.ended[task] for task in began if task in self.ended]
        return min((at_s for at_s in seen if at_s >= since.at_s), default=None)

    def answer_s(self, since: Mark, client: str = "") -> float | None:
        """When a client (any, or this one) was first answered after a moment; None while none was."""
        for told in self.told[since.told :]:
            if told.kind in {"ack", "again"} and told.at_s >= since.at_s:
                if client in {"", told.client}:
                    return told.at_s
        return None
