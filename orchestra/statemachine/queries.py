"""What can be read. A query changes nothing; its type parameter is the type of its answer."""

from __future__ import annotations

from typing import Generic, TypeVar

from orchestra.statemachine.replies import (
    JobPage,
    JobView,
    Overview,
    ProjectPage,
    ResultPage,
    TaskPage,
    TaskView,
    WhyAnswered,
    WorkerPage,
)
from orchestra.statemachine.values import value

R = TypeVar("R", covariant=True)


class Query(Generic[R]):
    """Something to know. ``R`` is the type of the answer."""

    __slots__ = ()


@value
class GetJob(Query[JobView]):
    """One job with its stages. ``job_id`` may be an id, a number, or ``last``."""

    job_id: str


@value
class ListJobs(Query[JobPage]):
    """Jobs, newest first. Empty ``project`` or ``status`` means any; ``after`` is a page's ``next``."""

    project: str = ""
    status: str = ""
    after: str = ""
    limit: int = 50


@value
class GetTask(Query[TaskView]):
    """One task with its attempts. ``task_id`` may be an id or a selector such as ``17.3`` or ``last.3``."""

    task_id: str


@value
class ListTasks(Query[TaskPage]):
    """Tasks of a job in order of position, without attempts."""

    job_id: str
    status: str = ""
    after: str = ""
    limit: int = 100


@value
class ListResults(Query[ResultPage]):
    """Ends of the tasks of one stage (by name; empty: of the stages that no other comes after)."""

    job_id: str
    stage: str = ""
    after: str = ""
    limit: int = 500


@value
class ListWorkers(Query[WorkerPage]):
    """Workers by number. Those that left are shown only with ``gone``."""

    gone: bool = False
    after: str = ""
    limit: int = 100


@value
class ListProjects(Query[ProjectPage]):
    after: str = ""
    limit: int = 100


@value
class Why(Query[WhyAnswered]):
    """Why a job, task or worker waits, or ended as it did. Takes ids and selectors."""

    subject: str


@value
class GetOverview(Query[Overview]):
    """Counts of everything that is in memory."""
