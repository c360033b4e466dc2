"""A machine in a small world: the real `WorkerSession` and `Holdings`, what it waits to be answered, and the work that is alive on it."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable

import attrs

from orchestra.errors import Rejected
from orchestra.ports import Ended
from orchestra.statemachine.commands import Command, JoinWorker
from orchestra.statemachine.effects import Effect
from orchestra.statemachine.ids import task_of
from orchestra.statemachine.records import Cause, Rung
from orchestra.statemachine.replies import HeartbeatAnswered, ReportsAnswered, WorkerJoined
from orchestra.statemachine.reports import AttemptReport
from orchestra.testing.explore.bounds import Bounds, Violation
from orchestra.testing.explore.faces import (
    STEP_MS,
    Register,
    Renaming,
    machine_name,
    renamed,
)
from orchestra.testing.explore.messages import report_face
from orchestra.worker.holdings import Action, Start
from orchestra.worker.session import Standing, WorkerSession

LONG_S = 1.0
"""A worker tells what it has to tell at once: what it holds back for a moment, to tell it with more, is due."""


@attrs.define(slots=True, eq=False)
class FarEnd:
    """
    One state of a machine.

    Args:
        runs: Whether a worker's process is there.
        life: Which process of the machine it is, from 1.
        bodies: What is alive, with the highest rung it was told: attempt by attempt.
        asks: Which topics it waits for, and the reports that it told with its ask.
        faces: See `faces`.
    """

    place: int
    runs: bool
    life: int
    session: WorkerSession
    now_ms: int
    bodies: tuple[tuple[str, str], ...]
    asks: tuple[tuple[str, tuple[AttemptReport, ...]], ...]
    born: frozenset[str]
    faces: tuple[int, ...] = ()
    edges: dict[Hashable, tuple[FarEnd, tuple[tuple[str, Command[object]], ...]]] = attrs.field(
        factory=dict[Hashable, "tuple[FarEnd, tuple[tuple[str, Command[object]], ...]]"]
    )

    chances: list[tuple[str, str]] | None = None
    """What it may do, once that was worked out."""

    @property
    def alive(self) -> frozenset[str]:
        """The attempts whose work is alive."""
        return frozenset(attempt_id for attempt_id, _ in self.bodies)

    @property
    def working_on(self) -> tuple[str, ...]:
        """The tasks whose work is alive."""
        return tuple(task_of(attempt_id) for attempt_id, _ in self.bodies)

    def waits_for(self, topic: str) -> bool:
        """Whether it waits to be answered on this."""
        return any(topic == each for each, _ in self.asks)


class _Draft:
    """A machine while something happens to it."""

    def __init__(self, node: FarEnd) -> None:
        self.node = node
        self.runs = node.runs
        self.life = node.life
        self.now_ms = node.now_ms
        self.session = copied(node.session)
        self.bodies = dict(node.bodies)
        self.asks = dict(node.asks)
        self.born = set(node.born)
        self.sent: list[tuple[str, Command[object]]] = []
        self.again: list[str] = []

    @property
    def now_s(self) -> float:
        return self.now_ms / 1_000

    def act(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Start):
                attempt_id = action.order.attempt_id
                if attempt_id in self.born:
                    self.again.append(attempt_id)
                self.born.add(attempt_id)
                self.bodies[attempt_id] = Rung.NONE
            elif action.attempt_id in self.bodies:
                self.bodies[action.attempt_id] = action.rung
                if action.rung is Rung.KILL:
                    self.end(action.attempt_id, Ended("stopped", cause=Cause.CANCELLED))

    def end(self, attempt_id: str, ended: Ended) -> None:
        del self.bodies[attempt_id]
        self.session.holdings.ended(attempt_id, ended)

    def ask(
        self, topic: str, command: Command[object], reports: tuple[AttemptReport, ...] = ()
    ) -> None:
        self.asks[topic] = reports
        self.sent.append((topic, command))

    def stop(self) -> None:
        """The process is gone, and its guardian has ended what ran."""
        self.runs = False
        self.bodies.clear()
        self.asks.clear()
        self.session = introduced(self.node.place, 0, self.session.introduction)


def introduced(place: int, life: int, like: JoinWorker) -> WorkerSession:
    """A new process on a machine."""
    name = machine_name(place)
    return WorkerSession(attrs.evolve(like, name=name, session=f"{name}.{life}"))


def copied(session: WorkerSession) -> WorkerSession:
    """A session of its own in the same state."""
    twin = copy.copy(session)
    twin.holdings = copy.copy(session.holdings)
    inside = vars(twin.holdings)
    for name, held in inside.items():
        inside[name] = copy.copy(held)
    # Reports are told from others by what they are, not by what they say: they stay the same objects.
    inside["_held"] = {attempt_id: copy.copy(each) for attempt_id, each in inside["_held"].items()}
    return twin


class Machines:
    """All states of machines that one small world has shown."""

    def __init__(self, bounds: Bounds, register: Register, ways: tuple[Renaming, ...]) -> None:
        self.bounds = bounds
        self._register = register
        self._ways = ways
        self._nodes: dict[int, FarEnd] = {}

    @property
    def states(self) -> int:
        """How many there are."""
        return len(self._nodes)

    def new(self, place: int, introduction: JoinWorker) -> FarEnd:
        """A machine on which nothing runs yet."""
        session = introduced(place, 0, introduction)
        return self._node(FarEnd(place, False, 0, session, 1_000_000, (), (), frozenset()))

    # what it may do -----------------------------------------------------------------------------------------------

    def choices(self, node: FarEnd) -> list[tuple[str, str]]:
        """What it may do now by itself: verbs, each with the attempt that it is about."""
        if node.chances is None:
            node.chances = self._choices(node)
        return node.chances

    def _choices(self, node: FarEnd) -> list[tuple[str, str]]:
        if not node.runs:
            return [("start", "")]  # whatever supervises it starts it again
        session, holdings = node.session, node.session.holdings
        found: list[tuple[str, str]] = []
        member = session.standing is Standing.MEMBER
        if session.must_join and not node.waits_for("join"):
            found.append(("join", ""))
        if (
            member
            and not session.must_join
            and not node.waits_for("beat")
            and not node.waits_for("join")
        ):
            found.append(("beat", ""))
        if member and not node.waits_for("tell") and _has_news(node):
            found.append(("tell", ""))
        if member and session.draining and holdings.is_handed_in and not node.waits_for("leave"):
            found.append(("leave", ""))
        for attempt_id, rung in node.bodies:
            if rung:
                found.append(("obey", attempt_id))
            elif self.bounds.begins and not _has_begun(node, attempt_id):
                found.append(("begin", attempt_id))
            found.append(("complete", attempt_id))
        return found

    def chosen(
        self, node: FarEnd, verb: str, attempt_id: str
    ) -> tuple[FarEnd, tuple[tuple[str, Command[object]], ...]]:
        """It does one of `choices`, or fails, drains, or crashes. Returned with what it asks."""
        key = (verb, attempt_id)
        known = node.edges.get(key)
        if known is not None:
            return known
        draft = _Draft(node)
        getattr(self, f"_{verb}")(draft, attempt_id)
        return self._kept(node, key, draft)

    def _start(self, draft: _Draft, _: str) -> None:
        draft.life += 1
        draft.runs = True
        draft.session = introduced(draft.node.place, draft.life, draft.session.introduction)

    def _join(self, draft: _Draft, _: str) -> None:
        draft.ask("join", draft.session.joining())

    def _beat(self, draft: _Draft, _: str) -> None:
        draft.ask("beat", draft.session.beating(load=0.0, memory_free_bytes=0, disk_free_bytes=0))

    def _tell(self, draft: _Draft, _: str) -> None:
        reports = draft.session.holdings.reporting(draft.now_s + LONG_S)
        draft.ask("tell", draft.session.telling(reports), reports)

    def _leave(self, draft: _Draft, _: str) -> None:
        draft.ask("leave", draft.session.leaving())

    def _begin(self, draft: _Draft, attempt_id: str) -> None:
        draft.session.holdings.began(attempt_id, draft.now_s)

    def _complete(self, draft: _Draft, attempt_id: str) -> None:
        draft.end(attempt_id, Ended("completed", result=attempt_id.encode()))

    def _fail(self, draft: _Draft, attempt_id: str) -> None:
        draft.end(attempt_id, Ended("failed", cause=Cause.ERROR, message="it failed"))

    def _obey(self, draft: _Draft, attempt_id: str) -> None:
        draft.end(attempt_id, Ended("stopped", cause=Cause.CANCELLED))

    def _drain(self, draft: _Draft, _: str) -> None:
        draft.session.draining = True

    def _crash(self, draft: _Draft, _: str) -> None:
        draft.stop()

    # what happens to it -------------------------------------------------------------------------------------------

    def answered(self, node: FarEnd, topic: str, reply: object, age: int, face: int) -> FarEnd:
        """It reads an answer to what it asked ``age`` steps ago."""
        key = ("answered", face)
        known = node.edges.get(key)
        if known is not None:
            return known[0]
        draft = _Draft(node)
        reports = draft.asks.pop(topic)
        sent_s = draft.now_s - age * STEP_MS / 1_000
        session = draft.session
        if topic == "join":
            if isinstance(reply, WorkerJoined):
                draft.act(session.joined(reply, sent_s, draft.now_s))
            elif isinstance(reply, Rejected) and not session.holdings.holding:
                draft.stop()  # another process has the name
        elif topic == "beat":
            if isinstance(reply, HeartbeatAnswered):
                draft.act(session.beaten(reply, sent_s, draft.now_s))
                if session.standing is Standing.REPLACED:
                    draft.stop()
        elif topic == "tell":
            if isinstance(reply, ReportsAnswered):
                session.holdings.reported(reports)
            else:
                session.holdings.unreported(reports)
        else:
            draft.stop()
        if draft.runs:
            draft.act(session.fenced(draft.now_s))
        return self._kept(node, key, draft)[0]

    def given_up(self, node: FarEnd, topic: str) -> FarEnd:
        """It does not wait for this answer any longer."""
        key = ("given up", topic)
        known = node.edges.get(key)
        if known is not None:
            return known[0]
        draft = _Draft(node)
        reports = draft.asks.pop(topic)
        if topic == "tell":
            draft.session.holdings.unreported(reports)
        return self._kept(node, key, draft)[0]

    def ordered(self, node: FarEnd, effect: Effect, face: int) -> FarEnd:
        """An order comes that the orchestrator pushed."""
        key = ("ordered", face)
        known = node.edges.get(key)
        if known is not None:
            return known[0]
        draft = _Draft(node)
        session = draft.session
        if (effect.worker_id, effect.incarnation) == (session.worker_id, session.incarnation):
            action = session.ordered(effect.order, draft.now_s)
            if action is not None:
                draft.act((action,))
        return self._kept(node, key, draft)[0]

    def later(self, node: FarEnd) -> FarEnd:
        """A step of time passes; what was not renewed in time is fenced, by its guardian if the process does nothing."""
        known = node.edges.get("later")
        if known is not None:
            return known[0]
        draft = _Draft(node)
        draft.now_ms += STEP_MS
        if draft.runs:
            draft.act(draft.session.fenced(draft.now_s))
        return self._kept(node, "later", draft)[0]

    # nodes --------------------------------------------------------------------------------------------------------

    def _kept(
        self, node: FarEnd, key: Hashable, draft: _Draft
    ) -> tuple[FarEnd, tuple[tuple[str, Command[object]], ...]]:
        if draft.again:
            raise Violation(f"I8: attempt {draft.again[0]} is started a second time")
        after = FarEnd(
            node.place,
            draft.runs,
            draft.life,
            draft.session,
            draft.now_ms,
            tuple(sorted(draft.bodies.items())),
            tuple(sorted(draft.asks.items())),
            frozenset(draft.born),
        )
        edge = node.edges[key] = (self._node(after), tuple(draft.sent))
        return edge

    def _node(self, node: FarEnd) -> FarEnd:
        def look(renaming: Renaming) -> Hashable:
            return _machine_face(node, renaming)

        faces = self._register.faces(look, self._ways)
        known = self._nodes.get(faces[0])
        if known is None:
            known = self._nodes[faces[0]] = attrs.evolve(node, faces=faces)
        return known


def _has_news(node: FarEnd) -> bool:
    return bool(copied(node.session).holdings.reporting(node.now_ms / 1_000 + LONG_S))


def _has_begun(node: FarEnd, attempt_id: str) -> bool:
    held = vars(node.session.holdings)["_held"].get(attempt_id)
    return held is None or held.begun


def _machine_face(node: FarEnd, renaming: Renaming) -> Hashable:
    session = node.session
    inside = vars(session.holdings)
    renewed_s = vars(session)["_renewed_s"]
    age_ms = None if renewed_s is None else min(node.now_ms - int(renewed_s * 1_000), 3 * STEP_MS)
    held = tuple(
        (
            attempt_id,
            each.rung,
            each.foreign,
            each.own is not None,
            each.ended,
            None if each.end is None else report_face(each.end),
            each.begun,
            each.told,
        )
        for attempt_id, each in inside["_held"].items()
    )
    return (
        "machine",
        renaming[node.place],
        node.runs,
        node.life,
        renamed(session.introduction.session, renaming),
        session.standing,
        session.worker_id,
        session.incarnation,
        session.draining,
        vars(session)["_said_to_drain"],
        vars(session)["_known_to_drain"],
        age_ms,
        held,
        tuple(inside["_untold"]),
        tuple(inside["_soft"]),
        tuple(inside["_acknowledged"]),
        node.bodies,
        tuple((topic, tuple(report_face(r) for r in reports)) for topic, reports in node.asks),
        tuple(sorted(node.born)),
    )
