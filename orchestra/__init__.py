"""
orchestra coordinates work: projects, jobs, tasks and workers, on one durable file, in one process or on many machines.

::

    import anyio, orchestra

    app = orchestra.App()

    @app.task(retries=3)
    async def render(ctx: orchestra.Context, frame: int) -> str:
        return f"{frame:04}.png"

    async def main() -> None:
        async with app.run(workers=2) as client:
            job = await client.submit(render.map(range(1, 11)))
            print(await job.results())

    anyio.run(main)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestra.app import App
    from orchestra.client import Client, Job
    from orchestra.compose import connect
    from orchestra.engines.context import Context, Stopped
    from orchestra.errors import (
        Conflict,
        Defect,
        EngineFailed,
        Forbidden,
        LimitReached,
        Malformed,
        NotFound,
        OrchestraError,
        PeerClosed,
        ProtocolViolation,
        Rejected,
        StoreFailed,
        StoreTaken,
        Unauthenticated,
        Unavailable,
    )
    from orchestra.job_failures import JobCancelled, JobFailed
    from orchestra.sync import SyncClient, SyncJob, connect_sync

_HOMES = {
    "App": "orchestra.app",
    "Client": "orchestra.client",
    "Conflict": "orchestra.errors",
    "Context": "orchestra.engines.context",
    "Defect": "orchestra.errors",
    "EngineFailed": "orchestra.errors",
    "Forbidden": "orchestra.errors",
    "Job": "orchestra.client",
    "JobCancelled": "orchestra.job_failures",
    "JobFailed": "orchestra.job_failures",
    "LimitReached": "orchestra.errors",
    "Malformed": "orchestra.errors",
    "NotFound": "orchestra.errors",
    "OrchestraError": "orchestra.errors",
    "PeerClosed": "orchestra.errors",
    "ProtocolViolation": "orchestra.errors",
    "Rejected": "orchestra.errors",
    "Stopped": "orchestra.engines.context",
    "StoreFailed": "orchestra.errors",
    "StoreTaken": "orchestra.errors",
    "SyncClient": "orchestra.sync",
    "SyncJob": "orchestra.sync",
    "Unauthenticated": "orchestra.errors",
    "Unavailable": "orchestra.errors",
    "connect": "orchestra.compose",
    "connect_sync": "orchestra.sync",
}

__all__ = [
    "App",
    "Client",
    "Conflict",
    "Context",
    "Defect",
    "EngineFailed",
    "Forbidden",
    "Job",
    "JobCancelled",
    "JobFailed",
    "LimitReached",
    "Malformed",
    "NotFound",
    "OrchestraError",
    "PeerClosed",
    "ProtocolViolation",
    "Rejected",
    "Stopped",
    "StoreFailed",
    "StoreTaken",
    "SyncClient",
    "SyncJob",
    "Unauthenticated",
    "Unavailable",
    "connect",
    "connect_sync",
]


def __getattr__(name: str) -> object:
    # Names are loaded when they are used, so that importing orchestra costs a program next to nothing.
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'orchestra' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
