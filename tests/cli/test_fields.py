"""Words of the command line: durations, amounts, variables, and the line of a mistake."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.cli.board import ITEM_CHARS_MAX, item_text
from orchestra.cli.exits import MEANING
from orchestra.cli.fields import amounts, duration_ms, pairs, row_of, seconds
from orchestra.cli.speech import clean, clean_lines, elapsed_text
from orchestra.errors import Malformed


def test_durations_are_those_of_project_files_and_plain_seconds() -> None:
    assert duration_ms("90", "--timeout") == 90_000
    assert duration_ms("1.5", "--timeout") == 1_500
    assert duration_ms("1h30m", "--timeout") == 5_400_000
    assert seconds(None, "--timeout") is None
    assert seconds("500ms", "--timeout") == 0.5


@given(st.text(max_size=30))
def test_any_duration_is_read_or_refused_by_name(text: str) -> None:
    try:
        ms = duration_ms(text, "--grace")
    except Malformed:
        return
    assert ms >= 0


def test_amounts() -> None:
    assert amounts(["gpu=1", "memory=2GiB"], "--needs") == (
        ("gpu", 1_000),
        ("memory", 2 * 1024**3 * 1_000),
    )
    assert amounts(["gpu=0.5,cpu=2"], "--needs") == (("cpu", 2_000), ("gpu", 500))
    for words in (["gpu"], ["=1"], ["gpu=x"], ["gpu=1", "gpu=2"], ["memory=7"]):
        with pytest.raises(Malformed) as refused:
            amounts(words, "--needs")
        assert refused.value.where.startswith("--needs")


@given(st.lists(st.text(max_size=20), max_size=5))
def test_any_pairs_are_read_or_refused(words: list[str]) -> None:
    try:
        found = pairs(words, "--env", "A=1")
    except Malformed:
        return
    assert [f"{name}={value}" for name, value in found.items()] == words


@given(st.text())
def test_nothing_that_moves_a_cursor_is_left(text: str) -> None:
    assert clean(text).isprintable()
    assert all(line.isprintable() for line in clean_lines(text).split("\n"))


def test_clean_keeps_what_people_write() -> None:
    assert clean("Müller 東京 C=1") == "Müller 東京 C=1"
    assert clean("a\x1b[2Jb\nc\u202e") == "a\\x1b[2Jb\\nc\\u202e"


PROJECT = """\
[project]
name = "x"

[stages.train] # a comment
argv = ["{python}"]
needs = { cpu = "many" }

[stages."with space"]
argv = []
env.A = "1"
"""


def test_the_line_of_a_field() -> None:
    tomllib.loads(PROJECT)
    assert row_of(PROJECT, "project.name") == 2
    assert row_of(PROJECT, "stages.train") == 4
    assert row_of(PROJECT, "stages.train.needs.cpu") == 6
    assert row_of(PROJECT, "stages.train.argv[0]") == 5
    assert row_of(PROJECT, 'stages."with space".argv') == 9
    assert row_of(PROJECT, 'stages."with space".env.A') == 10
    assert row_of(PROJECT, "job.priority") is None


@given(st.text(max_size=200), st.text(max_size=50))
def test_the_line_of_any_field_of_any_text(text: str, where: str) -> None:
    found = row_of(text, where)
    assert found is None or 1 <= found <= len(text.splitlines())


def test_times_as_people_say_them() -> None:
    told = [elapsed_text(ms) for ms in (0, 1_240, 59_940, 59_960, 192_000, 7_500_000, 90_000_000)]
    assert told == ["0.0s", "1.2s", "59.9s", "1m00s", "3m12s", "2h05m", "1d1h"]
    assert elapsed_text(None) == ""


def test_items() -> None:
    assert item_text(b"") == ""
    assert item_text(b"14") == "14"
    assert item_text(b'"a b"') == "a b"
    assert item_text(b'{"C":10,"gamma":0.1,"name":"x"}') == "C=10 gamma=0.1 name=x"
    assert len(item_text(b'"' + b"x" * 999 + b'"')) == ITEM_CHARS_MAX


def test_exit_codes_are_those_that_were_promised() -> None:
    assert {0, 1, 2, 3, 4, 124} <= set(MEANING)
