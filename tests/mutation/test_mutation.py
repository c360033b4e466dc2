"""That mutants are made, tried and judged as they should be: on a function of three lines, and on a sample of the core."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest

from orchestra.statemachine.bounds import check_labels, check_text
from tests.mutation.__main__ import CORE, mutants
from tests.mutation.checks import Check, Reach
from tests.mutation.journal import Journal, fingerprint
from tests.mutation.operators import mutants_of
from tests.mutation.survivors import compared, listed
from tests.mutation.trial import NOTICED, SURVIVED, Verdict
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


def test_a_mutant_is_called_the_same_wherever_its_function_stands(tmp_path: Path) -> None:
    path = tmp_path / "box.py"
    path.write_text(SOURCE, encoding="utf-8")
    before = {each.id: each.lines for each in mutants_of("shop.box", path)}
    assert "box.Box.fits: return count + 1 <= LIMIT and bool(self): 1 -> 2" in before
    path.write_text(SOURCE.replace("LIMIT = 3", "LIMIT = 3\n\n\n\n"), encoding="utf-8")
    after = {each.id: each.lines for each in mutants_of("shop.box", path)}
    assert list(before) == list(after)
    assert {id: {line + 4 for line in lines} for id, lines in before.items()} == after


def test_the_same_change_of_two_like_statements_has_two_names(tmp_path: Path) -> None:
    path = tmp_path / "twice.py"
    path.write_text("def twice():\n    go(1)\n    go(1)\n", encoding="utf-8")
    ids = [each.id for each in mutants_of("twice", path)]
    assert len(set(ids)) == len(ids) == 4
    assert ids[1].endswith("go(1) -> pass #2")


def test_the_core_has_mutants_in_every_function_with_something_to_change() -> None:
    found = mutants(only="leases")
    assert {each.module for each in found} == {"orchestra.statemachine.leases"}
    assert len(found) > 50


def test_checks_are_known_by_the_lines_that_they_run_and_the_quickest_comes_first() -> None:
    reach = Reach()
    quick = Check("quick", lambda: not check_text("x", "x"))
    slow = Check("slow", lambda: not any(check_text("x", "x") for _ in range(10_000)))
    other = Check("other", lambda: not check_labels((), "x"))
    assert reach.look_on([slow, quick, other], CORE) == ""
    lines = frozenset(range(1, 100))
    assert reach.through("bounds", lines) == [quick, other, slow] or (
        reach.through("bounds", lines) == [other, quick, slow]
    )
    line = check_text.__code__.co_firstlineno + 2
    assert reach.through("bounds", frozenset({line})) == [quick, slow]
    assert reach.through("jobs", lines) == []
    assert Reach().look_on([Check("wrong", lambda: False)], CORE) == "wrong"


def test_a_run_goes_on_from_its_journal_unless_something_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    first, second, *_ = mutants(only="dag")
    journal = Journal(path, "state")
    journal.add(Verdict(first, NOTICED, "a test"))
    journal.add(Verdict(second, SURVIVED))
    with path.open("a", encoding="utf-8") as file:
        file.write('["half a li')
    told = {first.id: (NOTICED, "a test"), second.id: (SURVIVED, "")}
    assert Journal(path, "state").known == told
    kept = tmp_path / "kept"
    kept.write_bytes(path.read_bytes())
    assert Journal(kept, "changed", again=True).known == {first.id: (NOTICED, "a test")}
    assert Journal(path, "changed").known == {}
    assert Journal(path, "state").known == {}, "what was found before a change is gone"


def test_the_state_of_things_is_that_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a", encoding="utf-8")
    before = fingerprint([tmp_path], "words")
    assert before == fingerprint([tmp_path], "words") != fingerprint([tmp_path], "others")
    (tmp_path / "a.py").write_text("b", encoding="utf-8")
    assert fingerprint([tmp_path], "words") != before


def test_survivors_are_held_against_the_page(tmp_path: Path) -> None:
    page = tmp_path / "survivors.toml"
    page.write_text('[same]\nreason = """it is\nthe same"""\nids = ["a", "b", "c"]\n')
    assert listed(page) == dict.fromkeys("abc", "it is the same")
    told = compared(["a", "d"], ["a", "b", "d"], listed(page), all=False)
    assert (told.unlisted, told.outdated) == (("d",), ("b",))
    assert compared(["a"], ["a", "b"], listed(page), all=True).outdated == ("b", "c")
    page.write_text('[same]\nreason = "x"\nids = ["a", "a"]\n')
    with pytest.raises(ValueError, match="twice"):
        listed(page)
    page.write_text('[same]\nreason = " "\nids = ["a"]\n')
    with pytest.raises(ValueError, match="no reason"):
        listed(page)


def test_the_page_names_mutants_that_are_there() -> None:
    """One that is not is left over from a change: take it out, or try the function's mutants again."""
    there = {mutant.id for mutant in mutants()}
    assert [id for id in listed() if id not in there] == []


def ran(*words: str) -> subprocess.CompletedProcess[str]:
    """The command, with what it said."""
    return subprocess.run(
        [sys.executable, "-m", "tests.mutation", *words],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize(
    ("tests", "score_is_enough"),
    [("tests/statemachine/test_jobs.py", True), ("tests/statemachine/test_diagram.py", False)],
)
def test_mutants_are_noticed_by_tests_of_what_they_change_alone(
    tmp_path: Path, tests: str, score_is_enough: bool
) -> None:
    survivors = tmp_path / "survivors.txt"
    words = ["--only", "dag", "--every", "4", "--no-walks", "--any", "--tests", tests]
    kept = ["--survivors", str(survivors), "--journal", str(tmp_path / "journal")]
    done = ran(*words, *kept)
    assert done.returncode == (0 if score_is_enough else 1), done.stdout + done.stderr
    assert (len(survivors.read_text().splitlines()) > 5) is not score_is_enough


def test_a_sample_of_the_core_is_noticed(tmp_path: Path) -> None:
    """Of so few some more may be missed than of all, and those that are listed count as missed."""
    journal = str(tmp_path / "journal")
    done = ran("--every", "60", "--no-walks", "--any", "--score", "0.8", "--journal", journal)
    assert done.returncode == 0, done.stdout + done.stderr
