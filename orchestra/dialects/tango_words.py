"""
The words of the TANGO REST guide, and what they mean here. Pure.

Source: the guide's classes, replies and container diagram, and what its programs were seen to send: replies in quotes, 204 for a task
that was never started, 208 for one that is over, and container ids that differ from the guide's.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from urllib.parse import quote

from orchestra.dialects.wire import WireRequest
from orchestra.errors import Malformed, NotFound
from orchestra.statemachine.lifecycles import AttemptStatus
from orchestra.statemachine.reports import Happening

BODY_CHARS_MAX = 50
"""A longer reply is not a word: the Project Manager too takes it for an error."""

ID_CHARS_MAX = 200
"""Longer than any id that the programs make."""


class Verb(StrEnum):
    """What a member container is asked, by name of its path."""

    START = "start"
    STOP = "stop"
    STATUS_REQUEST = "status_request"


class MemberWord(StrEnum):
    """What a member container answers to ``status_request``."""

    READY = "ready"
    STARTED = "started"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    COMPLETED = "completed"


MEMBER_WORD: Mapping[AttemptStatus, MemberWord] = MappingProxyType(
    {
        AttemptStatus.STARTED: MemberWord.STARTED,
        AttemptStatus.RUNNING: MemberWord.RUNNING,
        AttemptStatus.STOPPED: MemberWord.STOPPED,
        AttemptStatus.FAILED: MemberWord.FAILED,
        AttemptStatus.COMPLETED: MemberWord.COMPLETED,
    }
)
"""How an attempt's status is told to a Project Manager. ``ready`` is said of a container that has no attempt."""

HAPPENED: Mapping[MemberWord, Happening | None] = MappingProxyType(
    {
        MemberWord.READY: None,
        MemberWord.STARTED: None,
        MemberWord.RUNNING: Happening.RUNNING,
        MemberWord.STOPPED: Happening.STOPPED,
        MemberWord.FAILED: Happening.FAILED,
        MemberWord.COMPLETED: Happening.COMPLETED,
    }
)
"""What a member's word tells of the attempt that was started there; None when it tells nothing new."""

REPORTED: Mapping[str, MemberWord] = MappingProxyType(
    {
        "success": MemberWord.COMPLETED,
        "completed": MemberWord.COMPLETED,
        "failed": MemberWord.FAILED,
    }
)
"""What ``status_report`` may say. Anything else is refused, where the original would store it."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "necknas": "neck_nas",
        "visualization": "vis2code",
        "viz2code": "vis2code",
        "k8s_deploy": "kube_deploy",
        "codeGen": "code_gen",
    }
)
"""Container ids that programs report, and the names by which they are known."""


def container_name(container_id: str) -> str:
    """The one name of a container, whichever of its ids came."""
    return ALIASES.get(container_id, container_id)


HOST_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "code_gen": ("codegen",),
        "ondevice_deploy": ("ondevice",),
        "vis2code": ("viz2code",),
    }
)
"""What a Project Manager calls containers whose host is not named like them. It writes the name of the host into ``Host``."""


def host_names(container_id: str) -> tuple[str, ...]:
    """The hosts under which a container is called: its ids, with hyphens where a host's name can have no underscore."""
    name = container_name(container_id)
    found = (container_id, name, *HOST_NAMES.get(name, ()))
    return tuple(dict.fromkeys(form for each in found for form in (each, each.replace("_", "-"))))


def target_of(verb: Verb, user_id: str, project_id: str) -> str:
    """
    What is sent to a member: the path form with ``user_id`` first, the only one that all programs understand.

    Empty ids ask whether the container itself is ready.
    """
    user, project = quote(user_id, safe=""), quote(project_id, safe="")
    return f"/{verb}?user_id={user}&project_id={project}"


def verb_of(request: WireRequest) -> Verb:
    """
    What a member is asked, in the path (``/start?...``) or as the one argument without a value (``/?start&...``).

    Raises:
        NotFound: Neither names a verb.
        Malformed: Several verbs are named.
    """
    word = request.target.strip("/")
    named = [verb for verb in Verb if (verb == word if word else verb in request.query)]
    if not named:
        raise NotFound("no such call", where=request.target[:ID_CHARS_MAX])
    if len(named) > 1:
        raise Malformed("asks for several things at once", where="query")
    return named[0]


def ids_of(request: WireRequest) -> tuple[str, str]:
    """
    ``user_id`` and ``project_id`` in whatever order, without the quotes that some programs put around them.

    Raises:
        Malformed: One is missing or too long, or only one of them is empty.
    """
    found: list[str] = []
    for name in ("user_id", "project_id"):
        text = request.query.get(name)
        if text is None:
            raise Malformed("is missing", where=name)
        if len(text) > ID_CHARS_MAX:
            raise Malformed(f"must be at most {ID_CHARS_MAX} characters", where=name)
        found.append(text.strip('"'))
    user_id, project_id = found
    if bool(user_id) != bool(project_id):
        empty = "project_id" if user_id else "user_id"
        raise Malformed("both ids are empty or none is", where=empty)
    return user_id, project_id


def heard(status: int, body: bytes) -> MemberWord | None:
    """
    What a member's answer to ``status_request`` says; None when it says nothing that can be believed.

    204 means that nothing was started, which is ready. 200, 208 and 400 count by their word, bare or in quotes. Any other status or text
    is to be logged, and changes nothing.
    """
    if status == 204:  # noqa: PLR2004 - a status code by its number, as in the guide
        return MemberWord.READY
    if status not in (200, 208, 400) or len(body) > BODY_CHARS_MAX:
        return None
    word = body.decode("utf-8", "replace").strip().strip('"')
    return next((known for known in MemberWord if known == word), None)
