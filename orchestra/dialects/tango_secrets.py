"""
Who may change something by a GET, which any web page can make a browser send: no page of another site, and where a secret was agreed upon
with a container, only who sends it. Pure.
"""

from __future__ import annotations

import hmac

from orchestra.dialects.wire import WireRequest
from orchestra.errors import Forbidden, Malformed

SECRET_HEADER = "x-tango-secret"  # noqa: S105 - the name of a header
"""Carries a container's secret, in calls to it and in its reports. A header, since addresses are kept in logs and histories."""

SECRET_CHARS_MIN = 16


def read_secret(found: object, where: str) -> str:
    """A secret out of a configuration. Raises `Malformed`."""
    fits = isinstance(found, str) and found.isascii() and found.isprintable() and " " not in found
    if not fits or not isinstance(found, str) or len(found) < SECRET_CHARS_MIN:
        told = f"it has {SECRET_CHARS_MIN} visible ASCII characters at least"
        raise Malformed(told, where=where, remedy="openssl rand -hex 16")
    return found


def check_asker(request: WireRequest) -> None:
    """What comes from another site's page is refused, also when a link is followed. Raises `Forbidden`."""
    if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise Forbidden("a page of another site may not ask this", where="Sec-Fetch-Site")


def check_secret(request: WireRequest, secret: str) -> None:
    """Where there is a secret it has to come with the request. Raises `Forbidden`."""
    presented = request.headers.get(SECRET_HEADER, "")
    if secret and not hmac.compare_digest(presented.encode(), secret.encode()):
        raise Forbidden("the container's secret is not that", where=SECRET_HEADER)
