"""What a worker is told about one attempt, made from the rows."""

from __future__ import annotations

from orchestra.statemachine.records import Attempt, Job, Rung, Span, Stage, Task
from orchestra.statemachine.replies import Order
from orchestra.statemachine.state import State


def item_of(stage: Stage, offset: int) -> bytes:
    """The fan-out item of the task at ``offset`` (counted from 0) as JSON; empty without a fan-out."""
    if stage.over is None:
        return b""
    if isinstance(stage.over, Span):
        return b"%d" % (stage.over.start + offset * stage.over.step)
    return stage.over[offset]


def order_of(job: Job, stage: Stage, task: Task, attempt: Attempt) -> Order:
    """The order for an attempt: run it, or stop it when a stop was asked."""
    offset = task.position - stage.first
    # By position: one is made for each attempt, and names cost as much as the making.
    return Order(
        attempt.id,
        task.id,
        job.id,
        job.number,
        job.name,
        stage.name,
        stage.app,
        stage.template,
        item_of(stage, offset),
        task.position,
        offset,
        attempt.number,
        stage.needs,
        stage.run_ms_max,
        attempt.grace_ms,
        Rung.KILL if attempt.rung is Rung.UNCONFIRMED else attempt.rung,
        attempt.stop_reason,
    )


def order_for(state: State, attempt: Attempt) -> Order | None:
    """As `order_of`, from ids; None when a row it needs is not in memory."""
    task = state.find(Task, attempt.task_id)
    stage = state.find(Stage, task.stage_id) if task is not None else None
    job = state.find(Job, attempt.job_id)
    if task is None or stage is None or job is None:
        return None
    return order_of(job, stage, task, attempt)


def orders_of(state: State, worker_id: str) -> tuple[Order, ...]:
    """Everything a worker should hold now."""
    orders: list[Order] = []
    for attempt_id in state.index.held.get(worker_id, {}).values():
        attempt = state.find(Attempt, attempt_id)
        order = None if attempt is None else order_for(state, attempt)
        if order is not None:
            orders.append(order)
    return tuple(orders)
