"""
The complete list of ways in which one thing's move causes another's. Handlers never import one another; this couples them.

Drained over the rows that a step touched, up to a bound.
"""

from __future__ import annotations

from orchestra.errors import ensure
from orchestra.statemachine import limits
from orchestra.statemachine.counting import counted
from orchestra.statemachine.lifecycles import JOB_FINAL, TASK_FINAL, JobStatus, TaskStatus, Verb
from orchestra.statemachine.records import Job, OnFailure, Stage, Task
from orchestra.statemachine.scheduling import match
from orchestra.statemachine.transaction import Transaction
from orchestra.statemachine.unfolding import advance, pending, review


def drain(tx: Transaction) -> None:
    """
    Apply every rule until nothing more follows, then give out work.

    What the step itself touched is no circle of rules, however much it is: a job of a million tasks leaves memory in one step.
    """
    budget = limits.UNFOLD_SLICE
    jobs: dict[str, None] = {}
    pairs = _Pairs()
    given = len(tx.touched)
    seen = 0
    while True:
        while seen < len(tx.touched):
            old, new = tx.touched[seen]
            seen += 1
            if type(new) is Task:
                was_final = type(old) is Task and old.status in TASK_FINAL
                if was_final != (new.status in TASK_FINAL):
                    _after_task(tx, new, jobs, pairs)
            elif type(new) is Job and old is None and not new.tasks:
                jobs[new.id] = None
        ensure(seen - given <= limits.RULES_MAX, "the rules run in a circle")
        if pairs.offsets:
            pairs.review_first(tx)
            continue
        if not pending(tx.state):
            break
        before = len(tx.touched)
        budget = advance(tx, budget)
        if len(tx.touched) == before:
            break
    for job_id in jobs:
        _finish(tx, job_id)
    if tx.state.index.free and tx.state.index.ready:
        match(tx)


class _Pairs:
    """
    Tasks that follow the one with the same item, to be reviewed in this step: by stage, since many of a stage cost less together.

    Beyond ``limits.UNFOLD_SLICE`` of them their stages are reviewed in slices.
    """

    def __init__(self) -> None:
        self.offsets: dict[str, set[int]] = {}
        self._left = limits.UNFOLD_SLICE

    def add(self, tx: Transaction, stage_id: str, offset: int) -> None:
        if self._left:
            self._left -= 1
            self.offsets.setdefault(stage_id, set()).add(offset)
        else:
            tx.state.index.reviews[stage_id] = 0

    def review_first(self, tx: Transaction) -> None:
        stage_id = next(iter(self.offsets))
        review(tx, tx.get(Stage, stage_id), sorted(self.offsets.pop(stage_id)))


def _after_task(tx: Transaction, new: Task, jobs: dict[str, None], pairs: _Pairs) -> None:
    """An ended task may end its job, and lets others run or never run; a revived one does the opposite."""
    jobs[new.job_id] = None
    index = tx.state.index
    if new.stage_id in index.dependents or new.stage_id in index.pairs:
        _tell_dependents(tx, new, pairs)
    if new.status is TaskStatus.FAILED and tx.find(Stage, new.stage_id) is not None:
        job = tx.find(Job, new.job_id)
        if job is not None and job.on_failure is OnFailure.STOP:
            index.cancel_all(job.id)


def _tell_dependents(tx: Transaction, new: Task, pairs: _Pairs) -> None:
    index = tx.state.index
    stage = tx.find(Stage, new.stage_id)
    if stage is None:
        return
    dependents = index.dependents.get(stage.id, ())
    if dependents:
        is_final = new.status in TASK_FINAL
        tally = index.stage_tallies[stage.id]
        if not is_final or tally.broken or tally.completed == stage.size:
            for dependent in dependents:
                index.reviews[dependent] = 0
    for dependent in index.pairs.get(stage.id, ()):
        pairs.add(tx, dependent, new.position - stage.first)


def _finish(tx: Transaction, job_id: str) -> None:
    """
    A job ends when all its tasks have been made and none is left that has not ended.

    One whose row could not be read at a start is missing and is waited for no more: the job has failed, and says so.
    """
    job = tx.find(Job, job_id)
    if job is None or job.status in JOB_FINAL:
        return
    tally = tx.state.index.tallies.get(job_id, {})
    ended = sum(tally.get(status, 0) for status in TASK_FINAL)
    if tx.state.unfolded(job_id) < job.tasks or ended < sum(tally.values()):
        return
    counts = tuple((str(status), count) for status, count in sorted(tally.items()) if count)
    if job.status is JobStatus.CANCELLING:
        tx.move(job, Verb.CLOSE, reason=job.reason, ended_at_ms=tx.now_ms, counts=counts)
    elif tally.get(TaskStatus.COMPLETED, 0) == job.tasks:
        tx.move(job, Verb.COMPLETE, ended_at_ms=tx.now_ms, counts=counts)
    else:
        told = ", ".join(f"{count} {status}" for status, count in counts if status != "completed")
        if ended < job.tasks:
            told += f"{', ' if told else ''}{job.tasks - ended} missing"
        reason = f"of {counted(job.tasks, 'task')} {told}"
        tx.move(job, Verb.FAIL, reason=reason, ended_at_ms=tx.now_ms, counts=counts)
