"""
The ledger of a campaign over seeds: which of them were played, on which commit, and what they came to.

A campaign of a million schedules takes hours. With a ledger it is played in pieces, on different days and machines, and goes on where it
was cut off. A line of JSON is a row of seeds that were played one after the other on one commit, so that the file stays short.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import attrs
import msgspec

from orchestra.errors import Malformed

WHERE = "--ledger"


class Sum(Protocol):
    """What pieces of a campaign come to, and adds up."""

    def __add__(self, other: Self, /) -> Self: ...


T = TypeVar("T", bound=Sum)


@attrs.frozen(slots=True)
class Played(Generic[T]):
    """The ``count`` seeds from ``first`` on, which were played on a commit, and what they came to."""

    first: int
    count: int
    commit: str
    tally: T

    @property
    def after(self) -> int:
        """The seed behind the last."""
        return self.first + self.count


@attrs.frozen(slots=True)
class _Line:
    """As it stands in the file; ``of`` is the campaign."""

    of: str
    first: int
    count: int
    commit: str
    tally: msgspec.Raw


class SeedLedger(Generic[T]):
    """
    What was played, in the order of seeds; without a path it is kept in memory alone.

    Args:
        zero: What no seed comes to. Its type is that of all tallies; msgspec reads and writes it.
        of: The campaign, with whatever changes what a seed stands for: one file is of one.
        path: The file.
        commit: Of the code that is run.

    Raises:
        Malformed: There is no such folder; or a line is none of a ledger, is of another campaign, or has seeds that another has too.
    """

    def __init__(self, zero: T, of: str = "", path: Path | None = None, commit: str = "") -> None:
        self._zero = zero
        self._of = of
        self._path = path
        self._commit = commit
        self._played: list[Played[T]] = []
        if path is not None:
            if not path.parent.is_dir():
                raise Malformed(f"there is no folder {path.parent}", where=WHERE, remedy="make it")
            self._read(path)

    @property
    def total(self) -> T:
        """What all that was played came to."""
        total = self._zero
        for each in self._played:
            total += each.tally
        return total

    @property
    def commits(self) -> str:
        """The commits, with how many seeds each, such as ``1a2b3c (4,000), 5d6e7f (2,000)``."""
        counts = Counter[str]()
        for each in self._played:
            counts[each.commit or "unknown"] += each.count
        return ", ".join(f"{commit} ({count:,})" for commit, count in counts.items())

    def left(self, first: int, count: int, at_most: int) -> list[tuple[int, int]]:
        """
        The first seed and the number of each piece that is not played yet, of at most so many seeds.

        Raises:
            Malformed: Something on the ledger reaches beyond what is asked for, and would be counted with it.
        """
        after = first + count
        reached, pieces = first, list[tuple[int, int]]()
        for each in self._played:
            if each.first < first or each.after > after:
                raise Malformed(
                    f"it has the seeds {each.first} to {each.after - 1}, which are not all asked for",
                    where=WHERE,
                    remedy="ask for all of them, or name another file",
                )
            pieces += _pieces(reached, each.first, at_most)
            reached = each.after
        return pieces + _pieces(reached, after, at_most)

    def add(self, first: int, count: int, tally: T) -> None:
        """A piece was played, and nothing in it was broken. It is on the disk on return."""
        new = Played(first, count, self._commit, tally)
        self._played = _joined(sorted([*self._played, new], key=lambda each: each.first))
        if self._path is not None:
            self._write(self._path)

    def _read(self, path: Path) -> None:
        found: list[Played[T]] = []
        lines = path.read_bytes().splitlines() if path.exists() else []
        for number, text in enumerate(lines, start=1):
            try:
                line = msgspec.json.decode(text, type=_Line)
                tally = msgspec.json.decode(line.tally, type=type(self._zero))
            except (msgspec.DecodeError, RecursionError) as problem:
                raise _unread(number, str(problem)) from problem
            if line.of != self._of:
                raise _unread(number, f"it is of {line.of!r}, not of {self._of!r}")
            if line.count < 1:
                raise _unread(number, "it is of no seed")
            found.append(Played(line.first, line.count, line.commit, tally))
            if len(found) > 1 and found[-2].after > line.first:
                raise _unread(number, "it has seeds that the line before has, or earlier ones")
        self._played = found

    def _write(self, path: Path) -> None:
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            for each in self._played:
                tally = msgspec.Raw(msgspec.json.encode(each.tally))
                line = _Line(self._of, each.first, each.count, each.commit, tally)
                file.write(msgspec.json.encode(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)  # one that is killed here leaves the old file or the new one


def _unread(number: int, problem: str) -> Malformed:
    return Malformed(
        f"line {number} is none of this ledger: {problem}",
        where=WHERE,
        remedy="take the line out, and its seeds are played again; or name another file",
    )


def _pieces(first: int, after: int, at_most: int) -> list[tuple[int, int]]:
    return [(start, min(at_most, after - start)) for start in range(first, after, at_most)]


def _joined(played: Sequence[Played[T]]) -> list[Played[T]]:
    """Neighbours of one commit as one."""
    joined: list[Played[T]] = []
    for each in played:
        last = joined[-1] if joined else None
        if last is not None and (last.after, last.commit) == (each.first, each.commit):
            count, tally = last.count + each.count, last.tally + each.tally
            joined[-1] = Played(last.first, count, each.commit, tally)
        else:
            joined.append(each)
    return joined
