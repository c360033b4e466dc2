"""A dialect that is switched on is served below its name and at the root of its own port, over one core and behind the same door."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager

import anyio
import attrs
import httpx
import pytest

from orchestra import compose
from orchestra.config import Address, Config, DialectPort, configure
from orchestra.dialects.asks import Known
from orchestra.dialects.native_session import NativeSession
from orchestra.dialects.wire import (
    Channel,
    Chore,
    Dialect,
    Role,
    Route,
    WireRequest,
    WireResponse,
    placed_under,
)
from orchestra.errors import Malformed, OrchestraError
from orchestra.transports.policy import policy_for

pytestmark = pytest.mark.anyio

FREE = Address("127.0.0.1", 0)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server needs asyncio."""
    return "asyncio"


def told(request: WireRequest, answer: object) -> WireResponse:
    """The option that the dialect was switched on with, and how it was asked."""
    came_from = (("x-client", request.client),)
    body = f"{answer} {sorted(request.query)}".encode()
    return WireResponse(200, body, "text/plain", headers=came_from)


def refuse(error: OrchestraError) -> WireResponse:
    """Refusals in words that no other dialect has."""
    return WireResponse(418, str(error).encode(), "text/plain")


def greeting(port: DialectPort) -> Dialect:
    """A dialect of one route for each role."""
    word = port.options.get("word", "none")
    routes = tuple(
        Route(role.value, "GET", path, lambda _: Known(word), told, role, media_types=())
        for role, path in ((Role.ANYONE, "/"), (Role.OPERATOR, "/hidden"))
    )
    return Dialect("greeting", routes, refuse, hosts=("0.0.0.0",))  # noqa: S104 - a Host, not an address


@asynccontextmanager
async def served(
    config: Config, dialect: Callable[[DialectPort], Dialect] = greeting
) -> AsyncGenerator[Mapping[str, Address]]:
    """A real server; gives the address of each port by the dialect's name."""
    found: dict[str, Address] = {}
    up, stop = anyio.Event(), anyio.Event()

    def ready(address: Address) -> None:
        found["native"] = address
        up.set()

    async def run() -> None:
        await compose.serve(
            config,
            tasks={},
            slots=0,
            ready=ready,
            stop=stop,
            dialects={"greeting": dialect},
            dialect_ready=found.__setitem__,
        )

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        with anyio.fail_after(60):
            await up.wait()
        yield found
        stop.set()


async def test_one_dialect_at_two_places() -> None:
    port = DialectPort("greeting", FREE, {"word": "hello"})
    async with (
        served(Config(listen=FREE, dialects=(port,))) as at,
        httpx.AsyncClient(timeout=60) as client,
    ):
        main, own = f"http://{at['native']}", f"http://{at['greeting']}"
        assert (await client.get(f"{own}/?start&a=1")).text == "hello ['a', 'start']"
        assert (await client.get(f"{main}/greeting/?start&a=1")).text == "hello ['a', 'start']"
        for place in (f"{own}/", f"{main}/greeting/"):
            assert (await client.get(place)).headers["x-client"] == "127.0.0.1"
        assert (await client.get(f"{main}/hidden")).status_code == 404
        assert (await client.get(f"{own}/greeting/")).status_code == 418
        assert (await client.get(f"{own}/api/v1/health")).status_code == 418
        assert (await client.get(f"{main}/api/v1/health")).status_code == 200


async def test_chores_are_done_once_however_many_ports_there_are() -> None:
    begun = anyio.Event()
    rounds: list[int] = []

    def begin() -> Known:
        rounds.append(1)
        begun.set()
        return Known(None)

    def busy(port: DialectPort) -> Dialect:
        return attrs.evolve(greeting(port), chores=(Chore(begin, every_ms=3_600_000),))

    config = Config(listen=FREE, dialects=(DialectPort("greeting", FREE),))
    async with served(config, busy) as at, httpx.AsyncClient(timeout=60) as client:
        with anyio.fail_after(60):
            await begun.wait()
        assert (await client.get(f"http://{at['native']}/greeting/")).status_code == 200
        assert (await client.get(f"http://{at['greeting']}/")).status_code == 200
    assert rounds == [1]


async def test_without_an_address_it_is_on_the_main_port_alone() -> None:
    config = Config(listen=FREE, dialects=(DialectPort("greeting"),))
    async with served(config) as at, httpx.AsyncClient(timeout=60) as client:
        assert list(at) == ["native"]
        assert (await client.get(f"http://{at['native']}/greeting/")).text == "none []"


async def test_a_foreign_host_is_answered_at_the_own_port_only_when_the_dialect_says_so() -> None:
    config = Config(listen=FREE, dialects=(DialectPort("greeting", FREE),))
    async with served(config) as at, httpx.AsyncClient(timeout=60) as client:
        statuses = {
            (host, place): (await client.get(url, headers={"host": host})).status_code
            for host in ("0.0.0.0:8085", "evil.example", "localhost")
            for place, url in (
                ("own", f"http://{at['greeting']}/"),
                ("main", f"http://{at['native']}/greeting/"),
            )
        }
    assert statuses == {
        ("0.0.0.0:8085", "own"): 200,
        ("0.0.0.0:8085", "main"): 403,
        ("evil.example", "own"): 418,
        ("evil.example", "main"): 403,
        ("localhost", "own"): 200,
        ("localhost", "main"): 200,
    }


async def test_tokens_are_asked_for_at_both_places(tmp_path: object) -> None:
    config = Config(
        listen=FREE,
        dialects=(DialectPort("greeting", FREE),),
        require_token=True,
        token_file=f"{tmp_path}/tokens",
    )
    async with served(config) as at, httpx.AsyncClient(timeout=60) as client:
        main, own = f"http://{at['native']}/greeting", f"http://{at['greeting']}"
        assert (await client.get(f"{own}/hidden")).status_code == 418
        assert (await client.get(f"{main}/hidden")).status_code == 401
        assert (await client.get(f"{own}/")).status_code == 200


async def test_an_unknown_dialect_stops_the_start() -> None:
    config = Config(listen=FREE, dialects=(DialectPort("esperanto"),))
    with pytest.raises(Malformed, match="esperanto"):
        await compose.serve(config, tasks={}, slots=0, ready=lambda _: None)


def test_a_port_of_the_command_line_keeps_the_options_of_the_file() -> None:
    toml = '[dialects.greeting]\nlisten = "127.0.0.1:1"\nword = "hello"\n\n[dialects.other]\n'
    config = configure(flags={"dialects": ["greeting=127.0.0.1:2"]}, toml=toml).config
    assert config.dialects == (
        DialectPort("greeting", Address("127.0.0.1", 2), {"word": "hello"}),
        DialectPort("other"),
    )
    assert config.addresses == (config.listen, Address("127.0.0.1", 2))


def test_every_placed_route_and_channel_has_a_row_of_its_own() -> None:
    inner = greeting(DialectPort("greeting"))
    channelled = Dialect("greeting", inner.routes, refuse, (Channel("C", "/c", NativeSession),))
    table = policy_for([inner, placed_under(channelled, "/a")])
    assert {row.path for row in table.rows} == {"/", "/hidden", "/a/", "/a/hidden", "/a/c"}
