"""Settings of the core, changed by command so that a replay sees the settings of its time."""

from __future__ import annotations

import attrs

from orchestra.statemachine import limits
from orchestra.statemachine.bounds import check_range
from orchestra.statemachine.commands import Reconfigure
from orchestra.statemachine.lifecycles import WorkerStatus
from orchestra.statemachine.records import Worker, evolve
from orchestra.statemachine.replies import SettingsChanged
from orchestra.statemachine.state import State
from orchestra.statemachine.transaction import Transaction

_BOUNDS = {
    "lease_ms": (100, limits.DAY_MS),
    "heartbeat_ms": (10, limits.HOUR_MS),
    "retention_ms": (0, limits.TIME_MS_MAX),
    "aging_ms": (0, limits.DAY_MS),
    "reserve_after_ms": (0, limits.TIME_MS_MAX),
    "losses_max": (1, limits.RETRIES_MAX),
}


def reconfigure(tx: Transaction, command: Reconfigure) -> SettingsChanged:
    """
    Change settings.

    A lease that was granted is kept to: where workers are, one that is made shorter counts for nobody before the former one has passed.

    Raises:
        Malformed: One is out of bounds, or a lease would not outlast two heartbeats.
    """
    given = {name: value for name, value in attrs.asdict(command).items() if value is not None}
    for name, value in given.items():
        check_range(value, *_BOUNDS[name], name)
    settings = evolve(tx.settings, **given)
    check_range(settings.lease_ms, 2 * settings.heartbeat_ms, limits.DAY_MS, "lease_ms")
    if settings.lease_ms < tx.settings.lease_ms and _anybody_was_promised(tx.state):
        # Who was heard last may not have been told yet, and works as long as it was promised; also after a restart of ours.
        until_ms = max(settings.promised_until_ms, tx.now_ms + tx.settings.lease_ms)
        settings = evolve(settings, promised_until_ms=until_ms)
    if settings != tx.settings:
        tx.put(settings)
    return SettingsChanged(settings)


def _anybody_was_promised(state: State) -> bool:
    return any(
        worker.status in (WorkerStatus.ONLINE, WorkerStatus.REPLACED)
        for worker in state.each(Worker)
    )
