"""The page of lifecycles is the tables', and the tables leave no word unused."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import pytest

from orchestra.statemachine import lifecycles
from orchestra.statemachine.diagram import document, mermaid, resting
from orchestra.statemachine.lifecycles import TABLES, Verb
from orchestra.statemachine.table import Row, Table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "lifecycles.md"
WORDS: Mapping[str, type[StrEnum]] = {
    "project": lifecycles.ProjectStatus,
    "job": lifecycles.JobStatus,
    "task": lifecycles.TaskStatus,
    "attempt": lifecycles.AttemptStatus,
    "worker": lifecycles.WorkerStatus,
}
FINAL: Mapping[str, frozenset[StrEnum]] = {
    "job": frozenset(lifecycles.JOB_FINAL),
    "task": frozenset(lifecycles.TASK_FINAL),
    "attempt": frozenset(lifecycles.ATTEMPT_FINAL),
}


def test_the_committed_page_is_the_tables() -> None:
    """Mend with ``python -m orchestra diagram > docs/lifecycles.md``."""
    assert PAGE.read_text(encoding="utf-8") == document()


@pytest.mark.parametrize("kind", TABLES)
def test_a_new_row_changes_the_page(kind: str) -> None:
    table = TABLES[kind]
    longer = Table(kind, (*table.rows, Row(table.statuses()[0], "vanish", "gone", "planted")))
    assert mermaid(longer) != mermaid(table)
    assert "--> s_gone: vanish" in mermaid(longer)


def test_every_table_has_its_words() -> None:
    assert set(WORDS) == set(TABLES)


@pytest.mark.parametrize("kind", TABLES)
def test_every_status_is_reached(kind: str) -> None:
    assert set(TABLES[kind].statuses()) == set(WORDS[kind])
    begins = {row.target for row in TABLES[kind].rows if row.source is None}
    for status in WORDS[kind]:
        assert any(TABLES[kind].path(begin, status) is not None for begin in begins), status


def test_every_verb_is_used() -> None:
    assert {row.verb for table in TABLES.values() for row in table.rows} == set(Verb)


@pytest.mark.parametrize("kind", FINAL)
def test_the_final_statuses_are_those_of_the_table(kind: str) -> None:
    """Nothing leaves a final status but an explicit request to try again."""
    assert frozenset(resting(TABLES[kind])) == FINAL[kind]


def test_a_held_task_has_no_final_status() -> None:
    assert lifecycles.TASK_HELD.isdisjoint(lifecycles.TASK_FINAL)
    assert lifecycles.JOB_SCHEDULABLE.isdisjoint(lifecycles.JOB_FINAL)


def test_every_row_says_why() -> None:
    for table in TABLES.values():
        for row in table.rows:
            assert row.why, row
            assert "|" not in row.why, row
