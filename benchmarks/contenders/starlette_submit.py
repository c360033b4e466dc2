"""
The least that a Python server can do with the same POST: Starlette and msgspec, and nothing behind them.

``ours``: on our own server with its guard and its door, as orchestra is served. ``uvicorn``: on uvicorn with httptools and uvloop, which
watches over nobody's pace. Both validate the body into structs and encode a small answer; nothing is decided or kept.
"""

from __future__ import annotations

import importlib.metadata
import socket
from typing import Any

import msgspec
from http_load import PATH, contend, run_fast, tell_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


class Stage(msgspec.Struct):
    name: str
    app: str
    template: msgspec.Raw = msgspec.Raw(b"null")
    retries: int = 0
    run_ms_max: int | None = None
    labels: list[str] = []


class Submit(msgspec.Struct):
    name: str
    stages: list[Stage]
    project: str = "default"
    priority: int = 0


class Accepted(msgspec.Struct):
    job_id: str
    number: int
    repeated: bool = False


def application() -> Any:
    """One route."""
    decoder = msgspec.json.Decoder(Submit)
    encode = msgspec.json.Encoder().encode
    count = 0

    async def submit(request: Request) -> Response:
        nonlocal count
        count += 1
        job = decoder.decode(await request.body())
        accepted = Accepted(f"{job.name}-{count}", count)
        return Response(encode(accepted), 201, media_type="application/json")

    return Starlette(routes=[Route(PATH, submit, methods=["POST"])])


async def on_our_server() -> None:
    """Behind the guard and the door, as the native API is."""
    from orchestra.config import Address, Config, Limits
    from orchestra.dialects.wire import Role
    from orchestra.transports.auth import open_gate
    from orchestra.transports.door import Door
    from orchestra.transports.policy import Policy, http_row
    from orchestra.transports.rate import Buckets
    from orchestra.transports.serve import serve as listen

    limits = Limits(requests_per_s=1_000_000, requests_burst=1_000_000)
    config = Config(listen=Address("127.0.0.1", 0), limits=limits)
    gate = open_gate(config, Policy([http_row("POST", "submit", PATH, Role.OPERATOR)]))
    buckets = Buckets(limits.requests_per_s, limits.requests_burst)
    door = Door(application(), gate, buckets=buckets)
    await listen(door, config, ready=lambda address: tell_port(address.port))


async def on_uvicorn() -> None:
    """As a service of one's own would be."""
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0), backlog=2_048)
    config = uvicorn.Config(application(), log_level="error", http="httptools", lifespan="off")
    tell_port(listener.getsockname()[1])
    await uvicorn.Server(config).serve(sockets=[listener])


def serve(mode: str) -> None:
    run_fast(on_our_server() if mode == "ours" else on_uvicorn())


if __name__ == "__main__":
    version = importlib.metadata.version("starlette")
    contend(__file__, serve, modes=("ours", "uvicorn"), version=version)
