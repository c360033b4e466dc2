"""A folder of files by name: what jobs of other systems bring along, and what their workers send back."""

from __future__ import annotations

import contextlib
import io
import re
import secrets
import time
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from orchestra.errors import Malformed, Unavailable
from orchestra.statemachine.values import value
from orchestra.storage.disk import THE_DISK, Disk

_BROKEN = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError)

JOINED_BYTES_MAX = 512 * 1024 * 1024
"""What tasks have sent back is joined in memory: some hundred tiles of a large picture."""

DRAFT = ".new-"
"""What a file is called until it has its name; nobody can ask for it."""

DRAFT_S_MAX = 3_600.0
"""No file is written for so long: an older draft was left by a cut of the power, or a kill."""

PICTURE_BYTES_MAX = 16 * 1024 * 1024
"""A larger picture is none to look at."""

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg")
PICTURE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""What browsers show; an archive says by names alone what it holds."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@value
class FolderShelf:
    """
    Files in one folder, which is made when it is missing. Calls wait for the disk: make them in a thread.

    A file is there as a whole or not at all: it is written beside its place, flushed, and moved there; then its name is flushed.

    Args:
        folder: Where.
        disk: What it lies on; for tests of what a disk can do.
    """

    folder: Path
    disk: Disk = THE_DISK

    def save(self, name: str, content: bytes) -> None:
        """
        Keep a file, in place of the one with this name. Durable on return.

        Raises:
            Malformed: It is no plain name.
            Unavailable: The disk does not take it.
        """
        path = self._path(name)
        try:
            self.disk.make_directory(str(self.folder))
            draft = str(self.folder / f"{DRAFT}{secrets.token_hex(8)}")
            try:
                self.disk.write_new(draft, content)
                self.disk.sync_file(draft)
                self.disk.replace(draft, str(path))
            except OSError:
                with contextlib.suppress(OSError):  # the disk failed; what failed first is told
                    self.disk.remove(draft)
                raise
            self.disk.sync_directory(str(path))
        except OSError as error:
            raise Unavailable(f"{name} can not be kept: {error.strerror}") from None

    def clear(self) -> None:
        """Take away drafts that nobody writes any more. What the disk does not let go stays."""
        with contextlib.suppress(OSError):  # it costs room, and is tried again at the next start
            for path in self.folder.glob(f"{DRAFT}*"):
                if time.time() - path.stat().st_mtime > DRAFT_S_MAX:
                    self.disk.remove(str(path))

    def read(self, name: str) -> bytes | None:
        """
        A file; None when there is none.

        Raises:
            Malformed: It is no plain name.
            Unavailable: The disk does not give it.
        """
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{name} can not be read: {error.strerror}") from None

    def joined(self, names: Sequence[str]) -> bytes:
        """
        Archives as one, each file under the name that it has in its own. Archives that are not there, or are none, are passed over.

        Raises:
            Unavailable: They are longer than `JOINED_BYTES_MAX`, or the disk does not give them.
        """
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as whole:
            for name in names:
                content = self.read(name)
                if content is None:
                    continue
                with contextlib.suppress(*_BROKEN):
                    _join(content, whole)
                if target.tell() > JOINED_BYTES_MAX:
                    raise Unavailable("what was sent back is too much to be joined")
        return target.getvalue()

    def save_picture(self, name: str, zipped: bytes) -> None:
        """
        Keep the last picture by name in an archive, in place of the file with this name. An archive that can not be read has none.

        Raises:
            Unavailable: The disk does not take it.
        """
        picture = _last_picture(zipped)
        if picture:
            self.save(name, picture)

    def _path(self, name: str) -> Path:
        # One segment that does not begin with a dot: it can not lead out of the folder.
        if _NAME.fullmatch(name) is None:
            raise Malformed("it is no plain name", where="name")
        return self.folder / name


def _last_picture(zipped: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
            entries = [
                entry
                for entry in archive.infolist()
                if entry.filename.lower().endswith(PICTURE_ENDINGS)
                and entry.file_size <= PICTURE_BYTES_MAX
            ]
            if not entries:
                return b""
            last = max(entries, key=lambda entry: entry.filename)
            with archive.open(last) as file:
                found = file.read(PICTURE_BYTES_MAX + 1)
    except (*_BROKEN, OSError):
        return b""
    return found if found.startswith(PICTURE_STARTS) and len(found) <= PICTURE_BYTES_MAX else b""


def _join(zipped: bytes, whole: zipfile.ZipFile) -> None:
    """Copy what is in an archive and not in the whole yet."""
    there = set(whole.namelist())
    with zipfile.ZipFile(io.BytesIO(zipped)) as part:
        for entry in part.infolist():
            if entry.filename in there or entry.is_dir():
                continue
            if entry.file_size > JOINED_BYTES_MAX:
                raise Unavailable("what was sent back is too much to be joined")
            # Read before it is written: a broken entry is left out whole.
            whole.writestr(entry.filename, part.read(entry))
