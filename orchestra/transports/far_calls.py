"""Small calls to many far ends at once, for dialects that call their far ends. Standard library: threads and plain HTTP."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

from orchestra.dialects.far_calls import FarCall, FarReply

THREADS_MAX = 32


def call_all(calls: Sequence[FarCall]) -> tuple[FarReply | None, ...]:
    """Make calls at the same time. None for one that was not answered, was answered too slowly, or with something that is no HTTP."""
    if not calls:
        return ()
    with ThreadPoolExecutor(min(len(calls), THREADS_MAX)) as pool:
        return tuple(pool.map(_call, calls))


def _call(call: FarCall) -> FarReply | None:
    return exchanged(connection_for(call), call)


def connection_for(call: FarCall) -> http.client.HTTPConnection:
    """A connection that is made when it is used."""
    return http.client.HTTPConnection(call.host, call.port, timeout=call.step_ms / 1_000)


def exchanged(connection: http.client.HTTPConnection, call: FarCall) -> FarReply | None:
    """Make a call on a connection, which is closed then: the reply; None when none came that is HTTP, or less of it than it announces."""
    try:
        body = urlencode(call.form) if call.form else None
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if call.form else {}
        headers.update(call.headers)
        connection.request(call.method, call.path, body=body, headers=headers)
        reply = connection.getresponse()
        read = reply.read(call.reply_bytes_max)
        # With a size given, `read` says nothing of a connection that ended too early.
        cut = bool(reply.length) and len(read) < call.reply_bytes_max
        return None if cut else FarReply(reply.status, read)
    except (OSError, UnicodeError, http.client.HTTPException):
        return None
    finally:
        connection.close()
