"""The museum: every exhibit is found, and names where it came from."""

from __future__ import annotations

import pytest

from orchestra.testing.museum import EXHIBITS, on_show
from orchestra.testing.schedules.campaign import chunk

pytestmark = pytest.mark.aside

HUNTED = 500


@pytest.mark.parametrize("name", list(EXHIBITS))
def test_an_exhibit_is_found(name: str) -> None:
    with on_show(name):
        tally = chunk(1, HUNTED)
    assert tally.broken, f"{HUNTED} schedules did not find {name}"
    assert chunk(tally.broken[0].seed, 1).broken == (), "without it, all is well"


def test_there_are_many_and_each_tells_its_story_once() -> None:
    assert len(EXHIBITS) >= 20
    assert len({exhibit.story for exhibit in EXHIBITS.values()}) == len(EXHIBITS)
    assert all(exhibit.thread.startswith("#") for exhibit in EXHIBITS.values())
    assert len({exhibit.system for exhibit in EXHIBITS.values()}) >= 10
