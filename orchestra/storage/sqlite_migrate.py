"""A file of the SQLite store brought to another version of its schema, by a person. Blocks."""

from __future__ import annotations

from pathlib import Path

import apsw

from orchestra.errors import Malformed, NotFound, StoreFailed
from orchestra.statemachine.values import value
from orchestra.storage import sqlite_files as files
from orchestra.storage.disk import THE_DISK, Disk
from orchestra.storage.migrations import LATEST, migrate


@value
class Migrated:
    """Which schema the file had, and the copy of it as it was; no copy when there was nothing to do."""

    was: int
    copy: str


def migrate_file(path: str, version: int, disk: Disk = THE_DISK) -> Migrated:
    """
    Bring a file that nobody uses to schema ``version``, up or down, after a backup beside it.

    Going down is for a return to an older orchestra. Durable on return.

    Raises:
        NotFound: There is no such file.
        StoreTaken: It is in use.
        Malformed: It is not ours, or there is no such version.
        Conflict: A newer orchestra wrote it.
        StoreFailed: The medium failed, or is full.
    """
    if not Path(path).exists():
        raise NotFound("there is no such file", where=path)
    if not 1 <= version <= LATEST:
        raise Malformed(f"there is no schema version {version}", where="version")
    lock = files.take_lock(path, disk)
    try:
        connection = files.open_writer(path, "full", disk)
        try:
            was = files.check_identity(connection, path)
            files.keep_log(connection, path, disk)
            copy = ""
            if was != version:
                copy = files.backup_before(path, version, disk)
                migrate(connection, version)
        except BaseException:
            files.close_as_it_is(connection)
            raise
        connection.close()
    except apsw.Error as error:
        full = files.is_full(None, error)
        raise StoreFailed(f"{path}: {error}", full=full) from error
    finally:
        lock.close()
    return Migrated(was, copy)
