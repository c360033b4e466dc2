"""One function that opens a connection to an orchestrator by its address."""

from __future__ import annotations

import ssl
from contextlib import AbstractAsyncContextManager
from urllib.parse import urlsplit

from orchestra.errors import Malformed
from orchestra.ports import Asker

SCHEMES = ("http", "https", "ws", "wss")


def connect(
    url: str, *, token: str = "", tls_ca: str | None = None
) -> AbstractAsyncContextManager[Asker]:
    """
    A connection to the orchestrator at ``url``, to be entered for an `Asker`. Works on asyncio and on trio.

    Args:
        url: ``http://``, ``https://``, ``ws://`` or ``wss://`` with host and port; a path is where it is mounted.
        token: A token of the server; empty for none.
        tls_ca: PEM file of the authorities to trust instead of the system's, for a server with a certificate of its own.

    Raises:
        Malformed: The address or the token can not be used, or the file can not be read.
        Unavailable: On entering (websocket) or at the first question (HTTP): nobody answers there.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Malformed(f"{url!r} is no address: {error}", where="server") from None
    if parts.scheme not in SCHEMES or not host:
        remedy = "write it like http://127.0.0.1:8440"
        raise Malformed(f"{url!r} is no address of a server", where="server", remedy=remedy)
    if parts.username or parts.query or parts.fragment:
        remedy = "give the token by itself, not in the address"
        raise Malformed("only host, port and path belong here", where="server", remedy=remedy)
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Malformed("this is no token", where="token")
    secure = parts.scheme in ("https", "wss")
    context = _context(tls_ca) if secure else _nobody()
    plain = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    if parts.scheme in ("http", "https"):
        from orchestra.transports.http_client import open_http

        return open_http(plain, token=token, context=context)
    from orchestra.transports.remote import RemoteAsker
    from orchestra.transports.websocket_client import open_websocket
    from orchestra.transports.websocket_dial import Place

    place = Place(plain, host, port or (443 if secure else 80), parts.path.rstrip("/"), secure)

    def bulk() -> AbstractAsyncContextManager[RemoteAsker]:
        from orchestra.transports.http_client import open_http

        # ws becomes http, wss https: the same server answers both on one port.
        return open_http(plain.replace("ws", "http", 1), token=token, context=context)

    return open_websocket(place, token=token, context=context, bulk=bulk)


def _context(tls_ca: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls_ca)
    except (OSError, ssl.SSLError) as error:
        raise Malformed(f"can not be read: {error}", where=f"tls_ca {tls_ca}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _nobody() -> ssl.SSLContext:
    """Trusts nobody: for addresses without TLS, so that loading the system's authorities costs nothing."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
