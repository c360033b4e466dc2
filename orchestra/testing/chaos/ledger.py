"""
The ledger of a campaign: what came of each farm that ended well, as a line of JSON each. A campaign that is cut off goes on where it was,
be it on another day.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from orchestra.errors import Malformed
from orchestra.testing.chaos.tally import Tally

Key = tuple[str, int, int, int]


@attrs.frozen(slots=True)
class Entry:
    """
    One farm.

    Args:
        kind: Of its troubles.
        seed: From which it was drawn.
        troubles: How many it was to have; some come in threes.
        lease_ms: The lease that was asked for.
        commit: Of the code that was run.
        took_s: How long it took.
        tally: What came of it.
    """

    kind: str
    seed: int
    troubles: int
    lease_ms: int
    commit: str
    took_s: float
    tally: Tally

    @property
    def key(self) -> Key:
        """What it is found by."""
        return (self.kind, self.seed, self.troubles, self.lease_ms)


class Ledger:
    """
    Entries by what they are of; without a path they are kept in memory alone.

    Raises:
        Malformed: There is no such folder, or a line is none of an entry. The last line may be torn: it is taken out.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._entries: dict[Key, Entry] = {}
        if path is not None and not path.parent.is_dir():
            raise Malformed(f"there is no folder {path.parent}", where="--ledger", remedy="make it")
        lines = path.read_text().split("\n") if path is not None and path.exists() else []
        for number, line in enumerate(lines[:-1], start=1):
            try:
                entry = _read(json.loads(line))
            except (ValueError, TypeError, KeyError, RecursionError) as problem:
                raise Malformed(
                    f"line {number} is no entry of a ledger: {problem}",
                    where="--ledger",
                    remedy="take the line out, and its farm is played again",
                ) from problem
            self._entries[entry.key] = entry
        if lines and lines[-1] and path is not None:
            path.write_text("".join(f"{line}\n" for line in lines[:-1]))

    def find(self, kind: str, seed: int, troubles: int, lease_ms: int) -> Entry | None:
        """The entry of a farm; None when it has to be played."""
        return self._entries.get((kind, seed, troubles, lease_ms))

    def add(self, entry: Entry) -> None:
        """Keep an entry. It is on the disk on return. One with a broken law is not kept: its farm is played again."""
        if entry.tally.broken:
            return
        self._entries[entry.key] = entry
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(_written(entry)) + "\n")
                file.flush()
                os.fsync(file.fileno())


def _written(entry: Entry) -> dict[str, Any]:
    """As it stands in the file: seconds to the millisecond, which is more than processes keep to."""
    fields = attrs.asdict(attrs.evolve(entry, took_s=round(entry.took_s, 3)))
    seconds = entry.tally.recoveries_s.items()
    fields["tally"]["recoveries_s"] = {
        what: [round(each, 3) for each in found] for what, found in seconds
    }
    return fields


def _read(fields: dict[str, Any]) -> Entry:
    told = fields.pop("tally")
    tally = Tally(
        int(told["struck"]),
        {
            str(what): [float(each) for each in found]
            for what, found in told["recoveries_s"].items()
        },
        Counter(told["counts"]),
        Counter(told["laws"]),
    )
    return Entry(**fields, tally=tally)


def played_on(entries: Sequence[Entry]) -> str:
    """The commits of entries, with how many farms each, such as ``1a2b3c (4), 5d6e7f (2)``."""
    commits = Counter(entry.commit or "unknown" for entry in entries)
    return ", ".join(f"{commit} ({count})" for commit, count in commits.items())
