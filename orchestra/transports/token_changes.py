"""
Tokens put into a server's file and taken out of it, while the server reads it.

The file is replaced as a whole, so that nobody reads half of one; what else stands in it stays. Those who change it at the same time take
turns, so that no change is lost.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from orchestra.dialects.quoting import nearest
from orchestra.dialects.wire import Role
from orchestra.errors import Conflict, LimitReached, Malformed, NotFound
from orchestra.statemachine.bounds import check_name
from orchestra.transports.tokens import (
    TOKEN_FILE_BYTES_MAX,
    Kept,
    Secret,
    Token,
    check_binding,
    digest,
    draw_token,
    entry_of,
    put_document,
    read_kept,
)

TURNS_MAX = 1_000
"""So often somebody else may have replaced the file just before it was ours: he who is so unlucky is told."""

KEEPER = "orchestra token add NAME --role operator"


def add_token(path: str, name: str, role: Role, worker: str = "") -> Secret:
    """
    Put a new token into the file, for ``worker`` alone when that is not empty, and give its text, which is kept nowhere. Durable on return.

    Raises:
        Conflict: There is one of this name.
        FileNotFoundError: There is no file.
        Malformed: The name, the worker or the file is unfit.
        LimitReached: The file has become too long.
    """
    check_name(name, "NAME")
    if worker:
        check_binding(role, worker, "--worker")
    with _turn(path):
        kept = read_kept(path)
        if any(token.name == name for token in kept.book.tokens):
            remedy = f"choose another name, or take it out first: orchestra token rm {name}"
            raise Conflict(f"there is a token {name!r} already", where="NAME", remedy=remedy)
        secret = draw_token()
        fresh = entry_of(Token(name, role, digest(secret), worker))
        _replace(path, {**kept.document, "tokens": [*kept.document["tokens"], fresh]})
        return secret


def remove_token(path: str, name: str, *, force: bool = False) -> tuple[Token, ...]:
    """
    Take every token of this name out of the file, and out of those in plain text; the ones that were taken out. Durable on return.

    Raises:
        Conflict: No operator's token would be left; with ``force`` it is done all the same.
        FileNotFoundError: There is no file.
        Malformed: The file is unfit.
        NotFound: There is none of this name.
    """
    with _turn(path):
        kept = read_kept(path)
        gone = tuple(token for token in kept.book.tokens if token.name == name)
        left = [token for token in kept.book.tokens if token.name != name]
        if not gone:
            near = nearest(name, [token.name for token in left])
            remedy = f"did you mean {near}?" if near else "orchestra token ls"
            raise NotFound(f"there is no token {name!r}", where="NAME", remedy=remedy)
        operators = any(token.role is Role.OPERATOR for token in left)
        if not operators and not force and any(token.role is Role.OPERATOR for token in gone):
            told = f"{name!r} is the last operator's token: nobody could do anything any more"
            remedy = f"add another first ({KEEPER}), or give --force"
            raise Conflict(told, where="NAME", remedy=remedy)
        _replace(path, _without(kept, name, gone))
        return gone


def _without(kept: Kept, name: str, gone: tuple[Token, ...]) -> dict[str, Any]:
    entries = cast("list[dict[str, object]]", kept.document["tokens"])
    digests = {token.sha256 for token in gone}
    revoked = {role.value for role, secret in kept.plain.items() if digest(secret) in digests}
    plain = cast("dict[str, str]", kept.document.get("plain", {}))
    changed: dict[str, object] = {
        "tokens": [entry for entry in entries if str(entry["name"]) != name]
    }
    if revoked:
        changed["plain"] = {role: text for role, text in plain.items() if role not in revoked}
    return {**kept.document, **changed}


def _replace(path: str, document: Mapping[str, object]) -> None:
    if len(json.dumps(document, indent=1)) > TOKEN_FILE_BYTES_MAX:
        told = f"it would have more than {TOKEN_FILE_BYTES_MAX} bytes"
        raise LimitReached(told, where=f"token_file {path}", remedy="take tokens out of it")
    try:
        put_document(path, document, os.replace)
    except OSError as error:
        told = f"can not be changed: {error.strerror}"
        raise Malformed(told, where=f"token_file {path}") from None


@contextmanager
def _turn(path: str) -> Generator[None]:
    """Nobody else changes the file meanwhile. Who waited has a lock on a file that was replaced, and waits for its successor."""
    for _ in range(TURNS_MAX):
        # As a server does, it is looked at first: a link is not followed, and a pipe is not waited for.
        read_kept(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(descriptor, path):
                yield
                return
        finally:
            os.close(descriptor)
    raise Conflict("others change it all the time", where=f"token_file {path}", remedy="try again")


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), Path(path).lstat())
    except FileNotFoundError:
        return False
