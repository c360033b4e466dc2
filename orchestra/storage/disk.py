"""What the store does to a disk beside SQLite: names that appear, change and go, and what makes them durable."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

PIECE_BYTES = 1024 * 1024

ROOM_PARTS = 16
"""What is only written to be quicker takes no more than a sixteenth of what is free."""


class Disk:
    """
    The disk of this machine. A test puts another in its place, which records or fails.

    SQLite reaches the same disk through the layer (VFS) named `vfs`. All calls block and raise `OSError`.
    """

    vfs = ""
    """The name of SQLite's layer; empty for its default one."""

    def reserve(self, path: str) -> None:
        """Make an empty file that only its owner may read. Raises `FileExistsError` when the name is taken."""
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def make_directory(self, path: str) -> None:
        """Make a directory with those above it, where they are missing; their names are durable on return."""
        place = Path(path).absolute()
        missing = [each for each in (place, *place.parents) if not each.exists()]
        place.mkdir(parents=True, exist_ok=True)
        for each in reversed(missing):
            self.sync_directory(str(each))

    def write_new(self, path: str, content: bytes) -> None:
        """Make a file with this content, which only its owner may read. Raises `FileExistsError` when the name is taken."""
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)

    def remove(self, path: str) -> None:
        """Take away a name, if it is there."""
        Path(path).unlink(missing_ok=True)

    def replace(self, source: str, target: str) -> None:
        """Give the file ``source`` the name ``target``, in one step."""
        Path(source).replace(target)

    def sync_file(self, path: str) -> None:
        """Make the content of a closed file durable."""
        fd = os.open(path, os.O_RDWR)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def write_again(self, path: str) -> None:
        """
        Write a file's bytes over themselves and make them durable.

        After a failed flush the system may show bytes that are not on the disk and that no later flush would put there (Linux takes
        them for clean). Written again, they are flushed again.
        """
        with Path(path).open("r+b", buffering=0) as file:
            while piece := file.read(PIECE_BYTES):
                file.seek(-len(piece), os.SEEK_CUR)
                file.write(piece)
            os.fsync(file.fileno())

    def lengthen(self, path: str, length: int) -> None:
        """
        Write zeros behind a file's end until it has ``length`` bytes, and make them durable. A longer file stays as it is.

        On a disk on which that would take more than one part in `ROOM_PARTS` of what is free, and on one that fills up, nothing is done.
        """
        with Path(path).open("r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if (length - size) * ROOM_PARTS > shutil.disk_usage(path).free:
                return
            try:
                file.writelines(
                    bytes(min(PIECE_BYTES, length - at)) for at in range(size, length, PIECE_BYTES)
                )
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise

    def sync_directory(self, path: str) -> None:
        """Make the names in the directory of ``path`` durable. Without it a new file may be gone after a power cut."""
        fd = os.open(Path(path).absolute().parent, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


THE_DISK = Disk()
"""The real one."""
