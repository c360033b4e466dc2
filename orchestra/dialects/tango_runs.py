"""
The runs of a member container, one at a time for each user and project, and the reports of their ends. Pure.

A run is a job of one task in the project `RUNS`, named by its ids, so that a member that was started again finds it. The end of the
newest run of its ids is reported to the manager until that answers 200, or `TRIES_MAX` tries are over; that it was is a job without
tasks in the project `REPORTS`, so that it is not reported again after a restart. What was stopped is not reported: the guide has no word.
A start that comes while the former run is being stopped is kept, and is the newest run from then on (`tango_kept`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import islice
from typing import Any

import attrs

from orchestra.dialects.asks import Apart, Ask, Keyed
from orchestra.dialects.far_calls import CallAll, FarReply
from orchestra.dialects.quoting import shown
from orchestra.dialects.tango_ends import (
    OK,
    OUTCOME,
    PAUSE_MS,
    PAUSE_MS_MAX,
    TRIES_MAX,
    Reporting,
    is_acceptance,
    reported_before,
    settle,
)
from orchestra.dialects.tango_jobs import (
    Ids,
    Steps,
    end_of,
    ids_of_name,
    is_alive,
    jobs_of,
    name_of,
    status_of,
    word_of_job,
)
from orchestra.dialects.tango_kept import STARTS, drop_start, keep_start
from orchestra.dialects.tango_words import MemberWord
from orchestra.errors import Conflict, LimitReached, NotFound, Rejected, Unavailable
from orchestra.statemachine.commands import CancelJob, StageDraft, SubmitJob
from orchestra.statemachine.lifecycles import JOB_FINAL, JobStatus
from orchestra.statemachine.queries import GetOverview
from orchestra.statemachine.replies import JobAccepted, JobView

RUNS = "tango"
STAGE = "run"

ROUND_MS = 500
"""How soon an end is noticed: below the second within which the programs hand over to the next container."""

REPORT_AGE_MS = 24 * 3_600_000
"""An end that is older when the member starts is not news any more."""

LIVE_MAX = 500
"""Runs that have not ended or are not reported yet: each is looked at in every round."""

BEGUN_MAX = 50
"""So many kept starts become runs in one round: a round with all that it may have to do stays below the asks of a dialogue."""

REFUSED_MS = 10_000
"""A kept start that the core refuses is tried again then: its limits are those of live work, which ends."""

CALM_MAX = 100
"""Questions during which a start has become a run: it takes one submission or a few, and all are answered in their order."""

REMEMBERED_MAX = 10_000
"""Users' projects whose newest run is known; the oldest that need no report are forgotten, and are then as never started."""

FORGOTTEN_MAX = 100
"""Runs of the same ids that were forgotten within the day for which a key is known."""


@attrs.define(slots=True)
class _Run:
    """
    The newest run of its ids, or the start that is kept after it.

    Args:
        kept: The job of that start; empty for none. Another one is another object, so that what was found of this can not be said of it.
    """

    job_id: str
    kept: str = ""
    end: MemberWord | None = None
    settled: bool = False
    tries: int = 0
    next_ms: int = 0

    @property
    def shown_id(self) -> str:
        """The job whose end counts."""
        return self.kept or self.job_id


class Runs:
    """
    What a member has started.

    Args:
        draft_for: The stage that runs for ids.
        reporting: Where ends are reported; None for nowhere.
        now_ms: A clock that never goes back.
        call_all: Makes calls.
    """

    def __init__(
        self,
        draft_for: Callable[[Ids], StageDraft],
        reporting: Reporting | None,
        now_ms: Callable[[], int],
        call_all: CallAll,
    ) -> None:
        self._draft_for = draft_for
        self._reporting = reporting
        self._now_ms = now_ms
        self._call_all = call_all
        self._newest: dict[Ids, _Run] | None = None
        self._begins: set[Ids] = set()

    def start(self, ids: Ids) -> Steps:
        """
        Start a run, unless one of these ids is alive: then that is the one that was asked for, and nothing further starts.

        While the former run is being stopped the start is kept: it is durable on return, and runs when the former has ended.

        Raises:
            LimitReached: Too many runs are alive.
            Malformed: The ids name no run.
        """
        name_of(ids)
        run = yield from self._calm(ids)
        newest = yield from self._opened()
        if run is not None:
            if run.kept and (yield from is_alive(run.kept)):
                return
            status = yield from status_of(run.job_id)
            if status is JobStatus.CANCELLING:
                yield from self._keep(ids, run)
                return
            if status is not None and status not in JOB_FINAL:
                return
        if ids in self._begins and (yield from self._calm(ids)) is run:
            raise Unavailable("a start at the same time did not get through")
        if newest.get(ids) is not run:
            return  # a start at the same time is the same
        if sum(not each.settled for each in newest.values()) >= LIVE_MAX:
            raise LimitReached(f"{LIVE_MAX} runs are alive", retry_after_ms=ROUND_MS)
        yield from self._begin(ids, self._submitted(ids, "" if run is None else run.job_id))
        if len(newest) > REMEMBERED_MAX:
            over = (each for each, run in newest.items() if run.settled)
            for forgotten in list(islice(over, len(newest) - REMEMBERED_MAX)):
                del newest[forgotten]

    def _begin(
        self, ids: Ids, submitted: Generator[Ask, Any, JobAccepted]
    ) -> Generator[Ask, Any, JobAccepted]:
        """Have a new run of these ids. Until it is known neither a start nor a stop of theirs decides anything: see `_calm`."""
        newest = yield from self._opened()
        self._begins.add(ids)
        try:
            accepted = yield from submitted
            newest.pop(ids, None)
            newest[ids] = _Run(accepted.job_id)
        finally:
            self._begins.discard(ids)
        return accepted

    def _calm(self, ids: Ids) -> Generator[Ask, Any, _Run | None]:
        """The newest run of these ids, when none of theirs is just beginning."""
        newest = yield from self._opened()
        for _ in range(CALM_MAX):
            if ids not in self._begins:
                return newest.get(ids)
            yield GetOverview()
        raise Unavailable("another start of the same is under way")

    def _keep(self, ids: Ids, run: _Run) -> Steps:
        """Keep a start until this run has ended."""
        kept = yield from keep_start(ids, run.shown_id)
        newest = yield from self._opened()
        current = yield from self._calm(ids)
        if current is run:
            newest[ids] = _Run(run.job_id, kept)
        elif current is None or current.kept != kept:
            yield from drop_start(kept, "another start came first")

    def _begin_kept(self, ids: Ids, run: _Run) -> Generator[Ask, Any, bool]:
        """Make a kept start a run, if its time has come; whether it has."""
        if (yield from is_alive(run.job_id)) or not (yield from is_alive(run.kept)):
            return False
        newest = yield from self._opened()
        if newest.get(ids) is not run:
            return False  # a start or a stop came in between

        def submitted() -> Generator[Ask, Any, JobAccepted]:
            return (yield Keyed(self._job_of(ids), f"after {run.kept}"))

        accepted = yield from self._begin(ids, submitted())
        yield from drop_start(run.kept, f"it is job {accepted.number} now")
        return True

    def _job_of(self, ids: Ids) -> SubmitJob:
        return SubmitJob(name_of(ids), (self._draft_for(ids),), RUNS)

    def _submitted(self, ids: Ids, last: str) -> Generator[Ask, Any, JobAccepted]:
        """A new job. Whoever else asks to start after the same former run gets the same one."""
        submit = self._job_of(ids)
        for _ in range(FORGOTTEN_MAX):
            accepted = yield Keyed(submit, f"after {last}" if last else f"run {submit.name}")
            status = (yield from status_of(accepted.job_id)) if accepted.repeated else None
            if status is None or status not in JOB_FINAL:
                return accepted
            # It was forgotten here, and had ended.
            last = accepted.job_id
        raise Unavailable("what ran before is not known any more")

    def stop(self, ids: Ids) -> Steps:
        """
        Ask the run of these ids to end; that it ended already is well. It is over when its status says so. A start that was kept is
        taken back.

        An end that was not reported yet is not reported any more: a manager that stops a run takes it for stopped, and would start
        what comes after it, or resume it.

        Raises:
            NotFound: Nothing was started.
        """
        run = yield from self._run(ids)
        newest = yield from self._opened()
        if run.kept and run.end is None:
            # First, so that it does not become a run meanwhile.
            former = newest[ids] = _Run(run.job_id)
            if (yield from drop_start(run.kept, "stopped by its Project Manager")):
                return
            if newest.get(ids) is former:
                newest[ids] = run  # it is given up: its end is what is not reported any more
        try:
            status = yield from status_of(run.job_id)
            if (
                status is not None
                and status not in JOB_FINAL
                and status is not JobStatus.CANCELLING
            ):
                yield CancelJob(run.job_id, reason="stopped by its Project Manager")
                return
        except Conflict:
            pass  # it ended in between, which is what was asked for
        end = end_of((yield from word_of_job(run.shown_id)))
        if run.settled or end is None:
            return
        if end is MemberWord.STOPPED or self._reporting is None:
            run.settled = True
        else:
            yield from _settle(run, end, "was stopped")

    def resume(self, ids: Ids) -> Generator[Ask, Any, bool]:
        """
        Start a failed run again; whether it was.

        Raises:
            NotFound: Nothing was started.
        """
        yield from self._run(ids)
        if (yield from self.word(ids)) is not MemberWord.FAILED:
            return False
        yield from self.start(ids)
        return True

    def word(self, ids: Ids) -> Generator[Ask, Any, MemberWord | None]:
        """How the newest run of these ids is, which is one that is kept; None when nothing was started."""
        newest = yield from self._opened()
        run = newest.get(ids)
        if run is None:
            return None
        word = yield from word_of_job(run.shown_id)
        if run.kept and word not in (MemberWord.STARTED, MemberWord.FAILED):
            # Somebody cancelled it at the core, or it has just become a run.
            word = yield from word_of_job(newest.get(ids, run).job_id)
        return word

    def report(self) -> Steps:
        """
        One round: look for ends, begin what was kept, and report what is due.

        Raises:
            Unavailable: A report was not taken, or a kept start could not begin. It is tried again, or given up; the message says which.
        """
        due, told = yield from self._due()
        reporting = self._reporting
        if reporting is not None and due:
            calls = tuple(reporting.call(ids, end) for ids, _, end in due)
            replies = yield Apart(lambda: self._call_all(calls))
            for (ids, run, end), reply in zip(due, replies, strict=True):
                if run.settled:
                    continue
                fault = yield from self._answered(run, end, reply)
                if fault:
                    of = f"{OUTCOME[end]} of {name_of(ids)}"
                    told.append(f"{reporting.container_id}'s report was not taken: {of}: {fault}")
        if told:
            raise Unavailable("; ".join(told[:10]))

    def _due(self) -> Generator[Ask, Any, tuple[list[tuple[Ids, _Run, MemberWord]], list[str]]]:
        """The ends that are to be reported now, and what went wrong on the way."""
        newest = yield from self._opened()
        due: list[tuple[Ids, _Run, MemberWord]] = []
        told: list[str] = []
        now, begun = self._now_ms(), 0
        live = [(ids, run) for ids, run in newest.items() if not run.settled]
        for ids, run in islice(live, LIVE_MAX):
            if run.kept and run.end is None and begun < BEGUN_MAX and now >= run.next_ms:
                try:
                    if (yield from self._begin_kept(ids, run)):
                        begun += 1
                        continue
                except Rejected as error:
                    begun += 1
                    run.next_ms = now + REFUSED_MS
                    told.append(f"the start of {name_of(ids)} that was kept is refused: {error}")
            if run.end is None:
                run.end = end_of((yield from word_of_job(run.shown_id)))
            if run.end is MemberWord.STOPPED or (run.end is not None and self._reporting is None):
                run.settled = True
            elif run.end is not None and now >= run.next_ms:
                due.append((ids, run, run.end))
        # A start or a stop may have come in between.
        return [e for e in due if newest.get(e[0]) is e[1] and not e[1].settled], told

    def _answered(
        self, run: _Run, end: MemberWord, reply: FarReply | None
    ) -> Generator[Ask, Any, str]:
        """What came back for a report; what is to be told of it, empty when it is well."""
        run.tries += 1
        if reply is not None and is_acceptance(reply):
            yield from _settle(run, end, "was reported")
            return ""
        if reply is not None and reply.status == OK:
            # It was heard: after a second report of the same it would start the next container twice.
            yield from _settle(run, end, "was objected to")
            text = shown(reply.body.decode("utf-8", "replace"))
            return f"status 200 came back with {text}, which accepts nothing; it is not repeated"
        answer = "nothing" if reply is None else f"status {reply.status}"
        if run.tries >= TRIES_MAX:
            yield from _settle(run, end, "was given up")
            return f"{answer} came back, given up after {TRIES_MAX} tries"
        run.next_ms = self._now_ms() + min(PAUSE_MS << (run.tries - 1), PAUSE_MS_MAX)
        return f"{answer} came back, try {run.tries} of {TRIES_MAX}"

    def _run(self, ids: Ids) -> Generator[Ask, Any, _Run]:
        run = yield from self._calm(ids)
        if run is None:
            raise NotFound("nothing was started", where="project_id")
        return run

    def _opened(self) -> Generator[Ask, Any, dict[Ids, _Run]]:
        """What is known; read from the core at the first time."""
        if self._newest is not None:
            return self._newest
        overview = yield GetOverview()
        reported = yield from reported_before()
        known: dict[Ids, _Run] = {}
        numbers: dict[Ids, int] = {}
        looked_at: set[Ids] = set()

        def is_told(job: JobView) -> bool:
            ended_at_ms = job.ended_at_ms
            old = ended_at_ms is not None and overview.at_ms - ended_at_ms > REPORT_AGE_MS
            return old or job.id in reported

        for job in (yield from jobs_of(RUNS)):
            ids = ids_of_name(job.name)
            if ids is None or ids in known or len(known) >= REMEMBERED_MAX:
                continue
            known[ids], numbers[ids] = _Run(job.id, settled=is_told(job)), job.number
        for job in (yield from jobs_of(STARTS)):
            ids = ids_of_name(job.name)
            if ids is None or ids not in known:
                continue
            newer = job.number > numbers[ids] and ids not in looked_at
            looked_at.add(ids)
            if newer and job.status is not JobStatus.CANCELLED:
                known[ids] = _Run(known[ids].job_id, job.id, settled=is_told(job))
            elif job.status not in JOB_FINAL:
                yield from drop_start(job.id, "it became a run")
        if self._newest is None:
            # Jobs come newest first, and what is oldest is forgotten first.
            self._newest = dict(reversed(known.items()))
        return self._newest


def _settle(run: _Run, end: MemberWord, what: str) -> Steps:
    yield from settle(run.shown_id, end, what)
    run.settled = True
