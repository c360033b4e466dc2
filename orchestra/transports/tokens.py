"""
Tokens, and the file that keeps them.

A token is 256 random bits. The token file is JSON with mode 0600: it holds the SHA-256 of each token, and under ``plain`` the first
operator's and workers' tokens, so that commands on the same machine find them. ``plain`` may be deleted once they are written down.

A worker's token may be bound to the name of one worker: it acts as that one alone, and no token but those that are bound to the name does.
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
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import attrs

from orchestra.dialects.wire import Role
from orchestra.errors import Malformed
from orchestra.statemachine.bounds import check_name
from orchestra.statemachine.values import value

TOKEN_PREFIX = "otk_"  # noqa: S105 - what every token begins with is no secret
DIGEST_CHARS = 64
TOKEN_FILE_BYTES_MAX = 1_048_576
"""Some thousand tokens; a longer file is not one of ours."""


LOG = logging.getLogger("orchestra.transports.tokens")


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


@value
class Token:
    """
    A token as it is kept: what it is called, what it opens, and the SHA-256 of its text in hexadecimal.

    ``worker`` is the name of the one worker that it is bound to; empty for any that no token is bound to.
    """

    name: str
    role: Role
    sha256: str
    worker: str = ""


def draw_token() -> Secret:
    """A new token: ``otk_`` and 256 random bits."""
    return Secret(TOKEN_PREFIX + secrets.token_urlsafe(32))


def digest(token: Secret) -> str:
    """What is kept of a token. Its 256 bits are random, so a slow hash would add nothing."""
    return hashlib.sha256(token.reveal().encode()).hexdigest()


def _set_of(book: TokenBook) -> frozenset[Token]:
    return frozenset(book.tokens)


def _workers_of(book: TokenBook) -> frozenset[str]:
    return frozenset(token.worker for token in book.tokens if token.worker)


@value
class TokenBook:
    """The tokens that are known."""

    tokens: tuple[Token, ...]
    _known: frozenset[Token] = attrs.field(
        init=False, eq=False, repr=False, default=attrs.Factory(_set_of, takes_self=True)
    )
    _bound: frozenset[str] = attrs.field(
        init=False, eq=False, repr=False, default=attrs.Factory(_workers_of, takes_self=True)
    )

    def find(self, presented: str) -> Token | None:
        """The token with this text. Takes as long for a wrong one as for a right one."""
        told = digest(Secret(presented))
        found: Token | None = None
        for token in self.tokens:
            if hmac.compare_digest(token.sha256, told):
                found = token
        return found

    def knows(self, token: Token) -> bool:
        """Whether it is one of them, with the same name, role and worker."""
        return token in self._known

    def binds(self, worker: str) -> bool:
        """Whether some token is bound to the worker of this name, so that no other acts as it."""
        return worker in self._bound


@value
class Kept:
    """What a token file holds; ``document`` is all of it, as JSON has it."""

    book: TokenBook
    plain: Mapping[Role, Secret]
    document: dict[str, Any]


def _parse_tokens(text: bytes, path: str) -> Kept:
    try:
        document = cast("dict[str, Any]", json.loads(text))
        kept = cast("list[dict[str, object]]", document["tokens"])
        tokens = tuple(_parse_token(each, path) for each in kept)
        plain = cast("dict[str, str]", document.get("plain", {}))
        spoken = {Role(role): Secret(str(token)) for role, token in plain.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Malformed(
            "is not a token file",
            where=f"token_file {path}",
            remedy="restore it, or move it away and start again to have new tokens made",
        ) from None
    for token in tokens:
        if len(token.sha256) != DIGEST_CHARS or token.role is Role.ANYONE:
            raise Malformed(f"token {token.name!r} is damaged", where=f"token_file {path}")
    return Kept(TokenBook(tokens), spoken, document)


def _parse_token(entry: Mapping[str, object], path: str) -> Token:
    """One entry. Raises `Malformed` for a worker's name that binds nothing, and what a damaged file raises."""
    token = Token(str(entry["name"]), Role(str(entry["role"])), str(entry["sha256"]))
    # What is there and binds nothing would leave the name to everybody, unnoticed: an empty one too.
    if "worker" not in entry:
        return token
    worker, where = entry["worker"], f"token_file {path}, worker of token {token.name!r}"
    if not isinstance(worker, str):
        raise Malformed("it is no text", where=where, remedy="the name of a worker in quotes")
    check_binding(token.role, worker, where)
    return attrs.evolve(token, worker=worker)


def check_binding(role: Role, worker: str, where: str) -> None:
    """Raises `Malformed` unless a token of this role may be bound to a worker of this name."""
    if role is not Role.WORKER:
        remedy = "leave the worker out, or give it the role worker"
        raise Malformed(f"no {role.value}'s token is for one worker", where=where, remedy=remedy)
    check_name(worker, where)


def _read_private(path: str) -> bytes:
    """Read a file that only its owner may read; a link in its place is not followed."""
    # Without blocking: a pipe in its place would hold up the start for ever.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Malformed(f"can not be read: {error.strerror}", where=f"token_file {path}") from None
    try:
        _check_private(os.fstat(descriptor), path)
        return os.read(descriptor, TOKEN_FILE_BYTES_MAX)
    finally:
        os.close(descriptor)


def _check_private(status: os.stat_result, path: str) -> None:
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


def read_tokens(path: str) -> TokenBook:
    """
    Read the token file of a server.

    Raises:
        FileNotFoundError: There is none.
        Malformed: It is damaged, or others can read it.
    """
    return read_kept(path).book


def read_kept(path: str) -> Kept:
    """All that a token file holds. Raises as `read_tokens` does."""
    return _parse_tokens(_read_private(path), path)


def read_plain_tokens(path: str) -> Mapping[Role, Secret]:
    """The tokens in plain text, by role, for commands on the server's machine. Raises as `read_tokens` does."""
    return read_kept(path).plain


def write_tokens(path: str, tokens: Iterable[Token], plain: Mapping[Role, Secret]) -> None:
    """
    Make a token file, readable by its owner only. Durable on return.

    Raises:
        FileExistsError: There is one already; it was not touched.
    """
    document = {
        "tokens": [entry_of(token) for token in tokens],
        "plain": {role.value: token.reveal() for role, token in plain.items()},
    }
    # A link is made whole or not at all and never over another file: no reader sees half a file.
    put_document(path, document, os.link)


def entry_of(token: Token) -> dict[str, str]:
    """A token as the file has it."""
    entry = {"name": token.name, "role": token.role.value, "sha256": token.sha256}
    return {**entry, "worker": token.worker} if token.worker else entry


def put_document(
    path: str, document: Mapping[str, object], place: Callable[[str, str], None]
) -> None:
    """
    Write a file that only its owner can read, beside its place, and have ``place(draft, path)`` put it there. Durable on return.

    Raises:
        OSError: It can not be written or put there; what was there is as it was.
    """
    draft = f"{path}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        place(draft, path)
    finally:
        Path(draft).unlink(missing_ok=True)
    folder = os.open(Path(path).absolute().parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class TokenFile:
    """
    The tokens of a file as they are now: a token that is taken out of it opens nothing from the next request on.

    Each look costs one `os.stat`. While the file is missing, damaged or readable by others, no token is known: better nobody than
    somebody whose token was to be revoked.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        # Looked at before it is read: what changes in between is seen at the next look.
        self._seen = _stamp(path)
        self._book = read_tokens(path)

    def find(self, presented: str) -> Token | None:
        """As `TokenBook.find`, in the file as it is now."""
        return self._now().find(presented)

    def knows(self, token: Token) -> bool:
        """As `TokenBook.knows`, in the file as it is now."""
        return self._now().knows(token)

    def binds(self, worker: str) -> bool:
        """As `TokenBook.binds`, in the file as it is now."""
        return self._now().binds(worker)

    def _now(self) -> TokenBook:
        stamp = _stamp(self._path)
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._book = read_tokens(self._path)
            except (FileNotFoundError, Malformed) as error:
                LOG.warning("%s: no token is known until it is restored: %s", self._path, error)
                self._book = TokenBook(())
        return self._book


def _stamp(path: str) -> tuple[int, ...]:
    """What changes whenever a file's content, mode or owner does; empty without a file."""
    try:
        status = Path(path).lstat()
    except OSError:
        return ()
    return (
        status.st_ino,
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def open_tokens(path: str) -> TokenFile:
    """
    Read the token file, and make it first when there is none: one operator's token and one for workers.

    Raises:
        Malformed: It is damaged, others can read it, or it can not be made.
    """
    with contextlib.suppress(FileNotFoundError):
        return TokenFile(path)
    plain = {Role.OPERATOR: draw_token(), Role.WORKER: draw_token()}
    tokens = [Token(role.value, role, digest(token)) for role, token in plain.items()]
    try:
        # Another process that starts at the same time may be first: then its file counts.
        with contextlib.suppress(FileExistsError):
            write_tokens(path, tokens, plain)
    except OSError as error:
        raise Malformed(f"can not be made: {error.strerror}", where=f"token_file {path}") from None
    return TokenFile(path)
