"""The far end's standing, lease and fence: pure, with the time as an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.ports import Ended
from orchestra.statemachine import limits
from orchestra.statemachine.records import Cause, Rung
from orchestra.statemachine.replies import HeartbeatAnswered, WorkerJoined
from orchestra.statemachine.reports import Happening
from orchestra.worker.holdings import Start, Stop
from orchestra.worker.session import Fence, Standing, WorkerSession
from tests.worker.kit import introduction, order


def joined(session: WorkerSession, sent_s: float = 100.0, *, lease_ms: int = 6_000) -> None:
    assert session.joined(WorkerJoined("id", 3, lease_ms, 2_000, (), ()), sent_s, sent_s) == ()


def member(*, fence: Fence = "strict", lease_ms: int = 6_000) -> WorkerSession:
    session = WorkerSession(introduction(), fence=fence)
    joined(session, lease_ms=lease_ms)
    return session


def test_a_join_lists_what_is_held_and_starts_what_is_missing() -> None:
    session = member()
    assert isinstance(session.ordered(order("a"), 100.0), Start)
    assert session.joining().holding == ("a",)
    reply = WorkerJoined("id", 4, 6_000, 2_000, (order("a"), order("b")), ())
    assert session.joined(reply, 101.0, 101.0) == (Start(order("b")),)
    assert session.telling(()).incarnation == 4


def test_the_lease_counts_from_the_moment_of_sending() -> None:
    session = member()
    session.ordered(order("a"), 100.0)
    assert session.fence_s == 104.0
    session.beaten(HeartbeatAnswered(True, 6_000, 2_000), 102.0, 102.0)
    assert session.fence_s == 106.0
    session.beaten(HeartbeatAnswered(True, 6_000, 2_000), 101.0, 101.0)
    assert session.fence_s == 106.0, "an answer that overtook another takes nothing back"


def test_what_runs_is_killed_a_margin_before_the_lease_ends_and_not_earlier() -> None:
    session = member()
    session.ordered(order("a"), 100.0)
    assert session.fenced(103.999) == ()
    assert session.fenced(104.0) == (Stop("a", "work", Rung.KILL),)
    assert session.fenced(104.0) == (), "once is enough"
    session.holdings.ended("a", Ended("stopped", signal="SIGKILL"))
    (report,) = session.holdings.reporting(104.1)
    assert (report.happening, report.cause) == (Happening.STOPPED, Cause.LOST)
    assert "lease" in report.message


def test_work_that_completed_although_it_was_fenced_is_told_as_completed() -> None:
    session = member()
    session.ordered(order("a"), 100.0)
    session.fenced(104.0)
    session.holdings.ended("a", Ended("completed", result=b"1"))
    (report,) = session.holdings.reporting(104.1)
    assert (report.happening, report.result) == (Happening.COMPLETED, b"1")


@given(
    lease_ms=st.integers(1, limits.DAY_MS),
    sent_s=st.floats(0, 1e6),
    beats=st.lists(st.floats(0, 1e6), max_size=5),
)
def test_the_order_is_always_fence_then_guardian_then_end_of_lease(
    lease_ms: int, sent_s: float, beats: list[float]
) -> None:
    session = WorkerSession(introduction())
    joined(session, sent_s, lease_ms=lease_ms)
    for beat_s in beats:
        session.beaten(HeartbeatAnswered(True, lease_ms, 2_000), beat_s, beat_s)
    ends_s = max(sent_s, *beats) + lease_ms / 1_000 if beats else sent_s + lease_ms / 1_000
    assert session.fence_s is not None
    assert session.fence_s < session.guard_s < ends_s
    margin_s = min(limits.FENCE_MARGIN_MS, lease_ms / 3) / 1_000
    assert ends_s - session.fence_s == pytest.approx(margin_s, abs=1e-6)


def test_a_patient_worker_never_fences() -> None:
    session = member(fence="patient")
    session.ordered(order("a"), 100.0)
    assert session.fence_s is None
    assert session.fenced(1e9) == ()
    assert session.guard_s > 1e9


def test_nothing_starts_after_the_fence_and_the_next_answer_brings_it_again() -> None:
    session = member()
    assert session.ordered(order("a"), 104.0) is None
    assert session.holdings.holding == ()
    answered = HeartbeatAnswered(True, 6_000, 2_000, orders=(order("a"),))
    assert session.beaten(answered, 105.0, 105.0) == (Start(order("a")),)


def test_an_answer_that_is_read_after_its_lease_starts_nothing() -> None:
    """A process that was frozen while the answer waited for it must not begin what runs elsewhere by now."""
    session = member()
    answered = HeartbeatAnswered(True, 6_000, 2_000, orders=(order("a"),))
    assert session.beaten(answered, 102.0, 106.0) == ()
    fresh = WorkerSession(introduction())
    reply = WorkerJoined("id", 3, 6_000, 2_000, (order("a"),), ())
    assert fresh.joined(reply, 100.0, 104.0) == ()
    assert fresh.holdings.holding == ()
    assert fresh.beaten(answered, 105.0, 105.1) == (Start(order("a")),)


@pytest.mark.parametrize(
    ("remedy", "standing"), [("join", Standing.STRANGER), ("stop", Standing.REPLACED)]
)
def test_an_answer_that_knows_nothing_of_it_changes_its_standing_only(
    remedy: str, standing: Standing
) -> None:
    session = member()
    session.ordered(order("a"), 100.0)
    assert session.beaten(HeartbeatAnswered(False, 6_000, 2_000, remedy=remedy), 102.0, 102.0) == ()
    assert session.standing is standing
    assert session.fence_s == 104.0, "the lease was not renewed"
    assert session.holdings.holding == ("a",)


def test_what_is_not_its_own_any_more_is_killed_and_its_end_still_told() -> None:
    session = member()
    session.ordered(order("a"), 100.0)
    answered = HeartbeatAnswered(True, 6_000, 2_000, foreign=("a", "unknown"))
    assert session.beaten(answered, 102.0, 102.0) == (Stop("a", "work", Rung.KILL, foreign=True),)
    assert session.beaten(answered, 103.0, 103.0) == ()
    assert not session.holdings.takes_output("a")
    session.holdings.ended("a", Ended("completed", result=b"late"))
    (report,) = session.holdings.reporting(104.0)
    assert report.result == b"late"


def test_a_worker_that_drains_offers_nothing_and_hands_back_what_still_comes() -> None:
    session = member()
    session.ordered(order("a"), 100.0)
    session.draining = True
    assert session.must_join
    assert session.joining().apps == ()
    assert session.joining().holding == ("a",)
    session.joined(WorkerJoined("w", 1, 6_000, 2_000, (), ()), 100.0, 100.0)
    assert not session.must_join
    assert session.ordered(order("b"), 100.0) is None
    (report,) = session.holdings.reporting(100.0)
    assert (report.attempt_id, report.happening) == ("b", Happening.STOPPED)
    assert report.cause is not Cause.LOST, "a hand-back is no loss"


def test_a_worker_hands_nothing_back_before_it_is_known_to_drain() -> None:
    """It would be given the same again at once, and so on; orders that it passes over come again with the answer that knows."""
    session = member()
    session.draining = True
    assert session.ordered(order("a"), 100.0) is None
    assert session.holdings.is_handed_in
    assert not session.holdings.reporting(100.0)
    session.joining()
    session.joined(WorkerJoined("w", 1, 6_000, 2_000, (order("a"),), ()), 100.0, 100.0)
    (report,) = session.holdings.reporting(100.0)
    assert (report.attempt_id, report.happening) == ("a", Happening.STOPPED)


def test_an_introduction_from_before_the_drain_does_not_make_it_known() -> None:
    session = member()
    session.joining()
    session.draining = True
    session.joined(WorkerJoined("w", 1, 6_000, 2_000, (), ()), 100.0, 100.0)
    assert session.must_join, "what was answered still offered its apps"
