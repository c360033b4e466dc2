"""The museum: every exhibit is found, by the promise that it breaks, and names where it came from."""

from __future__ import annotations

import pytest

from orchestra.testing.hunt import IN_TIME, found, is_well
from orchestra.testing.museum import EXHIBITS
from orchestra.testing.schedules.campaign import TABLE

pytestmark = pytest.mark.aside

HUNTED = 500


FINDERS = {
    "running_for_ever": "I9",
    "crashed_then_completed": TABLE,
    "healthy_marked_crashed": "I3",
    "stale_read_executes": "I3",
    "stranded_recovery": "I9",
    "re_claimed_while_draining": TABLE,
    "adopted_name": "I4",
    "visibility_timeout": "I3",
    "reserved_is_lost": "I9",
    "cleaned_never": "I9",
    "failed_after_success": TABLE,
    "alive_though_ended": "I3",
    "zombies_keep_their_slot": "I3",
    "disagreement": "I9",
    "begun_again": "I4",
    "walltime_completed": "I7",
    "vanished_job": "I9",
    "orphaned_workers": "I9",
    "finished_runs_again": "I7",
    "number_used_again": "I5",
    "dropped_result": IN_TIME,
    "connection_not_restored": IN_TIME,
    "swallowed_failure": "I20",
    "told_before_kept": IN_TIME,
    "remote_error_and_running": "I3",
    "cancelled_completes": TABLE,
    "two_lists": "I3",
}
"""
Who has to notice each. By the table: the defect is a move for which no lifecycle has a row, so the core refuses it before any invariant is
asked, and that is what keeps such a one out of the real code.
"""


@pytest.mark.parametrize("name", list(EXHIBITS))
def test_an_exhibit_is_found_by_what_it_breaks(name: str) -> None:
    noticed = found(name, HUNTED)
    assert noticed is not None, f"{HUNTED} seeds did not find {name}"
    assert noticed.finder == FINDERS[name], noticed.why
    assert is_well(name, noticed.seed), "without it, all is well"


def test_there_are_many_and_each_tells_its_story_once() -> None:
    assert len(EXHIBITS) >= 20
    assert any(exhibit.around for exhibit in EXHIBITS.values())
    assert len({exhibit.story for exhibit in EXHIBITS.values()}) == len(EXHIBITS)
    assert all(exhibit.thread.startswith("#") for exhibit in EXHIBITS.values())
    assert len({exhibit.system for exhibit in EXHIBITS.values()}) >= 10
