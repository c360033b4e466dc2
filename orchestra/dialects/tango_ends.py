"""
The ends of a member container's runs, and how they are told to a Project Manager. Pure.

Source: ``status_report`` of the TANGO REST guide, and what the running Project Manager was measured to answer to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import quote

import attrs

from orchestra.dialects.asks import Ask, Keyed
from orchestra.dialects.far_calls import FarCall, FarReply
from orchestra.dialects.tango_jobs import Ids, Steps, jobs_of
from orchestra.dialects.tango_secrets import SECRET_HEADER
from orchestra.dialects.tango_words import MemberWord
from orchestra.statemachine.commands import StageDraft, SubmitJob
from orchestra.statemachine.records import Span
from orchestra.statemachine.values import value

REPORTS = "tango-reports"

ANSWER_MS = 15_000
"""A Project Manager calls the next container before it answers, and waits 5 s for that."""

TRIES_MAX = 20
PAUSE_MS, PAUSE_MS_MAX = 1_000, 60_000
"""Between two tries: twice as long each time, so that twenty take a quarter of an hour, in which a manager is back from a restart."""

OUTCOME: Mapping[MemberWord, str] = MappingProxyType(
    {MemberWord.COMPLETED: "success", MemberWord.FAILED: "failed"}
)
"""What ``status_report`` says of an end."""

OK = 200

_REPORT = re.compile(r"(\S+) of (\S+) .*")


@value
class Reporting:
    """
    Where ends are reported, and by whom.

    Args:
        prefix: Of the path, such as ``/tango`` where the manager is served below it; usually empty.
        secret: The container's, which goes along; empty for none.
    """

    container_id: str
    host: str
    port: int
    prefix: str = ""
    secret: str = attrs.field(default="", repr=False)

    def call(self, ids: Ids, end: MemberWord) -> FarCall:
        """The report of an end, in the path form, which the Project Manager knows."""
        pairs = zip(
            ("container_id", "user_id", "project_id", "status"),
            (self.container_id, *ids, OUTCOME[end]),
            strict=True,
        )
        query = "&".join(f"{name}={quote(text, safe='')}" for name, text in pairs)
        target = f"{self.prefix}/status_report?{query}"
        headers = ((SECRET_HEADER, self.secret),) if self.secret else ()
        return FarCall(self.host, self.port, "GET", target, step_ms=ANSWER_MS, headers=headers)


def is_acceptance(reply: FarReply) -> bool:
    """
    Whether a report was taken: 200, which is all that the guide asks for, and nothing in the body or ``{"status": 200}``.

    The Project Manager answers 200 with the text of an exception too, such as for a project that it does not know.
    """
    if reply.status != OK:
        return False
    if not reply.body.strip():
        return True
    try:
        read: object = json.loads(reply.body)
    except (ValueError, RecursionError):
        return False
    return isinstance(read, dict) and cast("dict[str, object]", read).get("status") == OK


def reported_before() -> Generator[Ask, Any, set[str]]:
    """The jobs whose ends need no report any more."""
    told = yield from jobs_of(REPORTS)
    return {found[2] for job in told if (found := _REPORT.fullmatch(job.name))}


def settle(job_id: str, end: MemberWord, what: str) -> Steps:
    """Make it durable that the report of a job's end needs no further try."""
    name = f"{OUTCOME[end]} of {job_id} {what}"
    stage = StageDraft("report", "tango-report", over=Span(0, 0))
    yield Keyed(SubmitJob(name, (stage,), project=REPORTS), f"report {job_id}")
