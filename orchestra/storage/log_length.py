"""
The full length of the write-ahead log, given to it at once.

A commit that makes the log longer has the file system write down the new length too, and its flush waits for that: 1.7 to 2.2 ms where
a flush of the same pages within the file's length took 0.6 to 0.8 (ext4, 45 KB). SQLite begins the log anew at its start after it was
moved into the store, so that all but the first round are within its length anyhow.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import apsw

from orchestra.storage import sqlite_files
from orchestra.storage.disk import Disk
from orchestra.storage.sql import Connection

ENTRIES_BEFORE = 1_000
"""Rows and entries of the story that a store takes before its log gets its length: a small program never waits for that."""

_HEADER_BYTES = 32
_PAGE_BYTES = 24 + 4_096
"""Of the log's file format: its header, and a page of the store with a header of its own."""


def lay_out_log(connection: Connection, path: str, disk: Disk) -> None:
    """
    Write zeros behind the log's end, up to the length at which it is moved into the store. SQLite takes them for no pages.

    A disk without much room, one that fails or a foreign program in the middle of a write leave the log as it is: it is made longer by
    each commit then.
    """
    log = path + "-wal"
    length = _HEADER_BYTES + sqlite_files.CHECKPOINT_PAGES * _PAGE_BYTES
    with contextlib.suppress(OSError, apsw.Error):
        connection.execute("BEGIN IMMEDIATE")  # nobody appends meanwhile
        try:
            if Path(log).exists():
                disk.lengthen(log, length)
        finally:
            connection.execute("ROLLBACK")
