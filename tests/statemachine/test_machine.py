"""A random walk through the core: every command, report and lapse of time, every invariant after every step."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from orchestra.errors import Rejected
from orchestra.statemachine import load, step
from orchestra.statemachine.commands import (
    CancelJob,
    CancelTask,
    LeaveWorker,
    PauseJob,
    PauseWorker,
    ResumeJob,
    ResumeWorker,
    RetryTask,
    StageDraft,
    SubmitJob,
)
from orchestra.statemachine.records import Cause, OnFailure, Span
from orchestra.statemachine.reports import Happening, Heartbeat
from orchestra.testing.core import START_MS, Core
from orchestra.testing.invariants import snapshot

NAMES = ["w1", "w2", "w3"]
picks = st.integers(0, 1_000_000)


def drafts() -> st.SearchStrategy[tuple[StageDraft, ...]]:
    stage = st.fixed_dictionaries(
        {
            "over": st.sampled_from([None, Span(0, 2), Span(0, 3), Span(0, 0)]),
            "retries": st.integers(0, 2),
            "needs": st.sampled_from([(), (("cpu", 1000),), (("cpu", 2000),)]),
            "queue_ms_max": st.sampled_from([None, None, 3_000]),
            "run_ms_max": st.sampled_from([None, None, 2_000]),
            "priority": st.integers(-1, 1),
            "link": st.sampled_from(["", "after", "pairwise"]),
        }
    )

    def build(shapes: list[dict[str, object]]) -> tuple[StageDraft, ...]:
        made: list[StageDraft] = []
        for number, shape in enumerate(shapes):
            link = shape.pop("link")
            extra: dict[str, object] = {}
            if made and link == "after":
                extra["after"] = (made[-1].name,)
            elif made and link == "pairwise":
                extra["pairwise"] = (made[-1].name,)
                shape["over"] = made[-1].over
            made.append(StageDraft(f"s{number}", "app", **shape, **extra))  # type: ignore[arg-type]
        return tuple(made)

    return st.lists(stage, min_size=1, max_size=3).map(build)


class CoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.core = Core()
        self.sessions = 0
        self.workers: list[tuple[str, int]] = []

    def pick(self, things: list[object], number: int) -> object:
        return things[number % len(things)]

    @rule(
        name=st.sampled_from(NAMES),
        slots=st.integers(1, 2),
        cpus=st.integers(0, 2),
        again=st.booleans(),
    )
    def join(self, name: str, slots: int, cpus: int, again: bool) -> None:
        if not again:
            self.sessions += 1
        with suppress(Rejected):
            joined = self.core.join(
                name,
                slots=slots,
                capacity=(("cpu", cpus * 1000),),
                session=f"s{self.sessions}",
                holding=tuple(order.attempt_id for order in self.core.held()[:1]),
            )
            self.workers.append((joined.worker_id, joined.incarnation))

    @rule(
        stages=drafts(),
        priority=st.integers(-2, 2),
        stop=st.booleans(),
        key=st.sampled_from(["", "", "k1"]),
    )
    def submit(self, stages: tuple[StageDraft, ...], priority: int, stop: bool, key: str) -> None:
        on_failure = OnFailure.STOP if stop else OnFailure.CONTINUE
        with suppress(Rejected):
            self.core.apply(SubmitJob("job", stages, "default", priority, on_failure), key=key)

    @precondition(lambda self: self.core.orders)
    @rule(
        number=picks,
        happening=st.sampled_from(list(Happening)),
        cause=st.sampled_from([Cause.ERROR, Cause.LOST, Cause.CANCELLED]),
    )
    def report_any(self, number: int, happening: Happening, cause: Cause) -> None:
        """Any attempt there ever was: most of these come late."""
        attempt_id = self.pick(list(self.core.orders), number)
        self.core.report(str(attempt_id), happening, cause=cause)

    @precondition(lambda self: self.core.held())
    @rule(number=picks, happening=st.sampled_from(list(Happening)))
    def report_live(self, number: int, happening: Happening) -> None:
        order = self.core.held()[number % len(self.core.held())]
        self.core.report(order.attempt_id, happening, cause=Cause.ERROR)

    @precondition(lambda self: self.core.held() and self.workers)
    @rule(number=picks, other=picks)
    def report_by_stranger(self, number: int, other: int) -> None:
        """A worker that does not hold the attempt, or held it in another life."""
        order = self.core.held()[number % len(self.core.held())]
        holder = self.core.orders[order.attempt_id]
        stranger = self.workers[other % len(self.workers)]
        before = self.core.state.rows["task"][order.task_id]
        ignored = self.core.report(order.attempt_id, worker=stranger)
        if stranger != (holder.worker_id, holder.incarnation):
            assert ignored
            assert self.core.state.rows["task"][order.task_id] == before

    @precondition(lambda self: self.workers)
    @rule(number=picks, hold=st.booleans())
    def beat(self, number: int, hold: bool) -> None:
        worker_id, incarnation = self.workers[number % len(self.workers)]
        holding = tuple(self.core.state.index.held.get(worker_id, {}).values()) if hold else ()
        before = snapshot(self.core.state)["attempt"]
        self.core.apply(Heartbeat(worker_id, incarnation, holding))
        if self.core.last is not None and not self.core.last.story:
            assert not self.core.last.changes, "a heartbeat alone must commit nothing"
        assert set(before) <= set(snapshot(self.core.state)["attempt"])

    @precondition(lambda self: self.workers)
    @rule(number=picks, verb=st.sampled_from(["leave", "pause", "resume"]))
    def steer_worker(self, number: int, verb: str) -> None:
        worker_id, incarnation = self.workers[number % len(self.workers)]
        with suppress(Rejected):
            if verb == "leave":
                self.core.apply(LeaveWorker(worker_id, incarnation))
            elif verb == "pause":
                self.core.apply(PauseWorker(worker_id, "maintenance"))
            else:
                self.core.apply(ResumeWorker(worker_id))

    @precondition(lambda self: self.core.state.rows["job"])
    @rule(number=picks, verb=st.sampled_from(["cancel", "pause", "resume"]))
    def steer_job(self, number: int, verb: str) -> None:
        job_id = str(self.pick(list(self.core.state.rows["job"]), number))
        command = {"cancel": CancelJob, "pause": PauseJob, "resume": ResumeJob}[verb]
        with suppress(Rejected):
            self.core.apply(command(job_id))

    @precondition(lambda self: self.core.state.rows["task"])
    @rule(number=picks, retry=st.booleans())
    def steer_task(self, number: int, retry: bool) -> None:
        task_id = str(self.pick(list(self.core.state.rows["task"]), number))
        with suppress(Rejected):
            self.core.apply(RetryTask(task_id) if retry else CancelTask(task_id))

    @rule(ms=st.sampled_from([1, 500, 1_500, 3_000, 7_000, 20_000, 700_000]))
    def time_passes(self, ms: int) -> None:
        self.core.advance(ms)

    def teardown(self) -> None:
        """I20: the same stimuli make the same state. I9: left to itself with an able worker, everything ends."""
        again = load((), START_MS)
        for stimulus in self.core.journal:
            step(again, stimulus)
        assert snapshot(again) == snapshot(self.core.state)
        self.finish()

    def finish(self) -> None:
        core = self.core
        for job_id in list(core.state.rows["job"]):
            with suppress(Rejected):
                core.apply(ResumeJob(job_id))
        open_jobs: list[object] = [None]
        for _ in range(60):
            core.join("last", slots=4, capacity=(("cpu", 4000),), session="last")
            core.run_all()
            open_jobs = [job for job in core.state.rows["job"].values() if job.ended_at_ms is None]  # type: ignore[union-attr]
            if not open_jobs:
                break
            core.advance(5_000)
        assert not open_jobs, f"these never ended: {open_jobs}"


CoreMachine.TestCase.settings = settings(stateful_step_count=40)
TestCore = CoreMachine.TestCase
