"""The way to an open websocket: the connection, TLS on it, and the handshake that turns it into a channel."""

from __future__ import annotations

import ssl

import anyio
import anyio.abc
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Event, RejectConnection, RejectData, Request
from wsproto.utilities import RemoteProtocolError

from orchestra.dialects.native import CHANNEL_PATH
from orchestra.dialects.native_calls import BODY_BYTES_MAX
from orchestra.dialects.native_problems import read_problem
from orchestra.errors import PeerClosed, Unavailable
from orchestra.statemachine.values import value
from orchestra.transports.remote import CONNECT_S, told, unreachable

RECEIVE_BYTES = 65_536

BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError)
"""How a stream says that the other end is gone."""


@value
class Place:
    """Where an orchestrator is. ``url`` is for messages, ``path`` where it is mounted."""

    url: str
    host: str
    port: int
    path: str
    secure: bool


async def dial(place: Place, context: ssl.SSLContext) -> anyio.abc.ByteStream:
    """A connection, with TLS where the place has it. Raises `Unavailable`."""
    try:
        with anyio.fail_after(CONNECT_S):
            if not place.secure:
                return await anyio.connect_tcp(place.host, place.port)
            return await anyio.connect_tcp(
                place.host,
                place.port,
                ssl_context=context,
                tls_hostname=place.host,
                # The end of the connection is told by the websocket's own closing frames.
                tls_standard_compatible=False,
            )
    except TimeoutError:
        raise unreachable(place.url, f"no answer within {CONNECT_S:.0f} s") from None
    except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        raise unreachable(place.url, told(error)) from None


async def shake_hands(
    stream: anyio.abc.ByteStream, place: Place, token: str
) -> tuple[WSConnection, list[Event]]:
    """
    Upgrade a connection; what came after the server's answer is returned with the protocol.

    Raises:
        Rejected: The server refused, such as for the token.
        Unavailable: It is no orchestra, or it is gone.
    """
    protocol = WSConnection(ConnectionType.CLIENT)
    headers = [(b"user-agent", b"orchestra")]
    if token:
        headers.append((b"authorization", b"Bearer " + token.encode()))
    host = f"[{place.host}]" if ":" in place.host else place.host
    request = Request(
        host=f"{host}:{place.port}", target=place.path + CHANNEL_PATH, extra_headers=headers
    )
    try:
        with anyio.fail_after(CONNECT_S):
            await stream.send(protocol.send(request))
            return protocol, await _accepted(stream, protocol, place)
    except TimeoutError:
        raise unreachable(place.url, f"no answer within {CONNECT_S:.0f} s") from None
    except (anyio.BrokenResourceError, anyio.EndOfStream, ssl.SSLError) as error:
        raise PeerClosed(f"{place.url} closed the connection: {told(error)}") from None
    except RemoteProtocolError as error:
        raise Unavailable(f"{place.url} is no websocket of orchestra: {error}") from None


async def _accepted(
    stream: anyio.abc.ByteStream, protocol: WSConnection, place: Place
) -> list[Event]:
    status, body = 0, bytearray()
    while True:
        protocol.receive_data(await stream.receive(RECEIVE_BYTES))
        events = iter(list(protocol.events()))
        for event in events:
            match event:
                case AcceptConnection():
                    return list(events)
                case RejectConnection(status_code=code, has_body=has_body):
                    status = code
                    if not has_body:
                        raise read_problem(status, b"")
                case RejectData(data=data, body_finished=finished):
                    body += data[: BODY_BYTES_MAX - len(body)]
                    if finished:
                        raise read_problem(status, bytes(body))
                case _:
                    raise Unavailable(f"{place.url} is no websocket of orchestra")
