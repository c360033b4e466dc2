"""The laws by which chaos judges: each holds for what may be, and says what is broken in what may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest

from orchestra.cli.entry import carry_out
from orchestra.ports import Moved
from orchestra.statemachine import ids
from orchestra.statemachine.limits import RECEIPT_MS
from orchestra.testing.chaos import laws, troubles
from orchestra.testing.chaos.campaign import EPISODE, KINDS, LASTING_MS, Episode, episodes, unjudged
from orchestra.testing.chaos.farm import Farm, Plan
from orchestra.testing.chaos.journal import Journal, Run, Told
from orchestra.testing.chaos.laws import Evidence
from orchestra.testing.chaos.tally import Tally, spread

JOB = ids.new_id(1, 5)
TASK = ids.task_id(JOB, 1)
FIRST, SECOND = ids.attempt_id(TASK, 1), ids.attempt_id(TASK, 2)


def moved(number: int, kind: str, id: str, target: str) -> Moved:
    return Moved(number, 0, kind, id, "", "", target, "")


def told(kind: str, *words: object) -> Told:
    return Told("one", 1.0, kind, tuple(map(str, words)))


GOOD = Evidence(
    told=[
        told("ack", "one-1", JOB, 1),
        told("again", "one-1", JOB, 1),
        told("seen", 5, "task", TASK, "completed"),
    ],
    runs=[Run("S", TASK, 1, "/x"), Run("S", TASK, 2, "/y"), Run("E", TASK, 2, "")],
    jobs=[(JOB, "one-1", 1)],
    story=[
        moved(1, "attempt", FIRST, "starting"),
        moved(2, "attempt", FIRST, "lost"),
        moved(3, "attempt", SECOND, "starting"),
        moved(4, "attempt", SECOND, "completed"),
        moved(5, "task", TASK, "completed"),
    ],
    results={TASK: f'"{SECOND}"'.encode()},
)
"""A job of one task, the first attempt of which was lost."""


def test_all_laws_hold_for_what_may_be() -> None:
    assert [law(GOOD) for law in (*laws.ALWAYS, laws.overlapping)] == [[]] * 8
    assert laws.further_attempts(GOOD) == 1


def test_what_a_leaving_worker_hands_back_is_told_from_what_was_lost() -> None:
    handed_back = Moved(2, 0, "attempt", FIRST, "started", "stop", "stopped", "about to leave")
    lost = Moved(2, 0, "attempt", FIRST, "started", "fail", "failed", "silent")
    ended = Moved(2, 0, "attempt", FIRST, "running", "stop", "stopped", "about to leave")
    for how, count in ((handed_back, 1), (lost, 0), (ended, 0)):
        story = [GOOD.story[0], how, *GOOD.story[2:]]
        assert laws.handed_back(attrs.evolve(GOOD, story=story)) == count


def test_no_more_attempts_are_made_anew_than_were_at_risk() -> None:
    assert laws.needless(GOOD, 1) == []
    assert laws.needless(GOOD, 0) == ["1 attempts were made anew, 0 were at risk"]
    handed_back = Moved(2, 0, "attempt", FIRST, "started", "stop", "stopped", "about to leave")
    seen = attrs.evolve(GOOD, story=[GOOD.story[0], handed_back, *GOOD.story[2:]])
    assert laws.needless(seen, 0) == []


def test_short_leases_end_on_a_busy_machine() -> None:
    reason = "its worker could not renew the lease and ended it"
    fenced = Moved(2, 0, "attempt", FIRST, "running", "stop", "stopped", reason)
    silent = Moved(6, 0, "worker", "w", "online", "lose", "lost", "silent for 2 s")
    assert laws.lost_unstruck(GOOD, 0) == 0
    for more, at_risk, count in (([fenced], 0, 1), ([silent], 0, 1), ([silent], 1, 0)):
        seen = attrs.evolve(GOOD, story=[*GOOD.story, *more])
        assert laws.lost_unstruck(seen, at_risk) == count
    back = Moved(7, 0, "worker", "w", "lost", "return", "online", "")
    seen = attrs.evolve(GOOD, story=[*GOOD.story, silent, back])
    assert laws.lost_unstruck(seen, 9) == 0, "it may have been frozen"
    assert laws.lost_unstruck(seen, 9, kills=True) == 1, "who was killed does not come back"


def test_each_absence_of_the_server_is_judged_by_its_own_length(tmp_path: Path) -> None:
    plan = Plan(lease_ms=LASTING_MS)
    farm, tally = Farm(tmp_path, plan, 1), Tally()
    farm.workers = [SimpleNamespace(door=None)] * 6  # pyright: ignore[reportAttributeAccessIssue]  # counted, nothing else
    assert (plan.away_s, Plan().away_s) == (5.0, 1.0)
    troubles.was_away(farm, tally, plan.away_s + 0.1)
    assert farm.at_risk == 6
    assert unjudged({"drain": tally, "disk": Tally()}) == [
        "drain: each of 1 absences of the server was too long to say that it may cost no attempt"
    ]
    troubles.was_away(farm, tally, plan.away_s - 0.1)
    assert farm.at_risk == 6, "a short one excuses nothing"
    assert unjudged({"drain": tally}) == []
    assert [name for name, kind in KINDS.items() if kind.restarts] == [
        "server-kill",
        "calendar",
        "drain",
    ]


def test_a_key_is_asked_for_anew_when_it_is_not_kept_any_more() -> None:
    later = ids.new_id(2, 6)
    jobs = [(JOB, "one-1", 1), (later, "one-1", 1)]
    answered = [*GOOD.told, told("again", "one-1", later, 1)]
    for apart_ms, broken in ((RECEIPT_MS - 1, 2), (RECEIPT_MS, 0)):
        created = [
            Moved(6, 10, "job", JOB, "", "", "running", ""),
            Moved(7, 10 + apart_ms, "job", later, "", "", "running", ""),
        ]
        seen = attrs.evolve(GOOD, jobs=jobs, told=answered, story=[*GOOD.story, *created])
        assert len(laws.doubled(seen)) == broken


@pytest.mark.parametrize(
    ("law", "changed", "says"),
    [
        (laws.lost, {"jobs": []}, "is lost"),
        (laws.lost, {"jobs": [(JOB, "one-1", 2)]}, "is lost"),
        (laws.doubled, {"jobs": [(JOB, "one-1", 1), ("other", "one-1", 1)]}, "has 2 jobs"),
        (laws.doubled, {"told": [*GOOD.told, told("again", "one-1", "x", 1)]}, "was answered with"),
        (laws.not_ended_once, {"story": GOOD.story[:4]}, "0 recorded ends"),
        (
            laws.not_ended_once,
            {"story": [*GOOD.story, moved(6, "task", TASK, "failed")]},
            "2 recorded ends",
        ),
        (
            laws.not_ended_once,
            {"story": [*GOOD.story[:4], moved(5, "task", TASK, "failed")]},
            "failed",
        ),
        (laws.told_otherwise, {"story": GOOD.story[:4]}, "which is None"),
        (laws.told_otherwise, {"told": [told("gap", 3, 5)]}, "entry 5 after 3"),
        (
            laws.gone_back,
            {"story": [*GOOD.story, attrs.evolve(GOOD.story[0], number=6, at_ms=-5)]},
            "entry 6 of the story is 5 ms before entry 5",
        ),
        (laws.begun_twice, {"runs": [*GOOD.runs, GOOD.runs[0]]}, "began 2 times"),
        (laws.begun_twice, {"runs": [Run("S", TASK, 3, "/z")]}, "is not recorded"),
        (laws.overlapping, {"runs": [*GOOD.runs, Run("E", TASK, 1, "")]}, "after attempt 2 began"),
        (laws.wrong_results, {"results": {TASK: f'"{FIRST}"'.encode()}}, "completed it"),
    ],
)
def test_each_law_says_what_is_broken(
    law: Callable[[Evidence], list[str]], changed: dict[str, object], says: str
) -> None:
    (broken,) = law(attrs.evolve(GOOD, **changed))
    assert says in broken


def test_what_is_written_down_is_read_as_it_comes(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    book = journal.book("one")
    journal.runs_file.write_text(f"S {TASK} 1 {tmp_path}/place-1/x\nS half")
    since = journal.mark()
    assert [(run.task, run.number) for run in journal.runs] == [(TASK, 1)]
    held = journal.held(tmp_path / "place-1")
    assert (held, journal.held(tmp_path / "place-11")) == ({TASK: 1}, {})
    assert not journal.moved_on(held, since)
    journal.runs_file.write_text(
        f"S {TASK} 1 {tmp_path}/place-1/x\nS {TASK} 2 {tmp_path}/place-2/x\n"
    )
    later_s = since.at_s + 5
    book.write_text(
        f"{later_s} seen 9 task {TASK} completed\n{later_s} ack one-1 {JOB} 1\n{later_s} fai"
    )
    journal.read()
    assert journal.moved_on(held, since)
    assert journal.work_s(since) == journal.answer_s(since, "one") == pytest.approx(later_s)
    assert journal.work_s(since, tmp_path / "place-1") is None
    assert journal.held(tmp_path / "place-2") == {}


def test_recoveries_are_counted_and_bounded() -> None:
    tally = Tally()
    for took_s in (1.0, 2.0, None):
        tally.recovered("work", took_s, 1.5)
    assert tally.broken == [
        "work: took 2.00 s, the bound is 1.5 s",
        "work: did not come, the bound is 1.5 s",
    ]
    other = Tally(struck=2)
    other.add(tally)
    assert other.broken == tally.broken
    assert spread([float(each) for each in range(1, 201)]) == (
        "p50 100.00 s, p99 198.00 s, max 200.00 s (200 times)"
    )


def test_troubles_are_shared_out_over_farms() -> None:
    found = episodes(("freeze", "disk"), 120, 7)
    assert found == [
        Episode("freeze", 7, EPISODE),
        Episode("freeze", 8, EPISODE),
        Episode("freeze", 9, 20),
        Episode("disk", 7, 24),
    ]
    assert "--only disk --seed 7 --rounds 120" in found[3].line(2_000)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--only", "earthquake"], "earthquake"),
        (["--rounds", "0"], "--rounds"),
        (["--together", "0"], "--together"),
        (["--lease", "1ms"], "--lease"),
    ],
)
def test_the_command_refuses_what_it_can_not_do(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert carry_out(["prove", "chaos", *words]) == 2
    assert says in capsys.readouterr().err
