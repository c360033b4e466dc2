"""
What a Flamenco manager has on its desk between two requests: who asked last, and which task lies with whom.

All of it is soft. Workers, attempts, blocks and ends are rows of the core; after a restart the desk is laid out anew from them. It is
needed because a worker of 2015 says its name when it registers, and nothing but its address when it asks for work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import attrs

from orchestra.dialects.flamenco_parsers import Activity
from orchestra.statemachine.lifecycles import WorkerStatus
from orchestra.statemachine.records import Rung
from orchestra.statemachine.replies import Order, WorkerView

SESSION = "flamenco"
"""Workers of 2015 draw none: the same name is the same worker, also after its restart."""

LABEL = "flamenco"
"""The label of every worker that joined through this dialect."""

TICKET_BITS = 48
"""A ticket is a number that JSON's readers keep exact (below 2**53), and too long to be guessed before it is answered."""


def ticket_of(attempt_id: str) -> int:
    """The ``task_id`` under which a worker knows an attempt: another attempt at the same task has another."""
    return int.from_bytes(hashlib.sha256(attempt_id.encode()).digest()[: TICKET_BITS // 8])


_QUIET = Activity()


@attrs.define(slots=True, eq=False)
class Run:
    """
    An attempt that a worker holds.

    Args:
        order: What it is.
        ticket: How the worker names it.
        card: Whose it is.
        touched_ms: When the worker last spoke of it, or was given it.
        delivered: The worker was sent it.
        started: The worker has said that it runs.
        stopping: The core wants it to end.
        taken_back: Its job was stopped: it has to end, and runs again when the job is started.
        told: The worker was told to end it.
        log_bytes: How much of its log is kept; None when that, and what it ends with, has to be asked.
        log_mark: Length and digest of the log that the worker sent last, which it sends again with the next piece.
        log_tail: The end of what is kept.
        pictured: The worker sent a picture of it.
    """

    order: Order
    ticket: int
    card: Card
    touched_ms: int
    delivered: bool = False
    started: bool = False
    stopping: bool = False
    taken_back: bool = False
    told: bool = False
    log_bytes: int | None = 0
    log_mark: tuple[int, bytes] = (0, hashlib.sha256(b"").digest())
    log_tail: bytes = b""
    activity: Activity = _QUIET
    time_cost_s: int = 0
    pictured: bool = False


@attrs.define(slots=True, eq=False)
class Card:
    """
    A worker: one host name, address and port.

    Args:
        id: Its row in the core; empty before it has joined.
        joined: It is in the core as far as is known here.
        restored: It comes from the core's rows, and what it holds was not looked at yet.
        outdated: What the core has of it is not what this manager offers it, or the tags that it gives it.
        seen_ms: When it last spoke.
        beat_ms: When its lease was last renewed.
        lease_ms: How long that lasts.
        disabled: Someone disabled it, which ends what it runs.
        asleep: Its schedule has it asleep.
        away: It asks no more, and is given nothing until it does.
        visited: It is called, and asks for nothing itself.
        visit_ms: When it was asked last how it is.
        resting: A kind of task that it is not given until it asks again: it failed at one, and others may try that.
        blocked: Kinds of tasks that it is not given any more.
        failures: How often in a row it failed at each kind.
    """

    hostname: str
    ip: str
    port: int
    system: str
    id: str = ""
    incarnation: int = 0
    joined: bool = False
    restored: bool = False
    outdated: bool = False
    seen_ms: int = 0
    beat_ms: int = 0
    lease_ms: int = 0
    paused: bool = False
    disabled: bool = False
    asleep: bool = False
    away: bool = False
    visited: bool = False
    visit_ms: int = 0
    resting: str = ""
    blocked: tuple[str, ...] = ()
    failures: dict[str, int] = attrs.field(factory=dict[str, int])
    run: Run | None = None

    @property
    def name(self) -> str:
        """Its name in the core."""
        return f"{self.hostname}@{self.ip}:{self.port}"


class Desk:
    """
    Cards and runs.

    Args:
        now_ms: A clock that never goes back.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_ms = now_ms
        self.opened = False
        self.cards: dict[str, Card] = {}
        self.runs: dict[int, Run] = {}
        self._at: dict[str, dict[str, Card]] = {}
        self._asking: dict[str, dict[str, None]] = {}

    def add(self, card: Card) -> Card:
        """The card with this name: the one that lies here already, else this one."""
        known = self.cards.setdefault(card.name, card)
        self._at.setdefault(card.ip, {})[card.name] = known
        return known

    def forget(self, card: Card) -> None:
        """A worker that could not join."""
        self.cards.pop(card.name, None)
        for by_name in (self._at, self._asking):
            names = by_name.get(card.ip, {})
            names.pop(card.name, None)
            if not names:
                by_name.pop(card.ip, None)

    def restore(self, worker: WorkerView, *, disabled: bool) -> Card | None:
        """
        A worker from the core's rows; None for one that is no worker of this dialect, or is here. A lost one has to speak before it
        counts as joined.
        """
        host = worker.host
        if LABEL not in worker.labels or not host.get("port", "").isdecimal():
            return None
        card = Card(host["hostname"], host["ip_address"], int(host["port"]), host["system"])
        if card.name != worker.name or card.name in self.cards:
            return None
        card.id, card.incarnation = worker.id, worker.incarnation
        card.joined, card.restored = worker.status is WorkerStatus.ONLINE, True
        card.seen_ms = card.beat_ms = self.now_ms()
        card.paused, card.disabled = worker.paused, disabled
        card.blocked = tuple(kind for kind in host.get("blocked", "").split(",") if kind)
        return self.add(card)

    def at(self, ip: str) -> Iterator[Card]:
        """The workers at an address."""
        return iter(tuple(self._at.get(ip, {}).values()))

    def asks(self, card: Card) -> None:
        """A worker registered: it will ask for work next."""
        self._asking.setdefault(card.ip, {})[card.name] = None

    def who_asks(self, ip: str, hostname: str) -> Card | None:
        """
        Who at this address asks for work: who registered first since its last question, else one that has none. ``hostname`` is
        empty when the worker does not say it. None when nobody at this address is known.
        """
        asking = self._asking.get(ip, {})
        for name in tuple(asking):
            card = self.cards[name]
            if not hostname or card.hostname == hostname:
                del asking[name]
                return card
        there = [card for card in self.at(ip) if not hostname or card.hostname == hostname]
        return min(there, key=lambda card: (card.run is not None, card.seen_ms), default=None)

    def absorb(self, card: Card, orders: Sequence[Order], foreign: Sequence[str]) -> None:
        """What the core says that a worker should hold, and what it holds no more."""
        if card.run is not None and card.run.order.attempt_id in foreign:
            self.drop(card.run)
        for order in orders:
            run = card.run
            if run is None or run.order.attempt_id != order.attempt_id:
                if run is not None:
                    self.drop(run)
                run = Run(order, ticket_of(order.attempt_id), card, self.now_ms())
                card.run = self.runs[run.ticket] = run
            run.stopping = run.stopping or order.rung is not Rung.NONE

    def drop(self, run: Run) -> None:
        """A run is over, or not its worker's any more."""
        self.runs.pop(run.ticket, None)
        if run.card.run is run:
            run.card.run = None


TAIL_BYTES = 512
"""Later workers send the last 256 signs of their log."""


def new_output(run: Run, log: str) -> bytes:
    """
    What is new in a log. A worker sends all that it had before, or only the end of it: then what it repeats is what the last one ended
    with.
    """
    raw = log.encode(errors="replace")
    size, digest = run.log_mark
    if len(raw) >= size and hashlib.sha256(raw[:size]).digest() == digest:
        known = size
    else:
        sizes = range(min(len(raw), len(run.log_tail)), 0, -1)
        known = next((n for n in sizes if run.log_tail.endswith(raw[:n])), 0)
    run.log_mark = (len(raw), hashlib.sha256(raw).digest())
    run.log_tail = (run.log_tail + raw[known:])[-TAIL_BYTES:]
    return raw[known:]
