"""
Who is calling, and may they: the one place that decides about requests by host, origin, token and policy.

A token comes in the ``Authorization`` header only, never in an address, where logs and browser histories would keep it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

import attrs

from orchestra.config import Address, Config
from orchestra.dialects.wire import Role
from orchestra.errors import Forbidden, Malformed, Unauthenticated
from orchestra.ports import ActingRule
from orchestra.statemachine.values import value
from orchestra.transports.policy import Policy, Row
from orchestra.transports.tokens import Token, TokenBook, TokenFile, open_tokens

LOG = logging.getLogger("orchestra.transports.auth")

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Names that a browser page elsewhere can not make point here (DNS rebinding needs a name of its own)."""


@value
class Principal:
    """
    Who asks: the token's name (``local`` without one) and its role.

    Args:
        token: The token that was shown; None without one.
        tokens: All that are known, as they are now; None where callers need none. They are asked each time that somebody acts as a
            worker, and not once: a connection lasts longer than a token may.
    """

    name: str
    role: Role
    token: Token | None = attrs.field(default=None, eq=False, repr=False)
    tokens: TokenBook | TokenFile | None = attrs.field(default=None, eq=False, repr=False)

    @property
    def acting(self) -> ActingRule | None:
        """Which workers he may act as; None where callers need no token, so that nobody is told from anybody."""
        return None if self.tokens is None else self

    def check_worker(self, name: str, where: str) -> None:
        """
        As `ports.ActingRule.check_worker`: a bound token acts as its worker alone, any other as a worker that no token is bound to.

        This is so for every role. An operator stops and pauses a worker as an operator; nobody reports in its name.
        """
        try:
            self._check_worker(name, where)
        except Forbidden as error:
            LOG.debug("%s may not act as a worker: %s", self.name, error)
            raise

    def _check_worker(self, name: str, where: str) -> None:
        token, tokens = self.token, self.tokens
        if tokens is None:
            return
        if token is not None and not tokens.knows(token):
            told = "the token has been taken out of the server's file, or changed there"
            raise Forbidden(told, where=where, remedy="use one that is in it now")
        bound = "" if token is None else token.worker
        if bound and bound != name:
            raise Forbidden(
                f"this token is for the worker {bound!r} alone",
                where=where,
                remedy=f"start the worker with --name {bound}, or use a token for the other name",
            )
        if not bound and tokens.binds(name):
            raise Forbidden(
                f"the worker {name!r} has a token of its own, and this is another",
                where=where,
                remedy="use that worker's own token, or another name",
            )


LOCAL = Principal("local", Role.OPERATOR)
NOBODY = Principal("nobody", Role.ANYONE)


class Authoriser(Protocol):
    """What transports ask before they serve a route."""

    def authorise(
        self, scope_type: str, route: str, headers: Mapping[str, str], client: str
    ) -> Principal:
        """
        Decide on one request.

        Args:
            scope_type: ``http`` or ``websocket``.
            route: The route's name in the policy table.
            headers: Header fields by name in lower case.
            client: The client's address, for the log.

        Raises:
            Unauthenticated: No valid token came.
            Forbidden: The token does not open this route, or a web page of another origin asks.
        """
        ...


def token_needed(config: Config) -> bool:
    """Whether callers must show a token: wherever others can reach the server, directly or by a proxy."""
    exposed = not all(address.loopback for address in config.addresses)
    return exposed or config.behind_proxy or config.require_token


def check_exposure(config: Config, address: Address | None = None) -> None:
    """
    Refuse to listen where others can reach without what protects it.

    Raises:
        Malformed: Not on loopback without TLS or a proxy, or a token is needed and there is no place to keep it.
    """
    exposed = [a for a in (*config.addresses, *([address] if address else ())) if not a.loopback]
    if exposed and not (config.tls or config.behind_proxy):
        raise Malformed(
            f"others can reach {exposed[0]}, and tokens would cross the network unencrypted",
            where="listen",
            remedy="give --tls-cert and --tls-key, or --behind-proxy, or listen on 127.0.0.1",
        )
    if (exposed or token_needed(config)) and not config.token_path:
        raise Malformed(
            "a token is needed here, and there is no file to keep it in",
            where="token_file",
            remedy="give --data FILE (the tokens are kept beside it) or a token file",
        )


def _bare_host(authority: str) -> str:
    """A Host without its port, in small letters."""
    if authority.startswith("["):
        inside, _, _ = authority.partition("]")
        return f"{inside}]".lower()
    return authority.partition(":")[0].rstrip(".").lower()


@value
class Gate:
    """
    The one place that decides about requests: by host, origin, token and policy.

    Args:
        policy: Who may use which route.
        tokens: Known tokens; None when callers need none.
        hosts: Values of Host (without port) that are answered; None for any.
        origins: Hosts (without port) whose Origin passes too, when no browser sent it: programs that call themselves so.
    """

    policy: Policy
    tokens: TokenBook | TokenFile | None
    hosts: frozenset[str] | None
    origins: frozenset[str] = frozenset()

    def at_own_port(self, policy: Policy, hosts: frozenset[str]) -> Gate:
        """The same at a dialect's own port, whose clients call it by these names too, and themselves."""
        hosts = frozenset(
            map(str.lower, hosts)
        )  # as they are compared: a name may be written ``codeGen``
        known = None if self.hosts is None else self.hosts | hosts
        return attrs.evolve(self, policy=policy, hosts=known, origins=hosts)

    def authorise(
        self, scope_type: str, route: str, headers: Mapping[str, str], client: str
    ) -> Principal:
        """As `Authoriser.authorise`."""
        row = self.policy.row(scope_type, route)
        if row is None:
            LOG.debug("%s may not use %s: it has no row", client, route)
            raise Forbidden(f"no rule allows {route!r}", where=route)
        try:
            return self.decide(row, headers)
        except (Forbidden, Unauthenticated) as error:
            LOG.debug("%s may not use %s: %s", client, route, error.message)
            raise

    def decide(self, row: Row, headers: Mapping[str, str]) -> Principal:
        """Decide on one request that falls under a row. Raises as `authorise` does."""
        self.check_source(row.method, headers)
        if Role.ANYONE in row.opens:
            return LOCAL if self.tokens is None else attrs.evolve(NOBODY, tokens=self.tokens)
        principal = self.identify(headers)
        _check_role(row, principal)
        return principal

    def permit(self, principal: Principal, scope_type: str, route: str) -> None:
        """
        Decide on one message of a websocket, whose caller was identified when it opened.

        Raises:
            Forbidden: The caller's role does not open the route, or the route has no row.
        """
        row = self.policy.row(scope_type, route)
        if row is None:
            raise Forbidden(f"no rule allows {route!r}", where=route)
        _check_role(row, principal)

    def check_source(self, method: str, headers: Mapping[str, str]) -> None:
        """
        Refuse what a web page of another origin makes a browser send.

        Raises:
            Forbidden: The Host is not one of ours, or the Origin is another's.
        """
        host = headers.get("host", "")
        if self.hosts is not None and _bare_host(host) not in self.hosts:
            raise Forbidden(
                "this server is not called so",
                where="Host",
                remedy="use its address, or name it in allowed_hosts",
            )
        origin = headers.get("origin")
        if origin is not None:
            scheme, separator, authority = origin.partition("://")
            of_program = _bare_host(authority) in self.origins and "sec-fetch-site" not in headers
            known = authority == host or of_program
            if not separator or scheme not in ("http", "https") or not known:
                raise Forbidden("a page of another origin may not ask this", where="Origin")
        site = headers.get("sec-fetch-site", "none")
        follows_link = headers.get("sec-fetch-mode") == "navigate" and method in ("GET", "HEAD")
        if site not in ("none", "same-origin") and not follows_link:
            raise Forbidden("a page of another site may not ask this", where="Sec-Fetch-Site")

    def identify(self, headers: Mapping[str, str]) -> Principal:
        """
        Who holds the token that came with a request.

        Raises:
            Unauthenticated: None came, or none that is known.
        """
        if self.tokens is None:
            return LOCAL
        scheme, _, presented = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not presented:
            raise Unauthenticated(
                "a token is needed",
                where="Authorization",
                remedy="send 'Authorization: Bearer otk_...'; the server's token file has it",
            )
        token = self.tokens.find(presented.strip(" "))
        if token is None:
            raise Unauthenticated("this token is not known", where="Authorization")
        return Principal(token.name, token.role, token, self.tokens)


def _check_role(row: Row, principal: Principal) -> None:
    if principal.role not in row.opens:
        told = f"a {principal.role.value}'s token does not open {row.route!r}"
        raise Forbidden(told, where=row.route)


def open_gate(config: Config, policy: Policy) -> Gate:
    """
    The gate of a server with this configuration. Makes the token file when one is needed and there is none.

    Raises:
        Malformed: The configuration would leave the server open, or the token file is unfit.
    """
    check_exposure(config)
    tokens = open_tokens(config.token_path) if token_needed(config) else None
    names = {host if not _is_ipv6(host) else f"[{host}]" for host in config.allowed_hosts}
    own = {_bare_host(str(address)) for address in config.addresses}
    local = all(address.loopback for address in config.addresses)
    # Elsewhere a token is always needed, which no foreign page has: names are a further bound there, not the only one.
    return Gate(policy, tokens, LOCAL_HOSTS | names | own if local or names else None)


def _is_ipv6(host: str) -> bool:
    return ":" in host and not host.startswith("[")
