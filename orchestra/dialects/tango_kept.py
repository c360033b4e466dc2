"""
Starts that came while the former run of the same ids was still being stopped: they are kept until that has ended. Pure.

A Project Manager takes every answer to a start for its beginning, but for 404, and does not ask twice. So such a start must not be
refused. It is a job in the project `STARTS`, named by its ids, of one task that no worker takes: durable, listed like any other, and
over after `KEPT_MS_MAX` by the core's own limit of time in a queue. Cancelling it takes the start back.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from orchestra.dialects.asks import Ask, Keyed
from orchestra.dialects.tango_jobs import Ids, name_of, status_of
from orchestra.errors import Conflict, NotFound, Unavailable
from orchestra.statemachine.commands import CancelJob, StageDraft, SubmitJob
from orchestra.statemachine.lifecycles import JOB_FINAL

STARTS = "tango-starts"

KEPT_MS_MAX = 10 * 60_000
"""What can be killed has ended within three times its grace; only a function in a thread takes longer, and may take for ever."""

AGAIN_MAX = 100
"""Starts after the same run that were taken back or given up, of which the member does not know any more."""

_DRAFT = StageDraft("waits-for-the-former-run", "tango-start", queue_ms_max=KEPT_MS_MAX)


def keep_start(ids: Ids, last: str) -> Generator[Ask, Any, str]:
    """The job that keeps a start; whoever asks at the same time gets the same. ``last``: the former run, or the start kept before."""
    submit = SubmitJob(name_of(ids), (_DRAFT,), STARTS)
    for _ in range(AGAIN_MAX):
        accepted = yield Keyed(submit, f"kept after {last}")
        status = (yield from status_of(accepted.job_id)) if accepted.repeated else None
        if status is None or status not in JOB_FINAL:
            return accepted.job_id
        last = accepted.job_id
    raise Unavailable("what was kept before is not known any more")


def drop_start(job_id: str, reason: str) -> Generator[Ask, Any, bool]:
    """End a kept start; False when it was over already."""
    try:
        yield CancelJob(job_id, reason=reason)
    except (Conflict, NotFound):
        return False
    return True
