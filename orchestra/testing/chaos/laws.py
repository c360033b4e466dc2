"""What has to hold after all troubles: each a function to sentences about what is broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import attrs

from orchestra.ports import Moved
from orchestra.statemachine import ids
from orchestra.statemachine.lifecycles import TASK_FINAL, AttemptStatus, TaskStatus, Verb
from orchestra.statemachine.limits import RECEIPT_MS
from orchestra.testing.chaos.journal import Run, Told


@attrs.frozen(slots=True, kw_only=True)
class Evidence:
    """
    What there is when all is over.

    Args:
        told: What the clients were told.
        runs: What the programs wrote.
        jobs: The jobs in the store: (id, name, tasks).
        story: All that happened, from the store.
        results: The result of each completed task, from the store.
    """

    told: Sequence[Told]
    runs: Sequence[Run]
    jobs: Sequence[tuple[str, str, int]]
    story: Sequence[Moved]
    results: Mapping[str, bytes | None]


def lost(seen: Evidence) -> list[str]:
    """Every job that was acknowledged is in the store, under the id that was told."""
    stored = {id: (name, tasks) for id, name, tasks in seen.jobs}
    broken: list[str] = []
    for told in seen.told:
        if told.kind == "ack":
            key, id, tasks = told.words
            if stored.get(id) != (key, int(tasks)):
                broken.append(f"job {id} ({key}) was acknowledged to {told.client} and is lost")
    return broken


def doubled(seen: Evidence) -> list[str]:
    """One key is one job for as long as keys are kept, whatever was answered and how often it was asked."""
    created_ms: dict[str, int] = {}
    for moved in seen.story:
        if moved.kind == "job":
            created_ms.setdefault(moved.id, moved.at_ms)
    jobs: dict[str, set[str]] = {}
    for id, name, _ in seen.jobs:
        jobs.setdefault(name, set()).add(id)
    answers: dict[str, set[str]] = {}
    for told in seen.told:
        if told.kind in {"ack", "again"}:
            answers.setdefault(told.words[0], set()).add(told.words[1])
    broken = [
        f"the key {name} has {len(found)} jobs"
        for name, found in jobs.items()
        if _of_one_time(found, created_ms)
    ]
    return broken + [
        f"the key {key} was answered with the jobs {sorted(found)}"
        for key, found in answers.items()
        if _of_one_time(found, created_ms)
    ]


def _of_one_time(jobs: set[str], created_ms: Mapping[str, int]) -> bool:
    """Whether two of them were created while the key of the first was kept."""
    times_ms = sorted(created_ms.get(id, 0) for id in jobs)
    return any(later - first < RECEIPT_MS for first, later in pairwise(times_ms))


def not_ended_once(seen: Evidence) -> list[str]:
    """Every task of every job has exactly one recorded end, and it is that it completed."""
    ends: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    for moved in seen.story:
        if moved.kind == "task" and moved.target in TASK_FINAL:
            ends.setdefault(moved.id, []).append(moved.target)
            reasons[moved.id] = moved.reason
    broken: list[str] = []
    for id, name, tasks in seen.jobs:
        for position in range(1, tasks + 1):
            task = ids.task_id(id, position)
            found = ends.get(task, [])
            if len(found) != 1:
                broken.append(f"task {task} of {name} has {len(found)} recorded ends: {found}")
            elif found[0] != TaskStatus.COMPLETED:
                broken.append(f"task {task} of {name} {found[0]}: {reasons[task]}")
    return broken


def told_otherwise(seen: Evidence) -> list[str]:
    """What a client was told of the story is in the store, under the same number, and nothing in between was left out."""
    stored = {moved.number: (moved.kind, moved.id, moved.target) for moved in seen.story}
    broken: list[str] = []
    for told in seen.told:
        if told.kind == "gap":
            broken.append(f"{told.client} was told entry {told.words[1]} after {told.words[0]}")
        elif told.kind == "seen":
            number, *entry = told.words
            if stored.get(int(number)) != tuple(entry):
                now = stored.get(int(number))
                broken.append(f"{told.client} was told {entry} as entry {number}, which is {now}")
    return broken


def gone_back(seen: Evidence) -> list[str]:
    """The story never goes back in time, whatever clocks are set to."""
    return [
        f"entry {after.number} of the story is {before.at_ms - after.at_ms} ms before entry {before.number}"
        for before, after in pairwise(seen.story)
        if after.at_ms < before.at_ms
    ]


def begun_twice(seen: Evidence) -> list[str]:
    """No attempt begins twice, and each attempt that began is recorded."""
    begun = Counter((run.task, run.number) for run in seen.runs if run.kind == "S")
    created = {moved.id for moved in seen.story if moved.kind == "attempt"}
    broken = [
        f"attempt {number} of task {task} began {count} times"
        for (task, number), count in begun.items()
        if count > 1
    ]
    broken += [
        f"attempt {number} of task {task} began and is not recorded"
        for task, number in begun
        if ids.attempt_id(task, number) not in created
    ]
    return broken


def overlapping(seen: Evidence) -> list[str]:
    """No attempt comes to its end after a later one of its task began: they would have run at the same time."""
    newest: dict[str, int] = {}
    broken: list[str] = []
    for run in seen.runs:
        if run.kind == "S":
            newest[run.task] = max(run.number, newest.get(run.task, 0))
        elif run.number < newest.get(run.task, 0):
            told = f"attempt {run.number} of task {run.task} came to its end"
            broken.append(f"{told} after attempt {newest[run.task]} began")
    return broken


def wrong_results(seen: Evidence) -> list[str]:
    """The result of a task is that of the attempt that is recorded as completed."""
    completed = {
        ids.task_of(moved.id): moved.id
        for moved in seen.story
        if moved.kind == "attempt" and moved.target == "completed"
    }
    return [
        f"the result of task {task} is {result!r}, and {completed.get(task)} completed it"
        for task, result in seen.results.items()
        if result != f'"{completed.get(task)}"'.encode()
    ]


def further_attempts(seen: Evidence) -> int:
    """How many attempts there were beyond the first of each task."""
    attempts = {moved.id for moved in seen.story if moved.kind == "attempt"}
    return len(attempts) - len({ids.task_of(id) for id in attempts})


def handed_back(seen: Evidence) -> int:
    """How many attempts were given to a worker that was about to leave, and handed back before they began."""
    return sum(
        moved.kind == "attempt" and (moved.source, moved.verb) == (AttemptStatus.STARTED, Verb.STOP)
        for moved in seen.story
    )


def needless(seen: Evidence, at_risk: int) -> list[str]:
    """
    No more attempts are made anew than were in hand where a worker was lost: at most one for each of its slots.

    Where a clock is set and no worker is struck that is none: I19, a step of the clock changes no lease.
    """
    anew = further_attempts(seen) - handed_back(seen)
    return [f"{anew} attempts were made anew, {at_risk} were at risk"] if anew > at_risk else []


def lost_unstruck(seen: Evidence, at_risk: int, *, kills: bool = False) -> int:
    """
    How many attempts were lost beyond those at risk: where leases are short, a busy machine is late with beats.

    With ``kills`` whatever was struck is dead: a worker that returns was not, and each that returned had been lost unstruck.
    """
    workers = [moved for moved in seen.story if moved.kind == "worker"]
    losses = sum(moved.target == "lost" for moved in workers)
    returns = sum(moved.verb == Verb.RETURN for moved in workers)
    fenced = sum(
        moved.kind == "attempt" and moved.verb == Verb.STOP and "renew the lease" in moved.reason
        for moved in seen.story
    )
    return fenced + (returns if kills else max(0, losses - at_risk))


ALWAYS = (lost, doubled, not_ended_once, told_otherwise, gone_back, begun_twice, wrong_results)
"""What holds whatever happened."""
