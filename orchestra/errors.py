"""
Every error that orchestra raises on purpose.

::

    OrchestraError
    ├─ Rejected            understood, refused, nothing changed
    │   ├─ Malformed           a field has a value it can not have
    │   ├─ Unauthenticated     no valid credential came with the request
    │   ├─ Forbidden           the credential does not allow this
    │   ├─ NotFound            no such thing (or not yours: the answer is the same)
    │   ├─ Conflict            the thing is not in a state that allows this
    │   └─ LimitReached        a bound is reached; ``retry_after_ms`` says when to try again
    ├─ Unavailable         not done, or unknown whether done: retry with the same key
    │   ├─ StoreFailed         the store did not confirm a commit
    │   ├─ StoreTaken          another orchestrator writes to this store
    │   ├─ EngineFailed        the place that runs work did not answer
    │   └─ PeerClosed          the connection ended before the answer
    ├─ ProtocolViolation   the peer broke the rules of the wire; ``answer`` is what to send back
    └─ Defect              a bug of ours; carries the story; never caught below the command line

HTTP codes are absent here on purpose: each dialect's ``refuse`` owns them.
"""

from __future__ import annotations


class OrchestraError(Exception):
    """The root: ``except OrchestraError`` catches everything that orchestra raises on purpose."""


class Rejected(OrchestraError):
    """
    The request was understood and refused; nothing changed.

    Args:
        message: What is wrong, in one sentence.
        where: The field or thing it is about, such as ``stages[0].needs.cpu``; empty when it is about the whole.
        remedy: What to do about it, in one sentence; empty when there is nothing to add.
    """

    code = "rejected"

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.remedy:
            parts.append(self.remedy)
        return " - ".join(parts)


class Malformed(Rejected):
    """A field has a value that it can not have; ``where`` names the field."""

    code = "malformed"


class Unauthenticated(Rejected):
    """No valid credential came with the request."""

    code = "unauthenticated"


class Forbidden(Rejected):
    """The credential is valid and does not allow this."""

    code = "forbidden"


class NotFound(Rejected):
    """There is no such thing, or it is not yours: the answer is the same for both."""

    code = "not-found"


class Conflict(Rejected):
    """The thing exists and is not in a state that allows this."""

    code = "conflict"


class LimitReached(Rejected):
    """A bound is reached. ``retry_after_ms`` is how long to wait before the next try, in milliseconds."""

    code = "limit-reached"

    def __init__(
        self, message: str, *, where: str = "", remedy: str = "", retry_after_ms: int = 1_000
    ) -> None:
        super().__init__(message, where=where, remedy=remedy)
        self.retry_after_ms = retry_after_ms


class Unavailable(OrchestraError):
    """Not done, or unknown whether done. Retry with the same idempotency key."""

    code = "unavailable"


class StoreFailed(Unavailable):
    """
    The store did not confirm a commit, so the outcome is unknown.

    Args:
        message: What the medium said.
        full: The medium is full; service goes on by itself when there is space again.
    """

    code = "store-failed"

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class StoreTaken(Unavailable):
    """Another orchestrator writes to this store; this one has been fenced out and must stop."""

    code = "store-taken"


class EngineFailed(Unavailable):
    """The place that runs work did not answer."""

    code = "engine-failed"


class PeerClosed(Unavailable):
    """The connection ended before the answer came."""

    code = "peer-closed"


class ProtocolViolation(OrchestraError):
    """The peer broke the rules of the wire. ``answer`` is the frame or body to send back before closing."""

    def __init__(self, message: str, *, answer: bytes = b"") -> None:
        super().__init__(message)
        self.answer = answer


class Defect(OrchestraError):
    """A bug of ours: an edge that is not in the table, a missing handler, a broken invariant."""

    def __init__(self, message: str, *, story: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.story = story


def shortage(error: BaseException) -> Unavailable | None:
    """
    What is told when there was no memory, or no thread, for what was asked; None when the error is another.

    It passes, so it is no bug: asked again with the same key, the thing is done once.
    """
    # Python has no class of its own for a thread that the system refuses.
    no_thread = isinstance(error, RuntimeError) and "start new thread" in str(error)
    if no_thread or isinstance(error, MemoryError):
        return Unavailable("memory is short just now")
    return None


def ensure(condition: object, message: str) -> None:
    """Raise `Defect` unless ``condition`` holds. Unlike ``assert`` it stays on under ``python -O``."""
    if not condition:
        raise Defect(message)
