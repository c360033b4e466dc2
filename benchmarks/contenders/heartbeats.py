"""
4,000 workers on websockets, each beating every 2 s: what the server's one core and memory bear.

``--server ours``: each joins over the native channel, watches its orders as the agent does, and beats. ``--server echo``: the same
server, guard and door, and an application that sends back what comes. After the paced part 1,000 of them beat as fast as they are answered.
"""

from __future__ import annotations

import argparse
from typing import Any

from beat_load import Farm, echoed, joined
from figures import tell
from http_load import raise_file_limit, run_fast, served, tell_port

SPARE_FILES = 200
"""What a process has open besides its connections."""


def settings(count: int) -> Any:
    """As the command line makes them, with room for all workers."""
    from orchestra.config import Address, Config, Limits

    limits = Limits(
        requests_per_s=1_000_000,
        requests_burst=1_000_000,
        connections_max=count + 100,
        connections_per_address_max=count,
    )
    return Config(listen=Address("127.0.0.1", 0), limits=limits)


async def serve_ours(count: int) -> None:
    """The orchestrator, in memory: a heartbeat is never durable."""
    from orchestra import compose

    def ready(address: Any) -> None:
        tell_port(address.port)

    await compose.serve(settings(count), tasks={}, slots=0, ready=ready)


async def serve_echo(count: int) -> None:
    """What comes is sent back."""
    from orchestra.transports.auth import open_gate
    from orchestra.transports.door import Door
    from orchestra.transports.policy import Policy, websocket_row
    from orchestra.transports.rate import Buckets
    from orchestra.transports.serve import serve as listen

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    config = settings(count)
    gate = open_gate(config, Policy([websocket_row("echo", "/echo")]))
    buckets = Buckets(config.limits.requests_per_s, config.limits.requests_burst)
    await listen(
        Door(echo, gate, buckets=buckets), config, ready=lambda address: tell_port(address.port)
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", choices=("ours", "echo"), default="ours")
    parser.add_argument("--serve", action="store_true", help="be the server")
    parser.add_argument("--workers", type=int, default=4_000)
    parser.add_argument("--seconds", type=float, default=8.0)
    chosen = parser.parse_args()
    raise_file_limit(chosen.workers + SPARE_FILES)
    if chosen.serve:
        run_fast(
            serve_ours(chosen.workers) if chosen.server == "ours" else serve_echo(chosen.workers)
        )
        return
    argv = (__file__, "--serve", "--server", chosen.server, "--workers", str(chosen.workers))
    path, begin = ("/api/v1/channel", joined) if chosen.server == "ours" else ("/echo", echoed)
    with served(argv) as (pid, port):
        farm = Farm(pid, port, path, chosen.workers)
        tell(run_fast(farm.measure(begin, chosen.seconds)))


if __name__ == "__main__":
    main()
