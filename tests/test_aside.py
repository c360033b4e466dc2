"""Tests that run beside the others: each once, told with all that came of it, and who plays them may not die unnoticed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.aside import MANY, UNMARKED
from tests.tidy import ROOT

INI = """
[pytest]
markers =
    aside
    prompt
filterwarnings = error
"""

SUITE = """
import os
import warnings

import pytest


def note(name):
    with open("{folder}/played", "a") as played:
        played.write(f"{{name}} {{os.getppid()}}\\n")


@pytest.mark.aside
@pytest.mark.parametrize("number", range(4))
def test_beside(number, tmp_path, capsys):
    note(f"beside {{number}}")
    print("said")
    assert capsys.readouterr().out == "said\\n"
    assert number != 2, "two is wrong"


@pytest.mark.aside
def test_missing():
    pytest.skip("nothing is here")


@pytest.mark.aside
def test_warned():
    warnings.warn("mind")


def test_here():
    note("here")
"""

ROWS = """
import os

import pytest


def note(name):
    with open("{folder}/played", "a") as played:
        played.write(f"{{name}} {{os.getppid()}} {{os.nice(0)}}\\n")


@pytest.fixture(scope="module")
def shared():
    note("made")


@pytest.mark.parametrize("number", range({many}))
def test_many(number, shared):
    note("many")
    assert number != 1, "one is wrong"


@pytest.mark.prompt
def test_prompt():
    note("prompt")
"""

WAITS = """
import pathlib
import time

import pytest

PLAYED = pathlib.Path("{folder}/played")


@pytest.mark.parametrize("number", range({many}))
def test_many(number):
    print("x" * 10_000)
    with PLAYED.open("a") as played:
        played.write("x")


@pytest.mark.prompt
def test_prompt():
    until_s = time.monotonic() + 40
    while not PLAYED.exists() or PLAYED.stat().st_size < {many}:
        assert time.monotonic() < until_s, "the others stand still"
        time.sleep(0.01)
"""

DIES = """
import os

import pytest


@pytest.mark.aside
@pytest.mark.parametrize("number", range(3))
def test_beside(number):
    os.kill(os.getpid(), 9)
"""

LASTS = """
import os
import pathlib
import subprocess
import time

import pytest

PIDS = pathlib.Path("{folder}/pids")


@pytest.mark.aside
def test_fails():
    while not PIDS.exists():
        time.sleep(0.01)
    raise AssertionError


@pytest.mark.aside
def test_lasts():
    child = subprocess.Popen(["sleep", "600"])
    draft = PIDS.with_name("draft")
    draft.write_text(f"{{os.getpid()}} {{child.pid}}")
    draft.rename(PIDS)
    child.wait()
"""


def run(folder: Path, suite: str, *words: str) -> tuple[int, str]:
    """The code and the words of a run of pytest."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "conftest.py")
    (folder / "test_it.py").write_text(suite, encoding="utf-8")
    (folder / "pytest.ini").write_text(INI)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words, str(folder)]
    env = {
        **os.environ,
        "ORCHESTRA_REQUIRE": "all",
        "ORCHESTRA_BESIDE": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        argv, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_each_is_played_once_and_told_as_if_it_had_run_here(tmp_path: Path) -> None:
    code, said = run(tmp_path, SUITE.format(folder=tmp_path))
    assert code == 1
    assert "3 failed, 4 passed" in said
    for why in ("two is wrong", "number != 2", "skipped under ORCHESTRA_REQUIRE", "mind"):
        assert why in said
    played = [line.rpartition(" ") for line in (tmp_path / "played").read_text().splitlines()]
    assert sorted(name for name, _, _ in played) == [*(f"beside {n}" for n in range(4)), "here"]
    parents = {name: parent for name, _, parent in played}
    beside = {parent for name, parent in parents.items() if name != "here"}
    assert parents["here"] not in beside
    assert len(beside) == 1


def rows(folder: Path, many: int, *words: str) -> dict[str, list[str]]:
    """Who played what: for each name its parent and priority, each time."""
    code, said = run(folder, ROWS.format(folder=folder, many=many), *words)
    assert code == 1
    assert f"1 failed, {many} passed" in said
    assert "one is wrong" in said
    played: dict[str, list[str]] = {}
    for line in (folder / "played").read_text().splitlines():
        name, _, who = line.partition(" ")
        played.setdefault(name, []).append(who)
    return played


def test_many_without_a_mark_are_played_in_a_row_of_their_own(tmp_path: Path) -> None:
    played = rows(tmp_path, MANY)
    assert len(played["many"]) == MANY
    assert played["made"] == played["many"][:1], "what they share is made once"
    assert len({who.split()[0] for who in played["many"]}) == 1, "one process takes all of a file"
    (here, nice), (there, other) = played["prompt"][0].split(), played["many"][0].split()
    assert here != there
    assert int(other) == min(19, int(nice) + UNMARKED.nice)


@pytest.mark.parametrize(("many", "words"), [(MANY - 1, ()), (MANY, ("-s",))])
def test_few_or_looked_at_are_played_here(
    tmp_path: Path, many: int, words: tuple[str, ...]
) -> None:
    played = rows(tmp_path, many, *words)
    assert set(played["many"]) == set(played["prompt"])


def test_others_go_on_while_the_run_itself_plays_a_long_one(tmp_path: Path) -> None:
    code, said = run(tmp_path, WAITS.format(folder=tmp_path, many=MANY))
    assert (code, f"{MANY + 1} passed" in said) == (0, True), said


def test_one_alone_is_played_here(tmp_path: Path) -> None:
    suite = SUITE.format(folder=tmp_path)
    code, said = run(tmp_path, suite, "-k", "here or beside and 3")
    assert (code, "2 passed" in said) == (0, True)
    parents = {line.split()[-1] for line in (tmp_path / "played").read_text().splitlines()}
    assert len(parents) == 1


def test_who_dies_beside_is_a_failure(tmp_path: Path) -> None:
    code, said = run(tmp_path, DIES)
    assert code == pytest.ExitCode.INTERNAL_ERROR
    assert "has died before" in said


def test_a_run_that_is_given_up_leaves_nobody(tmp_path: Path) -> None:
    code, _ = run(tmp_path, LASTS.format(folder=tmp_path), "-x")
    assert code == 1
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    until_s = time.monotonic() + 20
    # Who has lost its parent is a zombie until the first process of the machine looks.
    while any(map(_is_alive, pids)):
        assert time.monotonic() < until_s, "somebody is left"


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
