"""Each check finds what it is for, and says what to do about it."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from orchestra.cli.doctor import (
    BROKEN,
    LOOK,
    OK,
    check_clock,
    check_disk,
    check_open_files,
    check_python,
    check_sqlite,
    examine_file,
    judge_overview,
)
from orchestra.statemachine.replies import Overview


def test_python() -> None:
    assert check_python().status == OK
    assert check_python((3, 10, 9)).status == BROKEN


@pytest.mark.parametrize(
    ("version", "status"),
    [("3.6.23", OK), ("3.7.0", BROKEN), ("3.45.1", BROKEN), ("3.51.2", BROKEN), ("3.51.3", OK)],
)
def test_sqlite_that_corrupts(version: str, status: str) -> None:
    assert check_sqlite(version).status == status
    assert check_sqlite().status == OK


def test_disk(tmp_path: Path) -> None:
    assert [finding.status for finding in check_disk(str(tmp_path / "x.db"))][:1] != [BROKEN]
    missing = next(check_disk(str(tmp_path / "gone" / "x.db")))
    assert missing.status == BROKEN
    assert missing.remedy


def test_clock_and_open_files() -> None:
    assert check_clock().status == OK
    assert check_clock(0).status == BROKEN
    assert check_open_files(256).status == LOOK
    assert check_open_files(resource.RLIM_INFINITY).status == OK


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    assert [finding.status for finding in examine_file(str(path))] == [BROKEN]
    path.write_bytes(b"no database at all" * 100)
    findings = examine_file(str(path))
    assert findings[-1].status == BROKEN
    assert findings[-1].remedy
    assert path.read_bytes() == b"no database at all" * 100


def _overview(at_ms: int, online: int, quarantined: tuple[str, ...] = ()) -> Overview:
    return Overview(at_ms, {}, {}, {"online": online}, 4, 1, quarantined)


def test_a_server() -> None:
    assert [f.status for f in judge_overview("url", _overview(1_000, 1), 1_100)] == [OK]
    assert [f.status for f in judge_overview("url", _overview(1_000, 0), 1_100)] == [LOOK]
    late = judge_overview("url", _overview(1_000, 1), 60_000)
    assert [f.check for f in late] == ["server", "clocks"]
    poisoned = judge_overview("url", _overview(1_000, 1, ("job x: bad",)), 1_000)
    assert poisoned[-1].status == BROKEN
    assert "job x" in poisoned[-1].told
    assert (poisoned[0].told, poisoned[-1].told[:15]) == (
        "url: 1 worker, 1 of 4 slots taken",
        "1 row set aside",
    )
