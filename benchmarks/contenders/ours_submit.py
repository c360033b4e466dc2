"""
Jobs submitted over HTTP to the native API, as ``orchestra serve`` serves it: guard, door, policy, decoding, core, store, answer.

``memory``: nothing is kept. ``file``: each job is durable before its 201. ``path``: everything but what decides: an answer that is made up
takes the place of the core, so the cost of the HTTP path alone can be told apart. No worker is there, so jobs only gather.
"""

from __future__ import annotations

import tempfile
from typing import Any

from http_load import contend, run_fast, tell_port


def settings(data: str) -> Any:
    """As the command line makes them, without a bound on one caller's rate."""
    from orchestra.config import Address, Config, Limits

    limits = Limits(requests_per_s=1_000_000, requests_burst=1_000_000)
    return Config(data=data, listen=Address("127.0.0.1", 0), limits=limits)


async def whole(data: str) -> None:
    """The orchestrator and its API."""
    from orchestra import compose

    def ready(address: Any) -> None:
        tell_port(address.port)

    await compose.serve(settings(data), tasks={}, slots=0, ready=ready)


async def path_alone() -> None:
    """The API over somebody who accepts whatever comes."""
    from orchestra.dialects.native import native_dialect
    from orchestra.dialects.native_problems import refuse
    from orchestra.statemachine.replies import JobAccepted
    from orchestra.transports.auth import open_gate
    from orchestra.transports.door import Door
    from orchestra.transports.http import http_app
    from orchestra.transports.policy import policy_for
    from orchestra.transports.rate import Buckets
    from orchestra.transports.serve import serve as listen

    class Accepts:
        """An asker that decides nothing."""

        def for_principal(self, _principal: str, _acting: object = None) -> Any:
            return self

        async def ask(self, _command: object, *, key: str = "") -> JobAccepted:
            return JobAccepted(key or "j1", 1, 1)

    config = settings("")
    policy = policy_for([native_dialect()])
    buckets = Buckets(config.limits.requests_per_s, config.limits.requests_burst)
    source: Any = Accepts()
    app = http_app(source, [native_dialect()], policy=policy)
    door = Door(app, open_gate(config, policy), buckets=buckets, refuse=refuse)
    await listen(door, config, ready=lambda address: tell_port(address.port))


def serve(mode: str) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-ours-") as folder:
        if mode == "path":
            run_fast(path_alone())
        else:
            run_fast(whole(f"{folder}/farm.db" if mode == "file" else ""))


if __name__ == "__main__":
    contend(__file__, serve, modes=("memory", "file", "path"))
