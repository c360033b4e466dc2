"""Who may use an API inside another application: every combination of caller's address, proxy header, Host, Origin and token."""

from __future__ import annotations

from itertools import product

import pytest

from orchestra.dialects.native import native_dialect
from orchestra.dialects.wire import Role
from orchestra.errors import Forbidden, OrchestraError, Unauthenticated
from orchestra.transports.auth import LOCAL, NOBODY, Principal
from orchestra.transports.near import near_gate
from orchestra.transports.policy import HTTP, WEBSOCKET, policy_for

POLICY = policy_for([native_dialect()])
TOKEN = "correct-horse-battery-staple"
OWNER = Principal("operator", Role.OPERATOR)

CLIENTS = {
    "127.0.0.1": True,
    "127.8.9.10": True,
    "::1": True,
    "::ffff:127.0.0.1": True,
    "10.0.0.7": False,
    "192.168.1.20": False,
    "203.0.113.9": False,
    "::ffff:10.0.0.7": False,
    "fe80::1%eth0": False,
    "0.0.0.0": False,  # noqa: S104  # as a caller's address, not to listen on
    "localhost": False,  # a name is no address: it could be anybody's
    "127.0.0.1.evil.example": False,
    "": False,  # a Unix socket, behind which proxies stand
}
PROXIES = {
    "": True,
    "x-request-id": True,
    "forwarded": False,
    "via": False,
    "x-forwarded-for": False,
    "x-forwarded-host": False,
    "x-forwarded-proto": False,
    "x-forwarded-port": False,
    "x-forwarded-server": False,
    "x-real-ip": False,
    "x-client-ip": False,
    "cf-connecting-ip": False,
    "true-client-ip": False,
    "x-original-forwarded-for": False,
    "x-cluster-client-ip": False,
    "x-envoy-external-address": False,
}
HOSTS = {
    "127.0.0.1:8000": True,
    "localhost": True,
    "LOCALHOST:1": True,
    "[::1]:8000": True,
    "farm.lab:8000": False,
    "evil.example": False,
    "localhost.evil.example": False,
    "127.0.0.1, evil.example": False,
    "": False,
}
ORIGINS = {None: True, "same": True, "http://evil.example": False, "null": False}
TOKENS = {
    None: False,
    f"Bearer {TOKEN}": True,
    f"bearer {TOKEN}": True,
    f"Basic {TOKEN}": False,
    f"Bearer {TOKEN}x": False,
    "Bearer ": False,
    TOKEN: False,
}
GATES = {token: near_gate(POLICY, token) for token in ("", TOKEN)}
ROUTES = ((HTTP, "SubmitJob"), (HTTP, "ListJobs"), (WEBSOCKET, "Channel"))


def fields(
    host: str, origin: str | None, proxy: str = "", token: str | None = None
) -> dict[str, str]:
    found = {"host": host}
    if origin is not None:
        found["origin"] = f"http://{host}" if origin == "same" else origin
    if proxy:
        found[proxy] = "127.0.0.1"
    if token is not None:
        found["authorization"] = token
    return found


def verdict(
    token: str, route: tuple[str, str], headers: dict[str, str], client: str
) -> Principal | type[OrchestraError]:
    try:
        return GATES[token].authorise(*route, headers, client)
    except (Forbidden, Unauthenticated) as error:
        return type(error)


def test_without_a_token_only_a_direct_caller_on_this_machine_is_answered() -> None:
    cells = 0
    for (client, near), (proxy, direct), (host, ours), (origin, same), route in product(
        CLIENTS.items(), PROXIES.items(), HOSTS.items(), ORIGINS.items(), ROUTES
    ):
        expected = LOCAL if near and direct and ours and same else Forbidden
        got = verdict("", route, fields(host, origin, proxy), client)
        assert (got, client, proxy, host, origin) == (expected, client, proxy, host, origin)
        cells += 1
    assert cells == 13 * 16 * 9 * 4 * 3


def test_with_one_the_token_decides_wherever_it_comes_from_but_not_from_a_foreign_page() -> None:
    for (token, good), client, proxy, host, (origin, same), route in product(
        TOKENS.items(), ("127.0.0.1", "203.0.113.9"), ("", "via"), HOSTS, ORIGINS.items(), ROUTES
    ):
        # A page of a name that was made to point here is at home, and has no token.
        foreign = not same and origin != f"http://{host}"
        expected = Forbidden if foreign else OWNER if good else Unauthenticated
        got = verdict(TOKEN, route, fields(host, origin, proxy, token), client)
        assert (got, token, client, host, origin) == (expected, token, client, host, origin)


@pytest.mark.parametrize("route", [(HTTP, "Health"), (HTTP, "OpenApi")])
def test_what_is_open_to_anyone_is_open_to_anyone_near(route: tuple[str, str]) -> None:
    headers = fields("localhost", None)
    assert verdict("", route, headers, "127.0.0.1") == LOCAL
    assert verdict("", route, headers, "10.0.0.7") is Forbidden
    assert verdict(TOKEN, route, headers, "10.0.0.7") == NOBODY


@pytest.mark.parametrize("token", ["", TOKEN])
def test_a_route_that_no_row_names_is_nobodys(token: str) -> None:
    headers = fields("localhost", None, token=f"Bearer {TOKEN}")
    assert verdict(token, (HTTP, "Nothing"), headers, "127.0.0.1") is Forbidden
    assert verdict(token, (WEBSOCKET, "ListJobs"), headers, "127.0.0.1") is Forbidden


@pytest.mark.parametrize(
    ("headers", "client", "where"),
    [
        ({"host": "localhost", "x-forwarded-for": "1.2.3.4"}, "127.0.0.1", "x-forwarded-for"),
        ({"host": "localhost"}, "10.0.0.7", "client"),
        ({"host": "farm.lab"}, "127.0.0.1", "Host"),
    ],
)
def test_who_is_refused_is_told_what_to_do(
    headers: dict[str, str], client: str, where: str
) -> None:
    with pytest.raises(Forbidden) as caught:
        GATES[""].authorise(HTTP, "ListJobs", headers, client)
    assert caught.value.where == where
    assert caught.value.remedy == "mount it with app.asgi(token=...)"
