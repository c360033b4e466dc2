"""What a program did to a disk, one operation after another: from this everything that a power cut can leave is made."""

from __future__ import annotations

from enum import StrEnum

import attrs


class Kind(StrEnum):
    """What an operation does, or what the one who watches noted between two of them."""

    MAKE = "make"
    WRITE = "write"
    TRUNCATE = "truncate"
    SYNC = "sync"
    SYNC_FAILED = "sync failed"
    REMOVE = "remove"
    RENAME = "rename"
    SYNC_NAMES = "sync names"
    BEGUN = "begun"
    TOLD = "told"
    COPIED = "copied"
    NEEDED = "needed"


@attrs.frozen(slots=True)
class Operation:
    """
    One operation or note.

    Args:
        kind: What it is.
        file: The number of the file; names come and go, the file stays the same.
        name: The file's name at that time. Of a note: what it is about.
        target: The new name, of a rename.
        offset: Where a write begins; of a truncation the new size; of a note about a batch its number. Bytes.
        content: What is written.
    """

    kind: Kind
    file: int = 0
    name: str = ""
    target: str = ""
    offset: int = 0
    content: bytes = b""

    def __str__(self) -> str:
        parts = [self.kind.value, self.name]
        if self.kind is Kind.RENAME:
            parts.append(f"to {self.target}")
        if self.kind is Kind.WRITE:
            parts.append(f"{len(self.content)} bytes at {self.offset}")
        if self.kind in (Kind.TRUNCATE, Kind.BEGUN, Kind.TOLD):
            parts.append(str(self.offset))
        return " ".join(part for part in parts if part)


NOTES = frozenset({Kind.BEGUN, Kind.TOLD, Kind.COPIED, Kind.NEEDED})
"""What changes nothing on the disk."""
