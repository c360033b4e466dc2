"""That mutants are made, tried and judged as they should be: on a function of three lines, and on a sample of the core."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest

from tests.mutation.__main__ import mutants
from tests.mutation.operators import mutants_of
from tests.tidy import ROOT

SOURCE = '''
"""A module."""

LIMIT = 3


class Box:
    """A class."""

    def fits(self, count: int = 1) -> bool:
        """Words."""
        if not count:
            raise ValueError("there is nothing")
        return count + 1 <= LIMIT and bool(self)
'''


def test_each_change_is_one(tmp_path: Path) -> None:
    path = tmp_path / "box.py"
    path.write_text(SOURCE, encoding="utf-8")
    assert [each.what for each in mutants_of("box", path)] == [
        "if not count: -> if count:",
        "return count + 1 <= LIMIT and bool(self) -> return None",
        "not count -> count",
        "raise ValueError('there is nothing') -> pass",
        "count + 1 <= LIMIT and bool(self) -> count + 1 <= LIMIT or bool(self)",
        "count + 1 <= LIMIT -> count + 1 < LIMIT",
        "count + 1 <= LIMIT -> count + 1 > LIMIT",
        "count + 1 -> count - 1",
        "1 -> 2",
    ]


def test_the_changed_function_does_something_else(tmp_path: Path) -> None:
    path = tmp_path / "box.py"
    path.write_text(SOURCE, encoding="utf-8")
    box = run_path(str(path))["Box"]
    assert box().fits(2)
    changed = {each.what: each.code for each in mutants_of("box", path)}
    box.fits.__code__ = changed["count + 1 <= LIMIT -> count + 1 < LIMIT"]
    assert not box().fits(2)


def test_the_core_has_mutants_in_every_function_with_something_to_change() -> None:
    found = mutants(only="leases")
    assert {each.module for each in found} == {"orchestra.statemachine.leases"}
    assert len(found) > 50


@pytest.mark.parametrize(
    ("tests", "score_is_enough"),
    [("tests/statemachine/test_jobs.py", True), ("tests/statemachine/test_diagram.py", False)],
)
def test_mutants_are_noticed_by_tests_of_what_they_change_alone(
    tmp_path: Path, tests: str, score_is_enough: bool
) -> None:
    survivors = tmp_path / "survivors.txt"
    words = ["-m", "tests.mutation", "--only", "dag", "--every", "4", "--tests", tests]
    ran = subprocess.run(
        [sys.executable, *words, "--survivors", str(survivors)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == (0 if score_is_enough else 1), ran.stdout + ran.stderr
    assert ("no test comes by" in survivors.read_text()) is not score_is_enough
