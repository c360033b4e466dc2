# pyright: reportMissingImports=false, reportUntypedFunctionDecorator=false
# (FastAPI is installed in the peer's own environment only)
"""
FastAPI as its guide deploys it (``fastapi[standard]``: uvicorn with httptools and uvloop): the same POST, nothing kept.

It validates the same body into pydantic models and answers with one. It decides nothing and makes nothing durable, which is easier
than what our side does.
"""

from __future__ import annotations

import importlib.metadata
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from http_load import contend, tell_port
from pydantic import BaseModel


class Stage(BaseModel):
    name: str
    app: str
    template: Any = None
    retries: int = 0
    run_ms_max: int | None = None
    labels: list[str] = []


class Submit(BaseModel):
    name: str
    stages: list[Stage]
    project: str = "default"
    priority: int = 0


class Accepted(BaseModel):
    job_id: str
    number: int
    repeated: bool = False


def serve(_mode: str) -> None:
    app = FastAPI()
    count = 0

    @app.post("/api/v1/jobs", status_code=201)
    async def submit(job: Submit) -> Accepted:
        nonlocal count
        count += 1
        return Accepted(job_id=f"{job.name}-{count}", number=count)

    listener = socket.create_server(("127.0.0.1", 0), backlog=2_048)
    config = uvicorn.Config(app, log_level="error", http="httptools", loop="uvloop")
    tell_port(listener.getsockname()[1])
    # Whoever connects before it accepts waits in the backlog.
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    contend(__file__, serve, version=importlib.metadata.version("fastapi"))
