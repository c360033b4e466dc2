"""Spin searches a model of the lease and the fence that was written without the core, and comes to what our own search comes to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestra.statemachine.lifecycles import TASK
from orchestra.testing.explore.promela import RULES, SpinMissing, ask_search, ask_spin, model

pytestmark = pytest.mark.aside


@pytest.fixture
def spin_is_here(require: Callable[..., None]) -> None:
    require(programs=("spin", "cc"), hint="apt-get install spin gcc")


@pytest.mark.usefixtures("spin_is_here")
def test_spin_and_the_search_come_by_the_same_combinations() -> None:
    spin, search = ask_spin(), ask_search()
    assert not spin.broken
    assert not search.broken
    assert spin.combinations == search.combinations
    assert len(search.combinations) > 20, "a comparison of next to nothing would say nothing"


@pytest.mark.usefixtures("spin_is_here")
@pytest.mark.parametrize("rule", RULES)
def test_spin_and_the_search_both_miss_a_rule_that_is_taken_out(rule: str) -> None:
    assert ask_spin(rule).broken
    assert ask_search(rule).broken


def test_every_move_of_the_tables_is_exported() -> None:
    text = model()
    for row in TASK.rows:
        if row.source is not None:
            assert f":: x == task_{row.source} -> x = task_{row.target}" in text


def test_without_spin_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SpinMissing, match="install spin"):
        ask_spin()
