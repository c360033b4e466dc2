"""Applications that orchestra is mounted in, to be served by a real uvicorn: ``python -m uvicorn tests.app.hosts:starlette``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

import orchestra
from orchestra.transports import mounting

app = orchestra.App()


@app.task
async def double(number: int) -> int:
    return 2 * number


@app.task
async def go_on(ctx: orchestra.Context) -> None:
    """Tells of itself until it is stopped."""
    count = 0
    while not ctx.stopping:
        count += 1
        ctx.progress(0.5, str(count))
        await ctx.sleep(0.02)


async def begin(request: Request) -> JSONResponse:
    """What a host does with the client that the lifespan gives it."""
    job = await request.state.orchestra.submit(double, 21)
    return JSONResponse({"number": job.number, "result": await job.result()})


def _fastapi() -> object:
    from fastapi import FastAPI

    host = FastAPI(lifespan=app.lifespan)
    host.add_api_route("/begin", begin, response_model=None)
    host.mount("/farm", app.asgi())
    return host


@asynccontextmanager
async def _deaf(_: Starlette) -> AsyncGenerator[dict[str, Any]]:
    """A lifespan that does not see that the host is about to stop."""
    mounting.host_server = lambda: None
    async with app.lifespan() as state:
        yield dict(state)


def __getattr__(name: str) -> object:
    # Each host is made when it is served: the other framework is not loaded for it.
    routes = [Route("/begin", begin), Mount("/farm", app.asgi())]
    match name:
        case "starlette":
            return Starlette(routes=routes, lifespan=app.lifespan)
        case "deaf":
            return Starlette(routes=routes, lifespan=_deaf)
        case "forgetful":
            return Starlette(routes=routes)
        case "fastapi":
            return _fastapi()
        case _:
            raise AttributeError(name)
