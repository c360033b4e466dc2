"""
Why something waits, or ended as it did: ranked reasons from the very functions by which the scheduler decides.

For work that waits each reason names what would change it; the first is the one that holds it back now.
"""

from __future__ import annotations

from orchestra.statemachine import ids
from orchestra.statemachine.counting import counted
from orchestra.statemachine.index import Shape, shape_of
from orchestra.statemachine.lifecycles import (
    JOB_FINAL,
    TASK_FINAL,
    JobStatus,
    TaskStatus,
    WorkerStatus,
)
from orchestra.statemachine.records import Attempt, Job, Rung, Stage, Task, Worker
from orchestra.statemachine.replies import Reason, WhyAnswered
from orchestra.statemachine.scheduling import ahead_of, heads, lacking, reservations, unable
from orchestra.statemachine.state import State
from orchestra.statemachine.views import worker_name

_SHOWN = 5


def why_task(state: State, task: Task, now_ms: int) -> WhyAnswered:
    """The reasons for a task's present status."""
    selector = f"{ids.number_of(task.job_id)}.{task.position}"
    status = task.status
    if status is TaskStatus.WAITING:
        reasons = _upstream(state, task)
    elif status is TaskStatus.QUEUED:
        reasons = _queued(state, task, now_ms)
    elif status is TaskStatus.BACKOFF:
        until = f" in {max((task.retry_at_ms or 0) - now_ms, 0) / 1000:.1f} s"
        text = f"try {task.attempts} failed ({task.reason}); the next one comes{until}"
        reasons = [Reason("backoff", text, until_ms=task.retry_at_ms)]
    elif status in TASK_FINAL:
        reasons = _ended(state, task)
    else:
        reasons = _held(state, task, now_ms)
    if status not in TASK_FINAL:
        reasons = [*_job_holds(state, task), *reasons]
    return WhyAnswered(selector, str(status), tuple(reasons))


def _job_holds(state: State, task: Task) -> list[Reason]:
    job = state.find(Job, task.job_id)
    if job is not None and job.status is JobStatus.PAUSED:
        text = f"job {job.number} is paused: {job.reason}"
        return [Reason("job-paused", text, remedy=f"resume job {job.number}")]
    if job is not None and job.status is JobStatus.CANCELLING:
        return [Reason("job-cancelling", f"job {job.number} is being cancelled: {job.reason}")]
    return []


def _upstream(state: State, task: Task) -> list[Reason]:
    stage = state.find(Stage, task.stage_id)
    if stage is None:
        return []
    stages = state.stages(task.job_id)
    reasons: list[Reason] = []
    for index in stage.after:
        upstream = stages[index]
        tally = state.index.stage_tallies[upstream.id]
        if tally.completed < upstream.size:
            left = upstream.size - tally.completed
            verb = "is" if left == 1 else "are"
            open_ = f"{left} of {counted(upstream.size, 'task')} {verb}"
            text = f"it comes after stage {upstream.name!r}: {open_} not completed"
            reasons.append(
                Reason("after", text, remedy=f"see why they wait: {_first_open(state, upstream)}")
            )
    for index in stage.pairwise:
        position = stages[index].first + task.position - stage.first
        other = state.find(Task, ids.task_id(task.job_id, position))
        if other is None or other.status is not TaskStatus.COMPLETED:
            selector = f"{ids.number_of(task.job_id)}.{position}"
            told = "not unfolded yet" if other is None else str(other.status)
            text = f"it comes after task {selector} of {stages[index].name!r}, which is {told}"
            reasons.append(Reason("after-pair", text, remedy=f"see why {selector}"))
    return reasons


def _first_open(state: State, stage: Stage) -> str:
    for position in range(stage.first, stage.first + min(stage.size, 1000)):
        task = state.find(Task, ids.task_id(stage.job_id, position))
        if task is None or task.status is not TaskStatus.COMPLETED:
            return f"why {ids.number_of(stage.job_id)}.{position}"
    return f"list the tasks of stage {stage.name!r}"


def _queued(state: State, task: Task, now_ms: int) -> list[Reason]:
    stage = state.find(Stage, task.stage_id)
    job = state.find(Job, task.job_id)
    if stage is None or job is None:
        return []
    shape = shape_of(stage)
    workers = [w for w in state.each(Worker) if w.status is WorkerStatus.ONLINE]
    able = [worker for worker in workers if not unable(worker, shape)]
    if not able:
        return _nobody_able(workers, shape)
    reasons: list[Reason] = []
    awake = [worker for worker in able if not worker.paused]
    if not awake:
        names = _names(able)
        paused = ", ".join(_paused(worker) for worker in able[:_SHOWN])
        text = f"every worker that can run it is paused: {paused}{_more(able)}"
        return [Reason("workers-paused", text, remedy=f"resume one of them: {names}")]
    reserved = reservations(state, now_ms)
    roomy = [worker for worker in awake if not lacking(state, worker, shape)]
    if not roomy:
        reasons.append(_busy(state, awake, shape))
    elif all(reserved.get(worker.id, task.id) != task.id for worker in roomy):
        waits = {_selector(reserved[worker.id]) for worker in roomy}
        text = f"the workers with room are reserved for work that waited longer: {', '.join(sorted(waits))}"
        reasons.append(Reason("reserved", text, remedy="wait, or add a worker"))
    stands = _place(state, task, stage, job)
    if stands:
        reasons.append(stands)
    return reasons or [Reason("next", "it is given out with the next decision")]


def _selector(task_id: str) -> str:
    return f"{ids.number_of(task_id)}.{ids.position_of(task_id)}"


def _place(state: State, task: Task, stage: Stage, job: Job) -> Reason | None:
    before = state.index.queues[stage.id].index(task.id)
    stages_before = ahead_of(state, task, stage, job)
    if not before and not stages_before:
        return None
    parts: list[str] = []
    if stages_before:
        parts.append(f"{counted(stages_before, 'stage')} of higher priority or earlier submission")
    if before:
        parts.append(f"{counted(before, 'task')} of its own stage")
    return Reason(
        "queue",
        f"before it in the queue: {' and '.join(parts)}",
        remedy="wait, or add a worker; a priority is given when a job is submitted",
    )


def _nobody_able(workers: list[Worker], shape: Shape) -> list[Reason]:
    app, labels, needs = shape
    if not workers:
        remedy = "start one: python -m orchestra worker URL"
        return [Reason("no-worker", "no worker is online", remedy=remedy)]
    lacks = {worker.id: unable(worker, shape) for worker in workers}
    with_app = [worker for worker in workers if lacks[worker.id] != "app"]
    if not with_app:
        text = f"none of {counted(len(workers), 'worker')} runs the app {app!r}"
        return [Reason("no-app", text, remedy=f"start a worker that has the app {app!r}")]
    with_labels = [worker for worker in with_app if lacks[worker.id] != "label"]
    if not with_labels:
        text = f"none of {counted(len(with_app), 'worker')} with the app has the labels {', '.join(labels)}"
        return [
            Reason("no-label", text, remedy="start a worker with these labels, or ask for fewer")
        ]
    best = dict(max(with_labels, key=lambda worker: _fitness(worker, shape)).capacity)
    reasons: list[Reason] = []
    for name, amount in needs:
        if best.get(name, 0) < amount:
            text = f"it needs {name}={_amount(amount)}; the best worker has {name}={_amount(best.get(name, 0))} in all"
            remedy = (
                f"start a larger worker, or ask for {name}={_amount(best.get(name, 0))} at most"
            )
            reasons.append(Reason("too-small", text, remedy=remedy))
    return reasons


def _fitness(worker: Worker, shape: Shape) -> int:
    capacity = dict(worker.capacity)
    return sum(1 for name, amount in shape[2] if capacity.get(name, 0) >= amount)


def _amount(thousandths: int) -> str:
    return f"{thousandths / 1000:g}" if thousandths < 10**9 else f"{thousandths // 1000}"


def _busy(state: State, awake: list[Worker], shape: Shape) -> Reason:
    what = sorted({lacking(state, worker, shape) for worker in awake})
    holders: list[str] = []
    for worker in awake[:_SHOWN]:
        held = state.index.held.get(worker.id, {})
        running = ", ".join(_selector(task_id) for task_id in list(held)[:_SHOWN])
        holders.append(f"{worker.name} ({running})" if running else worker.name)
    busy = "it is busy" if len(awake) == 1 else "all are busy"
    able = f"{counted(len(awake), 'worker')} can run it and {busy}"
    text = f"{able} (no {', '.join(what)} free): {'; '.join(holders)}"
    return Reason("busy", text, remedy="wait, or add a worker")


def _names(workers: list[Worker]) -> str:
    names = [worker.name for worker in workers[:_SHOWN]]
    return ", ".join(names) + _more(workers)


def _more(workers: list[Worker]) -> str:
    return ", ..." if len(workers) > _SHOWN else ""


def _paused(worker: Worker) -> str:
    return f"{worker.name} ({worker.pause_reason})" if worker.pause_reason else worker.name


def _held(state: State, task: Task, now_ms: int) -> list[Reason]:
    attempt = state.find(Attempt, ids.attempt_id(task.id, task.attempts))
    name = worker_name(state, task.worker_id)
    pulse = state.pulses.get(task.worker_id or "")
    silent = (
        f"; the worker was heard {(now_ms - pulse.seen_at_ms) / 1000:.1f} s ago" if pulse else ""
    )
    if task.status is TaskStatus.CANCELLING and attempt is not None:
        if attempt.rung is Rung.UNCONFIRMED:
            text = f"{name} was told to kill it and has not confirmed that nothing of it is alive{silent}"
            return [Reason("cancel-unconfirmed", text, remedy=f"look at {name}, or end the worker")]
        text = f"stopping on {name}: {attempt.rung} because {attempt.stop_reason}{silent}"
        return [Reason("cancelling", text, until_ms=attempt.rung_until_ms)]
    if task.status is TaskStatus.LEASED:
        return [Reason("starting", f"{name} was told to start it{silent}")]
    progress = state.progress.get(attempt.id) if attempt is not None else None
    told = f", {progress.fraction:.0%} {progress.message}".rstrip() if progress else ""
    return [Reason("running", f"it runs on {name} (attempt {task.attempts}){told}{silent}")]


def _ended(state: State, task: Task) -> list[Reason]:
    last = task.attempts
    if task.status is TaskStatus.COMPLETED:
        reasons = [Reason("completed", f"completed in attempt {last}")]
        last -= 1  # what is left to tell is why those before it did not do
    else:
        told = task.reason or str(task.status)
        reasons = [Reason(str(task.cause) or str(task.status), told, remedy=_remedy(task))]
    for number in range(last, max(last - _SHOWN, 0), -1):
        attempt = state.find(Attempt, ids.attempt_id(task.id, number))
        if attempt is None:
            continue
        end = [str(attempt.status), str(attempt.cause)]
        if attempt.exit_code is not None:
            end.append(f"exit code {attempt.exit_code}")
        if attempt.signal:
            end.append(attempt.signal)
        told = ", ".join(part for part in end if part)
        text = f"attempt {number} on {worker_name(state, attempt.worker_id)}: {told}"
        said = attempt.message.strip()  # which may be nothing but white space
        if said:
            text += f": {said.splitlines()[-1][:300]}"
        if attempt.late_outcome:
            text += f" (a late report said {attempt.late_outcome}; kept as evidence)"
        reasons.append(Reason(f"attempt-{number}", text))
    return reasons


def _remedy(task: Task) -> str:
    selector = _selector(task.id)
    if task.status is TaskStatus.SKIPPED:
        return "retry the tasks that failed before it"
    return f"see its output: logs {selector}; try it again: retry {selector}"


def why_job(state: State, job: Job, now_ms: int) -> WhyAnswered:
    """The reasons for a job's present status: its own, then those of the first tasks that are not completed."""
    reasons: list[Reason] = []
    if job.status is JobStatus.PAUSED:
        reasons.append(Reason("job-paused", f"paused: {job.reason}", remedy=f"resume {job.number}"))
    elif job.reason:
        reasons.append(Reason(str(job.status), job.reason))
    wanted = (
        (TaskStatus.FAILED, TaskStatus.SKIPPED, TaskStatus.CANCELLED)
        if job.status in JOB_FINAL
        else (TaskStatus.FAILED, TaskStatus.CANCELLING, TaskStatus.BACKOFF, TaskStatus.QUEUED)
    )
    for status in wanted:
        task = _first_with(state, job, status)
        if task is not None:
            count = state.index.tallies[job.id].get(status, 0)
            inner = why_task(state, task, now_ms)
            for reason in inner.reasons[:2]:
                text = f"{count} {status}, such as {inner.subject}: {reason.text}"
                reasons.append(Reason(reason.code, text, reason.remedy, reason.until_ms))
    if not reasons:
        counts = state.index.tallies.get(job.id, {})
        told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        to_come = "its task is to come" if job.tasks == 1 else f"all {job.tasks} tasks are to come"
        reasons.append(Reason(str(job.status), told or to_come))
    return WhyAnswered(str(job.number), str(job.status), tuple(dict.fromkeys(reasons)))


def _first_with(state: State, job: Job, status: TaskStatus) -> Task | None:
    if not state.index.tallies.get(job.id, {}).get(status):
        return None
    if status is TaskStatus.QUEUED:
        for _, shape in heads(state):
            for entry in state.index.ready.get(shape, ()):
                if ids.job_of(entry[3]) == job.id and state.index.queues.get(entry[3]):
                    return state.find(Task, state.index.queues[entry[3]][0])
    tasks = (state.find(Task, ids.task_id(job.id, number)) for number in range(1, job.tasks + 1))
    return next((task for task in tasks if task is not None and task.status is status), None)


def why_worker(state: State, worker: Worker, now_ms: int) -> WhyAnswered:
    """What a worker does, or why it gets nothing."""
    pulse = state.pulses.get(worker.id)
    heard = (
        f"heard {(now_ms - pulse.seen_at_ms) / 1000:.1f} s ago"
        if pulse
        else "not heard since the start"
    )
    held = state.index.held.get(worker.id, {})
    reasons = [
        Reason(
            str(worker.status),
            f"{worker.status}, {heard}, {len(held)} of {counted(worker.slots, 'slot')} taken",
        )
    ]
    if worker.paused:
        reasons.insert(
            0,
            Reason(
                "worker-paused", f"paused: {worker.pause_reason}", remedy=f"resume {worker.name}"
            ),
        )
    for entry, shape in heads(state)[:_SHOWN]:
        lacks = unable(worker, shape)
        if lacks:
            text = f"the next {shape[0]!r} task ({_selector(state.index.queues[entry[3]][0])}) does not fit it: {lacks}"
            reasons.append(Reason("unfit", text))
    return WhyAnswered(worker.name, str(worker.status), tuple(reasons))
