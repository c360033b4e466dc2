"""The API inside another application, behind a real uvicorn: used by others, and by the host itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

import orchestra
from tests.app.hosts import double
from tests.app.uvicorns import BOUND_S, Uvicorn, uvicorn

pytestmark = [pytest.mark.anyio, pytest.mark.system]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The host is another process: on which loop its callers are makes no difference."""
    return "asyncio"


class Hosts:
    """Each host is started once, when it is first asked for, whatever order the tests are in."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._served: dict[str, Uvicorn] = {}

    def served(self, name: str) -> Uvicorn:
        if name not in self._served:
            self._served[name] = self._stack.enter_context(uvicorn(name))
        return self._served[name]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with ExitStack() as stack:
        yield Hosts(stack)


@pytest.fixture(params=["starlette", "fastapi"])
def host(request: pytest.FixtureRequest, hosts: Hosts) -> Uvicorn:
    return hosts.served(request.param)


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_work_is_submitted_and_followed_where_the_api_is_mounted(
    host: Uvicorn, scheme: str
) -> None:
    async with orchestra.connect(f"{host.url(scheme)}/farm") as client:
        job = await client.submit(double.map(range(3)), name="doubled")
        assert await job.results() == [0, 2, 4]
        followed = [moved async for moved in job.events(after=0)]
        assert followed == await job.story()
        assert followed[-1].target == "completed"
        assert (await client.job(job.number)).id == job.id


async def test_the_host_has_the_same_client_and_its_own_routes(host: Uvicorn) -> None:
    async with httpx.AsyncClient(base_url=host.url("http"), timeout=BOUND_S) as browser:
        told: dict[str, Any] = (await browser.get("/begin")).json()
        assert (await browser.get("/nothing")).status_code == 404
    async with orchestra.connect(f"{host.url('http')}/farm") as client:
        job = await client.job(told["number"])
        assert await job.result() == told["result"] == 42


async def test_a_proxy_in_front_is_refused(host: Uvicorn) -> None:
    # uvicorn believes a proxy on this machine, and takes the address of the caller from its header.
    async with httpx.AsyncClient(base_url=host.url("http"), timeout=BOUND_S) as proxy:
        for headers in ({"x-forwarded-for": "127.0.0.1"}, {"x-forwarded-for": "203.0.113.9"}):
            refused = await proxy.get("/farm/api/v1/jobs", headers=headers)
            assert (refused.status_code, refused.json()["where"]) == (403, "x-forwarded-for")
        assert (await proxy.get("/farm/api/v1/jobs")).status_code == 200
