"""Selectors: whatever is typed is understood or refused, and nothing else is named than what is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.cli.selectors import SELECTED_MAX, Selected, select, select_job, select_one
from orchestra.errors import Malformed
from orchestra.statemachine import ids

JOB_ID = ids.prefix_of(17) + "k" * 18
numbers = st.integers(1, 10**6)


def texts(text: str) -> list[str]:
    return [one.text for one in select(text)]


def test_each_form() -> None:
    assert select("17") == (Selected("17"),)
    assert select("last") == (Selected("last"),)
    assert select("all") == (Selected("", every=True),)
    assert texts("3,5-8") == ["3", "5", "6", "7", "8"]
    assert select("17.3") == (Selected("17.3", task=True),)
    assert texts("17.3-5") == ["17.3", "17.4", "17.5"]
    assert texts("last.2") == ["last.2"]
    assert select(JOB_ID) == (Selected(JOB_ID),)
    assert select(ids.task_id(JOB_ID, 3)) == (Selected(ids.task_id(JOB_ID, 3), task=True),)
    attempt = ids.attempt_id(ids.task_id(JOB_ID, 3), 1)
    assert select(attempt) == (Selected(attempt, task=True),)


@given(numbers, st.integers(0, 100))
def test_a_range_names_each_from_its_first_to_its_last(first: int, more: int) -> None:
    assert texts(f"{first}-{first + more}") == [str(n) for n in range(first, first + more + 1)]


@given(numbers, st.integers(1, 10**5), st.integers(0, 50))
def test_a_range_of_tasks_stays_in_its_job(job: int, first: int, more: int) -> None:
    found = select(f"{job}.{first}-{first + more}")
    assert [one.text for one in found] == [f"{job}.{n}" for n in range(first, first + more + 1)]
    assert all(one.task for one in found)


@given(st.lists(numbers, min_size=1, max_size=20))
def test_each_is_named_once_in_the_order_written(jobs: list[int]) -> None:
    assert texts(",".join(map(str, jobs))) == list(dict.fromkeys(map(str, jobs)))


@given(st.text(max_size=60) | st.text("0123456789.,-lastalx", max_size=60))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        found = select(text)
    except Malformed:
        return
    assert 0 < len(found) <= SELECTED_MAX
    assert all(one.every or one.text for one in found)


@pytest.mark.parametrize(
    "text",
    ["", ",", "3,", "0", "17.0", "5-3", "last-9", "17.3.4", " 3", "3 ", "1-99999999", "٣", "x" * 9999,
     "17.9-3", "-3", "all.3", "17.", ".3", "LAST", JOB_ID + "-x"],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        select(text)


def test_a_number_after_a_task_is_ambiguous() -> None:
    with pytest.raises(Malformed, match="job or a task"):
        select("17.3,5")
    assert texts("5,17.3") == ["5", "17.3"]


def test_commands_for_one_thing_take_one() -> None:
    assert select_one("last.3").text == "last.3"
    for text in ("all", "1,2", "1-2"):
        with pytest.raises(Malformed):
            select_one(text)
    with pytest.raises(Malformed):
        select_job("17.3")
