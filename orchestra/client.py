"""
The client: what a program does with a running orchestrator, in process or over a network.

Handles are cheap: an id and the client. Everything goes through one `ports.Asker`, so all of it works over every transport.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import nullcontext
from typing import Any, Generic, Literal, TypeVar, overload

import anyio

from orchestra import following
from orchestra.calls import Calls, StageBuilder, TaskFunction
from orchestra.errors import PeerClosed
from orchestra.job_failures import failure
from orchestra.ports import Asker, Lagged, Log, Moved, ProgressSeen, WatchStory
from orchestra.statemachine.commands import (
    CancelJob,
    CancelTask,
    PauseJob,
    ResumeJob,
    RetryTask,
    SubmitJob,
)
from orchestra.statemachine.lifecycles import JOB_FINAL, JobStatus, TaskStatus
from orchestra.statemachine.queries import (
    GetJob,
    GetTask,
    ListJobs,
    ListResults,
    ListTasks,
    ListWorkers,
    Why,
)
from orchestra.statemachine.records import OnFailure
from orchestra.statemachine.replies import (
    JobAccepted,
    JobView,
    ResultPage,
    TaskResult,
    TaskView,
    WhyAnswered,
    WorkerView,
)

R = TypeVar("R", covariant=True)
S = TypeVar("S")

Tasks = Mapping[str, TaskFunction[Any, Any, Any]]
"""What runs in each stage of a job, by the stage's name; in the last one by an empty name too."""

_LOGGER = logging.getLogger("orchestra")


class Client:
    """
    Submit work and follow it.

    Args:
        asker: The orchestrator, in process or far away.
        url: Where it is, for messages; empty in process.
    """

    def __init__(self, asker: Asker, *, url: str = "") -> None:
        self.asker = asker
        self.url = url

    @overload
    async def submit(self, work: SubmitJob, *, key: str = "") -> Job[Any]: ...

    @overload
    async def submit(
        self,
        work: TaskFunction[..., Any, S] | Calls[S],
        *args: object,
        name: str = "",
        key: str = "",
        project: str = "default",
        priority: int = 0,
        on_failure: str = "continue",
        **kwargs: object,
    ) -> Job[S]: ...

    async def submit(
        self,
        work: TaskFunction[..., Any, Any] | Calls[Any] | SubmitJob,
        *args: object,
        name: str = "",
        key: str = "",
        project: str = "default",
        priority: int = 0,
        on_failure: str = "continue",
        **kwargs: object,
    ) -> Job[Any]:
        """
        Submit a job: a task with its arguments, calls made by ``task.map`` or ``task.call``, or a whole `SubmitJob`.

        When this returns the job is durable. With the same ``key`` and the same content again it is the same job, whatever
        happened to the first answer.

        Args:
            name: What people see; by default the task's name.
            key: An idempotency key of at most 200 characters, kept for a day.
            project: Opened when it is new.
            priority: From -1,000 to 1,000; higher goes first.
            on_failure: ``continue`` with other tasks, or ``stop`` the job, when one fails for good.

        Raises:
            Malformed: An argument is out of bounds or can not be encoded.
            Conflict: The key was used for something else, or the project is archived.
            Unavailable: It is unknown whether the job was accepted; submit again with the same key.
        """
        if isinstance(work, SubmitJob):
            return self._accepted(await self.asker.ask(work, key=key), None)
        calls = work.call(*args, **kwargs) if isinstance(work, TaskFunction) else work
        from orchestra.encoding import encode

        builder = StageBuilder(encode)
        builder.add(calls)
        command = SubmitJob(
            name=name or calls.task.name,
            stages=tuple(builder.drafts),
            project=project,
            priority=priority,
            on_failure=OnFailure(on_failure),
        )
        accepted = await self.asker.ask(command, key=key)
        return self._accepted(accepted, builder.tasks | {"": calls.task})

    def _accepted(self, accepted: JobAccepted, tasks: Tasks | None) -> Job[Any]:
        for warning in accepted.warnings:
            _LOGGER.warning("job %s: %s", accepted.number, warning)
        return Job(self, accepted.job_id, accepted.number, tasks, fresh=not accepted.repeated)

    async def job(self, selector: str | int) -> Job[Any]:
        """The handle of a job by id, number or ``last``; `Job.results` of it are typed when it is given a task. Raises `NotFound`."""
        view = await self.asker.answer(GetJob(str(selector)))
        return Job(self, view.id, view.number, None)

    async def jobs(self, *, project: str = "", status: str = "", limit: int = 50) -> list[JobView]:
        """The newest jobs."""
        page = await self.asker.answer(ListJobs(project, status, "", limit))
        return list(page.items)

    async def workers(self, *, gone: bool = False) -> list[WorkerView]:
        """Every worker."""
        found: list[WorkerView] = []
        after = ""
        while True:
            page = await self.asker.answer(ListWorkers(gone, after))
            found.extend(page.items)
            after = page.next
            if not after:
                return found

    async def task(self, selector: str) -> TaskView:
        """One task with its attempts, by id or as ``17.3``."""
        return await self.asker.answer(GetTask(selector))

    async def cancel_task(self, selector: str, reason: str = "") -> TaskStatus:
        """Ask one task to end."""
        task = await self.task(selector)
        return (await self.asker.ask(CancelTask(task.id, reason))).status

    async def retry_task(self, selector: str) -> TaskStatus:
        """Try a failed or cancelled task again."""
        task = await self.task(selector)
        return (await self.asker.ask(RetryTask(task.id))).status

    async def why(self, subject: str) -> WhyAnswered:
        """Why a job, task or worker waits, or ended as it did."""
        return await self.asker.answer(Why(subject))

    def events(self, *, after: int = 0, job_id: str = "") -> AsyncGenerator[Moved]:
        """The story from cursor ``after`` on, and what happens from then on, without a gap: reconnects where a watcher lagged."""
        return following.moves(self.asker, after, job_id)

    async def log(self, attempt_id: str, stream: str = "stdout") -> bytes:
        """All stored output of one stream of an attempt."""
        parts: list[bytes] = []
        offset = 0
        while True:
            read = await self.asker.log(Log(attempt_id, stream, offset))
            parts.append(read.data)
            offset += len(read.data)
            if not read.data or offset >= read.size:
                return b"".join(parts)


class Job(Generic[R]):
    """A handle of one job. ``R`` is the type of the results of its last stage."""

    def __init__(
        self, client: Client, id: str, number: int, tasks: Tasks | None, *, fresh: bool = False
    ) -> None:
        self.client = client
        self._fresh = fresh
        self.id = id
        self.number = number
        self._tasks = tasks or {}

    def __repr__(self) -> str:
        return f"<job {self.number}>"

    async def view(self) -> JobView:
        """The job now, with its stages and the counts of its tasks."""
        return await self.client.asker.answer(GetJob(self.id))

    async def done(self) -> bool:
        """Whether it has ended."""
        return (await self.view()).status in JOB_FINAL

    async def wait(self, timeout_s: float | None = None) -> JobView:
        """Wait for the end, without polling. Raises TimeoutError after ``timeout_s`` seconds; the job goes on."""
        with anyio.fail_after(timeout_s) if timeout_s is not None else nullcontext():
            await self._page_at_end(ListResults(self.id, "", "", 1), whole=True)
        return await self.view()

    async def _page_at_end(self, query: ListResults, *, whole: bool = False) -> ResultPage:
        """
        The answer once its tasks have ended, or with ``whole`` once the job has.

        Subscribes first and looks then, so that the end can not fall in between.
        """
        look = ListResults(query.job_id, query.stage, query.after, 1)
        while True:
            watch = WatchStory(job_id=self.id, kinds=("job",))
            async with self.client.asker.watch(watch) as pushes:
                # One line is enough to see whether it is over, and mostly it is not yet.
                page = await self.client.asker.answer(look)
                if page.ended or (page.done and not whole):
                    return await self.client.asker.answer(query)
                async for push in pushes:
                    if isinstance(push, Moved) and push.target in JOB_FINAL:
                        return await self.client.asker.answer(query)
                    if isinstance(push, Lagged):
                        break
                else:
                    raise PeerClosed("the orchestrator closed the subscription")

    @overload
    async def results(
        self, stage: Literal[""] = "", *, timeout_s: float | None = None
    ) -> list[R]: ...

    @overload
    async def results(
        self, stage: TaskFunction[..., Any, S], *, timeout_s: float | None = None
    ) -> list[S]: ...

    @overload
    async def results(self, stage: str, *, timeout_s: float | None = None) -> list[Any]: ...

    async def results(
        self, stage: str | TaskFunction[..., Any, Any] = "", *, timeout_s: float | None = None
    ) -> list[Any]:
        """
        Wait for the end, and return the results in order of the items: those of the named stage, or of the last one.

        Each stage's results are read, strictly, as what its function says that it returns. A job that was found again knows no
        functions: its results are plain values, unless ``stage`` is the task, whose first stage is meant.

        Raises:
            JobFailed: It did not complete; the message says which task failed and why.
            JobCancelled: It was cancelled.
            Malformed: A result is not of the type that is said; `ends` still has it as JSON.
        """
        task = self._tasks.get(stage) if isinstance(stage, str) else stage
        stage = stage if isinstance(stage, str) else stage.name
        with anyio.fail_after(timeout_s) if timeout_s is not None else nullcontext():
            ends = await self._all_ends(stage)
            if any(end.status is not TaskStatus.COMPLETED for end in ends):
                raise await failure(self.client.asker, await self.wait(), self.client.url)
        from orchestra.encoding import decode_all

        return decode_all(
            [end.result or b"null" for end in ends],
            task and task.result_type,
            lambda index: f"result of task {self.number}.{ends[index].position}",
        )

    async def _all_ends(self, stage: str) -> list[TaskResult]:
        """The ends of a stage's tasks, waiting for the job to end unless they are all there."""
        query = ListResults(self.id, stage)
        # A job that was submitted just now is hardly done: subscribe before the first look.
        page = None if self._fresh else await self.client.asker.answer(query)
        self._fresh = False
        if page is None or not page.done:
            page = await self._page_at_end(query)
        ends = list(page.items)
        while page.next:
            page = await self.client.asker.answer(ListResults(self.id, stage, page.next))
            ends.extend(page.items)
        return ends

    async def result(self, *, timeout_s: float | None = None) -> R:
        """As `results`, for a job of one task."""
        results = await self.results(timeout_s=timeout_s)
        if len(results) != 1:
            raise ValueError(f"job {self.number} has {len(results)} results: use results()")
        return results[0]

    async def ends(self, stage: str = "") -> AsyncGenerator[TaskResult]:
        """How the tasks of a stage ended so far, in order, with their results as JSON."""
        after = ""
        while True:
            page = await self.client.asker.answer(ListResults(self.id, stage, after))
            for end in page.items:
                yield end
            after = page.next
            if not after:
                return

    async def tasks(self, *, status: str = "") -> list[TaskView]:
        """Every task, without its attempts."""
        found: list[TaskView] = []
        after = ""
        while True:
            page = await self.client.asker.answer(ListTasks(self.id, status, after, 500))
            found.extend(page.items)
            after = page.next
            if not after or not page.items:
                return found

    def events(self, *, after: int = 0) -> AsyncGenerator[Moved]:
        """
        The job's story from cursor ``after`` on, then what happens. It ends with the job.

        Raises:
            PeerClosed: The orchestrator ended before the job did; go on from the number of the last entry.
        """
        return following.moves_of_job(self.client.asker, self.id, after)

    async def story(self) -> list[Moved]:
        """What happened to the job so far."""
        return await following.story_of_job(self.client.asker, self.id)

    def progress(self) -> AsyncGenerator[ProgressSeen]:
        """
        Progress as it is told, until the job ends. It is soft: what is told while nobody listens, or too fast for who listens, is lost.

        Raises:
            PeerClosed: The orchestrator ended before the job did.
        """
        return following.progress_of_job(self.client.asker, self.id)

    async def cancel(self, reason: str = "", *, grace_ms: int | None = None) -> JobStatus:
        """Ask it to end; `wait` tells when nothing of it is alive."""
        return (await self.client.asker.ask(CancelJob(self.id, reason, grace_ms))).status

    async def pause(self, reason: str = "") -> JobStatus:
        """Start no further task of it."""
        return (await self.client.asker.ask(PauseJob(self.id, reason))).status

    async def resume(self) -> JobStatus:
        """Go on with it."""
        return (await self.client.asker.ask(ResumeJob(self.id))).status

    async def why(self) -> WhyAnswered:
        """Why it waits, or ended as it did."""
        return await self.client.asker.answer(Why(self.id))
