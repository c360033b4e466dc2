"""What is held from its order until its end is acknowledged, and what is reported: pure."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchestra.ports import Ended
from orchestra.statemachine import limits
from orchestra.statemachine.records import Cause, Rung
from orchestra.statemachine.reports import AttemptReport, Happening
from orchestra.worker.holdings import (
    ACKNOWLEDGED_MAX,
    PROGRESS_EVERY_S,
    RUNNING_LINGER_S,
    Holdings,
    Start,
    Stop,
)
from tests.worker.kit import order

DONE = Ended("completed", result=b"1")


def holding(*attempt_ids: str) -> Holdings:
    holdings = Holdings()
    for attempt_id in attempt_ids:
        assert holdings.ordered(order(attempt_id)) == Start(order(attempt_id))
    return holdings


def test_an_order_that_comes_twice_starts_once() -> None:
    holdings = holding("a")
    assert holdings.ordered(order("a")) is None
    holdings.ended("a", DONE)
    assert holdings.ordered(order("a")) is None, "ended, and not acknowledged"
    holdings.reported(holdings.reporting(0))
    assert holdings.is_handed_in
    assert holdings.ordered(order("a")) is None, "acknowledged: the order was late on its way"


def test_what_is_remembered_as_acknowledged_is_bounded() -> None:
    holdings = Holdings()
    for number in range(ACKNOWLEDGED_MAX + 1):
        holdings.ordered(order(str(number)))
        holdings.ended(str(number), DONE)
        holdings.reported(holdings.reporting(0))
    assert holdings.ordered(order(str(ACKNOWLEDGED_MAX))) is None
    assert holdings.ordered(order("0")) == Start(order("0")), "the oldest is forgotten"


def test_a_stop_climbs_and_never_comes_down() -> None:
    holdings = holding("a")
    assert holdings.ordered(order("a", Rung.TERM)) == Stop("a", "work", Rung.TERM)
    assert holdings.ordered(order("a", Rung.ASKED)) is None
    assert holdings.ordered(order("a", Rung.TERM)) is None
    assert holdings.ordered(order("a", Rung.UNCONFIRMED)) == Stop("a", "work", Rung.KILL)
    assert holdings.ordered(order("a", Rung.KILL)) is None


def test_a_stop_of_what_never_came_is_confirmed_at_once_and_a_late_start_is_passed_over() -> None:
    holdings = Holdings()
    assert holdings.ordered(order("a", Rung.ASKED)) is None
    (report,) = holdings.reporting(0)
    assert report.happening is Happening.STOPPED
    assert holdings.ordered(order("a")) is None
    holdings.reported((report,))
    assert holdings.ordered(order("a")) is None


def test_an_end_swallows_the_running_before_it() -> None:
    holdings = holding("a")
    holdings.began("a", 0.0)
    assert holdings.reporting(0.0) == ()
    holdings.ended("a", DONE)
    assert [each.happening for each in holdings.reporting(1.0)] == [Happening.COMPLETED]
    assert holdings.soft_due_s is None


def test_running_is_told_when_it_lasts_and_only_once() -> None:
    holdings = holding("a")
    holdings.began("a", 0.0)
    assert holdings.soft_due_s == RUNNING_LINGER_S
    (report,) = holdings.reporting(RUNNING_LINGER_S)
    assert report.happening is Happening.RUNNING
    holdings.reported((report,))
    holdings.began("a", 1.0)
    assert holdings.reporting(2.0) == ()


def test_progress_is_throttled_and_the_latest_wins() -> None:
    holdings = holding("a")
    told: list[AttemptReport] = []
    for step in range(2_000):
        now_s = step / 1_000
        holdings.progressed("a", step / 2_000, f"step {step}", now_s)
        reports = holdings.reporting(now_s)
        holdings.reported(reports)
        told += [each for each in reports if each.happening is Happening.PROGRESS]
    assert 3 <= len(told) <= 2 / PROGRESS_EVERY_S + 1
    (last,) = holdings.reporting(10.0)
    assert last.message == "step 1999", "the last word is told too"


def test_progress_tells_running_first_and_keeps_the_fraction_in_bounds() -> None:
    holdings = holding("a")
    holdings.progressed("a", 7.0, "x" * 9_000, 0.0)
    (running,) = holdings.reporting(0.0)
    (progress,) = holdings.reporting(0.0)
    assert running.happening is Happening.RUNNING
    assert progress.fraction == 1.0
    assert len(progress.message) == limits.REASON_CHARS_MAX


def test_an_end_waits_until_its_output_is_stored() -> None:
    holdings = holding("a")
    holdings.ended("a", DONE, stored=False)
    assert holdings.reporting(0) == ()
    assert holdings.holding == ("a",)
    holdings.output_stored("a")
    assert len(holdings.reporting(0)) == 1


def test_only_the_first_end_counts() -> None:
    holdings = holding("a")
    assert holdings.ended("a", DONE)
    assert not holdings.ended("a", Ended("failed"))
    assert not holdings.ended("unknown", DONE)
    assert [each.happening for each in holdings.reporting(0)] == [Happening.COMPLETED]


def test_what_is_not_known_to_have_arrived_is_told_again_in_the_same_words() -> None:
    holdings = holding("a", "b")
    holdings.progressed("b", 0.5, "half", 0.0)
    holdings.ended("a", DONE)
    first = holdings.reporting(0.0)
    holdings.unreported(first)
    assert holdings.reporting(0.0) == first
    assert holdings.reporting(0.0)[0].happening is Happening.PROGRESS


def test_a_running_that_was_lost_is_not_told_after_the_end() -> None:
    holdings = holding("a")
    holdings.began("a", 0.0)
    lost = holdings.reporting(1.0)
    holdings.ended("a", DONE)
    holdings.unreported(lost)
    assert [each.happening for each in holdings.reporting(2.0)] == [Happening.COMPLETED]


def test_a_message_has_at_most_a_thousand_reports_and_a_mebibyte_of_results() -> None:
    holdings = holding(*(str(number) for number in range(limits.REPORTS_MAX + 5)))
    for attempt_id in holdings.holding:
        holdings.ended(attempt_id, DONE)
    assert len(holdings.reporting(0)) == limits.REPORTS_MAX
    assert len(holdings.reporting(0)) == 5
    holdings = holding("a", "b", "c")
    for attempt_id in holdings.holding:
        holdings.ended(attempt_id, Ended("completed", result=b"1" * (limits.RESULT_BYTES_MAX // 2)))
    assert [len(holdings.reporting(0)) for _ in range(2)] == [2, 1]


def test_a_result_that_is_too_long_is_a_failure_that_says_what_to_do() -> None:
    holdings = holding("a")
    holdings.ended("a", Ended("completed", result=b"1" * (limits.RESULT_BYTES_MAX + 1)))
    (report,) = holdings.reporting(0)
    assert (report.happening, report.result) == (Happening.FAILED, None)
    assert "write it to a file" in report.message


def test_a_refused_report_is_found_told_as_a_failure_and_then_given_up() -> None:
    holdings = holding("a", "bad", "c")
    for attempt_id in holdings.holding:
        holdings.ended(attempt_id, Ended("completed", result=attempt_id.encode()))
    told: list[AttemptReport] = []
    refusals = 0
    while reports := holdings.reporting(0):
        if any(each.attempt_id == "bad" for each in reports):
            refusals += 1
            holdings.refused(reports, "bad bytes")
        else:
            told += reports
            holdings.reported(reports)
    assert [each.attempt_id for each in told] == ["a", "c"]
    assert refusals == 3, "together, alone, and as a plain failure"
    assert holdings.is_handed_in


def test_everything_can_be_stopped_on_the_workers_own_account() -> None:
    holdings = holding("a", "b")
    holdings.ordered(order("b", Rung.TERM))
    stops = holdings.stopped_all(Rung.TERM, Cause.CANCELLED, "it leaves")
    assert stops == (Stop("a", "work", Rung.TERM),)
    assert len(holdings.stopped_all(Rung.KILL, Cause.LOST, "again")) == 2
    for attempt_id in ("a", "b"):
        holdings.ended(attempt_id, Ended("stopped", message="by the engine"))
    reports = {each.attempt_id: each for each in holdings.reporting(0)}
    assert (reports["a"].cause, reports["a"].message) == (Cause.CANCELLED, "it leaves")
    assert reports["b"].message == "by the engine", "the orchestrator had asked for this one"


class LossyWorld(RuleBasedStateMachine):
    """Orders and reports over a lossy way: what may never happen, whatever is lost, repeated or late."""

    def __init__(self) -> None:
        super().__init__()
        self.holdings = Holdings()
        self.now_s = 0.0
        self.starts: dict[str, int] = {}
        self.alive: set[str] = set()
        self.ends: dict[str, str] = {}
        self.taken: dict[str, AttemptReport] = {}
        self.flight: tuple[AttemptReport, ...] = ()

    ids = st.sampled_from(["a", "b", "c"])

    @rule(id=ids, rung=st.sampled_from(list(Rung)), refused=st.booleans())
    def order_comes(self, id: str, rung: Rung, refused: bool) -> None:
        action = self.holdings.ordered(order(id, rung), refusal="it drains" if refused else "")
        if isinstance(action, Start):
            self.starts[id] = self.starts.get(id, 0) + 1
            self.alive.add(id)
        elif isinstance(action, Stop):
            assert id in self.alive

    @rule(id=ids)
    def engine_tells_running(self, id: str) -> None:
        if id in self.alive:
            self.holdings.began(id, self.now_s)

    @rule(id=ids, fraction=st.floats(allow_nan=False))
    def engine_tells_progress(self, id: str, fraction: float) -> None:
        if id in self.alive:
            self.holdings.progressed(id, fraction, "m", self.now_s)

    @rule(id=ids, outcome=st.sampled_from(["completed", "failed", "stopped"]))
    def engine_tells_end(self, id: str, outcome: str) -> None:
        if id not in self.alive:
            return
        self.alive.discard(id)
        self.ends[id] = outcome
        assert self.holdings.ended(id, Ended(outcome))

    @rule(id=ids)
    def not_ours(self, id: str) -> None:
        for action in self.holdings.disowned((id,)):
            assert isinstance(action, Stop)
            assert id in self.alive

    @rule(seconds=st.floats(0, 1))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @precondition(lambda self: not self.flight)
    @rule()
    def send(self) -> None:
        self.flight = self.holdings.reporting(self.now_s)
        ids = [each.attempt_id for each in self.flight]
        assert len(ids) == len(set(ids)), "one report of each attempt"

    @precondition(lambda self: self.flight)
    @rule(arrives=st.booleans(), answered=st.booleans())
    def fly(self, arrives: bool, answered: bool) -> None:
        if arrives or answered:
            for report in self.flight:
                known = self.taken.get(report.attempt_id)
                if known is not None:
                    assert report == known, "a repeated end says the same, and nothing follows it"
                if report.happening not in (Happening.RUNNING, Happening.PROGRESS):
                    self.taken[report.attempt_id] = report
        if answered:
            self.holdings.reported(self.flight)
        else:
            self.holdings.unreported(self.flight)
        self.flight = ()

    @invariant()
    def nothing_starts_twice(self) -> None:
        assert all(count == 1 for count in self.starts.values())

    @invariant()
    def held_is_alive_or_untold(self) -> None:
        held = set(self.holdings.holding)
        assert self.alive <= held
        assert set(self.ends) - set(self.taken) <= held, "no end is dropped"
        assert self.holdings.running == len(self.alive)

    def teardown(self) -> None:
        """Once the way is clear, everything is handed in."""
        if self.flight:
            self.holdings.unreported(self.flight)
        for id in tuple(self.alive):
            self.engine_tells_end(id, "completed")
        while reports := self.holdings.reporting(self.now_s + 1e6):
            self.holdings.reported(reports)
            self.taken.update({each.attempt_id: each for each in reports})
        assert self.holdings.is_handed_in
        for id, outcome in self.ends.items():
            assert self.taken[id].happening == outcome


TestLossyWorld = LossyWorld.TestCase


def test_the_lossy_world_notices_an_end_that_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: holdings that forget what was on its way when the connection broke."""

    def forgetful(_: Holdings, sent: tuple[AttemptReport, ...]) -> None:
        del sent

    monkeypatch.setattr(Holdings, "unreported", forgetful)
    world = LossyWorld()
    world.order_comes("a", Rung.NONE, refused=False)
    world.engine_tells_end("a", "completed")
    world.send()
    world.fly(arrives=False, answered=False)
    with pytest.raises(AssertionError):
        world.teardown()
