"""The native dialect as the transports mount it."""

from __future__ import annotations

from functools import cache

import msgspec

from orchestra.dialects.asks import Known
from orchestra.dialects.native_openapi import document
from orchestra.dialects.native_problems import refuse
from orchestra.dialects.native_session import NativeSession
from orchestra.dialects.native_table import HEALTH, OPERATIONS, PREFIX, WATCHES
from orchestra.dialects.wire import Channel, Dialect, Role, Route, WireRequest, WireResponse
from orchestra.errors import Malformed

CHANNEL_PATH = f"{PREFIX}/channel"


@cache
def _document() -> bytes:
    # Only the first who asks for the document waits for its making.
    return msgspec.json.encode(document())


def _decode_openapi(request: WireRequest) -> Known:
    if request.body:
        raise Malformed("this request takes no body", where="body")
    return Known(None)


OPENAPI = Route(
    name="OpenApi",
    method="GET",
    path=f"{PREFIX}/openapi.json",
    decode=_decode_openapi,
    encode=lambda _request, _answer: WireResponse(200, _document()),
    role=Role.ANYONE,
    summary="The published description of this interface",
)


@cache
def native_dialect() -> Dialect:
    """The native dialect, to be mounted at the root: its paths begin with `native_table.PREFIX`."""
    routes = [operation.route() for operation in OPERATIONS]
    routes += [watch.route() for watch in WATCHES]
    return Dialect(
        name="native",
        routes=(*routes, HEALTH, OPENAPI),
        refuse=refuse,
        channels=(Channel("Channel", CHANNEL_PATH, NativeSession),),
    )
