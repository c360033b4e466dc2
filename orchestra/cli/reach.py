"""How a command finds its server, and the token that opens it."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from cyclopts import Group, Parameter

from orchestra.errors import Malformed
from orchestra.statemachine.values import value

if TYPE_CHECKING:
    from orchestra.client import Client

T = TypeVar("T")

SERVER = "http://127.0.0.1:8440"
CONNECTION = Group("Connection", sort_key=90)

TOKEN_CHARS_MAX = 4_096


@Parameter(name="*", group=CONNECTION)
@value
class Reach:
    """Where the server is, and what it is shown."""

    server: Annotated[
        str, Parameter(help="Address of the server.", env_var="ORCHESTRA_SERVER", name=["--server"])
    ] = SERVER
    token_file: Annotated[
        str | None,
        Parameter(
            help="File with a token, or the server's own token file. A token by itself: ORCHESTRA_TOKEN.",
            env_var="ORCHESTRA_TOKEN_FILE",
            name=["--token-file"],
        ),
    ] = None
    tls_ca: Annotated[
        str | None,
        Parameter(
            help="PEM file of the authorities to trust instead of the system's.",
            env_var="ORCHESTRA_TLS_CA",
            name=["--tls-ca"],
        ),
    ] = None

    def token(self, role: str = "operator") -> str:
        """The token to show; empty when there is none. Raises `Malformed` for a file that can not be read."""
        if self.token_file:
            return read_token(self.token_file, role)
        return os.environ.get("ORCHESTRA_TOKEN", "").strip()


USUAL = Reach()
"""The server on this machine, as nothing else is said."""


def read_token(path: str, role: str) -> str:
    """
    The token in a file: the file's only line, or the one for ``role`` in a server's token file.

    Raises:
        Malformed: The file can not be read, others can read it, or it has no such token.
    """
    where = f"--token-file {path}"
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(1 << 20)
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", None) or "is not text"
        raise Malformed(f"can not be read: {told}", where=where) from None
    if text.lstrip().startswith("{"):
        from orchestra.dialects.wire import Role
        from orchestra.transports.tokens import read_plain_tokens

        plain = read_plain_tokens(path)
        secret = plain.get(Role(role)) or plain.get(Role.OPERATOR)
        if secret is None:
            remedy = "put the token itself into a file of mode 0600, and name that"
            raise Malformed("it has no token in plain text any more", where=where, remedy=remedy)
        return secret.reveal()
    if mode & 0o077:
        raise Malformed("others can read this file", where=where, remedy=f"chmod 600 {path}")
    token = text.strip()
    if not token or len(token) > TOKEN_CHARS_MAX or any(c.isspace() for c in token):
        raise Malformed("it holds no token", where=where, remedy="one line, the token itself")
    return token


@asynccontextmanager
async def reached(reach: Reach) -> AsyncGenerator[Client]:
    """A client of the server. Raises `Unavailable` (with what to do) when nobody answers."""
    from orchestra.compose import connect

    async with connect(reach.server, token=reach.token(), tls_ca=reach.tls_ca) as client:
        yield client


def with_client(reach: Reach, act: Callable[[Client], Awaitable[T]]) -> T:
    """Run ``act`` with a client on an event loop of its own."""
    import anyio

    async def go() -> T:
        async with reached(reach) as client:
            return await act(client)

    return anyio.run(go)
