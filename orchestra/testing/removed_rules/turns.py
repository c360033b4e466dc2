"""Whose turn it is, and who has room for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from orchestra.statemachine import rules, scheduling
from orchestra.statemachine.index import Index
from orchestra.statemachine.lifecycles import JOB_SCHEDULABLE, JobStatus, WorkerStatus
from orchestra.statemachine.records import evolve
from orchestra.testing.removed_rules.replacing import Replacement, always

_INDEX = import_module("orchestra.statemachine.index")
_UNFOLDING = import_module("orchestra.statemachine.unfolding")


def priority_ignored() -> Sequence[Replacement]:
    """Work is given out in the order in which it came, whatever its priority is."""
    original = Index.offer

    def offer(self: Index, stage: Any, job: Any) -> None:
        original(self, evolve(stage, priority=0), evolve(job, priority=0))

    return ((Index, "offer", offer),)


def last_in_first_out() -> Sequence[Replacement]:
    """Of work of the same priority that which came last is given out first."""
    original = Index.offer

    def offer(self: Index, stage: Any, job: Any) -> None:
        turned = evolve(job, submitted_at_ms=-job.submitted_at_ms, number=-job.number)
        original(self, stage, turned)

    return ((Index, "offer", offer),)


def back_of_the_queue() -> Sequence[Replacement]:
    """A task that was lost with its worker waits for all that came after it."""

    def enqueue(self: Index, task_ids: list[str], stage: Any, job: Any, queued_at_ms: int) -> None:
        queue = self.queues.setdefault(stage.id, deque())
        queue.extend(task_ids)
        if stage.queue_ms_max is not None:
            for task_id in task_ids:
                self.arm(queued_at_ms + stage.queue_ms_max, "task", task_id)
        self.offer(stage, job)

    return ((Index, "enqueue", enqueue),)


def no_reservation() -> Sequence[Replacement]:
    """Small work keeps large work out for as long as there is any."""
    return ((scheduling, "_reserved", always({})),)


def no_slot_check() -> Sequence[Replacement]:
    """Workers are given more than they have room for."""
    return ((scheduling, "lacking", always("")),)


def needs_ignored() -> Sequence[Replacement]:
    """Slots are counted, and what a task needs besides is not."""
    original = scheduling.lacking

    def lacking(state: Any, worker: Any, shape: Any) -> str:
        return original(state, worker, (*shape[:2], ()))

    return ((scheduling, "lacking", lacking),)


def whole_queue_at_once() -> Sequence[Replacement]:
    """A worker is given all that waits, be there room for it or not."""
    return ((scheduling, "room", always(1_000_000)),)


def never_given_back() -> Sequence[Replacement]:
    """What an ended attempt had taken of its worker stays taken."""
    original = Index.use

    def use(self: Index, worker_id: str, stage: Any, times: int) -> None:
        original(self, worker_id, stage, max(times, 0))

    return ((Index, "use", use),)


def anywhere() -> Sequence[Replacement]:
    """Work is given to workers that can not run it."""
    return ((scheduling, "unable", always("")),)


def _sees(takes: Callable[[Any, int], bool]) -> Sequence[Replacement]:
    def see_room(self: Index, worker: Any) -> None:
        if takes(worker, len(self.held.get(worker.id, ()))):
            self.free[worker.id] = None
        else:
            self.free.pop(worker.id, None)

    return ((Index, "see_room", see_room),)


def paused_worker_works() -> Sequence[Replacement]:
    """A worker that is paused is given work."""
    return _sees(lambda worker, held: worker.status is WorkerStatus.ONLINE and held < worker.slots)


def gone_worker_works() -> Sequence[Replacement]:
    """A worker that is lost, or was replaced, is given work."""
    return _sees(lambda worker, held: not worker.paused and held < worker.slots)


def busy_for_ever() -> Sequence[Replacement]:
    """A worker that held something once is given nothing more until it comes anew."""
    return _sees(
        lambda worker, held: (
            worker.status is WorkerStatus.ONLINE
            and not worker.paused
            and held < worker.slots
            and worker.incarnation > 1
        )
    )


def paused_job_runs() -> Sequence[Replacement]:
    """The tasks of a paused job are given out."""
    wider = JOB_SCHEDULABLE | {JobStatus.PAUSED}
    return ((_INDEX, "JOB_SCHEDULABLE", wider), (scheduling, "JOB_SCHEDULABLE", wider))


def no_promotion() -> Sequence[Replacement]:
    """Nothing that waits is looked at again when what it comes after completes."""
    return ((rules, "review", always(None)),)


def stages_at_once() -> Sequence[Replacement]:
    """A stage does not wait for those that it comes after."""
    return ((_UNFOLDING, "_by_stages", always("go")),)


def pairs_at_once() -> Sequence[Replacement]:
    """A task does not wait for the one with the same item."""

    def by_pairs(*asked: Any) -> str:
        *_, verdict = asked
        return str(verdict)

    return ((_UNFOLDING, "_by_pairs", by_pairs),)


def _verdict(old: str, new: str) -> Sequence[Replacement]:
    by_stages, by_pairs = vars(_UNFOLDING)["_by_stages"], vars(_UNFOLDING)["_by_pairs"]

    def turned(verdict: str) -> str:
        return new if verdict == old else verdict

    def stages(*asked: Any) -> str:
        return turned(by_stages(*asked))

    def pairs(*asked: Any) -> str:
        return turned(by_pairs(*asked))

    return ((_UNFOLDING, "_by_stages", stages), (_UNFOLDING, "_by_pairs", pairs))


def runs_after_failure() -> Sequence[Replacement]:
    """What comes after something that failed runs all the same."""
    return _verdict("never", "go")


def waits_after_failure() -> Sequence[Replacement]:
    """What comes after something that failed waits for ever."""
    return _verdict("never", "wait")


def skips_in_haste() -> Sequence[Replacement]:
    """What comes after something that has not completed yet is skipped."""
    return _verdict("wait", "never")


RULES = (
    priority_ignored,
    last_in_first_out,
    back_of_the_queue,
    no_reservation,
    no_slot_check,
    needs_ignored,
    whole_queue_at_once,
    never_given_back,
    anywhere,
    paused_worker_works,
    gone_worker_works,
    busy_for_ever,
    paused_job_runs,
    no_promotion,
    stages_at_once,
    pairs_at_once,
    runs_after_failure,
    waits_after_failure,
    skips_in_haste,
)
