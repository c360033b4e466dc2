"""A violation is written to the page as what was right is: what the page said of an earlier run does not stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.cli.entry import carry_out
from orchestra.cli.prove import linearizability
from orchestra.testing import fuzz
from orchestra.testing.linearizability import ABSENT, Load, Operation, check, job_model
from orchestra.testing.proof_page import read
from orchestra.testing.removed_rules import removed

pytestmark = pytest.mark.aside

NEVER_ENDS = "deaf_job"
"""Without this rule of the core a job does not notice that all its tasks have ended: each of the searches notices at once."""


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("core", ("--schedules", "3")),
        ("core", ("--schedules", "3", "--json")),
        ("simulate", ("--simulations", "3", "--json")),
        ("explore", ("--world", "hurried")),
    ],
)
def test_a_violation_is_written(section: str, words: tuple[str, ...], tmp_path: Path) -> None:
    page = tmp_path / "proof.md"
    with removed(NEVER_ENDS):
        assert carry_out(["prove", section, *words, "--processes", "1", "--write", str(page)]) == 1
    written = read(page)[section]
    assert "| violations | 1 |" in written
    assert "\n\nBroken " in written


def test_an_input_that_breaks_something_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "GROWTH_BYTES_MAX", -1)
    page = tmp_path / "proof.md"
    words = ["--surface", "json", "--inputs", "100", "--write", str(page)]
    assert carry_out(["prove", "fuzz", *words]) == 1
    assert "\n\nBroken: json: memory grew" in read(page)["fuzz-some"]


def test_a_history_without_an_order_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history is made up, for a real server gives none; what is made of it is real."""
    submitted = Operation(0, "submit", "", "j", 0, 1)
    history = (submitted, Operation(1, "view", "", "completed", 2, 3))
    found = linearizability.Found(histories=7, operations=2, jobs=1)
    found.broken = (history, check(history, job_model, ABSENT))

    async def recorded(load: Load, histories: int, seed: int) -> linearizability.Found:
        return found

    monkeypatch.setattr(linearizability, "_recorded", recorded)
    page = tmp_path / "proof.md"
    assert carry_out(["prove", "linearizability", "--write", str(page)]) == 1
    written = read(page)["linearizability"]
    assert "| histories that no order explains | 1 |" in written
    assert "Broken: of the 2 operations on one job no order explains all answers" in written
    assert "Seeds: 1 to 7." in written
