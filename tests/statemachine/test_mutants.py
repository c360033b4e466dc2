"""Safety rules taken out one by one: the random walk must notice each, or it proves nothing."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from orchestra.errors import Defect
from orchestra.testing.removed_rules import removed
from tests.statemachine.test_machine import CoreMachine

HUNT = settings(
    max_examples=500,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize(
    "name",
    [
        "no_fence",
        "endless_losses",
        "no_slot_check",
        "no_promotion",
        "no_expiry",
        "no_backoff_alarm",
        "no_rollback",
        "cancelled_while_alive",
        "deaf_job",
        "clockwork_ids",
        "revived_completion",
    ],
)
def test_the_walk_finds_every_removed_rule(name: str) -> None:
    # `InvariantBroken` is an AssertionError too
    with removed(name), pytest.raises((AssertionError, Defect, ExceptionGroup, Flaky)):
        run_state_machine_as_test(CoreMachine, settings=HUNT)
