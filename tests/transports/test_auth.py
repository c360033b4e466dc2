"""Tokens, their file, and every combination of host, origin, method and token at the door."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from orchestra.config import Address, Config, DialectPort
from orchestra.dialects.wire import Role
from orchestra.errors import Forbidden, Malformed
from orchestra.transports.auth import (
    LOCAL,
    Gate,
    Principal,
    check_exposure,
    open_gate,
    token_needed,
)
from orchestra.transports.door import Door, escape
from orchestra.transports.policy import Policy
from orchestra.transports.rate import Buckets
from orchestra.transports.tokens import (
    digest,
    draw_token,
    open_tokens,
    read_plain_tokens,
    read_tokens,
)
from tests.transports.loopback import POLICY, Echo

pytestmark = pytest.mark.anyio


async def knock(door: Door, scope_type: str, method: str, path: str, **headers: str) -> int:
    """The status that a request gets; 101 for an accepted websocket."""
    raw = [
        (name.replace("_", "-").encode(), text.encode("latin-1")) for name, text in headers.items()
    ]
    scope: dict[str, Any] = {
        "type": scope_type,
        "path": path,
        "query_string": b"",
        "headers": raw,
        "client": ("127.0.0.1", 5_000),
        "extensions": {"websocket.http.response": {}},
    }
    if scope_type == "http":
        scope["method"] = method
    told = [{"type": "http.request", "body": b"", "more_body": False}]
    if scope_type == "websocket":
        told = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]
    statuses: list[int] = []

    async def receive() -> Any:
        return told.pop(0)

    async def send(message: Any) -> None:
        if message["type"] == "websocket.accept":
            statuses.append(101)
        elif message["type"].endswith("response.start"):
            statuses.append(message["status"])

    await door(scope, receive, send)
    return statuses[0]


HOSTS = {
    "127.0.0.1:8440": True,
    "localhost": True,
    "LOCALHOST:1": True,
    "[::1]:8440": True,
    "farm.lab:8440": True,
    "evil.example:8440": False,
    "127.0.0.1.evil.example": False,
    "localhost.evil.example:8440": False,
    "evil.example:8440, 127.0.0.1": False,
    "": False,
}
ORIGINS = {None: True, "same": True, "null": False, "http://evil.example": False}
ACTIONS = [
    # scope, method, path, status by held role: none, worker, viewer, operator, forged
    ("http", "GET", "/health", (200, 200, 200, 200, 200)),
    ("http", "GET", "/read", (401, 403, 200, 200, 401)),
    ("http", "POST", "/change", (401, 403, 403, 200, 401)),
    ("http", "POST", "/workers/w1/reports", (401, 200, 403, 200, 401)),
    ("websocket", "GET", "/session", (401, 101, 101, 101, 401)),
    ("http", "GET", "/nothing", (401, 404, 404, 404, 401)),
    ("websocket", "GET", "/nothing", (401, 404, 404, 404, 401)),
    ("http", "PUT", "/change", (401, 405, 405, 405, 401)),
    ("http", "OPTIONS", "/change", (401, 405, 405, 405, 401)),
]


def write_three(path: Path) -> dict[str, str]:
    """A token file with all roles; the texts by role, with none and a forged one."""
    open_tokens(str(path))
    document = json.loads(path.read_text())
    viewer = draw_token()
    document["tokens"].append({"name": "eve", "role": "viewer", "sha256": digest(viewer)})
    path.write_text(json.dumps(document))
    return {
        "none": "",
        "worker": document["plain"]["worker"],
        "viewer": viewer.reveal(),
        "operator": document["plain"]["operator"],
        "forged": draw_token().reveal(),
    }


async def test_every_host_origin_method_and_token_gets_its_status(tmp_path: Path) -> None:
    tokens = write_three(tmp_path / "farm.db.token")
    config = Config(data=str(tmp_path / "farm.db"), require_token=True, allowed_hosts=("farm.lab",))
    door = Door(Echo(), open_gate(config, POLICY))
    cells = 0
    for host, host_good in HOSTS.items():
        for origin, origin_good in ORIGINS.items():
            for scope_type, method, path, statuses in ACTIONS:
                for token, status in zip(tokens.values(), statuses, strict=True):
                    headers = {"host": host}
                    if origin is not None:
                        headers["origin"] = f"http://{host}" if origin == "same" else origin
                    if token:
                        headers["authorization"] = f"Bearer {token}"
                    expected = status if host_good and origin_good else 403
                    got = await knock(door, scope_type, method, path, **headers)
                    assert (got, headers, path) == (expected, headers, path)
                    cells += 1
    assert cells == 10 * 4 * 9 * 5


async def test_on_loopback_no_token_is_needed_and_foreign_pages_can_do_nothing() -> None:
    app = Echo()
    door = Door(app, open_gate(Config(), POLICY))
    for scope_type, method, path, good in (
        ("http", "GET", "/read", 200),
        ("http", "POST", "/change", 200),
        ("websocket", "GET", "/session", 101),
    ):
        assert await knock(door, scope_type, method, path, host="localhost:8440") == good
        assert app.principals == [LOCAL]
        app.principals.clear()
        for headers in (
            {"host": "rebound.example"},
            {"host": "localhost:8440", "origin": "http://evil.example"},
            {"host": "localhost:8440", "origin": "http://localhost:3000"},
            {"host": "localhost:8440", "origin": "null"},
            {"host": "localhost:8440", "origin": "file://localhost:8440"},
            {"host": "localhost:8440", "sec_fetch_site": "cross-site"},
            {"host": "localhost:8440", "sec_fetch_site": "same-site"},
        ):
            assert await knock(door, scope_type, method, path, **headers) == 403
        assert app.principals == []


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/read", 200), ("POST", "/change", 403)]
)
async def test_a_link_on_another_page_may_be_followed_but_not_posted(
    method: str, path: str, status: int
) -> None:
    door = Door(Echo(), open_gate(Config(), POLICY))
    headers = {"host": "localhost", "sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert await knock(door, "http", method, path, **headers) == status


FORGERIES = [
    "{right} ",
    "x{right}",
    "{right}x",
    "{upper}",
    "{cut}",
    "otk_",
    "",
    "null",
    "{right},{right}",
    "{right} {right}",
    "otk_" + "A" * 43,
    "otk_\xff\xfe",
    "' or 1=1 --",
    "{digest}",
    "*",
]


async def test_no_forged_token_opens_anything(tmp_path: Path) -> None:
    path = str(tmp_path / "t")
    open_tokens(path)
    right = read_plain_tokens(path)[Role.OPERATOR].reveal()
    kept = read_tokens(path).tokens[0].sha256
    door = Door(Echo(), open_gate(Config(token_file=path, require_token=True), POLICY))
    words = {"right": right, "upper": right.upper(), "cut": right[:-1], "digest": kept}
    sent = [f"Bearer {forged.format(**words)}" for forged in FORGERIES[1:]]
    sent += [f"Basic {right}", right, f"Token {right}", f"Bearer\t{right}", f"Bearer{right}"]
    for text in sent:
        got = await knock(door, "http", "POST", "/change", host="localhost", authorization=text)
        assert (got, text) == (401, text)
    for number in range(1_000):
        text = f"Bearer {draw_token().reveal()}"
        got = await knock(door, "http", "GET", "/read", host="localhost", authorization=text)
        assert (got, number) == (401, number)
    good = await knock(
        door, "http", "POST", "/change", host="localhost", authorization=f"bearer {right}"
    )
    assert good == 200


async def test_a_token_in_the_address_or_a_cookie_counts_for_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "t")
    gate = open_gate(Config(token_file=path, require_token=True), POLICY)
    right = read_plain_tokens(path)[Role.OPERATOR].reveal()
    door = Door(Echo(), gate)
    got = await knock(door, "http", "POST", "/change", host="localhost", cookie=f"token={right}")
    assert got == 401
    got = await knock(door, "http", "POST", f"/change?token={right}", host="localhost")
    assert got == 401


EVERYWHERE = Address("0.0.0.0", 8440)  # noqa: S104 - refusing it is what is tested


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (Config(data="x", listen=EVERYWHERE), "listen"),
        (Config(data="x", listen=Address("::", 8440)), "listen"),
        (Config(data="x", listen=Address("192.0.2.1", 8440)), "listen"),
        (Config(data="x", listen=Address("farm.lab", 8440)), "listen"),
        (Config(data="x", dialects=(DialectPort("tango", EVERYWHERE),)), "listen"),
        (Config(listen=EVERYWHERE, behind_proxy=True), "token_file"),
        (Config(listen=EVERYWHERE, tls_cert="c", tls_key="k"), "token_file"),
        (Config(behind_proxy=True), "token_file"),
        (Config(require_token=True), "token_file"),
    ],
)
def test_a_server_that_others_can_reach_does_not_start_unprotected(
    config: Config, field: str
) -> None:
    with pytest.raises(Malformed) as caught:
        open_gate(config, POLICY)
    assert caught.value.where == field
    assert caught.value.remedy


def test_what_is_protected_may_start_and_makes_its_tokens(tmp_path: Path) -> None:
    data = str(tmp_path / "farm.db")
    for config in (
        Config(data=data, listen=EVERYWHERE, behind_proxy=True),
        Config(data=data, listen=EVERYWHERE, tls_cert="c", tls_key="k"),
        Config(data=data, behind_proxy=True),
    ):
        assert token_needed(config)
        gate = open_gate(config, POLICY)
        assert gate.tokens is not None
    assert Path(f"{data}.token").exists()
    assert not token_needed(Config(data=data))
    check_exposure(Config())
    with pytest.raises(Malformed):
        check_exposure(Config(data=data), EVERYWHERE)


def test_a_message_of_a_websocket_is_judged_by_the_same_table() -> None:
    gate = Gate(POLICY, None, None)
    gate.permit(Principal("w", Role.WORKER), "http", "report")
    for role, route in ((Role.WORKER, "change"), (Role.VIEWER, "report"), (Role.OPERATOR, "none")):
        with pytest.raises(Forbidden):
            gate.permit(Principal("x", role), "http", route)


def test_without_a_row_nothing_is_authorised() -> None:
    gate = Gate(Policy([]), None, None)
    with pytest.raises(Forbidden):
        gate.authorise("http", "read", {"host": "localhost"}, "127.0.0.1")
    assert Gate(POLICY, None, None).authorise("http", "read", {}, "127.0.0.1") == LOCAL


async def test_too_many_requests_get_429_and_when_to_come_back() -> None:
    now = [0.0]
    door = Door(Echo(), open_gate(Config(), POLICY), buckets=Buckets(10, 3), clock=lambda: now[0])
    got = [await knock(door, "http", "GET", "/read", host="localhost") for _ in range(5)]
    assert got == [200, 200, 200, 429, 429]
    # Who is refused for another reason is counted apart, and no less.
    got = [await knock(door, "http", "GET", "/read", host="evil.example") for _ in range(5)]
    assert got == [403, 403, 403, 429, 429]
    now[0] += 0.1
    assert await knock(door, "http", "GET", "/read", host="localhost") == 200
    assert await knock(door, "websocket", "GET", "/session", host="localhost") == 429


def test_buckets_fill_up_to_their_brim_and_forget_the_oldest() -> None:
    buckets = Buckets(2, 4, keys_max=3)
    assert [buckets.take("a", 0.0) for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert buckets.take("a", 0.5) == 0
    assert buckets.take("a", 0.5) == 0.5
    assert [buckets.take("a", 1_000.0) for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert buckets.take("a", 999.0) == 0.5
    for key in "bcd":
        buckets.take(key, 1_000.0)
    assert len(buckets) == 3
    assert buckets.take("a", 1_000.0) == 0


async def test_the_access_log_keeps_secrets_and_control_bytes_out(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path = str(tmp_path / "t")
    door = Door(Echo(), open_gate(Config(token_file=path, require_token=True), POLICY))
    right = read_plain_tokens(path)[Role.OPERATOR].reveal()
    with caplog.at_level(logging.DEBUG):
        bearer = f"Bearer {right}"
        await knock(door, "http", "POST", "/change", host="localhost", authorization=bearer)
        await knock(door, "http", "GET", "/a\x1b[2J\r\nforged line\x85\u202e", host="localhost")
        await knock(door, "http", "GET", "/" + "a" * 9_000, host="localhost")
    assert right not in caplog.text
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert all(line.isprintable() and len(line) < 1_200 for line in lines)
    assert r"/a\x1b[2J\r\nforged line\x85\u202e" in lines[1]
    assert escape("a\\nb") == "a\\\\nb"
