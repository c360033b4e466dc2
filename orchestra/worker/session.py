"""
What the far end of a worker decides: what to start, what to stop, what to report and when to fence. No I/O, no clock, no loop.

The agent feeds in what came (orders, answers) and carries out the `Action` values that come back; `holdings` has the attempts.
Times are seconds of one monotonic clock and are always an argument.

**The fence.** A lease counts from the moment when the last answered heartbeat (or join) was *sent*; the orchestrator counts
from when it *took* it, which is later, so the worker's idea of the end is never the later one. An attempt is killed
``margin`` before that end, which leaves the engine the margin (2 s at the defaults) to see the last process gone. An
unreachable server may be restarting (nothing runs elsewhere) or cut off (the work is given out again at the end of the
lease), and the worker can not know which. ``strict`` therefore always fences; a restart is survived when the worker is
answered again within lease - margin of its last beat: for certain when the server is away for less than
lease - margin - beat (6 - 2 - 2 = 2 s), at best for 4 s. With a server that takes longer to return, make the lease longer,
or choose ``patient``: attempts run through any outage, a partition may run them twice at the same time, and the
orchestrator's fencing still records one end only.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import attrs

from orchestra.errors import Conflict
from orchestra.statemachine import limits
from orchestra.statemachine.commands import JoinWorker, LeaveWorker
from orchestra.statemachine.records import Cause, Rung
from orchestra.statemachine.replies import HeartbeatAnswered, Order, WorkerJoined
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Heartbeat
from orchestra.worker.holdings import Action, Holdings

Fence = Literal["strict", "patient"]


class WorkerReplaced(Conflict):
    """Another process joined under this worker's name: this one has ended its attempts and stops."""

    code = "worker-replaced"


class Standing(StrEnum):
    """How the orchestrator sees this process: a stranger has to join (again), a replaced one has to stop."""

    STRANGER = "stranger"
    MEMBER = "member"
    REPLACED = "replaced"


class WorkerSession:
    """
    The far end of one worker, from its first join to its goodbye.

    Args:
        introduction: How it joins; ``holding`` is filled in at each join.
        fence: ``strict`` ends attempts before an unrenewed lease ends, ``patient`` lets them run.
    """

    def __init__(self, introduction: JoinWorker, *, fence: Fence = "strict") -> None:
        self.introduction = introduction
        self.fence: Fence = fence
        self.standing = Standing.STRANGER
        self.worker_id = ""
        self.incarnation = 0
        self.heartbeat_ms = limits.HEARTBEAT_MS
        self.draining = False
        """No further order is started; what runs goes on."""
        self._said_to_drain = False
        self._known_to_drain = False
        self._lease_ms = limits.LEASE_MS
        self._renewed_s: float | None = None
        self._fence_s: float | None = None
        self.holdings = Holdings()

    # Joining, beating, leaving

    def joining(self) -> JoinWorker:
        """
        The introduction, with all that is held.

        A worker that drains offers no app any more: it keeps what it holds and is given nothing new. Unlike a pause this is
        forgotten when the next process joins under the name.
        """
        apps = () if self.draining else self.introduction.apps
        self._said_to_drain = self.draining
        return attrs.evolve(self.introduction, apps=apps, holding=self.holdings.holding)

    def joined(self, reply: WorkerJoined, sent_s: float, now_s: float) -> tuple[Action, ...]:
        """The orchestrator took the introduction that was sent at ``sent_s``; its answer is read at ``now_s``."""
        self.worker_id = reply.worker_id
        self.incarnation = reply.incarnation
        self.standing = Standing.MEMBER
        self._known_to_drain = self._said_to_drain
        self._renew(reply.lease_ms, reply.heartbeat_ms, sent_s)
        return self._repaired(reply.orders, reply.foreign, now_s)

    @property
    def must_join(self) -> bool:
        """Whether to join instead of beating: it is a stranger, or drains and the orchestrator does not know it yet."""
        unheard = self.draining and not self._known_to_drain
        return self.standing is Standing.STRANGER or (unheard and self.standing is Standing.MEMBER)

    def beating(self, *, load: float, memory_free_bytes: int, disk_free_bytes: int) -> Heartbeat:
        """The heartbeat to send now."""
        return Heartbeat(
            worker_id=self.worker_id,
            incarnation=self.incarnation,
            holding=self.holdings.holding,
            load=load,
            memory_free_bytes=memory_free_bytes,
            disk_free_bytes=disk_free_bytes,
        )

    def beaten(self, reply: HeartbeatAnswered, sent_s: float, now_s: float) -> tuple[Action, ...]:
        """The answer to a heartbeat that was sent at ``sent_s``, read at ``now_s``. Look at `standing` afterwards."""
        if not reply.known:
            replaced = reply.remedy == "stop"
            self.standing = Standing.REPLACED if replaced else Standing.STRANGER
            return ()
        self.standing = Standing.MEMBER
        self._renew(reply.lease_ms, reply.heartbeat_ms, sent_s)
        return self._repaired(reply.orders, reply.foreign, now_s)

    def leaving(self) -> LeaveWorker:
        """The goodbye."""
        return LeaveWorker(worker_id=self.worker_id, incarnation=self.incarnation)

    def _repaired(
        self, orders: Iterable[Order], foreign: Iterable[str], now_s: float
    ) -> tuple[Action, ...]:
        actions = list(self.holdings.disowned(foreign))
        for order in orders:
            action = self.ordered(order, now_s)
            if action is not None:
                actions.append(action)
        return tuple(actions)

    def ordered(self, order: Order, now_s: float) -> Action | None:
        """
        An order came, perhaps not for the first time.

        After the fence it is passed over, be it that it came with an answer which a frozen process reads only now: the work may run
        elsewhere already, and the next answer brings what is still wanted.
        """
        if self.draining and (self._known_to_drain or order.rung):
            return self.holdings.ordered(order, refusal="its worker is about to leave")
        if self.draining:
            # Handed back now it would come again at once, and so on: this worker is still thought to offer its apps.
            return None
        fence_s = self.fence_s
        if fence_s is not None and now_s >= fence_s:
            return None
        return self.holdings.ordered(order)

    def telling(self, reports: tuple[AttemptReport, ...]) -> AttemptsReported:
        """The message that carries reports."""
        return AttemptsReported(self.worker_id, self.incarnation, reports)

    # The lease and its fence

    def _renew(self, lease_ms: int, heartbeat_ms: int, sent_s: float) -> None:
        self._lease_ms = lease_ms
        self.heartbeat_ms = heartbeat_ms
        if self._renewed_s is None or sent_s > self._renewed_s:
            self._renewed_s = sent_s
        if self.fence == "strict":
            self._fence_s = self._renewed_s + (self._lease_ms - self._margin_ms) / 1_000

    @property
    def _margin_ms(self) -> float:
        # A lease shorter than the default keeps two thirds of itself for the work.
        return min(limits.FENCE_MARGIN_MS, self._lease_ms / 3)

    @property
    def fence_s(self) -> float | None:
        """When the attempts have to be killed unless the lease is renewed; None when they never have to."""
        return self._fence_s  # asked at each order, and changed by a renewal only

    @property
    def guard_s(self) -> float:
        """
        Until when engines' guardians let work run that this process does not end itself, because it is frozen.

        Half the margin after the fence: the orderly kill comes first, and there is still time before the lease ends.
        """
        renewed_s = self._renewed_s or 0.0
        if self.fence == "patient":
            return renewed_s + limits.TIME_MS_MAX / 1_000
        return renewed_s + (self._lease_ms - self._margin_ms / 2) / 1_000

    def fenced(self, now_s: float) -> tuple[Action, ...]:
        """What to kill because the lease was not renewed in time."""
        fence_s = self.fence_s
        if fence_s is None or now_s < fence_s:
            return ()
        reason = "its worker could not renew the lease and ended it"
        return self.holdings.stopped_all(Rung.KILL, Cause.LOST, reason)
