"""What a transport refuses before a dialect has seen it. A dialect may tell them apart, or answer as for their parents."""

from __future__ import annotations

from orchestra.errors import LimitReached, Malformed, NotFound, Rejected


class RouteUnknown(NotFound):
    """No route of the dialect has this path."""


class MethodRefused(Rejected):
    """The path exists, the method does not. ``allow`` are the methods that do."""

    code = "method-refused"

    def __init__(self, message: str, *, allow: tuple[str, ...]) -> None:
        super().__init__(message, where="method", remedy=f"use {' or '.join(allow)}")
        self.allow = allow


class MediaTypeRefused(Malformed):
    """The body is of a kind that this route does not read."""

    code = "media-type-refused"


class BodyTooLong(LimitReached):
    """The body, or one message, is longer than this route reads. Trying again does not help."""

    code = "body-too-long"


class BodyTooSlow(LimitReached):
    """The body came more slowly than a sender that is alive sends."""

    code = "body-too-slow"
