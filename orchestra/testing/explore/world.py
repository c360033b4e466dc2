"""A small world as a whole: an orchestrator, machines, what is on its way between them, people; and all that can happen next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

from orchestra.statemachine.commands import (
    ArchiveProject,
    CancelJob,
    CancelTask,
    Command,
    JoinWorker,
    OpenProject,
    PauseJob,
    PauseWorker,
    ResumeJob,
    ResumeWorker,
    RetryTask,
    Tick,
)
from orchestra.statemachine.effects import Effect
from orchestra.statemachine.lifecycles import (
    TASK_FINAL,
    JobStatus,
    ProjectStatus,
    TaskStatus,
    WorkerStatus,
)
from orchestra.statemachine.records import Job, Project, Task, Worker
from orchestra.testing.explore.bounds import Bounds, Purse, Violation, spent
from orchestra.testing.explore.faces import Register, renamings
from orchestra.testing.explore.far_end import FarEnd, Machines
from orchestra.testing.explore.messages import Message, Post
from orchestra.testing.explore.near_end import NearEnd, Orchestrator
from orchestra.worker.session import Standing

Net = tuple[Message, ...]


class Whole(NamedTuple):
    """One state of the world."""

    near: NearEnd
    far: tuple[FarEnd, ...]
    net: Net
    purse: Purse


class Step(NamedTuple):
    """What happens, whether it is a trouble (or a wish of people, which nobody is owed), and what comes of it."""

    told: str
    is_trouble: bool
    whole: Whole


class World:
    """All that can happen within some bounds."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        register = Register()
        self.ways = renamings(bounds.workers)
        self.orchestrator = Orchestrator(bounds, register, self.ways)
        self.machines = Machines(bounds, register, self.ways)
        self.post = Post(register, self.ways)

    def start(self) -> Whole:
        """The jobs are submitted, and every machine is switched off."""
        bounds = self.bounds
        introduction = JoinWorker("w0", "w0.0", bounds.slots, ("app",), (), (("cpu", 1_000),))
        far = tuple(self.machines.new(place, introduction) for place in range(bounds.workers))
        return Whole(self.orchestrator.start(), far, (), bounds.purse())

    def key(self, whole: Whole) -> tuple[object, ...]:
        """What is equal for two states that differ by the names of machines only."""
        keys: list[tuple[int, ...]] = []
        for number in range(len(self.ways)):
            machines = sorted(machine.faces[number] for machine in whole.far)
            messages = sorted(message.faces[number] for message in whole.net)
            keys.append((whole.near.faces[number], *machines, -1, *messages))
        return (min(keys), whole.purse)

    def broken(self, whole: Whole) -> str:
        """The first invariant about what is truly alive that does not hold; empty when all do."""
        alive: dict[str, int] = {}
        for machine in whole.far:
            for task_id in machine.working_on:
                if task_id in whole.near.cancelled:
                    return f"I11: task {task_id} shows cancelled, and w{machine.place} still works on it"
                if task_id in alive:
                    return f"I3: w{alive[task_id]} and w{machine.place} work on task {task_id} at the same time"
                alive[task_id] = machine.place
        return ""

    def steps(self, whole: Whole) -> Iterator[Step]:
        """All that can happen next."""
        yield from self._orchestrator_steps(whole)
        yield from self._machine_steps(whole)
        yield from self._message_steps(whole)
        yield from self._people_steps(whole)
        yield from self._time_steps(whole)

    # the orchestrator by itself ---------------------------------------------------------------------------------

    def _orchestrator_steps(self, whole: Whole) -> Iterator[Step]:
        if whole.near.tick_is_due:
            near, _, effects = self.orchestrator.apply(whole.near, _TICK, "tick")
            yield Step(
                "the orchestrator looks at the time", False, self._pushed(whole, near, effects)
            )
        purse = spent(whole.purse, "restarts")
        if purse is not None:
            near = self.orchestrator.restarted(whole.near)
            after = whole._replace(near=near, purse=purse)
            yield Step("the orchestrator is killed and comes back", True, after)

    def _pushed(self, whole: Whole, near: NearEnd, effects: tuple[Effect, ...]) -> Whole:
        """Orders go to whoever listens. What does not fit on the way is lost: a heartbeat's answer brings it."""
        net = list(whole.net)
        for effect in effects:
            for machine in whole.far:
                if (
                    machine.session.worker_id == effect.worker_id
                    and machine.session.standing is Standing.MEMBER
                    and len(net) < self.bounds.flight
                ):
                    topic = type(effect).__name__
                    net.append(
                        self.post.message("order", machine.place, topic, effect, awaited=False)
                    )
        return whole._replace(near=near, net=_ordered(net))

    # machines by themselves -------------------------------------------------------------------------------------

    def _machine_steps(self, whole: Whole) -> Iterator[Step]:
        for machine in whole.far:
            for verb, attempt_id in self.machines.choices(machine):
                after = self._chosen(whole, machine, verb, attempt_id)
                if after is not None:
                    yield Step(_told(machine, verb, attempt_id), False, after)
            if machine.runs:
                yield from self._machine_troubles(whole, machine)

    def _machine_troubles(self, whole: Whole, machine: FarEnd) -> Iterator[Step]:
        purse = spent(whole.purse, "crashes")
        if purse is not None:
            after = self._chosen(whole._replace(purse=purse), machine, "crash", "")
            if after is not None:
                yield Step(f"w{machine.place} is killed", True, _unheard(self.post, after, machine))
        purse = spent(whole.purse, "failures")
        if purse is not None:
            for attempt_id in machine.alive:
                after = self._chosen(whole._replace(purse=purse), machine, "fail", attempt_id)
                if after is not None:
                    yield Step(_told(machine, "fail", attempt_id), True, after)
        purse = spent(whole.purse, "leaves")
        if purse is not None and not machine.session.draining:
            after = self._chosen(whole._replace(purse=purse), machine, "drain", "")
            if after is not None:
                yield Step(_told(machine, "drain", ""), True, after)

    def _chosen(self, whole: Whole, machine: FarEnd, verb: str, attempt_id: str) -> Whole | None:
        after, asks = self.machines.chosen(machine, verb, attempt_id)
        if len(whole.net) + len(asks) > self.bounds.flight:
            return None
        net = list(whole.net)
        for topic, command in asks:
            net.append(self.post.message("ask", machine.place, topic, command, awaited=True))
        return whole._replace(far=_with(whole.far, after), net=_ordered(net))

    # messages ---------------------------------------------------------------------------------------------------

    def _message_steps(self, whole: Whole) -> Iterator[Step]:
        seen: set[int] = set()
        for place, message in enumerate(whole.net):
            if message.faces[0] in seen:
                continue
            seen.add(message.faces[0])
            rest = (*whole.net[:place], *whole.net[place + 1 :])
            yield Step(str(message), False, self._arrived(whole._replace(net=rest), message))
            purse = spent(whole.purse, "lost")
            if purse is not None:
                yield Step(f"lost: {message}", True, whole._replace(net=rest, purse=purse))
            purse = spent(whole.purse, "doubled")
            if purse is not None and message.way == "ask" and len(whole.net) < self.bounds.flight:
                twice = _ordered([*whole.net, self.post.unawaited(message)])
                yield Step(f"doubled: {message}", True, whole._replace(net=twice, purse=purse))
        yield from self._given_up(whole)

    def _arrived(self, whole: Whole, message: Message) -> Whole:
        if message.way == "ask":
            command = cast("Command[object]", message.body)
            near, reply, effects = self.orchestrator.apply(whole.near, command, message.subject)
            net = whole.net
            if message.awaited:
                answer = self.post.message(
                    "answer", message.machine, message.topic, reply, age=message.age, awaited=True
                )
                net = _ordered([*net, answer])
            return self._pushed(whole._replace(net=net), near, effects)
        machine = whole.far[message.machine]
        if message.way == "order":
            effect = cast("Effect", message.body)
            after = self.machines.ordered(machine, effect, message.faces[0])
            return whole._replace(far=_with(whole.far, after))
        topic, age = message.topic, message.age
        after = self.machines.answered(machine, topic, message.body, age, message.faces[0])
        whole = whole._replace(far=_with(whole.far, after))
        if not after.runs:
            return _unheard(self.post, whole, machine)
        if (
            topic == "join"
        ):  # its orders come by another way from now on, and nothing comes by the former
            kept = [m for m in whole.net if m.way != "order" or m.machine != machine.place]
            return whole._replace(net=tuple(kept))
        return whole

    def _given_up(self, whole: Whole) -> Iterator[Step]:
        for machine in whole.far:
            for topic, _ in machine.asks:
                after = self.machines.given_up(machine, topic)
                net: list[Message] = []
                was_under_way = False
                for message in whole.net:
                    mine = (message.machine, message.topic, message.awaited)
                    if mine != (machine.place, topic, True):
                        net.append(message)
                        continue
                    was_under_way = True
                    if message.way == "ask":
                        net.append(self.post.unawaited(message))
                purse = spent(whole.purse, "lost") if was_under_way else whole.purse
                if purse is not None:
                    far = _with(whole.far, after)
                    told = f"w{machine.place} waits no longer for an answer to {topic}"
                    next_whole = Whole(whole.near, far, _ordered(net), purse)
                    yield Step(told, was_under_way, next_whole)

    # people -----------------------------------------------------------------------------------------------------

    def _people_steps(self, whole: Whole) -> Iterator[Step]:
        if whole.near.wishes is None:
            whole.near.wishes = list(_wishes(whole.near))
            self.orchestrator.ask_again(whole.near)
        for name, told, command in whole.near.wishes:
            purse = spent(whole.purse, name) if name else whole.purse
            if purse is None:
                continue
            near, _, effects = self.orchestrator.apply(whole.near, command)
            if near is not whole.near:
                after = self._pushed(whole._replace(purse=purse), near, effects)
                yield Step(told, bool(name), after)

    # time -------------------------------------------------------------------------------------------------------

    def _time_steps(self, whole: Whole) -> Iterator[Step]:
        after = self._later(whole)
        purse: Purse | None = whole.purse
        silent = after.near.silent - whole.near.silent
        for machine in whole.far:
            if machine.runs and machine.session.introduction.session in silent:
                purse = None if purse is None else spent(purse, "silences")
        if purse is not None:
            yield Step("time passes", purse is not whole.purse, after._replace(purse=purse))

    def _later(self, whole: Whole) -> Whole:
        return Whole(
            self.orchestrator.later(whole.near),
            tuple(self.machines.later(machine) for machine in whole.far),
            _ordered([self.post.older(message) for message in whole.net]),
            whole.purse,
        )


_TICK = cast("Command[object]", Tick())


def _ordered(net: list[Message]) -> Net:
    return tuple(sorted(net, key=lambda message: message.faces[0]))


def _with(far: tuple[FarEnd, ...], after: FarEnd) -> tuple[FarEnd, ...]:
    return (*far[: after.place], after, *far[after.place + 1 :])


def _unheard(post: Post, whole: Whole, machine: FarEnd) -> Whole:
    """Nobody is there any more: no answer and no order arrives, what it asked may."""
    net: list[Message] = []
    for message in whole.net:
        if message.machine != machine.place:
            net.append(message)
        elif message.way == "ask":
            net.append(post.unawaited(message))
    return whole._replace(net=_ordered(net))


def _told(machine: FarEnd, verb: str, attempt_id: str) -> str:
    return f"w{machine.place}: {verb}{' ' if attempt_id else ''}{attempt_id[-9:]}"


def _wishes(near: NearEnd) -> Iterator[tuple[str, str, Command[object]]]:
    """What people may ask for, with what it is counted as; what only takes back an earlier wish is not counted."""
    state = near.state
    for job in state.each(Job):
        if job.status in (JobStatus.QUEUED, JobStatus.RUNNING):
            yield "pauses", f"job {job.number} is paused", PauseJob(job.id)
        if job.status is JobStatus.PAUSED:
            yield "", f"job {job.number} is resumed", ResumeJob(job.id)
        if job in near.live_jobs:
            yield "cancels", f"job {job.number} is cancelled", CancelJob(job.id)
    for task in state.each(Task):
        if task.status not in TASK_FINAL:
            yield "task_cancels", f"task {task.id[-4:]} is cancelled", CancelTask(task.id)
        elif task.status is not TaskStatus.COMPLETED:
            yield "revivals", f"task {task.id[-4:]} is tried again", RetryTask(task.id)
    for worker in state.each(Worker):
        if worker.paused:
            yield "", f"{worker.name} is resumed", ResumeWorker(worker.id)
        elif worker.status is WorkerStatus.ONLINE:
            yield "worker_pauses", f"{worker.name} is paused", PauseWorker(worker.id)
    for project in state.each(Project):
        if project.status is ProjectStatus.OPEN:
            yield "archives", "the project is archived", ArchiveProject(project.name)
        else:
            yield "", "the project is opened again", OpenProject(project.name)


__all__ = ["Step", "Violation", "Whole", "World"]
