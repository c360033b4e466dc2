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
    connection = http.client.HTTPConnection(call.host, call.port, timeout=call.step_ms / 1_000)
    try:
        body = urlencode(call.form) if call.form else None
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if call.form else {}
        headers.update(call.headers)
        connection.request(call.method, call.path, body=body, headers=headers)
        reply = connection.getresponse()
        return FarReply(reply.status, reply.read(call.reply_bytes_max))
    except (OSError, UnicodeError, http.client.HTTPException):
        return None
    finally:
        connection.close()
