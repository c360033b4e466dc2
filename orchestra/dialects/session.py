"""
The two sides of a message channel without its socket: frames in, actions out.

A transport feeds what arrives to a `Session` and carries out the actions that come back, in order. Nothing here waits, so a
session is tested byte by byte without a loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestra.dialects.asks import Ask, Watching
from orchestra.errors import OrchestraError
from orchestra.ports import Push
from orchestra.statemachine.values import value

NORMAL_CLOSURE = 1000
PROTOCOL_ERROR = 1002
UNSUPPORTED_KIND = 1003
MESSAGE_TOO_BIG = 1009
TRY_AGAIN_LATER = 1013
"""Close codes of RFC 6455 section 7.4.1 and its registry."""


@value
class SendFrame:
    """Send one text message."""

    text: str


@value
class Put:
    """Put something to the orchestrator; tell the session by `Session.answered` or `Session.refused` with the same ``tag``."""

    tag: int
    method: str
    route: str
    ask: Ask


@value
class Subscribe:
    """Open a watch: `Session.watching` when it stands, `Session.pushed` for each push, `Session.ended` when it ends by itself."""

    tag: int
    method: str
    route: str
    watch: Watching


@value
class Unsubscribe:
    """Close the watch with this tag; `Session.ended` follows."""

    tag: int


@value
class Close:
    """Close the connection with this code. What was to be sent before goes out first."""

    code: int
    reason: str


Action = SendFrame | Put | Subscribe | Unsubscribe | Close


class Session(Protocol):
    """
    The server's side of one connection.

    ``method`` and ``route`` in `Put` and `Subscribe` name a row of the policy table: the transport asks it before it acts.
    """

    def received(self, frame: str | bytes) -> Sequence[Action]:
        """A whole message came: text as ``str``, binary as ``bytes``. Never raises."""
        ...

    def answered(self, tag: int, answer: object) -> Sequence[Action]:
        """What was put is answered."""
        ...

    def refused(self, tag: int, error: OrchestraError) -> Sequence[Action]:
        """What was put, or a watch, is refused."""
        ...

    def watching(self, tag: int) -> Sequence[Action]:
        """A watch stands."""
        ...

    def pushed(self, tag: int, push: Push) -> Sequence[Action]:
        """A watch has something to tell."""
        ...

    def ended(self, tag: int) -> Sequence[Action]:
        """A watch is over."""
        ...
