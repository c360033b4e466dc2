"""The file of the SQLite store: opening, locking, migrating, copying and checking it. All calls here block."""

from __future__ import annotations

import contextlib
import errno
import stat
from collections.abc import Generator, Iterator
from pathlib import Path

import apsw

from orchestra.errors import Conflict, Malformed, StoreFailed, StoreTaken
from orchestra.statemachine.lifecycles import JOB_FINAL
from orchestra.statemachine.records import Job
from orchestra.storage.codec import KIND_NAMES, RowCodec, Unreadable, decode_story
from orchestra.storage.disk import THE_DISK, Disk
from orchestra.storage.migrations import APPLICATION_ID, LATEST, migrate, version_of
from orchestra.storage.sql import Connection, connect, first

SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL"}
"""``full``: what is acknowledged survives a power cut. ``normal``: a power cut may take the last commits, a crash none."""

BUSY_MS = 5_000
"""How long a commit waits for a foreign program that writes, such as a person with the SQLite shell."""

CHECKPOINT_PAGES = 4_000
"""Pages in the write-ahead log (16 MiB) before they are moved into the file; fewer would write hot pages more often."""

WAL_BYTES_MAX = 64 * 1024 * 1024
"""The write-ahead log is cut to this length after a long reader made it grow."""

CACHE_KIB = 16 * 1024
"""Page cache of the writer: the edges of the trees that batches append to."""

BACKUP_PAGES = 2_048
"""Pages copied (8 MiB) before looking whether the backup is still wanted."""

_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MEDIUM_ERRNOS = _FULL_ERRNOS | {errno.EIO}
_FULL_IOERRORS = frozenset(
    {apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_TRUNCATE}
)


def is_full(connection: Connection | None, error: apsw.Error) -> bool:
    """
    Whether the medium is full and for that reason nothing of the transaction was stored.

    A failed flush is never taken for a full medium, whatever its reason: what it left behind is unknown.
    """
    if isinstance(error, apsw.FullError):
        return True
    if connection is None:
        return False
    extended = getattr(error, "extendedresult", 0)
    return extended in _FULL_IOERRORS and connection.system_errno in _FULL_ERRNOS


def is_full_error(error: OSError) -> bool:
    """Whether the operating system says that the medium is full."""
    return error.errno in _FULL_ERRNOS


def take_lock(path: str, disk: Disk = THE_DISK) -> Connection:
    """
    Hold the store at ``path`` for this process until the result is closed or the process ends, however it ends.

    The lock is SQLite's own exclusive lock on the empty file ``PATH.lock``: it works between processes and between two openers in
    one process alike, a forked child does not inherit it, and a dead holder never leaves it behind.

    Raises:
        StoreTaken: Somebody holds it.
        StoreFailed: The place can not be written to.
    """
    try:
        lock = connect(path + ".lock", vfs=disk.vfs)
    except apsw.Error as error:
        raise StoreFailed(f"{path}.lock can not be made: {error}") from error
    try:
        lock.execute(
            "PRAGMA journal_mode = OFF"
        )  # nothing is ever written, so a full disk is no matter
        lock.execute("BEGIN EXCLUSIVE")
    except apsw.Error as error:
        full = is_full(lock, error)
        lock.close()
        if isinstance(error, apsw.BusyError):
            raise StoreTaken(f"{path} is in use by another orchestrator") from error
        raise StoreFailed(f"{path}.lock can not be locked: {error}", full=full) from error
    return lock


def open_writer(path: str, durability: str, disk: Disk = THE_DISK) -> Connection:
    """
    A connection that commits, in WAL mode. Makes an empty file when there is none, which only its owner may read.

    Raises:
        Malformed: It is a database of something else that is not in WAL mode: it stays as it is.
        Conflict: The same of a newer orchestra's.
    """
    with contextlib.suppress(OSError):  # it is there; or SQLite says what is wrong with its place
        disk.reserve(path)
    connection = connect(path, vfs=disk.vfs)
    try:
        _set_up(connection, path, SYNCHRONOUS[durability])
    except BaseException:
        close_as_it_is(connection)
        raise
    return connection


def _set_up(connection: Connection, path: str, synchronous: str) -> None:
    connection.set_busy_timeout(BUSY_MS)
    if connection.pragma("journal_mode") != "wal":
        check_identity(
            connection, path
        )  # the mode is kept in the file, which may be another program's
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA fullfsync = ON")  # macOS: a plain fsync leaves the drive's cache
    connection.execute("PRAGMA checkpoint_fullfsync = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    mode = connection.pragma("journal_mode", "wal")
    if mode != "wal":
        raise apsw.CantOpenError(f"no write-ahead log is possible (journal mode {mode})")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")


def open_reader(path: str, disk: Disk = THE_DISK) -> Connection:
    """A connection that only reads, and never holds up a commit."""
    connection = connect(path, readonly=True, vfs=disk.vfs)
    connection.set_busy_timeout(BUSY_MS)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def check_identity(connection: Connection, path: str) -> int:
    """
    The schema version of a file that is ours; 0 when it is empty.

    Raises:
        Malformed: It is a database of something else, or no database.
        Conflict: A newer orchestra wrote it.
    """
    try:
        application = connection.pragma("application_id")
        version = version_of(connection)
        tables = first(connection, "SELECT count(*) FROM sqlite_schema")
    except apsw.NotADBError as error:
        raise Malformed("is no database", where=path, remedy="name another file") from error
    if application != APPLICATION_ID and (application or version or tables != (0,)):
        raise Malformed("is a database of another program", where=path, remedy="name another file")
    if version > LATEST:
        raise Conflict(
            f"was written by a newer orchestra (schema {version}, this one knows {LATEST})",
            where=path,
            remedy=f"install that version or a later one, or let it bring the file down: orchestra migrate {path} --to {LATEST}",
        )
    return version


def close_as_it_is(connection: Connection) -> None:
    """
    Close a connection whose medium has failed, and leave the log where it is.

    SQLite would move it into the file and remove it, and keep to itself that a flush failed on the way: what is read afterwards would be
    on no disk, and nothing would be left to flush again. Where the log that is read is not the one on the disk, a power cut on that way
    would leave a file that is partly moved, and no log to mend it.
    """
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.close()


def keep_log(connection: Connection, path: str, disk: Disk = THE_DISK) -> None:
    """
    Make durable what is in the write-ahead log, whoever left it there.

    A flush of it may have failed before this process began. SQLite would append to what it reads, and a power cut would then take what
    was never on the disk, with all that follows it.

    Raises:
        StoreFailed: The medium failed.
    """
    log = Path(path + "-wal")
    try:
        if not log.exists() or not log.stat().st_size:
            return
        connection.execute("BEGIN IMMEDIATE")  # a foreign program must not begin the log anew
        try:
            disk.write_again(str(log))
        finally:
            connection.execute("ROLLBACK")
    except OSError as error:
        raise StoreFailed(f"{log}: {error}", full=is_full_error(error)) from error


def prepare(connection: Connection, path: str, disk: Disk = THE_DISK) -> str:
    """
    Bring the file to the present schema; a file with older rows is copied before.

    Returns:
        The path of that copy, empty when there was no need for one.
    """
    version = check_identity(connection, path)
    keep_log(connection, path, disk)
    copy = ""
    if 0 < version < LATEST:
        copy = backup_before(path, LATEST, disk)
    if version < LATEST:
        migrate(connection)
    disk.sync_directory(path)
    return copy


def backup_before(path: str, version: int, disk: Disk = THE_DISK) -> str:
    """Copy the file before it is migrated to ``version``, beside it. Returns the copy's path."""
    name = f"{path}.before-v{version}"
    for number in range(2, 1_000):
        try:
            backup(path, name, disk)
        except Conflict:  # the copy of an earlier try, which is never overwritten
            name = f"{path}.before-v{version}-{number}"
        else:
            return name
    raise Conflict("there are a thousand copies already", where=path, remedy="remove some")


def backup(path: str, target: str, disk: Disk = THE_DISK) -> None:
    """
    Copy everything committed into the new file ``target``. The file appears whole or not at all, and is durable on return.

    Raises:
        Conflict: ``target`` exists.
        Malformed: ``target`` can not be made there.
        StoreFailed: Reading or writing failed; ``target`` is not there.
    """
    for _ in backup_steps(path, target, disk):
        pass


def backup_steps(path: str, target: str, disk: Disk = THE_DISK) -> Generator[int]:
    """As `backup`, in steps: yields the pages that remain; closing it midway leaves nothing behind."""
    part = f"{target}.part"
    _reserve(target, disk)
    try:
        disk.remove(part)
        try:
            yield from _copy(path, part, disk)
        except apsw.Error as error:
            raise StoreFailed(f"the backup failed: {error}", full=is_full(None, error)) from error
        Path(part).chmod(stat.S_IMODE(Path(path).stat().st_mode))
        disk.sync_file(part)
        disk.replace(part, target)
        disk.sync_directory(target)
    except BaseException as error:
        for leftover in (part, f"{part}-journal", target):
            with contextlib.suppress(OSError):  # the medium failed; what failed first is told
                disk.remove(leftover)
        if isinstance(error, OSError):
            full = is_full_error(error)
            raise StoreFailed(f"the backup failed: {error}", full=full) from error
        raise


def _reserve(target: str, disk: Disk) -> None:
    """Claim the name, so that no file that exists, or comes to exist meanwhile, is ever overwritten."""
    try:
        disk.reserve(target)
    except FileExistsError as error:
        raise Conflict("exists already", where=target, remedy="name a new file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _MEDIUM_ERRNOS:
            full = is_full_error(error)
            raise StoreFailed(f"{target} can not be made: {error}", full=full) from error
        raise Malformed(f"can not be made: {error}", where=target) from error


def _copy(path: str, part: str, disk: Disk) -> Iterator[int]:
    with contextlib.closing(open_reader(path, disk)) as source:
        # A read transaction pins one snapshot: without it each commit would send the copy back to its first page.
        source.execute("BEGIN")
        first(source, "SELECT count(*) FROM sqlite_schema")
        with contextlib.closing(connect(part, vfs=disk.vfs)) as copy:
            copy.execute("PRAGMA synchronous = OFF")  # flushed once, at the end
            with copy.backup("main", source, "main") as steps:
                while not steps.done:
                    steps.step(BACKUP_PAGES)
                    yield steps.remaining
        source.execute("ROLLBACK")


def check_file(path: str, codec: RowCodec | None = None) -> list[str]:
    """
    Read a whole store, in use or not, and say what is wrong with it: damaged pages, unreadable rows, gaps in the story.

    Changes nothing. Takes time in proportion to the file.

    Returns:
        One sentence for each problem; empty when all is well.
    """
    if not Path(path).exists():
        return [f"{path} does not exist"]
    try:
        with contextlib.closing(open_reader(path)) as connection:
            version = check_identity(connection, path)
            if version < LATEST:
                return [f"{path} has schema {version}; the next start brings it to {LATEST}"]
            connection.execute("BEGIN")
            return list(_problems(connection, codec or RowCodec()))
    except (apsw.Error, Malformed, Conflict) as error:
        return [f"{path} can not be read: {error}"]


def _problems(connection: Connection, codec: RowCodec) -> Iterator[str]:
    for (finding,) in connection.execute("PRAGMA integrity_check"):
        if finding != "ok":
            yield f"page check: {finding}"
    yield from _row_problems(connection, codec)
    for kind, id, problem in connection.execute("SELECT kind, id, problem FROM quarantine"):
        yield f"set aside: {KIND_NAMES.get(kind, kind)} {id}: {problem}"
    yield from _story_problems(connection)


def _row_problems(connection: Connection, codec: RowCodec) -> Iterator[str]:
    live: set[str] = set()
    for kind, key, body in connection.execute("SELECT kind, CAST(id AS BLOB), body FROM rows"):
        id = key.decode(errors="backslashreplace")
        name = KIND_NAMES.get(kind)
        if name is None:
            yield f"row {id}: kind {kind} is not known here"
            continue
        try:
            record = codec.decode(name, id, body)
        except Unreadable as error:
            yield f"row {error}"
            continue
        if isinstance(record, Job) and record.status not in JOB_FINAL:
            live.add(id)
    listed = {id for (id,) in connection.execute("SELECT id FROM live_jobs")}
    for id in sorted(live - listed):
        yield f"job {id} is not final and is not listed as live"
    for id in sorted(listed - live):
        yield f"job {id} is listed as live and is not there, or final"


def _story_problems(connection: Connection) -> Iterator[str]:
    expected = 1
    for number, body in connection.execute("SELECT first, body FROM story ORDER BY first"):
        if number != expected:
            yield f"story entries {expected} to {number - 1} are missing"
        try:
            expected = number + len(decode_story(number, body))
        except Unreadable as error:
            yield f"segment of {error}"
            expected = number
    last = first(connection, "SELECT story_number FROM meta")
    if last is None:
        yield "the row of numbers is missing"
    elif last != (expected - 1,):
        yield f"the story ends at {expected - 1}, not at {last[0]}"
