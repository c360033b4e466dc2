"""The embeddable application: functions registered as tasks, run in this process or by workers elsewhere."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from orchestra.calls import Options, Register, TaskFunction
from orchestra.errors import Conflict, Malformed
from orchestra.lone_errors import ungrouped
from orchestra.statemachine import limits
from orchestra.statemachine.records import Amounts

if TYPE_CHECKING:
    from orchestra.client import Client
    from orchestra.dialects.tango_member import Member
    from orchestra.sync import SyncClient
    from orchestra.transports.mounting import MountedApp

P = ParamSpec("P")
S = TypeVar("S")

Duration = str | float | int
"""``"10m"``, ``"1h30m"``, ``"500ms"``, or a number of seconds."""

_MODES = ("async", "thread", "process")


class App:
    """
    Tasks, and where their story is kept.

    Args:
        path: The file that keeps everything. Without one all is in memory and gone at the end; nothing touches the disk.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self.tasks: dict[str, TaskFunction[Any, Any, Any]] = {}
        self._mounted: MountedApp | None = None
        self._token = ""

    @overload
    def task(
        self, fn: Callable[P, Coroutine[Any, Any, S]], /
    ) -> TaskFunction[P, Coroutine[Any, Any, S], S]: ...

    @overload
    def task(self, fn: Callable[P, S], /) -> TaskFunction[P, S, S]: ...

    @overload
    def task(
        self,
        /,
        *,
        name: str = "",
        retries: int = 0,
        backoff: Duration = "1s",
        timeout: Duration | None = None,
        queue_timeout: Duration | None = None,
        grace: Duration = "5s",
        needs: Mapping[str, float | str] | None = None,
        labels: Iterable[str] = (),
        priority: int = 0,
        mode: str = "",
    ) -> Register: ...

    def task(
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        name: str = "",
        retries: int = 0,
        backoff: Duration = "1s",
        timeout: Duration | None = None,
        queue_timeout: Duration | None = None,
        grace: Duration = "5s",
        needs: Mapping[str, float | str] | None = None,
        labels: Iterable[str] = (),
        priority: int = 0,
        mode: str = "",
    ) -> Any:
        """
        Register a function as a task. It stays callable as before.

        A parameter annotated with `Context` (or a first one named ``ctx``) receives the context and is left out of calls.

        Args:
            name: Under which workers know it; by default the function's own name.
            retries: How often a failure is tried again. A task that is lost with its worker runs elsewhere without using one up.
            backoff: The first pause between tries; it doubles, with jitter, up to 5 min.
            timeout: How long one try may run.
            queue_timeout: How long it may wait for a worker before it fails.
            grace: How long each rung of a stop (asked, TERM, KILL) lasts.
            needs: Counted resources of the worker: ``{"cpu": 2, "memory": "2GiB", "gpu": 1}`` or names of your own.
            labels: What the worker must be labelled with.
            priority: Added to the job's.
            mode: ``async``, ``thread`` or ``process``; by default async for coroutine functions, thread for others.

        Raises:
            Malformed: An option is out of bounds; the message names it.
            Conflict: Another task has the name.
        """

        def register(function: Callable[..., Any]) -> TaskFunction[..., Any, Any]:
            options = _options(
                retries=retries,
                backoff=backoff,
                timeout=timeout,
                queue_timeout=queue_timeout,
                grace=grace,
                needs=needs,
                labels=labels,
                priority=priority,
            )
            how = _mode(function, mode)
            task = TaskFunction[..., Any, Any](function, name or function.__name__, how, options)
            if task.name in self.tasks or task.name == "process":
                raise Conflict(
                    f"there is a task {task.name!r} already", where="name", remedy="name it apart"
                )
            self.tasks[task.name] = task
            return task

        return register if fn is None else register(fn)

    def run(
        self,
        *,
        workers: int = 1,
        slots: int = 1,
        processes: bool = False,
        labels: Iterable[str] = (),
        capacity: Mapping[str, float | str] | None = None,
    ) -> AbstractAsyncContextManager[Client]:
        """
        Run everything in this process: the core, the store, and local workers.

        Leaving the context asks what runs to stop, and keeps the rest for the next time when there is a file.

        Args:
            workers: Local workers; 0 to only submit.
            slots: Attempts that each worker runs at a time. Each counts the whole machine's cpus and memory as its own.
            processes: The workers run stages with ``argv`` too.
            labels: Of the local workers.
            capacity: Counted resources of each worker; by default what the machine has.
        """
        return self._run(workers, slots, processes, tuple(labels), capacity)

    @asynccontextmanager
    async def _run(
        self,
        workers: int,
        slots: int,
        processes: bool,
        labels: tuple[str, ...],
        capacity: Mapping[str, float | str] | None,
    ) -> AsyncGenerator[Client]:
        from orchestra import compose
        from orchestra.client import Client

        amounts = None if capacity is None else _amounts(capacity, "capacity")
        async with (
            ungrouped(),
            compose.open_orchestrator(self.path) as orchestrator,
            compose.local_workers(
                orchestrator,
                self.tasks,
                count=workers,
                slots=slots,
                processes=processes,
                labels=labels,
                capacity=amounts,
            ),
        ):
            yield Client(orchestrator.for_principal("local"))

    def run_sync(
        self,
        *,
        workers: int = 1,
        slots: int = 1,
        processes: bool = False,
        labels: Iterable[str] = (),
        capacity: Mapping[str, float | str] | None = None,
    ) -> AbstractContextManager[SyncClient]:
        """As `run`, for programs without an event loop: one is kept in a thread while the context is open."""
        from orchestra.sync import in_thread

        return in_thread(
            lambda: self.run(
                workers=workers,
                slots=slots,
                processes=processes,
                labels=labels,
                capacity=capacity,
            )
        )

    async def serve_member(
        self,
        member: Member,
        listen: str,
        *,
        slots: int = 1,
        ready: Callable[[str], None] | None = None,
    ) -> None:
        """
        Serve a member container of TANGO at the root of a port, until SIGTERM or Ctrl-C. On asyncio.

        ``anyio.run(app.serve_member, orchestra.dialects.tango.member(app, container_id="code_gen"), "127.0.0.1:8888")``. With a file,
        runs and reports that are due outlive a restart.

        Args:
            listen: ``HOST:PORT``; port 0 takes any free one.
            slots: Runs at a time; further ones wait, and are ``started``.
            ready: Called with the real ``HOST:PORT`` when it accepts.

        Raises:
            Malformed: It is no address, or one that others can reach (see docs/tango.md).
            Conflict: The port is taken.
            StoreTaken: Another process has the file open.
        """
        from orchestra import compose
        from orchestra.config import Address, Config, DialectPort, parse_address
        from orchestra.dialect_ports import member_dialect

        try:
            address = parse_address(listen)
        except ValueError as error:
            raise Malformed(str(error), where="listen") from None
        name = "tango-member"
        config = Config(
            data=self.path or "",
            listen=Address("127.0.0.1", 0),
            dialects=(DialectPort(name, address),),
        )
        accepts = [listen]
        async with ungrouped():
            await compose.serve(
                config,
                tasks=self.tasks,
                slots=slots,
                ready=lambda _: None if ready is None else ready(accepts[-1]),
                signals=True,
                dialects={name: lambda _: member_dialect(member)},
                dialect_ready=lambda _, bound: accepts.append(str(bound)),
            )

    def asgi(self, *, token: str = "") -> MountedApp:
        """
        The API as an ASGI application.

        It is mounted in a Starlette or FastAPI app together with `lifespan`::

            Starlette(routes=[Mount("/farm", app.asgi())], lifespan=app.lifespan)

        Args:
            token: What callers must send (``Authorization: Bearer ...``): who has it may run anything. Without one only callers on this
                machine are answered, and only when no proxy stands between. A proxy that names itself in no header can not be told from a
                caller here, so behind a proxy always give one.

        Raises:
            Malformed: No header can carry the token.
        """
        if not token.isascii() or not token.isprintable() or " " in token:
            raise Malformed("this is no token", where="token")
        if self._mounted is None:
            from orchestra.transports.mounting import MountedApp

            self._mounted = MountedApp()
        self._token = token or self._token
        return self._mounted

    @asynccontextmanager
    async def lifespan(self, _: object = None) -> AsyncGenerator[dict[str, Client]]:
        """
        Run the core and one local worker as long as the host application lives. The state is ``{"orchestra": client}``.

        A host with a lifespan of its own enters this one inside it: ``async with app.lifespan() as state``.

        Raises:
            StoreTaken: Another process has the file open, such as a second worker process of the host.
            StoreFailed: The file can not be read.
        """
        from orchestra import compose
        from orchestra.client import Client

        async with (
            ungrouped(),
            compose.open_orchestrator(self.path) as orchestrator,
            compose.local_workers(orchestrator, self.tasks, count=1, slots=1),
            self.asgi().serving(compose.mounted_api(orchestrator, self._token)),
        ):
            yield {"orchestra": Client(orchestrator.for_principal("local"))}


def _mode(fn: Callable[..., object], wanted: str) -> str:
    natural = "async" if inspect.iscoroutinefunction(fn) else "thread"
    if wanted and wanted not in _MODES:
        raise Malformed(
            f"{wanted!r} is no mode", where="mode", remedy=f"one of {', '.join(_MODES)}"
        )
    if (wanted or natural) == "async" and natural != "async":
        raise Malformed("the function is no coroutine function", where="mode", remedy="use thread")
    if wanted == "thread" and natural == "async":
        raise Malformed("the function is a coroutine function", where="mode", remedy="use async")
    return wanted or natural


def _amounts(needs: Mapping[str, float | str], where: str) -> Amounts:
    from orchestra.dialects.units import amounts

    return amounts(dict(needs), where=where)


def _ms(value: Duration, where: str) -> int:
    from orchestra.dialects.units import duration_ms

    return duration_ms(value, where=where)


def _options(
    *,
    retries: int,
    backoff: Duration,
    timeout: Duration | None,
    queue_timeout: Duration | None,
    grace: Duration,
    needs: Mapping[str, float | str] | None,
    labels: Iterable[str],
    priority: int,
) -> Options:
    from orchestra.statemachine.bounds import check_labels, check_range

    check_range(retries, 0, limits.RETRIES_MAX, "retries")
    check_range(priority, -limits.PRIORITY_MAX, limits.PRIORITY_MAX, "priority")
    labels = tuple(labels)
    check_labels(labels, "labels")
    return Options(
        retries=retries,
        backoff_ms=_ms(backoff, "backoff"),
        run_ms_max=None if timeout is None else _ms(timeout, "timeout"),
        queue_ms_max=None if queue_timeout is None else _ms(queue_timeout, "queue_timeout"),
        grace_ms=_ms(grace, "grace"),
        priority=priority,
        needs=_amounts(needs or {}, "needs"),
        labels=labels,
    )
