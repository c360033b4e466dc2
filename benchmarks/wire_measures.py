"""Measures of what crosses a socket: HTTP submits and heartbeats over websockets."""

from __future__ import annotations

from frame import Contender, Measure, Target

BARE = "bare Starlette + msgspec, our server"
PATH_ALONE = "orchestra, the HTTP path alone"
IN_MEMORY = "orchestra, in memory"
DURABLE = "orchestra, durable"
FASTAPI = "FastAPI, nothing kept"

SUBMITS = Measure(
    id="P3",
    title="Jobs submitted over HTTP, 64 connections, the server on one core",
    contenders=(
        Contender(
            "bare Starlette + msgspec, uvicorn", "starlette_submit.py", ("--mode", "uvicorn")
        ),
        Contender(BARE, "starlette_submit.py", ("--mode", "ours")),
        Contender(PATH_ALONE, "ours_submit.py", ("--mode", "path")),
        Contender(IN_MEMORY, "ours_submit.py", ("--mode", "memory")),
        Contender(DURABLE, "ours_submit.py", ("--mode", "file")),
        Contender(FASTAPI, "fastapi_submit.py", peer="fastapi"),
    ),
    columns=(
        ("requests_per_s", "requests/s", 0),
        ("p50_us", "p50 µs", 0),
        ("p99_us", "p99 µs", 0),
        ("cpu_us", "server CPU µs a request", 0),
    ),
    targets=(
        Target(
            "the HTTP path alone: at least 0.7 times bare Starlette on the same server",
            PATH_ALONE,
            "requests_per_s",
            (BARE,),
            at_least=0.7,
        ),
        Target(
            "a job accepted in memory: at least 0.7 times bare Starlette on the same server",
            IN_MEMORY,
            "requests_per_s",
            (BARE,),
            at_least=0.7,
        ),
        Target(
            "a durable job: at least 1.2 times what FastAPI answers without keeping anything",
            DURABLE,
            "requests_per_s",
            (FASTAPI,),
            at_least=1.2,
        ),
    ),
    remark=(
        "Each connection has one request under way; all send the same job of one task, and no worker is there. The path alone is guard, "
        "door, policy, decoding and encoding with a made-up answer in the place of the core. Bare Starlette keeps and decides nothing. "
        "uvicorn and FastAPI run on httptools and uvloop, ours on uvloop."
    ),
)

WIRE_MEASURES = (SUBMITS,)
