"""The explorer: nothing is wrong in the small worlds; and what is wrong is found, by the shortest way."""

from __future__ import annotations

import json

import pytest

from orchestra.cli.entry import carry_out
from orchestra.testing.explore import LARGE, WORLDS, Bounds, explore, explored_all, never_taken
from orchestra.testing.explore.bounds import SPENT
from orchestra.testing.explore.faces import renamed, renamings
from orchestra.testing.explore.worlds import ONE
from orchestra.testing.removed_rules import removed

pytestmark = pytest.mark.aside

STATES_MIN = 250_000

ROOM = 12_000
"""States of one world that are visited here, its nearest ones; `prove explore` visits all that there are."""

WIDE = {
    "silent",
    "killed",
    "late",
    "cancelled",
    "task-cancelled",
    "given-up",
    "lost",
    "pair",
    "chain-cancelled",
    "put-back",
    "sliced",
    "leaving",
    "leaving-killed",
    "leaving-silent",
    "paused-cancelled",
    "stopping",
    "worker-paused",
}
"""Worlds that have more."""


def test_nothing_is_wrong_in_small_worlds() -> None:
    found = list(explored_all(WORLDS.values(), states_max=ROOM, processes=2))
    assert {each.name: each.broken for each in found} == dict.fromkeys(WORLDS, "")
    assert {each.name for each in found if not each.complete} == WIDE
    assert sum(each.states for each in found) >= STATES_MIN
    assert never_taken(found) == (), "every row of the tables is taken by some step"


@pytest.mark.parametrize(
    ("rule", "world", "told"),
    [
        ("endless_losses", "hurried", "I8"),
        ("no_expiry", "hurried", "I9"),
        ("deaf_job", "hurried", "I9"),
        ("revived_completion", "hurried", "I5"),
        ("orders_told_once", "hurried", "no way leads to an end"),
        ("cancelled_while_alive", "given-up", "I11"),
        ("endless_lease", "silent", "at the same time"),
        ("answers_out_of_time", "silent", "at the same time"),
        ("short_memory", "doubled", "a second time"),
        ("reports_told_once", "lost", "no way leads to an end"),
        ("no_slot_check", "queue", "I16"),
        ("no_promotion", "pair", "I9"),
        ("priority_ignored", "turns", "I10"),
        ("no_backoff_alarm", "task-cancelled", "nothing will wake it"),
    ],
)
def test_a_rule_that_is_taken_out_is_missed(rule: str, world: str, told: str) -> None:
    with removed(rule):
        explored = explore(WORLDS[world], states_max=60_000)
    assert told in explored.broken
    assert explored.path, "it is shown how it comes to that"
    assert not explored.complete


def test_a_key_that_is_forgotten_is_missed() -> None:
    with removed("forgotten_keys"):
        explored = explore(WORLDS["turns"])
    assert explored.broken.startswith("I2: job 'first' is submitted again under its key")


def test_the_way_to_what_is_wrong_is_the_shortest() -> None:
    with removed("no_expiry"):
        explored = explore(WORLDS["hurried"])
    assert len(explored.path) == 7
    assert set(explored.path) >= {"w0: join", "w0 is killed", "w0 asks to join", "time passes"}
    assert "Tick()" in explored.broken


def test_a_search_that_has_no_room_says_that_it_is_not_all() -> None:
    explored = explore(WORLDS["hurried"], states_max=100)
    assert (explored.complete, explored.broken) == (False, "")
    assert explored.states >= 100


def test_machines_that_are_alike_are_counted_once() -> None:
    """With two machines of which one may do nothing, each state of the other would count twice."""
    alike = Bounds(name="alike", about="", stages=ONE, flight=1, begins=False)
    assert renamings(2) == ((0, 1), (1, 0))
    assert renamed("w0.3", (1, 0)) == "w1.3"
    once = explore(alike)
    assert once.complete
    assert not once.broken
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "orchestra.testing.explore.world.renamings", lambda count: (tuple(range(count)),)
        )
        twice = explore(alike)
    assert twice.complete
    assert not twice.broken
    assert 1.9 < twice.states / once.states <= 2.0


def test_a_search_is_the_same_each_time() -> None:
    first, second = explore(WORLDS["paused"]), explore(WORLDS["paused"])
    assert (first.states, first.steps, first.depth) == (second.states, second.steps, second.depth)


def test_every_trouble_that_is_counted_has_a_bound() -> None:
    for world in (*WORLDS.values(), *LARGE.values()):
        assert len(world.purse()) == len(SPENT)


def test_the_command_tells_what_it_visited(capsys: pytest.CaptureFixture[str]) -> None:
    assert carry_out(["prove", "explore", "--world", "hurried", "--processes", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["name"] == "explore"
    assert ["worlds searched whole", "1 of 1"] in told["figures"]


def test_the_command_shows_the_way_to_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with removed("deaf_job"):
        assert carry_out(["prove", "explore", "--world", "hurried", "--processes", "1"]) == 1
    shown = capsys.readouterr().out
    assert "I9" in shown
    assert "--world hurried" in shown


def test_a_world_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert carry_out(["prove", "explore", "--world", "none"]) == 2
    assert "silent" in capsys.readouterr().err
