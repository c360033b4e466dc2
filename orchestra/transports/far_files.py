"""Files to and from far ends over plain HTTP: an archive that is fetched and unpacked, a folder that is sent as one. Standard library."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from orchestra.dialects.far_calls import FarCall, FarReply
from orchestra.errors import Unavailable
from orchestra.transports.far_calls import call_all, connection_for

ARCHIVE_BYTES_MAX = 1 << 32
"""The archives of 2015 know no larger one."""

UNPACKED_BYTES_MAX = 1 << 36
"""What a job brings along, unpacked: textures of a whole set, and no disk full of nothing."""

ENTRIES_MAX = 100_000
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Of compression: the archives of 2015 know no other, and those that came later unfold a small piece to gigabytes at once."""

PICTURE_BYTES_MAX = 16 * 1024 * 1024
PIECE_BYTES = 256 * 1024
SYMLINK = 0o120000
FILE_KIND = 0o170000
PICTURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}

_BROKEN = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError)


Connect = Callable[[FarCall], http.client.HTTPConnection]


class FolderParcels:
    """
    `flamenco_worker_reports.Parcels` on this machine. All of it waits: call it in a thread.

    Args:
        connect: A connection for a call that fetches or sends files.
    """

    def __init__(self, connect: Connect = connection_for) -> None:
        self._connect = connect

    def call(self, call: FarCall) -> FarReply | None:
        """Make a call; None when it was not answered."""
        return call_all((call,))[0]

    def fetch(self, call: FarCall, folder: str) -> int | None:
        """Unpack the archive that a call is answered with: the status; None without an answer or an archive."""
        try:
            with (
                tempfile.TemporaryFile() as kept,
                contextlib.closing(self._connect(call)) as connection,
            ):
                connection.request(call.method, call.path, headers=dict(call.headers))
                reply = connection.getresponse()
                if reply.status != http.HTTPStatus.OK:
                    return reply.status
                if not _copied(reply, kept, ARCHIVE_BYTES_MAX):
                    return None
                kept.seek(0)
                unpack(kept, Path(folder))
                return reply.status
        except (OSError, http.client.HTTPException, *_BROKEN):
            return None

    def send(self, call: FarCall, field: str, path: str) -> FarReply | None:
        """Make a call with a form of parts: the call's own fields, and a folder as an archive, or a picture."""
        source = Path(path)
        try:
            with (
                tempfile.TemporaryFile() as body,
                contextlib.closing(self._connect(call)) as connection,
            ):
                mark = secrets.token_hex(16)
                if not _write_parts(body, mark, call.form, field, source):
                    return None
                size = body.tell()
                body.seek(0)
                headers = {
                    **dict(call.headers),
                    "Content-Type": f"multipart/form-data; boundary={mark}",
                    "Content-Length": str(size),
                }
                connection.request(call.method, call.path, body=body, headers=headers)
                reply = connection.getresponse()
                return FarReply(reply.status, reply.read(call.reply_bytes_max))
        except (OSError, http.client.HTTPException):
            return None

    def clear(self, folder: str) -> None:
        """Take a folder away, as far as it is there."""
        shutil.rmtree(folder, ignore_errors=True)

    def prepare(self, folder: str) -> None:
        """Make a folder. Raises `Unavailable`."""
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"{folder} can not be made: {error.strerror}") from None


def _copied(source: http.client.HTTPResponse | IO[bytes], target: IO[bytes], most: int) -> bool:
    """Copy, in pieces; whether that was all of it."""
    left = most
    while left > 0:
        piece = source.read(min(PIECE_BYTES, left))
        if not piece:
            return True
        target.write(piece)
        left -= len(piece)
    return False


def unpack(archive: IO[bytes], folder: Path) -> None:
    """
    Unpack an archive into a folder, which is made.

    Raises:
        zipfile.BadZipFile: It is none, is too large, is compressed in another way, or has a name that leads elsewhere.
        OSError: The disk does not take it.
    """
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        size = sum(entry.file_size for entry in entries)
        if len(entries) > ENTRIES_MAX or size > UNPACKED_BYTES_MAX:
            raise zipfile.BadZipFile("the archive is too large")
        for entry in entries:
            parts = entry.filename.replace("\\", "/").split("/")
            kind = (entry.external_attr >> 16) & FILE_KIND
            if parts[0] == "" or ".." in parts or ":" in parts[0] or kind == SYMLINK:
                raise zipfile.BadZipFile(f"{entry.filename!r} leads out of the archive")
            if entry.compress_type not in METHODS:
                raise zipfile.BadZipFile(f"{entry.filename!r} is compressed in an unknown way")
        folder.mkdir(parents=True, exist_ok=True)
        for entry in entries:
            target = folder / entry.filename
            if entry.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(entry) as content, target.open("wb") as file:
                if not _copied(content, file, entry.file_size + 1):
                    raise zipfile.BadZipFile(f"{entry.filename!r} is longer than it says")


def _write_parts(
    body: IO[bytes], mark: str, form: tuple[tuple[str, str], ...], field: str, source: Path
) -> bool:
    between = f"--{mark}\r\nContent-Disposition: form-data; name="
    for name, text in form:
        body.write(f'{between}"{name}"\r\n\r\n{text}\r\n'.encode())
    if source.is_dir() or not source.exists():
        head = f'{between}"{field}"; filename="{field}.zip"\r\nContent-Type: application/zip'
        body.write(f"{head}\r\n\r\n".encode())
        pack(source, body)
    else:
        picture, kind = _picture(source)
        if not picture:
            return False
        head = f'{between}"{field}"; filename="{_plain(source.name)}"\r\nContent-Type: {kind}'
        body.write(f"{head}\r\n\r\n".encode() + picture)
    body.write(f"\r\n--{mark}--\r\n".encode())
    return True


def pack(folder: Path, body: IO[bytes]) -> None:
    """Write the files of a folder as an archive, by their paths in it. Links are left out: they lead elsewhere."""
    with tempfile.TemporaryFile() as kept:
        with zipfile.ZipFile(kept, "w", strict_timestamps=False) as archive:
            for top, folders, names in os.walk(folder):
                folders[:] = [each for each in folders if not Path(top, each).is_symlink()]
                for name in sorted(names):
                    path = Path(top, name)
                    if path.is_file() and not path.is_symlink():
                        archive.write(path, str(path.relative_to(folder)))
        kept.seek(0)
        shutil.copyfileobj(kept, body, PIECE_BYTES)


def _picture(path: Path) -> tuple[bytes, str]:
    """A picture and its kind; nothing for what is none, or is reached by a link."""
    if path.is_symlink() or path.resolve() != path.absolute() or not path.is_file():
        return b"", ""
    with path.open("rb") as file:
        found = file.read(PICTURE_BYTES_MAX + 1)
    for start, kind in PICTURES.items():
        if found.startswith(start) and len(found) <= PICTURE_BYTES_MAX:
            return found, kind
    return b"", ""


def _plain(name: str) -> str:
    return "".join(c if (c.isascii() and c.isalnum()) or c in "._-" else "_" for c in name)
