"""A token that is taken out of the server's file: the next request and the next message of an open websocket are refused."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from wsproto import events

from orchestra.config import Address, Config
from orchestra.dialects.wire import Role
from orchestra.transports.tokens import (
    Token,
    digest,
    draw_token,
    open_tokens,
    read_plain_tokens,
    read_tokens,
    write_tokens,
)
from tests.transports.loopback import BRISK, Echo, exchange, served, status_of, websocket

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server needs asyncio."""
    return "asyncio"


def revoke(path: Path, role: Role) -> None:
    """Put a file without these tokens in the place of the old one."""
    fresh = path.with_name("fresh")
    kept = [token for token in read_tokens(str(path)).tokens if token.role is not role]
    write_tokens(str(fresh), kept, {})
    fresh.replace(path)


async def test_a_revoked_token_opens_nothing_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    open_tokens(str(path))
    plain = {role: token.reveal() for role, token in read_plain_tokens(str(path)).items()}
    config = Config(
        listen=Address("127.0.0.1", 0), token_file=str(path), require_token=True, limits=BRISK
    )
    async with served(Echo(), config) as address:

        async def read(role: Role) -> int:
            line = f"GET /read HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {plain[role]}"
            return status_of(await exchange(address, line.encode() + b"\r\n\r\n"))

        headers = (("authorization", f"Bearer {plain[Role.OPERATOR]}"),)
        async with websocket(address, headers=headers) as (peer, accepted):
            assert isinstance(accepted, events.AcceptConnection)
            await peer.send(events.BytesMessage(data=b"before"))
            assert (await peer.event()).data == b"before"
            assert await read(Role.OPERATOR) == 200
            revoke(path, Role.OPERATOR)
            assert await read(Role.OPERATOR) == 401
            await peer.send(events.BytesMessage(data=b"after"))
            closed = await peer.event()
            assert isinstance(closed, events.CloseConnection)
            assert closed.code == 1008
        assert await read(Role.WORKER) != 401


CHANGES = {
    "role": {"role": Role.VIEWER, "worker": ""},
    "worker": {"worker": "render-2"},
    "bound no more": {"worker": ""},
    "name": {"name": "bob"},
}


@pytest.mark.parametrize("change", list(CHANGES))
async def test_a_websocket_does_not_outlive_what_its_token_opened(
    change: str, tmp_path: Path
) -> None:
    path, secret = tmp_path / "tokens", draw_token()
    before = Token("ann", Role.WORKER, digest(secret), "render-1")
    config = Config(
        listen=Address("127.0.0.1", 0), token_file=str(path), require_token=True, limits=BRISK
    )
    write_tokens(str(path), [before], {})
    async with served(Echo(), config) as address:
        headers = (("authorization", f"Bearer {secret.reveal()}"),)
        async with websocket(address, headers=headers) as (peer, accepted):
            assert isinstance(accepted, events.AcceptConnection)
            # Others come and go: that is nothing to this one.
            replace(path, [before, Token("eve", Role.VIEWER, digest(draw_token()))])
            await peer.send(events.BytesMessage(data=b"before"))
            assert (await peer.event()).data == b"before"
            replace(path, [attrs.evolve(before, **CHANGES[change])])
            await peer.send(events.BytesMessage(data=b"after"))
            closed = await peer.event()
            assert isinstance(closed, events.CloseConnection)
            assert closed.code == 1008


def replace(path: Path, tokens: list[Token]) -> None:
    fresh = path.with_name("fresh")
    write_tokens(str(fresh), tokens, {})
    fresh.replace(path)
