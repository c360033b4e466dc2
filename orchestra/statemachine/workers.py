"""Workers: join, beat, leave, pause. A silent one is lost, and what it held runs elsewhere."""

from __future__ import annotations

from orchestra.errors import Conflict, LimitReached
from orchestra.statemachine import limits
from orchestra.statemachine.bounds import (
    check_amounts,
    check_labels,
    check_name,
    check_range,
    check_text,
)
from orchestra.statemachine.commands import JoinWorker, LeaveWorker, PauseWorker, ResumeWorker
from orchestra.statemachine.leases import lose_all
from orchestra.statemachine.lifecycles import Verb, WorkerStatus
from orchestra.statemachine.orders import orders_of
from orchestra.statemachine.records import Cause, Pulse, Rung, Worker, evolve
from orchestra.statemachine.replies import HeartbeatAnswered, Order, WorkerChanged, WorkerJoined
from orchestra.statemachine.reports import Heartbeat
from orchestra.statemachine.transaction import Transaction


def join(tx: Transaction, command: JoinWorker) -> WorkerJoined:
    """
    A worker's process introduces itself.

    The same session is a reconnect and adopts what it holds; after it was given up, as its next incarnation. Another session takes the
    name over: the former process is fenced, and what it held runs elsewhere when its lease is over.

    Raises:
        Malformed: A field is out of bounds.
        LimitReached: Too many workers.
    """
    _check(command)
    known_id = tx.state.index.worker_names.get(command.name)
    known = tx.find(Worker, known_id) if known_id is not None else None
    if (
        known is not None
        and known.session == command.session
        and known.status is not WorkerStatus.LEFT
    ):
        worker = _reconnect(tx, known, command)
    else:
        worker = _enrol(tx, known, command)
    tx.state.pulses[worker.id] = Pulse(tx.now_ms)
    held = set(tx.state.index.held.get(worker.id, {}).values())
    return WorkerJoined(
        worker.id,
        worker.incarnation,
        tx.settings.lease_ms,
        tx.settings.heartbeat_ms,
        orders_of(tx.state, worker.id),
        tuple(each for each in command.holding if each not in held),
    )


def _check(command: JoinWorker) -> None:
    check_name(command.name, "name")
    check_name(command.session, "session")
    check_range(command.slots, 1, limits.SLOTS_MAX, "slots")
    check_labels(command.labels, "labels")
    check_labels(command.apps, "apps")
    check_amounts(command.capacity, "capacity")
    check_range(len(command.host), 0, limits.LABELS_MAX, "host")
    for key, value in command.host.items():
        check_name(key, "host")
        check_text(value, f"host.{key}")


def _reconnect(tx: Transaction, worker: Worker, command: JoinWorker) -> Worker:
    if worker.status is WorkerStatus.REPLACED:
        raise Conflict(
            f"another process works under the name {command.name!r}",
            where="name",
            remedy="start this one under another name",
        )
    if worker.status is WorkerStatus.LOST:
        # What was sent to it before the silence, or by it, must not pass for what belongs to its return.
        worker = tx.move(worker, Verb.RETURN, incarnation=worker.incarnation + 1)
    fresh = evolve(
        worker,
        slots=command.slots,
        apps=command.apps,
        labels=command.labels,
        capacity=command.capacity,
        host=command.host,
    )
    return worker if fresh == worker else tx.put(fresh)


def _enrol(tx: Transaction, known: Worker | None, command: JoinWorker) -> Worker:
    if len(tx.state.rows["worker"]) >= limits.WORKERS_MAX:
        raise LimitReached("too many workers", where="name", retry_after_ms=limits.MINUTE_MS)
    if known is not None and known.status in (WorkerStatus.ONLINE, WorkerStatus.LOST):
        left = {"left_at_ms": tx.now_ms} if known.status is WorkerStatus.LOST else {}
        tx.move(known, Verb.REPLACE, reason="a new process took its name", **left)
    counters = tx.put(evolve(tx.state.counters, workers=tx.state.counters.workers + 1))
    return tx.create(
        Worker(
            id=tx.new_id(counters.workers),
            number=counters.workers,
            name=command.name,
            incarnation=1 if known is None else known.incarnation + 1,
            session=command.session,
            status=WorkerStatus.ONLINE,
            slots=command.slots,
            apps=command.apps,
            labels=command.labels,
            capacity=command.capacity,
            host=command.host,
            joined_at_ms=tx.now_ms,
            owner=tx.principal,
            paused=known is not None and known.paused,
            pause_reason="" if known is None else known.pause_reason,
        ),
        Verb.CREATE,
        reason=command.name,
    )


def beat(tx: Transaction, report: Heartbeat) -> HeartbeatAnswered:
    """
    Renew the lease of all that a worker holds, and repair what got lost between it and us. Commits nothing by itself.

    A lost worker has to join again, as its next incarnation: its subscription then is a new one, and no order that was sent before the
    silence, and given up in it, can still arrive and be taken for a valid one.
    """
    lease_ms, heartbeat_ms = tx.settings.lease_ms, tx.settings.heartbeat_ms
    worker = tx.find(Worker, report.worker_id)
    if worker is None:
        return HeartbeatAnswered(False, lease_ms, heartbeat_ms, remedy="join")
    if worker.status is WorkerStatus.REPLACED:
        return HeartbeatAnswered(False, lease_ms, heartbeat_ms, remedy="stop")
    if worker.status is WorkerStatus.LEFT:
        named = tx.state.index.worker_names.get(worker.name)
        remedy = "join" if named in (None, worker.id) else "stop"
        return HeartbeatAnswered(False, lease_ms, heartbeat_ms, remedy=remedy)
    if worker.status is WorkerStatus.LOST or worker.incarnation != report.incarnation:
        return HeartbeatAnswered(False, lease_ms, heartbeat_ms, remedy="join")
    tx.state.pulses[worker.id] = Pulse(
        tx.now_ms, report.load, report.memory_free_bytes, report.disk_free_bytes
    )
    holding = set(report.holding)
    held = tx.state.index.held.get(worker.id, {})
    mine = set(held.values())
    orders: tuple[Order, ...] = ()
    if mine != holding or held:
        orders = tuple(
            order
            for order in orders_of(tx.state, worker.id)
            if order.rung is not Rung.NONE or order.attempt_id not in holding
        )
    return HeartbeatAnswered(
        True,
        lease_ms,
        heartbeat_ms,
        worker.paused,
        orders,
        tuple(each for each in report.holding if each not in mine),
    )


def leave(tx: Transaction, command: LeaveWorker) -> WorkerChanged:
    """A worker says goodbye; what it still held runs elsewhere at once, for it says that nothing of it is alive."""
    worker = tx.get(Worker, command.worker_id)
    if worker.incarnation != command.incarnation:
        raise Conflict("another process works under this name", where="incarnation")
    if worker.status is not WorkerStatus.LEFT:
        lose_all(tx, worker, Cause.LOST, f"worker {worker.name} left")
        worker = tx.move(tx.get(Worker, worker.id), Verb.LEAVE, left_at_ms=tx.now_ms)
    return WorkerChanged(worker.id, worker.status, worker.paused)


def pause(tx: Transaction, command: PauseWorker) -> WorkerChanged:
    """Give a worker nothing new. Asking again changes the reason only."""
    check_text(command.reason, "reason")
    worker = tx.get(Worker, command.worker_id)
    _refuse_gone(worker)
    worker = tx.change(worker, paused=True, pause_reason=command.reason)
    return WorkerChanged(worker.id, worker.status, worker.paused)


def resume(tx: Transaction, command: ResumeWorker) -> WorkerChanged:
    """Give a paused worker work again."""
    worker = tx.get(Worker, command.worker_id)
    _refuse_gone(worker)
    if worker.paused:
        worker = tx.change(worker, paused=False, pause_reason="")
    return WorkerChanged(worker.id, worker.status, worker.paused)


def _refuse_gone(worker: Worker) -> None:
    if worker.status in (WorkerStatus.LEFT, WorkerStatus.REPLACED):
        raise Conflict(
            f"the worker is {worker.status}", where="worker_id", remedy="see the present workers"
        )
