"""
What the outside has to do after a commit.

Both effects tell a worker of an order. They are not stored on their own: the attempt's row is the order, so an effect that is lost is
repeated from the state by the next heartbeat's answer, and the worker treats a repeated attempt id as one.
"""

from __future__ import annotations

from orchestra.statemachine.replies import Order
from orchestra.statemachine.values import value


@value
class StartAttempt:
    """Ask a worker to run an attempt."""

    worker_id: str
    incarnation: int
    order: Order


@value
class StopAttempt:
    """Ask a worker to stop an attempt; ``order.rung`` says how hard."""

    worker_id: str
    incarnation: int
    order: Order


Effect = StartAttempt | StopAttempt
