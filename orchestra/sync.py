"""The same client for programs without an event loop: each call waits for its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Generic, Literal, TypeVar, overload

from anyio.from_thread import BlockingPortal, start_blocking_portal

from orchestra.calls import Calls, TaskFunction
from orchestra.client import Client, Job
from orchestra.ports import Moved
from orchestra.statemachine.commands import SubmitJob
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.replies import JobView, TaskView, WhyAnswered, WorkerView

R = TypeVar("R", covariant=True)
S = TypeVar("S")
T = TypeVar("T")


@contextmanager
def in_thread(
    open_client: Callable[[], AbstractAsyncContextManager[Client]],
) -> Generator[SyncClient]:
    """Open a client on an event loop of its own in a thread."""
    with start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(portal.call(_opened, open_client)) as client:
            yield SyncClient(client, portal)


async def _opened(
    open_client: Callable[[], AbstractAsyncContextManager[Client]],
) -> AbstractAsyncContextManager[Client]:
    return open_client()


class SyncClient:
    """See `Client`: the same words, without ``await``. Safe to use from several threads."""

    def __init__(self, client: Client, portal: BlockingPortal) -> None:
        self.client = client
        self._portal = portal

    def call(self, function: Callable[..., Awaitable[T]], *args: object, **kwargs: Any) -> T:
        """Run any coroutine function on the client's event loop."""
        return self._portal.call(lambda: function(*args, **kwargs))

    @overload
    def submit(self, work: SubmitJob, *, key: str = "") -> SyncJob[Any]: ...

    @overload
    def submit(
        self, work: TaskFunction[..., Any, S] | Calls[S], *args: object, **kwargs: Any
    ) -> SyncJob[S]: ...

    def submit(
        self,
        work: TaskFunction[..., Any, Any] | Calls[Any] | SubmitJob,
        *args: object,
        **kwargs: Any,
    ) -> SyncJob[Any]:
        """See `Client.submit`."""
        submit: Callable[..., Awaitable[Job[Any]]] = self.client.submit
        return SyncJob(self, self.call(submit, work, *args, **kwargs))

    def job(self, selector: str | int) -> SyncJob[Any]:
        """See `Client.job`."""
        return SyncJob(self, self.call(self.client.job, selector))

    def jobs(self, **filters: Any) -> list[JobView]:
        """See `Client.jobs`."""
        return self.call(self.client.jobs, **filters)

    def workers(self) -> list[WorkerView]:
        """See `Client.workers`."""
        return self.call(self.client.workers)

    def why(self, subject: str) -> WhyAnswered:
        """See `Client.why`."""
        return self.call(self.client.why, subject)


class SyncJob(Generic[R]):
    """See `Job`."""

    def __init__(self, client: SyncClient, job: Job[R]) -> None:
        self._client = client
        self._job = job
        self.id = job.id
        self.number = job.number

    def view(self) -> JobView:
        """See `Job.view`."""
        return self._client.call(self._job.view)

    def wait(self, timeout_s: float | None = None) -> JobView:
        """See `Job.wait`."""
        return self._client.call(self._job.wait, timeout_s)

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
        return self._client.call(read, stage, timeout_s=timeout_s)

    def result(self, *, timeout_s: float | None = None) -> R:
        """See `Job.result`."""
        return self._client.call(self._job.result, timeout_s=timeout_s)

    def tasks(self) -> list[TaskView]:
        """See `Job.tasks`."""
        return self._client.call(self._job.tasks)

    def cancel(self, reason: str = "") -> JobStatus:
        """See `Job.cancel`."""
        return self._client.call(self._job.cancel, reason)

    def pause(self, reason: str = "") -> JobStatus:
        """See `Job.pause`."""
        return self._client.call(self._job.pause, reason)

    def resume(self) -> JobStatus:
        """See `Job.resume`."""
        return self._client.call(self._job.resume)

    def why(self) -> WhyAnswered:
        """See `Job.why`."""
        return self._client.call(self._job.why)

    def events(self, *, after: int = 0) -> Iterator[Moved]:
        """See `Job.events`: an iterator that waits for the next entry."""
        stream: AsyncIterator[Moved] = self._job.events(after=after)
        try:
            while True:
                try:
                    yield self._client.call(stream.__anext__)
                except StopAsyncIteration:
                    return
        finally:
            closing = getattr(stream, "aclose", None)
            if closing is not None:
                self._client.call(closing)
