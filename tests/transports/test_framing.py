"""The scanner in front of the parser, fed with everything and in every portion."""

from __future__ import annotations

from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.transports.framing import Framing, Phase, RefusedRequest

HOST = b"Host: 127.0.0.1\r\n"
GET = b"GET /read HTTP/1.1\r\n" + HOST
POST = b"POST /change HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

BODIES = st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=60)), max_size=12)
CUTS = st.lists(st.integers(1, 80), min_size=1, max_size=20)


@given(BODIES, CUTS)
def test_where_it_cuts_does_not_depend_on_how_bytes_arrive(
    bodies: list[tuple[bool, bytes]], cuts: list[int]
) -> None:
    stream = b""
    for chunked, body in bodies:
        if chunked:
            stream += CHUNKED + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
        else:
            stream += POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    framing, seen, at, requests = Framing(16_384, 64), b"", 0, 0
    sizes = cycle(cuts)
    while at < len(stream):
        piece = stream[at : at + next(sizes)]
        at += len(piece)
        while piece:
            taken, piece = framing.feed(piece)
            seen += taken
            if framing.phase is Phase.DONE:
                requests += 1
                framing.next_request()
    assert seen == stream
    assert requests == len(bodies)


@given(st.sampled_from([b"", GET, POST, CHUNKED]), st.binary(max_size=200))
def test_it_refuses_or_waits_whatever_comes(start: bytes, noise: bytes) -> None:
    framing = Framing(1_024, 64)
    rest = start + noise
    status = 400
    try:
        while rest:
            before = rest
            _, rest = framing.feed(rest)
            if framing.phase is Phase.DONE:
                framing.next_request()
            assert len(rest) < len(before)
    except RefusedRequest as refused:
        status = refused.status
    assert status in {400, 431, 501, 505}


def test_nothing_of_a_bad_header_reaches_the_parser() -> None:
    framing = Framing(1_024, 64)
    head = GET + b"X: y\r\n z\r\n\r\n"
    for byte in head[:-1]:
        assert framing.feed(bytes([byte])) == (b"", b"")
    with pytest.raises(RefusedRequest, match="folded"):
        framing.feed(head[-1:])


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_a_header_that_is_too_long_is_told_so_whatever_stands_beyond_the_bound(end: bytes) -> None:
    """However it comes: in one piece, or in two of which the first is too long by itself."""
    long = GET + b"X: " + b"y" * 1_200
    for first in (long + b"\n\0" + end, long):  # what comes after a refusal is not fed any more
        with pytest.raises(RefusedRequest, match="longer than 1024 bytes") as refused:
            Framing(1_024, 64).feed(first)
        assert refused.value.status == 431
