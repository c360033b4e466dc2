"""The facade for programs without an event loop: the same names and parameters, each of them used, and over each way there is."""

from __future__ import annotations

import inspect
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import pytest

import orchestra
from orchestra import compose
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import StageDraft, SubmitJob
from tests.transports.far_ends import Server, served

BOUND_S = 30.0
"""Nothing that a thread is waited for takes so long."""

app = orchestra.App()


@app.task
def double(number: int) -> int:
    return 2 * number


@app.task
def halve(number: int) -> float:
    return 12 / number


@app.task
def go_on(ctx: orchestra.Context) -> None:
    """Tells of itself until it is stopped."""
    ctx.log("here\n")
    while not ctx.stopping:
        ctx.progress(0.5, "on and on")
        ctx.wait(0.01)


@asynccontextmanager
async def farm() -> AsyncGenerator[Orchestrator]:
    async with (
        compose.open_orchestrator(None) as orchestrator,
        compose.local_workers(orchestrator, app.tasks, count=1, slots=2),
    ):
        yield orchestrator


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served(farm) as found:
        yield found


@pytest.fixture(params=["memory", "http", "ws"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[orchestra.SyncClient]:
    way = request.param
    opened = app.run_sync() if way == "memory" else orchestra.connect_sync(server.url(way))
    with opened as found:
        yield found


# the same words ------------------------------------------------------------------------------------------------------


def surface(cls: type) -> dict[str, list[tuple[str, object, object]]]:
    """Its public methods, with the name, kind and default of each parameter."""
    return {
        name: parameters(value)
        for name, value in vars(cls).items()
        if not name.startswith("_") and callable(value)
    }


def parameters(function: Callable[..., object]) -> list[tuple[str, object, object]]:
    taken = inspect.signature(function).parameters.values()
    return [(found.name, found.kind, found.default) for found in taken]


def test_clients_have_the_same_methods_with_the_same_parameters() -> None:
    facade = surface(orchestra.SyncClient)
    del facade["call"], facade["follow"]  # what the facade itself is made with
    assert facade == surface(orchestra.Client)


def test_so_have_jobs_and_what_opens_a_client() -> None:
    assert surface(orchestra.SyncJob) == surface(orchestra.Job)
    assert parameters(orchestra.App.run_sync) == parameters(orchestra.App.run)
    assert parameters(orchestra.connect_sync) == parameters(orchestra.connect)


def test_what_differs_would_be_seen() -> None:
    class Narrow(orchestra.SyncJob[None]):
        def cancel(self, reason: str = "") -> None:  # type: ignore[override]  # a word is missing
            del reason

    assert surface(Narrow)["cancel"] != surface(orchestra.Job)["cancel"]


# each of them, over each way -----------------------------------------------------------------------------------------


def test_a_job_from_its_submission_to_its_end(client: orchestra.SyncClient) -> None:
    job = client.submit(double.map(range(3)), name="doubled", key="k", project="film", priority=2)
    assert job.results(timeout_s=BOUND_S) == [0, 2, 4]
    again = client.submit(double.map(range(3)), name="doubled", key="k", project="film", priority=2)
    assert (again.id, client.job(job.number).id, repr(again)) == (job.id, job.id, repr(job))
    view = job.wait(BOUND_S)
    assert view == job.view()
    assert (view.name, view.project, view.status) == ("doubled", "film", "completed")
    assert job.done()
    assert [end.result for end in job.ends()] == [b"0", b"2", b"4"]
    assert len(job.tasks(status="completed")) == len(job.tasks()) == 3
    assert list(job.events()) == job.story()
    assert list(job.events(after=job.story()[-2].number)) == job.story()[-1:]
    assert job.why().subject == str(job.number)
    assert job.id in {
        found.id for found in client.jobs(project="film", status="completed", limit=5)
    }


def test_one_that_is_stopped(client: orchestra.SyncClient) -> None:
    job = client.submit(go_on)
    assert job.client is client
    for told in job.progress():
        assert (told.fraction, told.message) == (0.5, "on and on")
        break
    assert not job.done()
    with pytest.raises(TimeoutError):
        job.wait(timeout_s=0.01)
    (task,) = job.tasks()
    assert client.cancel_task(f"{job.number}.1", "seen enough") != "completed"
    for moved in client.events(job_id=job.id):
        if (moved.kind, moved.target) == ("task", "cancelled"):
            break
    with pytest.raises(orchestra.JobFailed, match="seen enough"):
        job.result()
    attempt = client.task(task.id).attempts[0]
    assert client.log(attempt.id, "stdout") == b"here\n"
    assert list(job.progress()) == []


def test_one_that_fails_and_is_tried_again(client: orchestra.SyncClient) -> None:
    job = client.submit(halve, 0)
    with pytest.raises(orchestra.JobFailed, match="division by zero") as caught:
        job.result()
    assert caught.value.job.id == job.id
    before = len(job.story())
    client.retry_task(f"{job.number}.1")
    with pytest.raises(orchestra.JobFailed):
        job.results()
    assert len(job.story()) > before


def test_one_that_is_paused_and_goes_on(client: orchestra.SyncClient) -> None:
    nobody = StageDraft("s", "nobody-has-this", b'{"args": []}')
    job = client.submit(SubmitJob("waiting", (nobody,)))
    assert job.pause("lunch") == "paused"
    assert "lunch" in str(client.why(job.id))
    assert job.resume() != "paused"
    job.cancel("no one comes", grace_ms=0)
    with pytest.raises(orchestra.JobCancelled):
        job.results()
    assert client.workers(gone=False)


def test_several_threads_may_use_one_client(client: orchestra.SyncClient) -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(client.submit(double, n).result()))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_S)
    assert sorted(found) == [0, 2, 4, 6]


# ends that are not the planned ones ----------------------------------------------------------------------------------


class Interrupted(BaseException):
    """As Ctrl-C, wherever the program happens to be."""


@contextmanager
def interrupts() -> Iterator[Callable[[], None]]:
    """Gives what interrupts this thread, whichever thread calls it."""

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    here = threading.get_ident()
    try:
        yield lambda: signal.pthread_kill(here, signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_who_is_interrupted_while_waiting_leaves_nothing_behind() -> None:
    left = threading.Event()
    with app.run_sync(workers=0) as client, interrupts() as interrupt:

        async def never() -> None:
            try:
                interrupt()
                await anyio.sleep_forever()
            finally:
                left.set()

        with pytest.raises(Interrupted):
            client.call(never)
        assert left.wait(BOUND_S)
        assert client.jobs() == []


def test_who_is_interrupted_while_following_closes_the_stream() -> None:
    told: list[str] = []
    with app.run_sync(workers=0) as client, interrupts() as interrupt:

        async def stream() -> AsyncGenerator[str]:
            try:
                yield "first"
                interrupt()
                await anyio.sleep_forever()
            finally:
                told.append("closed")

        with pytest.raises(Interrupted):
            told.extend(client.follow(stream()))
        assert told == ["first", "closed"]
        assert client.jobs() == []


@pytest.mark.parametrize("way", ["memory", "http", "ws"])
@pytest.mark.parametrize("raised", [Interrupted, ValueError])
def test_what_is_raised_inside_comes_out_as_itself(
    way: str, raised: type[BaseException], server: Server
) -> None:
    opened = app.run_sync() if way == "memory" else orchestra.connect_sync(server.url(way))
    client: orchestra.SyncClient | None = None

    def use() -> None:
        nonlocal client
        with opened as client:
            client.jobs()
            raise raised

    with pytest.raises(raised):
        use()
    assert client is not None
    with pytest.raises(RuntimeError, match="not running"):
        client.jobs()


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_nobody_there_is_told_as_such(scheme: str) -> None:
    nobody = orchestra.connect_sync(f"{scheme}://127.0.0.1:1")
    with pytest.raises(orchestra.Unavailable), nobody as client:
        client.jobs()
    with pytest.raises(orchestra.Malformed):
        orchestra.connect_sync("ftp://127.0.0.1").__enter__()


def test_an_iterator_that_is_left_over_does_no_harm() -> None:
    with app.run_sync(workers=0) as client:
        events = client.submit(double, 1).events()
        next(events)
    events.close()
