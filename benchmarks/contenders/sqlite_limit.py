"""
What SQLite itself gives on this machine: WAL, ``synchronous=FULL``, a task is one INSERT and two UPDATEs, 100 tasks a commit.

Also the latency of one commit of six small rows on an idle file: the floor under any durable step.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence

import apsw
from figures import percentile, tell

SCHEMA = (
    "pragma journal_mode=wal",
    "pragma synchronous=full",
    "create table task(id integer primary key, state integer not null, priority integer not null, body blob)",
    "create index task_ready on task(priority, id) where state = 0",
)
GROUP = 100
Execute = Callable[[str], object]
Many = Callable[[str, Sequence[tuple[object, ...]]], object]


def throughput(execute: Execute, many: Many, tasks: int) -> float:
    """Tasks per second, all three row writes of a group in one commit."""
    for statement in SCHEMA:
        execute(statement)
    body = os.urandom(76)
    began = time.perf_counter()
    for first in range(0, tasks, GROUP):
        group = range(first, min(first + GROUP, tasks))
        execute("begin immediate")
        many("insert into task values(?, 0, 50, ?)", [(i, body) for i in group])
        many("update task set state = 1 where id = ?", [(i,) for i in group])
        many("update task set state = 2 where id = ?", [(i,) for i in group])
        execute("commit")
    return tasks / (time.perf_counter() - began)


def commit_us(execute: Execute, many: Many, commits: int) -> float:
    """The median time of a commit of six rows, in µs."""
    execute("create table row(id text primary key, body blob) without rowid")
    body = os.urandom(90)
    taken: list[float] = []
    for number in range(commits):
        began = time.perf_counter()
        execute("begin immediate")
        many("insert into row values(?, ?)", [(f"{number}-{part}", body) for part in range(6)])
        execute("commit")
        taken.append((time.perf_counter() - began) * 1e6)
    return percentile(taken, 50)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--commits", type=int, default=500)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-limit-") as folder:
        standard = sqlite3.connect(f"{folder}/standard.db", isolation_level=None)
        standard_rate = throughput(standard.execute, standard.executemany, chosen.tasks)
        standard.close()
        other = apsw.Connection(f"{folder}/apsw.db")
        cursor = other.cursor()
        apsw_rate = throughput(cursor.execute, cursor.executemany, chosen.tasks)
        floor_us = commit_us(cursor.execute, cursor.executemany, chosen.commits)
        other.close()
    tell(
        {
            "tasks_per_s": standard_rate,
            "apsw_tasks_per_s": apsw_rate,
            "p50_us": floor_us,
            "version": f"sqlite3 {sqlite3.sqlite_version}, apsw {apsw.sqlite_lib_version()}",
        }
    )


if __name__ == "__main__":
    main()
