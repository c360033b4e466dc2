"""The same client for programs without an event loop: each call waits for its answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from typing import Any, Generic, Literal, TypeVar, overload

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from orchestra.calls import Calls, TaskFunction
from orchestra.client import Client, Job
from orchestra.errors import Defect
from orchestra.lone_errors import ungrouped
from orchestra.ports import Moved, ProgressSeen
from orchestra.statemachine.commands import SubmitJob
from orchestra.statemachine.lifecycles import JobStatus, TaskStatus
from orchestra.statemachine.replies import JobView, TaskResult, TaskView, WhyAnswered, WorkerView

R = TypeVar("R", covariant=True)
S = TypeVar("S")
T = TypeVar("T")


def connect_sync(
    url: str, *, token: str = "", tls_ca: str | None = None
) -> AbstractContextManager[SyncClient]:
    """
    As `connect`, for programs without an event loop: one is kept in a thread while the context is open.

    Args:
        url: ``http``, ``https``, ``ws`` or ``wss``.
        token: A token of the server; empty for none.
        tls_ca: PEM file of the authorities to trust instead of the system's.

    Raises:
        Malformed: The address or the token can not be used.
        Unavailable: Nobody answers there.
    """
    from orchestra.compose import connect

    return in_thread(lambda: connect(url, token=token, tls_ca=tls_ca))


@contextmanager
def in_thread(
    open_client: Callable[[], AbstractAsyncContextManager[Client]],
) -> Generator[SyncClient]:
    """Open a client on an event loop of its own in a thread."""
    with start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(portal.call(_entered_by, open_client)) as client:
            facade = SyncClient(client, portal)
            try:
                yield facade
            finally:
                facade.closed = True


async def _entered_by(
    open_client: Callable[[], AbstractAsyncContextManager[Client]],
) -> AbstractAsyncContextManager[Client]:
    return _alone(open_client)


@asynccontextmanager
async def _alone(
    open_client: Callable[[], AbstractAsyncContextManager[Client]],
) -> AsyncGenerator[Client]:
    """What is raised inside comes out as itself, Ctrl-C too."""
    async with ungrouped(), open_client() as client:
        yield client


class SyncClient:
    """
    See `Client`: the same words, without ``await``. Safe to use from several threads.

    Attributes:
        client: The one on the event loop, for `call`.
        url: Where the orchestrator is; empty in process.
        closed: Whether its context was left.
    """

    def __init__(self, client: Client, portal: BlockingPortal) -> None:
        self.client = client
        self.url = client.url
        self.closed = False
        self._portal = portal

    def call(self, function: Callable[..., Awaitable[T]], *args: object, **kwargs: Any) -> T:
        """Run any coroutine function on the client's event loop. Who is interrupted here, as by Ctrl-C, cancels it."""
        scopes: list[anyio.CancelScope] = []

        async def run() -> T:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                return await function(*args, **kwargs)
            raise Defect("nobody waits for this answer any more")

        def cancel() -> None:
            for scope in scopes:
                scope.cancel()

        try:
            return self._portal.start_task_soon(run).result()
        except BaseException:
            # An interruption may come before there is anything to wait for; what is begun after it is run after it.
            with suppress(RuntimeError):  # the loop has ended, and everything with it
                self._portal.start_task_soon(cancel)
            raise

    def follow(self, stream: AsyncGenerator[T]) -> Generator[T]:
        """The values of an async generator that belongs to the client's event loop; each is waited for when it is asked for."""
        # Whoever was interrupted while waiting closes the stream, which its last question may not have left yet.
        lock = anyio.Lock()

        async def take() -> T:
            async with lock:
                return await anext(stream)

        async def end() -> None:
            async with lock:
                await stream.aclose()

        try:
            while True:
                try:
                    taken = self.call(take)
                except StopAsyncIteration:
                    return
                yield taken
        finally:
            if not self.closed:
                self.call(end)

    @overload
    def submit(self, work: SubmitJob, *, key: str = "") -> SyncJob[Any]: ...

    @overload
    def submit(
        self,
        work: TaskFunction[..., Any, S] | Calls[S],
        *args: object,
        name: str = "",
        key: str = "",
        project: str = "default",
        priority: int = 0,
        on_failure: str = "continue",
        **kwargs: object,
    ) -> SyncJob[S]: ...

    def submit(
        self,
        work: TaskFunction[..., Any, Any] | Calls[Any] | SubmitJob,
        *args: object,
        name: str = "",
        key: str = "",
        project: str = "default",
        priority: int = 0,
        on_failure: str = "continue",
        **kwargs: object,
    ) -> SyncJob[Any]:
        """See `Client.submit`."""
        options = {
            "name": name,
            "key": key,
            "project": project,
            "priority": priority,
            "on_failure": on_failure,
        }
        submit: Callable[..., Awaitable[Job[Any]]] = self.client.submit
        return SyncJob(self, self.call(submit, work, *args, **options, **kwargs))

    def job(self, selector: str | int) -> SyncJob[Any]:
        """See `Client.job`."""
        return SyncJob(self, self.call(self.client.job, selector))

    def jobs(self, *, project: str = "", status: str = "", limit: int = 50) -> list[JobView]:
        """See `Client.jobs`."""
        return self.call(self.client.jobs, project=project, status=status, limit=limit)

    def workers(self, *, gone: bool = False) -> list[WorkerView]:
        """See `Client.workers`."""
        return self.call(self.client.workers, gone=gone)

    def task(self, selector: str) -> TaskView:
        """See `Client.task`."""
        return self.call(self.client.task, selector)

    def cancel_task(self, selector: str, reason: str = "") -> TaskStatus:
        """See `Client.cancel_task`."""
        return self.call(self.client.cancel_task, selector, reason)

    def retry_task(self, selector: str) -> TaskStatus:
        """See `Client.retry_task`."""
        return self.call(self.client.retry_task, selector)

    def why(self, subject: str) -> WhyAnswered:
        """See `Client.why`."""
        return self.call(self.client.why, subject)

    def events(self, *, after: int = 0, job_id: str = "") -> Generator[Moved]:
        """See `Client.events`: an iterator that waits for the next entry."""
        return self.follow(self.client.events(after=after, job_id=job_id))

    def log(self, attempt_id: str, stream: str = "stdout") -> bytes:
        """See `Client.log`."""
        return self.call(self.client.log, attempt_id, stream)


class SyncJob(Generic[R]):
    """See `Job`: the same words, without ``await``."""

    def __init__(self, client: SyncClient, job: Job[R]) -> None:
        self.client = client
        self._job = job
        self.id = job.id
        self.number = job.number

    def __repr__(self) -> str:
        return repr(self._job)

    def view(self) -> JobView:
        """See `Job.view`."""
        return self.client.call(self._job.view)

    def done(self) -> bool:
        """See `Job.done`."""
        return self.client.call(self._job.done)

    def wait(self, timeout_s: float | None = None) -> JobView:
        """See `Job.wait`."""
        return self.client.call(self._job.wait, timeout_s)

    @overload
    def results(self, stage: Literal[""] = "", *, timeout_s: float | None = None) -> list[R]: ...

    @overload
    def results(
        self, stage: TaskFunction[..., Any, S], *, timeout_s: float | None = None
    ) -> list[S]: ...

    @overload
    def results(self, stage: str, *, timeout_s: float | None = None) -> list[Any]: ...

    def results(
        self, stage: str | TaskFunction[..., Any, Any] = "", *, timeout_s: float | None = None
    ) -> list[Any]:
        """See `Job.results`."""
        read: Callable[..., Awaitable[list[Any]]] = self._job.results
        return self.client.call(read, stage, timeout_s=timeout_s)

    def result(self, *, timeout_s: float | None = None) -> R:
        """See `Job.result`."""
        return self.client.call(self._job.result, timeout_s=timeout_s)

    def ends(self, stage: str = "") -> Generator[TaskResult]:
        """See `Job.ends`."""
        return self.client.follow(self._job.ends(stage))

    def tasks(self, *, status: str = "") -> list[TaskView]:
        """See `Job.tasks`."""
        return self.client.call(self._job.tasks, status=status)

    def cancel(self, reason: str = "", *, grace_ms: int | None = None) -> JobStatus:
        """See `Job.cancel`."""
        return self.client.call(self._job.cancel, reason, grace_ms=grace_ms)

    def pause(self, reason: str = "") -> JobStatus:
        """See `Job.pause`."""
        return self.client.call(self._job.pause, reason)

    def resume(self) -> JobStatus:
        """See `Job.resume`."""
        return self.client.call(self._job.resume)

    def why(self) -> WhyAnswered:
        """See `Job.why`."""
        return self.client.call(self._job.why)

    def events(self, *, after: int = 0) -> Generator[Moved]:
        """See `Job.events`: an iterator that waits for the next entry."""
        return self.client.follow(self._job.events(after=after))

    def story(self) -> list[Moved]:
        """See `Job.story`."""
        return self.client.call(self._job.story)

    def progress(self) -> Generator[ProgressSeen]:
        """See `Job.progress`: an iterator that waits for what is told next."""
        return self.client.follow(self._job.progress())
