"""The proxy that is in the way, on real sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import Listener, SocketAttribute, SocketStream

from orchestra.testing.chaos.proxy import HOST, Mode, Proxy, open_proxy

pytestmark = pytest.mark.anyio

BOUND_S = 30.0
ANSWER = bytes(range(200))


class Far:
    """A server: it answers each byte with 200 of its own, and remembers what it got."""

    def __init__(self) -> None:
        self.got = b""
        self.came = anyio.Event()

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            try:
                while True:
                    got = await stream.receive()
                    self.got += got
                    self.came.set()
                    await stream.send(ANSWER * len(got))
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return


def port_of(listener: Listener[SocketStream]) -> int:
    return int(listener.extra(SocketAttribute.local_port))  # noqa: S610  # anyio's, not Django's


@asynccontextmanager
async def between() -> AsyncGenerator[tuple[Far, Proxy]]:
    far = Far()
    listener = await anyio.create_tcp_listener(local_host=HOST)
    with anyio.fail_after(BOUND_S):
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, far.serve)
            async with open_proxy(port_of(listener)) as proxy:
                yield far, proxy
            group.cancel_scope.cancel()


async def near(proxy: Proxy) -> SocketStream:
    return await anyio.connect_tcp(HOST, proxy.port)


async def answer(stream: SocketStream, size: int = len(ANSWER)) -> bytes:
    read = b""
    while len(read) < size:
        read += await stream.receive(size - len(read))
    return read


async def asked(proxy: Proxy) -> bytes:
    async with await near(proxy) as stream:
        await stream.send(b"a")
        return await stream.receive()


async def until_the_end(stream: SocketStream) -> bytes:
    read = b""
    try:
        while True:
            read += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return read


@pytest.mark.parametrize("mode", [Mode.CLEAR, Mode.DELAY, Mode.DRIBBLE])
async def test_what_goes_through_is_whole(mode: Mode) -> None:
    async with between() as (_, proxy):
        await proxy.turn(mode)
        async with await near(proxy) as stream:
            await stream.send(b"ab")
            assert await answer(stream, 400) == ANSWER * 2


async def test_dribbled_bytes_come_one_by_one() -> None:
    async with between() as (_, proxy):
        await proxy.turn(Mode.DRIBBLE)
        async with await near(proxy) as stream:
            await stream.send(b"a")
            assert len(await stream.receive()) < len(ANSWER)


async def test_a_reset_ends_what_is_open_and_what_comes_and_then_service_goes_on() -> None:
    async with between() as (_, proxy):
        async with await near(proxy) as stream:
            await stream.send(b"a")
            await answer(stream)
            await proxy.turn(Mode.RESET)
            with pytest.raises(anyio.BrokenResourceError) as raised:
                await stream.receive()
            assert isinstance(raised.value.__cause__, ConnectionResetError)
        with pytest.raises((OSError, anyio.BrokenResourceError, anyio.EndOfStream)):
            await asked(proxy)
        await proxy.turn(Mode.CLEAR)
        async with await near(proxy) as stream:
            await stream.send(b"a")
            assert await answer(stream) == ANSWER


async def test_a_half_open_one_holds_all_until_it_heals() -> None:
    async with between() as (far, proxy):
        await proxy.turn(Mode.HALF_OPEN)
        async with await near(proxy) as stream:
            await stream.send(b"a")
            await anyio.wait_all_tasks_blocked()
            assert far.got == b""
            await proxy.turn(Mode.CLEAR)
            assert await answer(stream) == ANSWER


async def test_one_way_lets_the_question_through_and_holds_the_answer() -> None:
    async with between() as (far, proxy):
        await proxy.turn(Mode.ONE_WAY)
        async with await near(proxy) as stream:
            await stream.send(b"a")
            await far.came.wait()
            with anyio.move_on_after(0.05) as waited:
                await stream.receive()
            assert waited.cancelled_caught
            await proxy.turn(Mode.CLEAR)
            assert await answer(stream) == ANSWER


async def test_an_answer_is_broken_off_in_its_middle() -> None:
    async with between() as (far, proxy):
        await proxy.turn(Mode.BREAK_OFF)
        async with await near(proxy) as stream:
            await stream.send(b"a")
            read = await until_the_end(stream)
        assert far.got == b"a"
        assert read == ANSWER[: len(ANSWER) // 2]


async def test_without_a_server_a_connection_is_reset() -> None:
    listener = await anyio.create_tcp_listener(local_host=HOST)
    port = port_of(listener)
    await listener.aclose()
    async with open_proxy(port) as proxy:
        with pytest.raises((OSError, anyio.BrokenResourceError, anyio.EndOfStream)):
            await asked(proxy)
