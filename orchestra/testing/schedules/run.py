"""Play one schedule: trouble for a while, then all heals, and everything that was accepted has to end as it should."""

from __future__ import annotations

from hashlib import sha256
from random import Random

import attrs

from orchestra.statemachine.effects import StartAttempt, StopAttempt
from orchestra.statemachine.lifecycles import JOB_FINAL, TASK_FINAL, AttemptStatus, TaskStatus
from orchestra.statemachine.records import Attempt, Job, Task, Worker
from orchestra.testing.diagram import Line
from orchestra.testing.schedules.knobs import Knobs, draw
from orchestra.testing.schedules.machine import Machine
from orchestra.testing.schedules.net import Net
from orchestra.testing.schedules.people import People
from orchestra.testing.schedules.server import Server
from orchestra.testing.schedules.world import START_MS, Violated, World

__all__ = ["Played", "Violated", "play", "run"]

HEALED_MS_MAX = 3_600_000
"""Once all has healed, everything has to end within an hour."""

QUIET_MS_MAX = 30_000
"""What is still alive when everything has ended is nobody's, and has to be ended within some heartbeats."""


@attrs.frozen(slots=True)
class Played:
    """
    One schedule that broke nothing.

    ``simulated_ms`` passed in it, in ``steps`` steps of the core and ``commits`` commits; ``taken`` are the rows of the tables (kind,
    status, verb) that were taken. ``lines`` is its story and ``digest`` one of it and of its last rows, when they were asked for.
    """

    seed: int
    steps: int
    commits: int
    simulated_ms: int
    taken: frozenset[tuple[str, str | None, str]]
    lines: tuple[Line, ...] = ()
    digest: str = ""


class Schedule:
    """Everything of one schedule, wired together."""

    def __init__(self, seed: int, knobs: Knobs, *, told: bool) -> None:
        self.world = World(seed, knobs, told=told)
        self.net = Net(self.world)
        self.server = Server(self.world, self._push)
        self.net.server = self.server
        names = [f"w{number}" for number in range(1, knobs.workers + 1)]
        self.machines = {name: Machine(self.world, self.net, name) for name in names}
        self.people = People(self.world, self.net, self.server)

    def _push(self, effect: StartAttempt | StopAttempt) -> None:
        worker = self.server.state.find(Worker, effect.worker_id)
        if worker is not None:
            machine = self.machines[worker.name]
            subscription = machine.subscription
            self.net.carry(worker.name, lambda: machine.order(effect, subscription))

    def play(self) -> Played:
        """Trouble, then peace, then the reckoning."""
        world = self.world
        for machine in self.machines.values():
            world.after(world.rng.randint(0, 2_000), machine.restart)
        self.people.begin()
        world.after(0, self._trouble)
        world.play(START_MS + world.knobs.trouble_ms)
        self._heal()
        world.play(world.now_ms + HEALED_MS_MAX, going=lambda: not self._all_ended())
        world.play(world.now_ms + QUIET_MS_MAX, going=lambda: bool(world.alive))
        self._reckon()
        return Played(
            world.seed,
            self.server.steps,
            self.server.commits,
            world.now_ms - START_MS,
            frozenset(world.taken),
            tuple(world.lines or ()),
            "" if world.lines is None else self._digest(),
        )

    def _digest(self) -> str:
        rows = sorted((key, repr(record)) for key, record in self.server.durable.items())
        return sha256(repr((rows, self.world.lines)).encode()).hexdigest()

    def _trouble(self) -> None:
        """Now and then something happens to a machine, to the server, or to the net between them."""
        world = self.world
        if world.healed:
            return
        rng = world.rng
        machine = rng.choice(list(self.machines.values()))
        if world.meets("crash_worker"):
            machine.crash()
            world.after(rng.choice((10, 1_500, 9_000)), machine.restart)
        if world.meets("freeze_worker"):
            machine.freeze(rng.choice((300, 3_000, 15_000)))
        if world.meets("crash_server"):
            self.server.crash(rng.choice((0, 100, 2_000, 10_000)))
        if world.meets("stall_server"):
            self.server.stall(rng.choice((200, 3_000, 12_000)))
        if world.meets("cut"):
            cuts = rng.choice((self.net.cut_to, self.net.cut_from))
            place = rng.choice((machine.name, "people"))
            cuts[place] = world.now_ms + rng.choice((500, 4_000, 20_000))
            world.tell(place, "is cut off one way")
        if world.meets("forge"):
            held = self.server.state.index.held
            others = [
                attempt_id
                for worker_id, attempts in held.items()
                if worker_id != machine.session.worker_id
                for attempt_id in attempts.values()
            ]
            machine.forge(rng.choice(others) if others else "nobody's")
        if "steering" in world.knobs.faults and world.chance(0.02):
            machine.leave()
        world.after(rng.randint(50, 800), self._trouble)

    def _heal(self) -> None:
        world = self.world
        world.healed = True
        world.tell("world", "all heals")
        for machine in self.machines.values():
            world.after(0, machine.restart)
        self._go_on()

    def _go_on(self) -> None:
        self.people.resume_all()
        self.world.after(10_000, self._go_on)

    # the reckoning ------------------------------------------------------------------------------------------------

    def _all_ended(self) -> bool:
        for wish in self.people.wishes:
            if wish.accepted is None:
                return False
            job = self.server.durable.get(("job", wish.accepted.job_id))
            if not isinstance(job, Job) or job.status not in JOB_FINAL:
                return False
        return True

    def _reckon(self) -> None:
        world, durable = self.world, self.server.durable
        for task_id, alive in world.alive.items():
            world.violated(
                f"I12: everything has ended, and of {task_id} there is alive {', '.join(alive)}"
            )
        jobs: dict[str, str] = {}
        for wish in self.people.wishes:
            if wish.accepted is None:
                world.violated(f"I9: {wish.key} was never accepted")
                return
            id = wish.accepted.job_id
            if id in jobs:
                world.violated(f"I2: {wish.key} and {jobs[id]} are one job")
            jobs[id] = wish.key
            job = durable.get(("job", id))
            if not isinstance(job, Job):
                world.violated(f"I1: job {wish.accepted.number} was accepted, and is gone")
            elif job.status not in JOB_FINAL:
                world.violated(f"I9: job {job.number} is {job.status} and never ends")
        attempts: dict[str, list[Attempt]] = {}
        tasks: dict[str, list[Task]] = {}
        for record in durable.values():
            if isinstance(record, Attempt):
                attempts.setdefault(record.task_id, []).append(record)
            elif isinstance(record, Task):
                tasks.setdefault(record.job_id, []).append(record)
            elif isinstance(record, Job) and record.id not in jobs:
                world.violated(f"I2: job {record.number} is nobody's")
        for id in jobs:
            self._reckon_job(durable.get(("job", id)), tasks.get(id, []), attempts)

    def _reckon_job(
        self, job: object, tasks: list[Task], attempts: dict[str, list[Attempt]]
    ) -> None:
        if not isinstance(job, Job):
            return
        if len(tasks) != job.tasks:
            self.world.violated(f"I1: job {job.number} has {len(tasks)} tasks of {job.tasks}")
        for task in tasks:
            if task.status not in TASK_FINAL:
                self.world.violated(f"I9: job {job.number} has ended, its task is {task.status}")
            mine = attempts.get(task.id, [])
            if len(mine) != task.attempts:
                self.world.violated(f"I4: {task.id} counts {task.attempts} attempts of {len(mine)}")
            for attempt in mine:
                if attempt.status is AttemptStatus.COMPLETED:
                    if self.world.done.get(attempt.id, b"") != attempt.result:
                        self.world.violated(f"I7: {attempt.id} has a result that nobody made")
                    # One that completed while its task was being cancelled may be followed by a retry that somebody asked for.
                    elif (
                        attempt.number < task.attempts and "steering" not in self.world.knobs.faults
                    ):
                        self.world.violated(f"I8: {task.id} was done, and then run again")
                elif attempt.status is AttemptStatus.STOPPED and attempt.id in self.world.done:
                    self.world.violated(f"I7: {attempt.id} was done, and is recorded as stopped")
            last = max(mine, key=lambda each: each.number, default=None)
            completed = last is not None and last.status is AttemptStatus.COMPLETED
            if task.status is TaskStatus.COMPLETED and not completed:
                self.world.violated(f"I8: {task.id} completed, its last attempt did not")


def run(seed: int, *, knobs: Knobs | None = None, told: bool = False) -> Played:
    """
    Play the schedule of this seed. The same seed gives the same story, byte by byte.

    Args:
        knobs: What may go wrong; drawn from the seed by default.
        told: Keep the story, for `testing.diagram.drawn`.

    Raises:
        Violated: It broke an invariant.
    """
    drawn = knobs if knobs is not None else draw(Random(f"knobs {seed}"))
    return Schedule(seed, drawn, told=told).play()


def play(seed: int) -> tuple[tuple[Line, ...], Violated | None]:
    """The story of this seed as far as it went, and what it broke; for the diagram."""
    schedule = Schedule(seed, draw(Random(f"knobs {seed}")), told=True)
    violation: Violated | None = None
    try:
        schedule.play()
    except Violated as found:
        violation = found
    return tuple(schedule.world.lines or ()), violation
