"""What an application says, as bytes on a real connection; and what it is told of a request, however it arrives."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.transports.framing import Framing, Phase
from tests.transports.loopback import exchange, served, status_of

pytestmark = pytest.mark.anyio

HOST = b"Host: 127.0.0.1\r\n"
GET = b"GET /read HTTP/1.1\r\n" + HOST
LAST = b"Connection: close\r\n\r\n"


@pytest.fixture
def anyio_backend() -> str:
    """The server runs on asyncio."""
    return "asyncio"


class Says:
    """An application that sends these messages, whatever it is asked."""

    def __init__(self, *messages: dict[str, Any], reads: bool = True) -> None:
        self.messages = messages
        self.reads = reads
        self.told: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        if self.reads:
            self.told.append(await receive())
        for message in self.messages:
            await send(message)


def start(*fields: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(fields)}


def body(text: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text, "more_body": more}


async def answered(app: Says, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of the answer to a request that ends its connection."""
    async with served(app) as address:
        head, _, rest = (await exchange(address, request)).partition(b"\r\n\r\n")
    return head, rest


async def test_a_body_of_unknown_length_goes_out_in_chunks() -> None:
    app = Says(start(), body(b"abc", more=True), body(b"", more=True), body(b"de"))
    head, rest = await answered(app, GET + LAST)
    assert b"transfer-encoding: chunked" in head
    assert rest == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


async def test_an_old_client_gets_it_until_the_connection_ends() -> None:
    app = Says(start(), body(b"abc", more=True), body(b"de"))
    head, rest = await answered(app, b"GET /read HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert rest == b"abcde"


async def test_head_gets_the_fields_and_no_body() -> None:
    app = Says(start((b"content-length", b"5")), body(b"abcde"))
    request = b"HEAD /read HTTP/1.1\r\n" + HOST
    head, rest = await answered(app, request + b"\r\n" + request + LAST)
    assert b"content-length: 5" in head
    assert status_of(rest) == 200
    assert b"abcde" not in rest


async def test_a_204_has_neither_body_nor_length() -> None:
    head, rest = await answered(Says(start(status=204), body(b"")), GET + LAST)
    assert status_of(head) == 204
    assert b"transfer-encoding" not in head
    assert rest == b""


@pytest.mark.parametrize(
    "app",
    [
        Says(),
        Says(body(b"abc")),
        Says(start((b"x", b"y\r\nset-cookie: z"))),
        Says(start((b"x: y\r\nz", b"1"))),
        Says(start((b"content-length", b"many"))),
    ],
    ids=["nothing", "no start", "a value of two lines", "a name of two lines", "no length"],
)
async def test_what_is_no_answer_becomes_a_500(app: Says, caplog: pytest.LogCaptureFixture) -> None:
    head, rest = await answered(app, GET + b"\r\n")
    assert status_of(head) == 500
    assert b"set-cookie" not in head
    assert rest == b"Internal Server Error"
    assert "the application" in caplog.text


@pytest.mark.parametrize("said", [b"abcdef", b"abc"], ids=["too much", "too little"])
async def test_a_body_of_another_length_is_not_passed_for_whole(
    said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    app = Says(start((b"content-length", b"5")), body(b"a", more=True), body(said))
    _, rest = await answered(app, GET + b"\r\n")
    assert rest == b"a"
    assert "the application" in caplog.text


async def test_the_body_is_asked_for_when_somebody_reads_it() -> None:
    request = b"POST /change HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n"
    answer = (start((b"content-length", b"0")), body(b""))
    reads, does_not = Says(*answer), Says(*answer, reads=False)
    head, rest = await answered(reads, request + LAST + b"abc")
    assert status_of(head) == 100
    assert status_of(rest) == 200
    assert reads.told[0]["body"] == b"abc"
    head, _ = await answered(does_not, request + LAST + b"abc")
    assert status_of(head) == 200


BODIES = st.lists(
    st.tuples(st.booleans(), st.lists(st.binary(min_size=1, max_size=40), max_size=4)), max_size=6
)


@given(BODIES, st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_bodies_are_the_same_in_every_portion(
    bodies: list[tuple[bool, list[bytes]]], cuts: list[int]
) -> None:
    post = b"POST /change HTTP/1.1\r\n" + HOST
    stream = b""
    for chunked, pieces in bodies:
        if chunked:
            chunks = b"".join(b"%x;x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            stream += post + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        else:
            whole = b"".join(pieces)
            stream += post + b"Content-Length: %d\r\n\r\n" % len(whole) + whole
    framing, got, current, at = Framing(16_384, 64), [], b"", 0
    sizes = cycle(cuts)
    while at < len(stream):
        piece = stream[at : at + next(sizes)]
        at += len(piece)
        while piece:
            _, piece = framing.feed(piece)
            current += framing.take_body()
            if framing.phase is Phase.DONE:
                got.append(current)
                current = b""
                framing.next_request()
    assert got == [b"".join(pieces) for _, pieces in bodies]


def test_the_header_is_told_as_it_was_said() -> None:
    framing = Framing(1_024, 64)
    framing.feed(
        b"PATCH /a%20b?c=d HTTP/1.1\r\nHost: x\r\nX-A:  1 \r\nx-a:\t2\r\nConnection: close\r\n\r\n"
    )
    head = framing.head
    assert head is not None
    assert (head.method, head.target, head.version) == (b"PATCH", b"/a%20b?c=d", b"1.1")
    assert head.fields == [
        (b"host", b"x"),
        (b"x-a", b"1"),
        (b"x-a", b"2"),
        (b"connection", b"close"),
    ]
    assert not head.keep_alive
