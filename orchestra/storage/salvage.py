"""What can still be served when stored rows can not be read: pure, so that it is tested by itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from orchestra.ports import Quarantined
from orchestra.statemachine import ids
from orchestra.statemachine.lifecycles import TASK_HELD
from orchestra.statemachine.records import Attempt, Counters, Job, Record, Stage, Task

_PARTS = (Stage, Task, Attempt)


def set_aside(
    rows: Iterable[Record], bad: Collection[Quarantined], live: Collection[str]
) -> tuple[list[Record], list[Quarantined]]:
    """
    Leave out what would mislead without the rows that are bad.

    A job is served whole or not at all: without one of its stages or tasks it could never end rightly, and the core would take a missing
    task for one that has not been unfolded. A bad attempt at a task that nobody holds now is only a gap in the history.

    Args:
        rows: The live rows that can be read.
        bad: The rows that can not.
        live: Ids of the jobs that are not final.

    Returns:
        The rows to serve, and one finding for each job that is set aside and has none yet.
    """
    kept = list(rows)
    jobs = {row.id: row for row in kept if isinstance(row, Job)}
    held = {row.id for row in kept if isinstance(row, Task) and row.status in TASK_HELD}
    why: dict[str, str] = {}
    for finding in bad:
        if finding.kind in ("stage", "task") or (
            finding.kind == "attempt" and finding.id[: ids.ROOT_CHARS + 5] in held
        ):
            why.setdefault(
                ids.job_of(finding.id), f"its {finding.kind} {finding.id} can not be read"
            )
    _count_stages(kept, jobs, why)
    aside = (set(live) - jobs.keys()) | why.keys()
    if not aside:
        return kept, []
    served = [row for row in kept if not _is_of(row, aside)]
    told = {finding.id for finding in bad if finding.kind == "job"}
    named = [
        Quarantined("job", job_id, f"set aside whole: {why.get(job_id, 'its own row is gone')}")
        for job_id in sorted(aside - told)
        if job_id in jobs or job_id in live
    ]
    return served, named


def _count_stages(kept: list[Record], jobs: Mapping[str, Job], why: dict[str, str]) -> None:
    """A stage whose stored id is damaged looks like another job's or nobody's; only the job's own count tells that it is gone."""
    stages: dict[str, int] = {}
    for row in kept:
        if isinstance(row, Stage):
            stages[row.job_id] = stages.get(row.job_id, 0) + 1
    for job in jobs.values():
        found = stages.get(job.id, 0)
        if found < job.stages:
            why.setdefault(job.id, f"{job.stages - found} of its {job.stages} stages are missing")


def _is_of(row: Record, jobs: Collection[str]) -> bool:
    if isinstance(row, Job):
        return row.id in jobs
    return isinstance(row, _PARTS) and row.job_id in jobs


def counters_from(highest: Mapping[str, str]) -> Counters:
    """
    Counters that give out no number again, from the highest id of each kind; for when their own row is bad.

    ``highest`` maps ``project``, ``job`` and ``worker`` to the highest stored id; a kind without rows is absent.
    """
    return Counters(
        projects=_number(highest.get("project")),
        jobs=_number(highest.get("job")),
        workers=_number(highest.get("worker")),
    )


def _number(id: str | None) -> int:
    try:
        return ids.number_of(id) if id is not None else 0
    except ValueError:
        return 0
