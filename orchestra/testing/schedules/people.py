"""The people: they submit jobs under keys until they are told that it is accepted, and steer what is there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

import attrs

from orchestra.statemachine.commands import (
    CancelJob,
    CancelTask,
    Command,
    PauseJob,
    PauseWorker,
    Reconfigure,
    ResumeJob,
    ResumeWorker,
    RetryTask,
    StageDraft,
    SubmitJob,
)
from orchestra.statemachine.records import OnFailure, Span
from orchestra.statemachine.replies import JobAccepted
from orchestra.testing.schedules.net import Net
from orchestra.testing.schedules.server import Asked, Server
from orchestra.testing.schedules.world import World

AGAIN_MS = 500

LEASES_MS = (2_000, 6_000, 20_000)
BEATS_PER_LEASE = 3


@attrs.define(slots=True)
class Wish:
    """A job that somebody wants, and what they were told of it."""

    key: str
    command: SubmitJob
    accepted: JobAccepted | None = None


class People:
    """Everyone who asks the server for something."""

    def __init__(self, world: World, net: Net, server: Server) -> None:
        self.world = world
        self.net = net
        self.server = server
        self.wishes: list[Wish] = []

    def begin(self) -> None:
        """Plan what everybody will ask for."""
        rng = self.world.rng
        for number in range(self.world.knobs.jobs):
            wish = Wish(f"job-{number}", self._drawn(number))
            self.wishes.append(wish)
            self.world.after(
                rng.randint(0, self.world.knobs.trouble_ms // 2), self._submitting(wish)
            )
        if "steering" in self.world.knobs.faults:
            for _ in range(rng.randint(1, 12)):
                self.world.after(rng.randint(10, self.world.knobs.trouble_ms), self._steer)
            self._plan_leases()

    def _plan_leases(self) -> None:
        """Now and then the operator changes how long a lease is."""
        rng = Random(f"leases {self.world.seed}")  # of its own: the rest is drawn as without it
        for _ in range(rng.randint(0, 3)):
            lease_ms = rng.choice(LEASES_MS)
            command = Reconfigure(lease_ms=lease_ms, heartbeat_ms=lease_ms // BEATS_PER_LEASE)
            at_ms = rng.randint(10, self.world.knobs.trouble_ms)
            self.world.after(at_ms, partial(self._reconfigure, command))

    def _reconfigure(self, command: Reconfigure) -> None:
        self.world.tell("people", f"make a lease {command.lease_ms} ms")
        self.server.receive(Asked(command, "people", "", lambda _: None))

    def _drawn(self, number: int) -> SubmitJob:
        rng = self.world.rng
        first = StageDraft(
            "first",
            "app",
            over=Span(0, rng.randint(1, 3)) if self.world.chance(0.5) else None,
            retries=rng.randint(0, 2),
            backoff_ms=rng.choice((0, 200, 2_000)),
            needs=(("cpu", rng.choice((500, 1_000))),) if self.world.chance(0.5) else (),
            priority=rng.randint(-1, 1),
            queue_ms_max=rng.choice((None, None, None, 4_000)),
            run_ms_max=rng.choice((None, None, None, 1_000)),
            grace_ms=rng.choice((0, 300, 2_000)),
        )
        stages = [first]
        if self.world.chance(0.5):
            edge = "after" if self.world.chance(0.5) else "pairwise"
            second = attrs.evolve(first, name="second", needs=(), **{edge: ("first",)})
            stages.append(second)
        failure = OnFailure.STOP if self.world.chance(0.5) else OnFailure.CONTINUE
        return SubmitJob(f"job-{number}", tuple(stages), on_failure=failure)

    def _submitting(self, wish: Wish) -> Callable[[], None]:
        def submit() -> None:
            self.net.ask("people", wish.command, answered, key=wish.key)

        def answered(reply: object) -> None:
            if isinstance(reply, JobAccepted):
                self.world.tell("people", f"are told that {wish.key} is job {reply.number}")
                wish.accepted = reply
                if self.world.chance(0.2):
                    self.world.after(AGAIN_MS, again)
            else:
                self.world.after(AGAIN_MS, submit)

        def again() -> None:
            """Somebody who forgot the answer asks once more."""
            self.net.ask("people", wish.command, repeated, key=wish.key)

        def repeated(reply: object) -> None:
            first = wish.accepted
            if (
                isinstance(reply, JobAccepted)
                and first is not None
                and reply.job_id != first.job_id
            ):
                self.world.violated(f"I2: key {wish.key} gave two jobs")

        return submit

    def _steer(self) -> None:
        rng = self.world.rng
        rows = self.server.state.rows
        kind = rng.choice(("job", "job", "task", "worker"))
        ids = list(rows[kind])
        if not ids:
            return
        id = rng.choice(ids)
        command: Command[object]
        if kind == "job":
            command = rng.choice((CancelJob(id), PauseJob(id), ResumeJob(id)))
        elif kind == "task":
            command = rng.choice((CancelTask(id), RetryTask(id)))
        else:
            command = rng.choice((PauseWorker(id), ResumeWorker(id)))
        self.world.tell("people", f"ask to {type(command).__name__} {id[-9:]}")
        self.net.ask("people", command, lambda _: None)

    def resume_all(self) -> None:
        """When all has healed, whatever was paused goes on, however often it has to be asked for."""
        for kind, command in (("job", ResumeJob), ("worker", ResumeWorker)):
            for id in list(self.server.state.rows[kind]):
                # One that has ended refuses, which is as well.
                self.net.ask("people", command(id), lambda _: None)
