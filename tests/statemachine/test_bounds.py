"""Every bound of what comes in: what is as large as it may be is taken, and one more is refused by the name of its field."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from orchestra.errors import Malformed
from orchestra.statemachine import ids, limits
from orchestra.statemachine.bounds import check_amounts, check_labels, check_name, check_text
from orchestra.statemachine.commands import (
    CancelJob,
    CancelTask,
    Command,
    JoinWorker,
    PauseJob,
    PauseWorker,
    Reconfigure,
    StageDraft,
    SubmitJob,
)
from orchestra.statemachine.records import Span
from orchestra.testing.core import Core

DRAFT = StageDraft("a", "app")
UPSTREAM = tuple(StageDraft(f"s{number}", "app") for number in range(3))
JOIN = JoinWorker("w", "s", 1, ("app",))


def of_stage(**fields: Any) -> SubmitJob:
    return SubmitJob("j", (attrs.evolve(DRAFT, **fields),))


LABELS = tuple(f"l{number}" for number in range(limits.LABELS_MAX + 1))
AMOUNTS = tuple((f"r{number:02}", 1) for number in range(limits.RESOURCES_MAX + 1))
HOST = {f"h{number}": "x" for number in range(limits.LABELS_MAX + 1)}
NAME = "n" * (limits.NAME_CHARS_MAX + 1)
REASON = "r" * (limits.REASON_CHARS_MAX + 1)
TIME_MS = limits.TIME_MS_MAX
GRACE_MS = limits.GRACE_MS_MAX
TASKS = limits.TASKS_PER_JOB_MAX
PRIORITY = limits.PRIORITY_MAX

EDGE: list[tuple[str, Command[object], Command[object]]] = [
    ("name", SubmitJob(NAME[:-1], (DRAFT,)), SubmitJob(NAME, (DRAFT,))),
    ("project", SubmitJob("j", (DRAFT,), NAME[:-1]), SubmitJob("j", (DRAFT,), NAME)),
    ("priority", SubmitJob("j", (DRAFT,), "p", PRIORITY), SubmitJob("j", (DRAFT,), "p", PRIORITY + 1)),
    ("priority", SubmitJob("j", (DRAFT,), "p", -PRIORITY), SubmitJob("j", (DRAFT,), "p", -PRIORITY - 1)),
    ("stages", SubmitJob("j", (DRAFT,)), SubmitJob("j", ())),
    ("stages[0].name", of_stage(name=NAME[:-1]), of_stage(name=NAME)),
    ("stages[0].app", of_stage(app=NAME[:-1]), of_stage(app=NAME)),
    (
        "stages[0].template",
        of_stage(template=b"x" * limits.TEMPLATE_BYTES_MAX),
        of_stage(template=b"x" * (limits.TEMPLATE_BYTES_MAX + 1)),
    ),
    ("stages[0].template", of_stage(template=b""), of_stage(template=b"x" * (1 << 20))),
    ("stages[0].needs", of_stage(needs=AMOUNTS[:-1]), of_stage(needs=AMOUNTS)),
    ("stages[0].needs.cpu", of_stage(needs=(("cpu", 2**62),)), of_stage(needs=(("cpu", 2**62 + 1),))),
    ("stages[0].needs.cpu", of_stage(needs=(("cpu", 0),)), of_stage(needs=(("cpu", -1),))),
    ("stages[0].needs. ", of_stage(needs=(("c", 1),)), of_stage(needs=((" ", 1),))),
    ("stages[0].labels", of_stage(labels=LABELS[:-1]), of_stage(labels=LABELS)),
    ("stages[0].labels[1]", of_stage(labels=("a", "b")), of_stage(labels=("a", ""))),
    ("stages[0].priority", of_stage(priority=PRIORITY), of_stage(priority=PRIORITY + 1)),
    ("stages[0].priority", of_stage(priority=-PRIORITY), of_stage(priority=-PRIORITY - 1)),
    ("stages[0].retries", of_stage(retries=limits.RETRIES_MAX), of_stage(retries=limits.RETRIES_MAX + 1)),
    ("stages[0].retries", of_stage(retries=0), of_stage(retries=-1)),
    ("stages[0].backoff_ms", of_stage(backoff_ms=TIME_MS), of_stage(backoff_ms=TIME_MS + 1)),
    ("stages[0].backoff_ms", of_stage(backoff_ms=0), of_stage(backoff_ms=-1)),
    ("stages[0].backoff_ms_max", of_stage(backoff_ms_max=TIME_MS), of_stage(backoff_ms_max=TIME_MS + 1)),
    ("stages[0].backoff_ms_max", of_stage(backoff_ms_max=0), of_stage(backoff_ms_max=-1)),
    ("stages[0].grace_ms", of_stage(grace_ms=GRACE_MS), of_stage(grace_ms=GRACE_MS + 1)),
    ("stages[0].grace_ms", of_stage(grace_ms=0), of_stage(grace_ms=-1)),
    ("stages[0].queue_ms_max", of_stage(queue_ms_max=TIME_MS), of_stage(queue_ms_max=TIME_MS + 1)),
    ("stages[0].queue_ms_max", of_stage(queue_ms_max=1), of_stage(queue_ms_max=0)),
    ("stages[0].run_ms_max", of_stage(run_ms_max=TIME_MS), of_stage(run_ms_max=TIME_MS + 1)),
    ("stages[0].run_ms_max", of_stage(run_ms_max=1), of_stage(run_ms_max=0)),
    ("stages[0].over.step", of_stage(over=Span(0, 2, -1)), of_stage(over=Span(0, 2, 0))),
    ("stages[0].over", of_stage(over=Span(0, TASKS)), of_stage(over=Span(0, TASKS + 1))),
    ("stages[0].over", of_stage(over=Span(2**62 - 1, 2**62)), of_stage(over=Span(2**62, 2**62 + 1))),
    ("stages[0].over", of_stage(over=Span(-(2**62), 1 - 2**62)), of_stage(over=Span(-(2**62) - 1, -(2**62)))),
    ("stages[0].over", of_stage(over=Span(0, 1, 2**62)), of_stage(over=Span(0, 1, 2**62 + 1))),
    ("stages[0].over", of_stage(over=()), of_stage(over=(b"0",) * (TASKS + 1))),
    (
        "stages",
        SubmitJob("j", (attrs.evolve(DRAFT, over=Span(0, TASKS - 1)), UPSTREAM[0])),
        SubmitJob("j", (attrs.evolve(DRAFT, over=Span(0, TASKS)), UPSTREAM[0])),
    ),
    ("name", attrs.evolve(JOIN, name=NAME[:-1]), attrs.evolve(JOIN, name=NAME)),
    ("session", attrs.evolve(JOIN, session=NAME[:-1]), attrs.evolve(JOIN, session=NAME)),
    ("slots", JOIN, attrs.evolve(JOIN, slots=0)),
    ("slots", attrs.evolve(JOIN, slots=limits.SLOTS_MAX), attrs.evolve(JOIN, slots=limits.SLOTS_MAX + 1)),
    ("apps", attrs.evolve(JOIN, apps=LABELS[:-1]), attrs.evolve(JOIN, apps=LABELS)),
    ("labels", attrs.evolve(JOIN, labels=LABELS[:-1]), attrs.evolve(JOIN, labels=LABELS)),
    ("capacity", attrs.evolve(JOIN, capacity=AMOUNTS[:-1]), attrs.evolve(JOIN, capacity=AMOUNTS)),
    ("host", attrs.evolve(JOIN, host=dict(list(HOST.items())[1:])), attrs.evolve(JOIN, host=HOST)),
    ("host", attrs.evolve(JOIN, host={"k": ""}), attrs.evolve(JOIN, host={"": "k"})),
    ("host.k", attrs.evolve(JOIN, host={"k": REASON[:-1]}), attrs.evolve(JOIN, host={"k": REASON})),
    ("lease_ms", Reconfigure(lease_ms=4_000, heartbeat_ms=2_000), Reconfigure(lease_ms=3_999, heartbeat_ms=2_000)),
    ("lease_ms", Reconfigure(lease_ms=limits.DAY_MS), Reconfigure(lease_ms=limits.DAY_MS + 1)),
    ("heartbeat_ms", Reconfigure(heartbeat_ms=10), Reconfigure(heartbeat_ms=9)),
    ("losses_max", Reconfigure(losses_max=1), Reconfigure(losses_max=0)),
    ("retention_ms", Reconfigure(retention_ms=0), Reconfigure(retention_ms=-1)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "most", "beyond"), EDGE, ids=[f"{n}-{row[0]}" for n, row in enumerate(EDGE)]
)
def test_what_is_at_a_bound_is_taken_and_one_beyond_is_refused_by_field(
    where: str, most: Command[object], beyond: Command[object]
) -> None:
    Core(checked=False).apply(most)
    with pytest.raises(Malformed) as caught:
        Core(checked=False).apply(beyond)
    assert caught.value.where == where


@pytest.mark.parametrize("grace_ms", [0, limits.GRACE_MS_MAX])
def test_a_reason_and_the_time_to_end_in_have_bounds(grace_ms: int) -> None:
    for beyond in (-1, limits.GRACE_MS_MAX + 1):
        core = Core(checked=False)
        core.join()
        job = core.submit()
        task_id = ids.task_id(job.job_id, 1)
        for command in (
            CancelJob(job.job_id, "", beyond),
            CancelTask(task_id, "", beyond),
        ):
            with pytest.raises(Malformed) as caught:
                core.apply(command)
            assert caught.value.where == "grace_ms"
        worker = next(iter(core.state.rows["worker"]))
        for command in (
            CancelJob(job.job_id, REASON),
            CancelTask(task_id, REASON),
            PauseJob(job.job_id, REASON),
            PauseWorker(worker, REASON),
        ):
            with pytest.raises(Malformed) as caught:
                core.apply(command)
            assert caught.value.where == "reason"
        core.apply(CancelTask(task_id, REASON[:-1], grace_ms))
        core.apply(CancelJob(job.job_id, REASON[:-1], grace_ms))


def test_edges_of_a_stage_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EDGES_PER_STAGE_MAX", 2)
    names = tuple(stage.name for stage in UPSTREAM)
    for field in ("after", "pairwise"):
        core = Core()
        core.submit(*UPSTREAM, attrs.evolve(DRAFT, **{field: names[:2]}))
        with pytest.raises(Malformed) as caught:
            core.submit(*UPSTREAM, attrs.evolve(DRAFT, **{field: names}))
        assert caught.value.where == f"stages[3].{field}"


def test_a_job_has_a_bounded_number_of_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STAGES_PER_JOB_MAX", 2)
    core = Core()
    core.submit(*UPSTREAM[:2])
    with pytest.raises(Malformed) as caught:
        core.submit(*UPSTREAM)
    assert caught.value.where == "stages"


@pytest.mark.parametrize("name", ["x" * limits.NAME_CHARS_MAX, "é" * limits.NAME_CHARS_MAX])
def test_a_name_may_be_as_long_as_a_line(name: str) -> None:
    check_name(name, "name")
    with pytest.raises(Malformed, match=r"201 characters"):
        check_name(name + name[0], "name")


@pytest.mark.parametrize("char", ["\ud800", "\u2028", "\u2029", "\x7f", "\n"])
def test_a_name_has_nothing_in_it_that_is_not_seen(char: str) -> None:
    with pytest.raises(Malformed, match="control"):
        check_name(f"a{char}b", "name")


def test_texts_labels_and_amounts_are_checked_at_their_bounds() -> None:
    check_text(REASON[:-1], "reason")
    check_labels(LABELS[:-1], "labels")
    check_amounts(AMOUNTS[:-1], "needs")
    for wrong in ((("b", 1), ("a", 1)), (("a", 1), ("a", 1))):
        with pytest.raises(Malformed, match="sorted"):
            check_amounts(wrong, "needs")
