"""`migrate`: a data file goes down and up again, with a copy of it each time, and never under a server."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from orchestra.cli.entry import carry_out
from orchestra.storage.migrations import LATEST, version_of
from orchestra.storage.sql import connect
from orchestra.storage.sqlite import SqliteStore

Capture = pytest.CaptureFixture[str]


async def _opened(path: str) -> str:
    store = await SqliteStore.open(path)
    await store.aclose()
    return store.migrated_from


def schema_of(path: str) -> int:
    connection = connect(path, readonly=True)
    try:
        return version_of(connection)
    finally:
        connection.close()


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = str(tmp_path / "farm.db")
    anyio.run(_opened, path)
    return path


def test_down_and_up_again(data: str, capsys: Capture) -> None:
    copy = f"{data}.before-v{LATEST - 1}"
    assert carry_out(["migrate", data, "--to", str(LATEST - 1)]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        f"{data} has schema {LATEST - 1}, and had {LATEST}",
        f"as it was it is in {copy}",
    ]
    assert told.err == f"the next start of this orchestra brings it to {LATEST} again\n"
    assert (schema_of(data), schema_of(copy)) == (LATEST - 1, LATEST)
    assert carry_out(["migrate", data, "--to", str(LATEST), "--json"]) == 0
    told = capsys.readouterr()
    up = f"{data}.before-v{LATEST}"
    assert json.loads(told.out) == {
        "file": data,
        "was": LATEST - 1,
        "schema": LATEST,
        "copy": up,
    }
    assert told.err == ""
    assert schema_of(data) == LATEST
    assert anyio.run(_opened, data) == "", "nothing is left for the start to do"


def test_what_is_there_already_is_left_alone(data: str, capsys: Capture) -> None:
    assert carry_out(["migrate", data, "--to", str(LATEST)]) == 0
    assert capsys.readouterr().out == f"{data} has schema {LATEST} already\n"
    assert not list(Path(data).parent.glob("*.before-*"))


def test_a_file_that_is_open_is_left_alone(data: str, capsys: Capture) -> None:
    async def go() -> int:
        store = await SqliteStore.open(data)
        try:
            return carry_out(["migrate", data, "--to", "1"])
        finally:
            await store.aclose()

    assert anyio.run(go) == 4
    assert "is in use by another orchestrator" in capsys.readouterr().err
    assert schema_of(data) == LATEST
    assert carry_out(["migrate", data, "--to", "1", "-q"]) == 0, "the server is gone"
    assert capsys.readouterr() == ("", "")
    assert schema_of(data) == 1


@pytest.mark.parametrize("words", [["--to", "99"], ["--to", "0"], ["--to", "two"], []])
def test_a_number_that_is_none(words: list[str], data: str, capsys: Capture) -> None:
    before = Path(data).read_bytes()
    assert carry_out(["migrate", data, *words]) == 2
    assert "--to" in capsys.readouterr().err
    assert Path(data).read_bytes() == before


def test_a_file_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    assert carry_out(["migrate", str(tmp_path / "none.db"), "--to", "1"]) == 2
    assert "there is no such file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
