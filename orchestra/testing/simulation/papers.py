"""What is written in a simulation, and what becomes of it: the output of attempts, and the story as it is stored and as people see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestra.ports import Batch, Moved
from orchestra.statemachine import limits

CHECKED_BYTES_MAX = limits.LOG_BYTES_MAX // 2
"""Beyond so much of a stream notes of ours may stand in it, of what was dropped: it is not looked at."""


class Papers:
    """
    Every byte that attempts wrote, every byte that is stored, and the story.

    Args:
        violated: Told of what is wrong.
    """

    def __init__(self, violated: Callable[[str], None]) -> None:
        self.story: list[Moved] = []
        self._violated = violated
        self._written: dict[tuple[str, str], bytearray] = {}
        self._stored: dict[tuple[str, str], bytearray] = {}

    def wrote(self, attempt_id: str, stream: str, data: bytes) -> None:
        """An attempt writes."""
        self._written.setdefault((attempt_id, stream), bytearray()).extend(data)

    def committed(self, batch: Batch) -> None:
        """Output and story are durable: I7, each piece is what was written at its place, and I20, the story goes on where it was."""
        for chunk in batch.logs:
            key, ends = (chunk.attempt_id, chunk.stream), chunk.offset + len(chunk.data)
            stored = self._stored.setdefault(key, bytearray())
            if ends > CHECKED_BYTES_MAX:
                continue
            if chunk.offset > len(stored):
                self._violated(f"I7: output of {chunk.attempt_id} is missing before {chunk.offset}")
            if self._written.get(key, b"")[chunk.offset : ends] != chunk.data:
                self._violated(f"I7: nobody wrote what is stored as output of {chunk.attempt_id}")
            stored[chunk.offset : ends] = chunk.data
        for moved in batch.story:
            if moved.number != len(self.story) + 1:
                self._violated(
                    f"I20: the story goes on with {moved.number} after {len(self.story)}"
                )
            self.story.append(moved)

    def reckon(self, attempt_id: str) -> None:
        """I7: when the end of an attempt is recorded as its worker told it, all that it wrote is stored."""
        for (id, stream), written in self._written.items():
            stored = self._stored.get((id, stream), b"")
            if id == attempt_id and len(written) <= CHECKED_BYTES_MAX and stored != written:
                self._violated(
                    f"I7: of {len(written)} bytes that {id} wrote to {stream} {len(stored)} are stored"
                )

    def read(self, seen: Sequence[Moved]) -> None:
        """I20: somebody who followed the story from its beginning to its present end has seen all of it, once and in order."""
        if list(seen) != self.story:
            numbers = [moved.number for moved in seen]
            self._violated(f"I20: the story has {len(self.story)} moves, and was seen as {numbers}")
