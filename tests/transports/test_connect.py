"""Opening a connection: addresses, tokens, certificates, and places where no orchestra is."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest
import trustme

from orchestra.config import Address, Config
from orchestra.dialects.wire import Role
from orchestra.errors import Forbidden, Malformed, OrchestraError, Unauthenticated, Unavailable
from orchestra.ports import WatchStory
from orchestra.statemachine.commands import StageDraft, SubmitJob
from orchestra.statemachine.queries import GetOverview
from orchestra.transports import http_client, websocket_client, websocket_dial
from orchestra.transports.connect import connect
from orchestra.transports.tokens import Token, digest, draw_token, write_tokens
from tests.transports.far_ends import running, served

pytestmark = pytest.mark.anyio

SCHEMES = pytest.mark.parametrize("scheme", ["http", "ws"])


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8440",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://host:99999",
        "http://user:word@host",
        "ws://host?token=x",
        "http://host#x",
    ],
)
async def test_a_wrong_address_is_told(url: str) -> None:
    with pytest.raises(Malformed) as caught:
        connect(url)
    assert caught.value.where == "server"


@pytest.mark.parametrize("token", ["a b", "a\nb", "\u00e4"])
async def test_a_token_that_is_none_is_told(token: str) -> None:
    with pytest.raises(Malformed) as caught:
        connect("http://127.0.0.1:1", token=token)
    assert caught.value.where == "token"
    assert token not in str(caught.value)


async def overview(url: str, **more: str) -> None:
    with anyio.fail_after(10):
        async with connect(url, **more) as asker:
            await asker.answer(GetOverview())


@SCHEMES
async def test_nobody_there_is_told_with_a_remedy(scheme: str, free_tcp_port: int) -> None:
    with pytest.raises(Unavailable, match=r"can not reach .*orchestra serve"):
        await overview(f"{scheme}://127.0.0.1:{free_tcp_port}")


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[int]:
    """A server that answers everything with the same bytes; None stays silent, and empty closes."""

    async def talk(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            if answer is None:
                await anyio.sleep_forever()
            await stream.send(answer)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610  # a socket, no database
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, talk)
            yield port
            group.cancel_scope.cancel()


def page(status: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@SCHEMES
@pytest.mark.parametrize(
    "answer",
    [
        page("200 OK", "text/html", b"<html>"),
        page("302 Found", "text/html", b""),
        page("502 Bad Gateway", "text/html", b"<html>"),
        page("200 OK", "application/json", b"[]"),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
    ],
    ids=["page", "redirect", "gateway", "json", "ssh", "closed"],
)
async def test_something_else_there_is_told(scheme: str, answer: bytes) -> None:
    async with answering(answer) as port:
        with pytest.raises(Unavailable):
            await overview(f"{scheme}://127.0.0.1:{port}")


@SCHEMES
async def test_a_silent_server_is_given_up(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "ANSWER_S", 0.1)
    monkeypatch.setattr(websocket_dial, "CONNECT_S", 0.1)
    async with answering(None) as port:
        with pytest.raises(Unavailable, match=r"time|within"):
            await overview(f"{scheme}://127.0.0.1:{port}")


@SCHEMES
async def test_an_error_of_the_caller_leaves_as_it_is(scheme: str) -> None:
    with served(running) as server:
        with pytest.raises(KeyError):
            async with connect(server.url(scheme)):
                raise KeyError("mine")
        with pytest.raises(Unavailable):
            async with connect(server.url(scheme)):
                raise Unavailable("mine")


@SCHEMES
async def test_tokens_open_what_they_may(scheme: str, tmp_path: Path) -> None:
    plain = {role: draw_token() for role in (Role.WORKER, Role.VIEWER, Role.OPERATOR)}
    kept = [Token(role.value, role, digest(token)) for role, token in plain.items()]
    path = str(tmp_path / "tokens")
    write_tokens(path, kept, plain)
    listen = Address("127.0.0.1", 0)
    config = Config(listen=listen, token_file=path, require_token=True)
    job = SubmitJob("j", (StageDraft("s", "a"),))
    with served(running, config) as server:
        url = server.url(scheme)
        for token in ("", "otk_wrong"):
            with pytest.raises(Unauthenticated):
                await overview(url, token=token)
        with pytest.raises(Forbidden):
            await overview(url, token=plain[Role.WORKER].reveal())
        await overview(url, token=plain[Role.VIEWER].reveal())
        async with connect(url, token=plain[Role.VIEWER].reveal()) as asker:
            with pytest.raises(Forbidden):
                await asker.ask(job)
        async with connect(url, token=plain[Role.OPERATOR].reveal()) as asker:
            await asker.ask(job)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("scheme", ["https", "wss"])
async def test_certificates_are_checked(scheme: str, tmp_path: Path, authority: trustme.CA) -> None:
    certificate = authority.issue_cert("127.0.0.1")
    chain, key, trusted = (str(tmp_path / name) for name in ("chain.pem", "key.pem", "ca.pem"))
    certificate.private_key_and_cert_chain_pem.write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(trusted)
    config = Config(listen=Address("127.0.0.1", 0), tls_cert=chain, tls_key=key)
    with served(running, config) as server:
        await overview(server.url(scheme), tls_ca=trusted)
        with pytest.raises(Unavailable, match=r"(?i)certificate"):
            await overview(server.url(scheme))
        with pytest.raises(Unavailable, match=r"(?i)certificate"):
            await overview(server.url(scheme).replace("127.0.0.1", "localhost"), tls_ca=trusted)
        plain = "http" if scheme == "https" else "ws"
        with pytest.raises(OrchestraError):
            await overview(server.url(plain))
    with pytest.raises(Malformed, match="tls_ca"):
        connect("https://127.0.0.1:1", tls_ca=str(tmp_path / "none.pem"))


async def test_a_silent_connection_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_client, "SILENCE_S", 0.2)
    monkeypatch.setattr(websocket_client, "PING_S", 5.0)
    with served(running) as server, anyio.fail_after(10):
        async with connect(server.url("ws")) as asker:
            with pytest.raises(Unavailable, match="silent"):
                async with asker.watch(WatchStory()) as pushes:
                    await anext(pushes)


async def test_pings_keep_a_quiet_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_client, "SILENCE_S", 0.5)
    monkeypatch.setattr(websocket_client, "PING_S", 0.1)
    with served(running) as server, anyio.fail_after(10):
        async with connect(server.url("ws")) as asker:
            async with asker.watch(WatchStory()) as pushes:
                with anyio.move_on_after(1.2) as waited:
                    await anext(pushes)
                assert waited.cancelled_caught
            await asker.answer(GetOverview())


def test_nothing_trusts_blindly() -> None:
    from orchestra.transports import connect as module

    for context in (module._context(None), module._nobody()):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
