"""
Who may use an API that is mounted inside another application.

The host application decides where it listens, so this gate can not know who reaches it. It asks for a token, or answers only
callers on this machine that come directly: a proxy's headers, another name in ``Host`` or a page's ``Origin`` are refused. A proxy on this
machine that names itself in no header can not be told from a caller here: behind any proxy the API needs a token.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from orchestra.dialects.wire import Role
from orchestra.errors import Forbidden
from orchestra.transports.auth import LOCAL_HOSTS, Gate, Principal
from orchestra.transports.policy import Policy
from orchestra.transports.tokens import Secret, Token, TokenBook, digest

_PROXIED = frozenset(
    {"cf-connecting-ip", "forwarded", "true-client-ip", "via", "x-client-ip", "x-real-ip"}
    | {"x-original-forwarded-for", "x-envoy-external-address", "x-cluster-client-ip"}
)
_PROXIED_PREFIX = "x-forwarded-"
"""RFC 7239, RFC 9110 (section 7.6.3), and what proxies and content networks have put there before and since."""

_REMEDY = "mount it with app.asgi(token=...)"


class NearGate:
    """
    See the module.

    Args:
        gate: Decides about host, origin, token and policy.
        near: Answer callers on this machine only.
    """

    def __init__(self, gate: Gate, *, near: bool) -> None:
        self._gate = gate
        self._near = near

    def authorise(
        self, scope_type: str, route: str, headers: Mapping[str, str], client: str
    ) -> Principal:
        """As `auth.Authoriser.authorise`."""
        if not self._near:
            return self._gate.authorise(scope_type, route, headers, client)
        for name in headers:
            if name in _PROXIED or name.startswith(_PROXIED_PREFIX):
                told = "it came through a proxy, and this API has no token"
                raise Forbidden(told, where=name[:200], remedy=_REMEDY)
        if not _is_loopback(client):
            raise Forbidden("only this machine is answered", where="client", remedy=_REMEDY)
        try:
            return self._gate.authorise(scope_type, route, headers, client)
        except Forbidden as error:
            # The gate speaks of settings that only a server of our own has.
            remedy = error.remedy and _REMEDY
            raise Forbidden(error.message, where=error.where, remedy=remedy) from None


def near_gate(policy: Policy, token: str) -> NearGate:
    """The gate of a mounted API: with a token, or for this machine only."""
    if not token:
        return NearGate(Gate(policy, None, LOCAL_HOSTS), near=True)
    known = Token("operator", Role.OPERATOR, digest(Secret(token)))
    return NearGate(Gate(policy, TokenBook((known,)), None), near=False)


def _is_loopback(client: str) -> bool:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
