"""What is on its way between machines and the orchestrator: in no order, and for as long as it likes."""

from __future__ import annotations

from collections.abc import Hashable

import attrs

from orchestra.errors import Rejected
from orchestra.statemachine.commands import Command, JoinWorker
from orchestra.statemachine.effects import Effect
from orchestra.statemachine.replies import HeartbeatAnswered, Order, WorkerJoined
from orchestra.statemachine.reports import AttemptReport, AttemptsReported
from orchestra.testing.explore.faces import STALE_STEPS, Register, Renaming, renamed


@attrs.frozen(slots=True, eq=False)
class Message:
    """
    One message. Equal ones are one object (see `Post`).

    Args:
        way: ``ask`` to the orchestrator, ``answer`` back, ``order`` for what it pushes by itself.
        machine: The place of the machine that sent it or shall have it.
        topic: Which of the machine's asks it is or answers: join, beat, tell or leave.
        body: A command, a reply, or an effect.
        age: Steps of time since the ask was sent.
        awaited: Somebody waits for the answer. Of a doubled or given up ask nobody does.
    """

    way: str
    machine: int
    topic: str
    body: object
    age: int
    awaited: bool
    faces: tuple[int, ...] = ()
    subject: int = 0
    """The number of its body's face: equal for all messages that say the same."""

    def __str__(self) -> str:
        told = {"ask": "asks to", "answer": "is answered on", "order": "is ordered"}[self.way]
        return f"w{self.machine} {told} {self.topic}{_gist(self.body)}"


def _gist(body: object) -> str:
    if isinstance(body, AttemptsReported):
        return ": " + ", ".join(f"{r.attempt_id[-9:]} {r.happening}" for r in body.reports)
    if isinstance(body, HeartbeatAnswered) and not body.known:
        return f": {body.remedy}"
    order = getattr(body, "order", None)
    if isinstance(order, Order):
        return f"{order.attempt_id[-9:]} {order.rung}"
    return ""


class Post:
    """Makes messages, each once."""

    def __init__(self, register: Register, ways: tuple[Renaming, ...]) -> None:
        self._register = register
        self._ways = ways
        self._made: dict[int, Message] = {}
        self._seen: dict[tuple[object, ...], tuple[object, Message]] = {}
        """By the identity of a body, which is kept with it so that the identity stays its own."""

    def message(
        self, way: str, machine: int, topic: str, body: object, *, age: int = 0, awaited: bool
    ) -> Message:
        """The message, which is the one that was made before if there was an equal one."""
        age = min(age, STALE_STEPS) if topic in ("join", "beat") and awaited else 0
        seen = (way, machine, topic, id(body), age, awaited)
        known = self._seen.get(seen)
        if known is None:
            made = self._message(way, machine, topic, body, age=age, awaited=awaited)
            known = self._seen[seen] = (body, made)
        return known[1]

    def _message(
        self, way: str, machine: int, topic: str, body: object, *, age: int, awaited: bool
    ) -> Message:
        def look(renaming: Renaming) -> Hashable:
            body_face = _body_face(body, renaming)
            return ("message", way, renaming[machine], topic, body_face, age, awaited)

        faces = self._register.faces(look, self._ways)
        known = self._made.get(faces[0])
        if known is None:
            subject = self._register.number(("body", _body_face(body, self._ways[0])))
            known = Message(way, machine, topic, body, age, awaited, faces, subject)
            self._made[faces[0]] = known
        return known

    def older(self, message: Message) -> Message:
        """The message a step of time later."""
        return self.message(
            message.way,
            message.machine,
            message.topic,
            message.body,
            age=message.age + 1,
            awaited=message.awaited,
        )

    def unawaited(self, message: Message) -> Message:
        """The same ask, and nobody waits for its answer."""
        return self.message(
            message.way, message.machine, message.topic, message.body, awaited=False
        )


def _body_face(body: object, renaming: Renaming) -> Hashable:
    if isinstance(body, JoinWorker):
        return ("join", renamed(body.session, renaming), body.apps, body.holding)
    if isinstance(body, AttemptsReported):
        told = tuple(report_face(report) for report in body.reports)
        return ("tell", body.worker_id, body.incarnation, told)
    if isinstance(body, WorkerJoined):
        orders = tuple(order_face(order) for order in body.orders)
        return ("joined", body.worker_id, body.incarnation, orders, body.foreign)
    if isinstance(body, HeartbeatAnswered):
        orders = tuple(order_face(order) for order in body.orders)
        return ("beaten", body.known, body.remedy, orders, body.foreign)
    if isinstance(body, Rejected):
        return ("refused", body.code)
    if isinstance(body, Command):
        return repr(body)  # pyright: ignore[reportUnknownArgumentType] - beats and goodbyes name no machine
    if isinstance(body, Effect):
        return (
            type(body).__name__,
            body.worker_id,
            body.incarnation,
            order_face(body.order),
        )
    return type(body).__name__


def report_face(report: AttemptReport) -> Hashable:
    """What a report says, but for words."""
    return (report.attempt_id, report.happening, report.cause, report.result)


def order_face(order: Order) -> Hashable:
    """What an order asks for."""
    return (order.attempt_id, order.rung)
