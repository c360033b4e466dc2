"""One simulation: a plan played with a test, then peace, then the reckoning."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from hashlib import sha256
from random import Random
from typing import Any, TypeVar, overload

import anyio
import attrs

from orchestra.calls import Calls, TaskFunction
from orchestra.client import Client, Job
from orchestra.dialects.units import duration_ms
from orchestra.statemachine.commands import SubmitJob
from orchestra.testing.diagram import Line
from orchestra.testing.simulation.cluster import SERVER, Cluster, Shape
from orchestra.testing.simulation.disk import Wear
from orchestra.testing.simulation.drive import loaded_dice
from orchestra.testing.simulation.outside import (
    numbered_scopes,
    outside_of_time,
    real_store,
    watched_turns,
)
from orchestra.testing.simulation.people import PatientAsker
from orchestra.testing.simulation.plan import Plan
from orchestra.testing.simulation.troubles import TROUBLES
from orchestra.testing.simulation.truth import Violated
from orchestra.testing.simulation.worlds import World

S = TypeVar("S")

SETTLED_S_MAX = 7 * 24 * 3_600.0
"""Once all has healed, everything has to end within so long."""

IDLE_S_MAX = 900.0
"""Nothing that waits for time, such as a pause between tries, waits so long: with no commit meanwhile, nothing more will come."""

WORK_S_MAX = 3_600.0
"""Work that still runs may take so long without anything to be seen of it."""

QUIET_S_MAX = 30.0
"""What still runs when everything has ended is nobody's, and has to be ended within some heartbeats."""

LOOK_S_MAX = 30.0
"""A condition is looked at after each commit, and at least so often."""

CALLBACKS_MAX = 20_000_000
"""More than any simulation needs: one that takes so many goes in a circle."""

Condition = Callable[[], bool | Awaitable[bool]]


class NotInTime(AssertionError):
    """A condition did not come true in time."""


@attrs.frozen(slots=True)
class Simulated:
    """
    What came of one simulation: simulated milliseconds, callbacks of the loop, commits, its story, and a digest of it, of its last rows,
    and of all that was done to its drive.
    """

    simulated_ms: int
    callbacks: int
    commits: int
    lines: tuple[Line, ...]
    digest: str
    wear: Wear


class Simulation:
    """
    What a test is given: a client, and the machines to do things to.

    ``client`` is the ordinary `Client`, over HTTP; what is not answered is asked again. ``rng`` is for what a test itself draws.
    """

    def __init__(self, cluster: Cluster, client: Client, rng: Random) -> None:
        self.cluster = cluster
        self.client = client
        self.rng = rng
        self._submitted = 0

    @property
    def now_s(self) -> float:
        """Simulated seconds from the start."""
        return self.cluster.world.now_s

    @overload
    async def submit(self, work: SubmitJob, *, key: str = "") -> Job[Any]: ...

    @overload
    async def submit(
        self, work: TaskFunction[..., Any, S] | Calls[S], *args: object, **kwargs: Any
    ) -> Job[S]: ...

    async def submit(
        self,
        work: TaskFunction[..., Any, Any] | Calls[Any] | SubmitJob,
        *args: object,
        **kwargs: Any,
    ) -> Job[Any]:
        """As `Client.submit`, under a key of its own unless one is given."""
        self._submitted += 1
        kwargs.setdefault("key", f"simulated-{self._submitted}")
        submit: Callable[..., Awaitable[Job[Any]]] = self.client.submit
        return await submit(work, *args, **kwargs)

    async def until(self, condition: Condition, within: str | float = "1h") -> None:
        """
        Wait until a condition is true, such as ``job.done``.

        Raises:
            NotInTime: It was not within that simulated time, such as ``"2d"`` or a number of seconds.
        """
        until_s = self.now_s + duration_ms(within, where="within") / 1_000
        while not await _holds(condition):
            if self.now_s >= until_s:
                raise NotInTime(f"it was not so within {within}")
            await self.something(min(LOOK_S_MAX, until_s - self.now_s))

    async def something(self, longest_s: float) -> None:
        """Wait for the next commit, or so long."""
        commits, ends_s = self.cluster.disk.commits, self.now_s + longest_s
        while self.cluster.disk.commits == commits and self.now_s < ends_s:
            self.look()
            await anyio.sleep(min(0.5, max(0.0, ends_s - self.now_s)))

    def look(self) -> None:
        """Raise the first violation, if there is one."""
        if self.cluster.truth.first is not None:
            raise self.cluster.truth.first
        if self.cluster.world.callbacks > CALLBACKS_MAX:
            raise Violated("I9: things happen for ever, and nothing ends")

    def kill(self, place: str) -> None:
        """SIGKILL to ``server`` or a worker such as ``w1``."""
        self.cluster.kill(place)

    def start(self, place: str) -> None:
        """Start it again."""
        self.cluster.start(place)

    def freeze(self, place: str, seconds: float) -> None:
        """SIGSTOP for so long."""
        self.cluster.freeze(place, seconds)

    def cut(self, source: str, target: str, seconds: float) -> None:
        """Nothing gets from one place (``server``, ``people``, ``w1``) to another for so long."""
        self.cluster.network.cut(source, target, seconds)


async def _holds(condition: Condition) -> bool:
    answer = condition()
    return bool(await answer) if inspect.isawaitable(answer) else bool(answer)


Test = Callable[[Simulation], Awaitable[None]]


class Failed(Exception):
    """Carries the story of a simulation beside what went wrong in it."""

    def __init__(self, cause: BaseException, lines: tuple[Line, ...]) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.lines = lines


def play(test: Test, shape: Shape, plan: Plan) -> Simulated:
    """
    Play a test under a plan.

    Raises:
        Failed: The test raised, or an invariant is broken; with the story as far as it went.
    """
    with (
        _world_of(plan) as world,
        outside_of_time(world),
        loaded_dice(Random(f"dice {plan.seed}")),
    ):
        cluster = Cluster(world, shape, plan)
        with (
            real_store(world, cluster.disk),
            watched_turns(cluster.truth),
            _Ending(world, cluster),
        ):
            world.play(lambda: _played(test, cluster, plan))
            return _told(world, cluster)


@contextmanager
def _world_of(plan: Plan) -> Generator[World]:
    """Whatever runs the machines."""
    if plan.backend == "trio":
        from orchestra.testing.simulation.trio_world import TrioWorld, seeded_trio

        with seeded_trio(Random(f"trio {plan.seed}")):
            yield TrioWorld()
    else:
        from orchestra.testing.simulation.asyncio_world import AsyncioWorld

        with numbered_scopes():
            yield AsyncioWorld()


@attrs.frozen(slots=True)
class _Ending:
    """Ends a simulation; what went wrong in it leaves with its story."""

    world: World
    cluster: Cluster

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        truth = self.cluster.truth
        lines = tuple(truth.lines)
        _end(self.world, self.cluster)
        if isinstance(error, Exception):
            raise Failed(truth.first or error, lines) from error


def _told(world: World, cluster: Cluster) -> Simulated:
    rows = sorted((key, repr(record)) for key, record in cluster.truth.rows.items())
    lines = tuple(cluster.truth.lines)
    digest = sha256(repr((rows, lines, cluster.disk.fingerprint)).encode()).hexdigest()
    disk = cluster.disk
    return Simulated(cluster.now_ms(), world.callbacks, disk.commits, lines, digest, disk.wear)


async def _played(test: Test, cluster: Cluster, plan: Plan) -> None:
    for place in (SERVER, *cluster.shape.names):
        cluster.start(place)
    for trouble in plan.troubles:
        cluster.later(
            trouble.at_ms / 1_000, lambda trouble=trouble: TROUBLES[trouble.kind](cluster, trouble)
        )
    async with cluster.people() as asker:
        simulation = Simulation(
            cluster, Client(PatientAsker(asker, cluster.truth)), Random(f"test {plan.seed}")
        )
        await test(simulation)
        simulation.look()
        # Trouble that was still to come has no part in the test any more.
        last_s = max((each.at_ms for each in plan.troubles), default=0) / 1_000
        if cluster.truth.unfinished():
            await anyio.sleep(max(0.0, last_s - simulation.now_s))
        cluster.heal()
        await _settled(simulation)
        ends_s = simulation.now_s + QUIET_S_MAX
        while cluster.truth.alive and simulation.now_s < ends_s:
            await simulation.something(1.0)
        cluster.truth.check()
        cluster.truth.reckon()
        simulation.look()
        cluster.kill(SERVER)
        await cluster.disk.last_look()
        simulation.look()


async def _settled(simulation: Simulation) -> None:
    cluster = simulation.cluster
    ends_s, commits, since_s = simulation.now_s + SETTLED_S_MAX, -1, simulation.now_s
    while cluster.truth.unfinished() and simulation.now_s < ends_s:
        if cluster.disk.commits != commits:
            commits, since_s = cluster.disk.commits, simulation.now_s
        longest_s = WORK_S_MAX if cluster.truth.alive else IDLE_S_MAX
        if simulation.now_s - since_s > longest_s:
            return
        await simulation.something(LOOK_S_MAX)


def _end(world: World, cluster: Cluster) -> None:
    """Unwind everything, the killed included, where it can do no harm any more."""
    cluster.network.heal()
    cluster.disk.shut()
    world.unwind([*cluster.graves, *cluster.processes.values()], cluster.disk.aclose)
