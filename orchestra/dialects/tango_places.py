"""Member containers as the Project Manager knows them: where they are, how they are asked, and how long for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from orchestra.dialects.tango_secrets import SECRET_HEADER
from orchestra.dialects.tango_words import container_name
from orchestra.statemachine.values import value

APP = "member"
"""The app of a stage that runs in a member container."""


@value
class Place:
    """
    A member container.

    Args:
        container_id: By which stages and reports name it.
        host: Its address or name.
        aliases: Further ids under which it is named.
        slots: How many users' projects it works for at the same time. Most of TANGO's programs know one.
        heartbeat_ms: The pause between two questions how a run is.
        call_ms: How long a call may take in all. The guide's Project Manager waits 5 s.
        silent_ms: A run whose container has not answered for so long has failed. Where nobody listens any more it takes three heartbeats.
        confused_ms: A run has failed when for so long no answer was one of the guide's words.
        resumes: How often a failed run is asked to go on with ``/resume``, which the trainer of 2024 knows.
        restarts: How often a failed run is started anew.
        limit_ms: How long a run may take; None for any time.
        output: A path on the manager's machine that is there when a run was good, with ``{user_id}`` and ``{project_id}``.
        secret: Sent with each call, and asked of each report; empty for none.
    """

    container_id: str
    host: str
    port: int
    aliases: tuple[str, ...] = ()
    slots: int = 1
    heartbeat_ms: int = 2_000
    call_ms: int = 5_000
    silent_ms: int = 30_000
    confused_ms: int = 60_000
    resumes: int = 0
    restarts: int = 0
    limit_ms: int | None = None
    output: str = ""
    secret: str = attrs.field(default="", repr=False)

    @property
    def label(self) -> str:
        """What stages ask for that run there."""
        return f"{APP}:{self.container_id}"

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What is sent with each call, beside the usual."""
        secret = ((SECRET_HEADER, self.secret),) if self.secret else ()
        return (("content-type", "text/plain"), *secret)

    @property
    def shown(self) -> str:
        """For people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.container_id} at {host}:{self.port}"


def by_any_name(places: Iterable[Place]) -> Mapping[str, Place]:
    """Places by their ids and aliases. A container's own id counts before another's alias."""
    found: dict[str, Place] = {}
    own = list(places)
    for place in own:
        for alias in place.aliases:
            found.setdefault(alias, place)
    found.update((place.container_id, place) for place in own)
    return found


def find_place(places: Mapping[str, Place], container_id: str) -> Place | None:
    """The place that is meant by an id, also by one that TANGO's own programs are known to report instead of theirs."""
    return places.get(container_id) or places.get(container_name(container_id))
