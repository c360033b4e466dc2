"""Schedules of the core: none breaks an invariant, the same seed is the same story, and every rule that is taken out is missed."""

from __future__ import annotations

import sys
from random import Random

import pytest

from orchestra.testing.diagram import drawn
from orchestra.testing.hunt import is_kept, missed
from orchestra.testing.removed_rules import RULES, removed
from orchestra.testing.schedules import FAULTS, Knobs, Violated, campaign, chunk, draw, play, run

pytestmark = pytest.mark.aside

HUNTED = 500
"""Every rule is missed within so many seeds."""


def test_no_schedule_breaks_an_invariant_and_nearly_every_row_of_the_tables_is_taken() -> None:
    *_, tally = campaign(1_000, seed=1_501)
    assert tally.broken == ()
    assert (tally.schedules, tally.twice) == (1_000, 10)
    assert tally.steps > 10_000
    assert tally.simulated_ms > 3_600_000
    assert set(tally.never_taken) <= {
        "job: queued --complete-->",
        "project: archived --reopen-->",
        "project: open --archive-->",
        "task: (new) --bury-->",
        "worker: replaced --leave-->",
    }


def test_processes_share_the_schedules_and_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[chunk.__module__], "CHUNK", 25)
    *_, alone = campaign(110, seed=7)
    *_, shared = campaign(110, seed=7, processes=2)
    assert shared.cpu_s > 0
    assert (shared.steps, shared.commits, shared.simulated_ms, shared.taken) == (
        alone.steps,
        alone.commits,
        alone.simulated_ms,
        alone.taken,
    )


@pytest.mark.parametrize("name", list(RULES))
def test_a_rule_that_is_taken_out_is_missed(name: str) -> None:
    noticed = missed(name, HUNTED)
    assert noticed is not None, f"{HUNTED} schedules did not miss {name}"
    assert is_kept(name, noticed.seed), "with the rule back, all is well"


def test_a_violation_names_the_seed_the_line_that_replays_it_and_has_a_diagram() -> None:
    with removed("deaf_job"):
        with pytest.raises(Violated, match=r"prove core --seed 1 --schedules 1 --diagram"):
            run(1)
        lines, violation = play(1)
    assert violation is not None
    assert str(violation).startswith("I9")
    rows = drawn(lines).splitlines()
    assert rows[0].split()[:4] == ["ms", "people", "server", "w1"]
    assert any("starts" in row for row in rows)


def test_a_schedule_may_be_given_its_faults() -> None:
    calm = Knobs(frozenset(), 2, 2, 2, "strict", 5_000, 0.0, 1)
    done = run(1, knobs=calm, told=True)
    assert not any("killed" in line.what or "freezes" in line.what for line in done.lines)
    assert {fault for seed in range(50) for fault in draw(Random(seed)).faults} == set(FAULTS)


@pytest.mark.parametrize(
    "seed",
    [
        913_423,  # a guardian without its engine let work run beyond a lease that ended within its grace
    ],
)
def test_what_a_campaign_came_upon_stays_mended(seed: int) -> None:
    lines, violation = play(seed)
    assert lines
    assert violation is None
