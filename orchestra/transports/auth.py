"""
Who is calling: tokens, the file that keeps them, and the outermost wrapper that lets nobody else in.

A token is 256 random bits and comes in the ``Authorization`` header only, never in an address, where logs and browser histories would
keep it. The token file is JSON with mode 0600: it holds the SHA-256 of each token, and under ``plain`` the first operator's and
workers' tokens, so that commands on the same machine find them. ``plain`` may be deleted once they are written down.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import attrs

from orchestra.config import Address, Config
from orchestra.dialects.wire import Role
from orchestra.errors import Forbidden, Malformed, Unauthenticated
from orchestra.transports.policy import Policy, Row

TOKEN_PREFIX = "otk_"  # noqa: S105 - what every token begins with is no secret
DIGEST_CHARS = 64
TOKEN_FILE_BYTES_MAX = 1_048_576
"""Some thousand tokens; a longer file is not one of ours."""

LOG = logging.getLogger("orchestra.transports.auth")

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Names that a browser page elsewhere can not make point here (DNS rebinding needs a name of its own)."""


class Secret:
    """A text that does not show itself: neither printed, nor formatted, nor pickled. `reveal` gives it out."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a secret is not pickled")


@attrs.frozen(slots=True)
class Principal:
    """Who asks: the token's name (``local`` without one) and its role."""

    name: str
    role: Role


LOCAL = Principal("local", Role.OPERATOR)
NOBODY = Principal("nobody", Role.ANYONE)


@attrs.frozen(slots=True)
class Token:
    """A token as it is kept: what it is called, what it opens, and the SHA-256 of its text in hexadecimal."""

    name: str
    role: Role
    sha256: str


def draw_token() -> Secret:
    """A new token: ``otk_`` and 256 random bits."""
    return Secret(TOKEN_PREFIX + secrets.token_urlsafe(32))


def digest(token: Secret) -> str:
    """What is kept of a token. Its 256 bits are random, so a slow hash would add nothing."""
    return hashlib.sha256(token.reveal().encode()).hexdigest()


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


@attrs.frozen(slots=True)
class TokenBook:
    """The tokens that are known."""

    tokens: tuple[Token, ...]

    def find(self, presented: str) -> Token | None:
        """The token with this text. Takes as long for a wrong one as for a right one."""
        told = digest(Secret(presented))
        found: Token | None = None
        for token in self.tokens:
            if hmac.compare_digest(token.sha256, told):
                found = token
        return found


def _parse_tokens(text: bytes, path: str) -> tuple[TokenBook, dict[Role, Secret]]:
    try:
        document = json.loads(text)
        kept = cast("list[dict[str, str]]", document["tokens"])
        tokens = tuple(Token(str(t["name"]), Role(t["role"]), str(t["sha256"])) for t in kept)
        plain = cast("dict[str, str]", document.get("plain", {}))
        spoken = {Role(role): Secret(str(token)) for role, token in plain.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Malformed(
            "is not a token file",
            where=f"token_file {path}",
            remedy="restore it, or move it away and start again to have new tokens made",
        ) from None
    for token in tokens:
        if len(token.sha256) != DIGEST_CHARS or token.role is Role.ANYONE:
            raise Malformed(f"token {token.name!r} is damaged", where=f"token_file {path}")
    return TokenBook(tokens), spoken


def _read_private(path: str) -> bytes:
    """Read a file that only its owner may read; a link in its place is not followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Malformed(f"can not be read: {error.strerror}", where=f"token_file {path}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Malformed("is not a regular file", where=f"token_file {path}")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise Malformed(
                "others can read or write this token file",
                where=f"token_file {path}",
                remedy=f"chmod 600 {path}, and replace the tokens if others were on this machine",
            )
        if status.st_uid not in (os.geteuid(), 0):
            raise Malformed("belongs to another user", where=f"token_file {path}")
        return file.read(TOKEN_FILE_BYTES_MAX)


def read_tokens(path: str) -> TokenBook:
    """
    Read the token file of a server.

    Raises:
        FileNotFoundError: There is none.
        Malformed: It is damaged, or others can read it.
    """
    return _parse_tokens(_read_private(path), path)[0]


def read_plain_tokens(path: str) -> Mapping[Role, Secret]:
    """The tokens in plain text, by role, for commands on the server's machine. Raises as `read_tokens` does."""
    return _parse_tokens(_read_private(path), path)[1]


def write_tokens(path: str, tokens: Iterable[Token], plain: Mapping[Role, Secret]) -> None:
    """
    Make a token file, readable by its owner only. Durable on return.

    Raises:
        FileExistsError: There is one already; it was not touched.
    """
    document = {
        "tokens": [{"name": t.name, "role": t.role.value, "sha256": t.sha256} for t in tokens],
        "plain": {role.value: token.reveal() for role, token in plain.items()},
    }
    draft = f"{path}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        # A link is made whole or not at all and never over another file: no reader sees half a file.
        os.link(draft, path)
    finally:
        Path(draft).unlink(missing_ok=True)
    folder = os.open(Path(path).absolute().parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def open_tokens(path: str) -> TokenBook:
    """
    Read the token file, and make it first when there is none: one operator's token and one for workers.

    Raises:
        Malformed: It is damaged, others can read it, or it can not be made.
    """
    with contextlib.suppress(FileNotFoundError):
        return read_tokens(path)
    plain = {Role.OPERATOR: draw_token(), Role.WORKER: draw_token()}
    tokens = [Token(role.value, role, digest(token)) for role, token in plain.items()]
    try:
        # Another process that starts at the same time may be first: then its file counts.
        with contextlib.suppress(FileExistsError):
            write_tokens(path, tokens, plain)
    except OSError as error:
        raise Malformed(f"can not be made: {error.strerror}", where=f"token_file {path}") from None
    return read_tokens(path)


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


@attrs.frozen(slots=True)
class Gate:
    """
    The one place that decides about requests: by host, origin, token and policy.

    Args:
        policy: Who may use which route.
        tokens: Known tokens; None when callers need none.
        hosts: Values of Host (without port) that are answered; None for any.
    """

    policy: Policy
    tokens: TokenBook | None
    hosts: frozenset[str] | None

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
            return NOBODY if self.tokens is not None else LOCAL
        principal = self.identify(headers)
        if principal.role not in row.opens:
            raise Forbidden(
                f"a {principal.role.value}'s token does not open {row.route!r}", where=row.route
            )
        return principal

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
            if not separator or scheme not in ("http", "https") or authority != host:
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
        return Principal(token.name, token.role)


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
