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

OURS = "orchestra"
ECHO = "bare echo, our server"
EXPIRY = "orchestra, the core alone"

BEATS = Measure(
    id="P6",
    title="4,000 workers on websockets, each beating every 2 s, the server on one core",
    contenders=(
        Contender(ECHO, "heartbeats.py", ("--server", "echo")),
        Contender(OURS, "heartbeats.py", ("--server", "ours")),
        Contender(EXPIRY, "ours_expiry.py"),
    ),
    columns=(
        ("core_percent", "core used %", 0),
        ("cpu_us", "CPU µs a beat", 0),
        ("core_for_10000_percent", "core for 10,000 %", 0),
        ("missed_percent", "beats missed %", 1),
        ("p50_ms", "answer p50 ms", 1),
        ("p99_ms", "p99 ms", 1),
        ("most_beats_per_s", "most beats/s", 0),
        ("kib_per_connection", "KiB a connection", 1),
        ("connects_per_s", "joins/s", 0),
        ("expiry_us", "CPU µs a lost worker", 0),
        ("expiry_growth", "times that among 1,000", 2),
        ("look_us", "µs of deadlines a beat", 1),
    ),
    targets=(
        Target(
            "10,000 workers take at most 0.4 of the core",
            OURS,
            "core_for_10000_percent",
            at_most=40,
        ),
        Target(
            "at least 0.6 times the bare echo of the same server",
            OURS,
            "most_beats_per_s",
            (ECHO,),
            at_least=0.6,
        ),
        Target("≤ 40 KiB a connection", OURS, "kib_per_connection", at_most=40),
        Target(
            "a worker lost among 10,000 costs at most twice one among 1,000",
            EXPIRY,
            "expiry_growth",
            at_most=2,
        ),
    ),
    remark=(
        "4,000, because 10,000 beats in 2 s can be more than a core has where even the echo takes 190 µs for each; what 10,000 take is "
        "their number times the CPU of a beat. Each worker has a connection of its own, joins, watches its orders as the agent does, and "
        "beats; a beat is missed when the former one is unanswered. Most: 1,000 of them beat as fast as they are answered. The echo sends "
        "back messages of the same length. Memory is what the server grew by while all connected. Lost: 1,000 workers fall silent while "
        "the others live on."
    ),
)
