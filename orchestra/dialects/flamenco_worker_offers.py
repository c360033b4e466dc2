"""
What a manager gives a worker that asks, and the note of it: made before the manager hears that the task is here, so that a worker that
dies while it fetches the task's files takes it up again. Pure.

Source: the wire of the running programs of 2015-03-28.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import msgspec

from orchestra.dialects.asks import Ask
from orchestra.dialects.far_calls import FarReply
from orchestra.errors import Unavailable
from orchestra.statemachine.commands import StageDraft, SubmitJob
from orchestra.statemachine.records import Span
from orchestra.statemachine.replies import JobAccepted, JobView

OFFERS = "flamenco-worker-offers"
"""The project of the notes: each is a job without tasks."""

TICKET_CHARS_MAX = 40


class Offer(msgspec.Struct, frozen=True):
    """A task as its manager gives it."""

    task_id: int | str
    job_id: int | str
    task_command: str
    type: str = ""
    """Managers from before 2015-03-28 do not say it."""

    task_parser: str | None = ""
    settings: dict[str, object] | str | None = None

    @property
    def kind(self) -> str:
        """The kind of task; of those that have none the parser's name, which says it almost as well."""
        return self.type or self.task_parser or ""

    @property
    def command_name(self) -> str:
        """Which of the programs for its kind: all that a worker reads of the settings, which may be long."""
        settings = self.settings if isinstance(self.settings, dict) else {}
        return str(settings.get("command_name", "default"))


class _Offered(msgspec.Struct, frozen=True):
    options: Offer


_offered = msgspec.json.Decoder(_Offered)
_noted = msgspec.json.Decoder(Offer)


def read_offer(reply: FarReply) -> Offer:
    """A task that the manager gives. Raises `Unavailable` for what is none."""
    try:
        offer = _offered.decode(reply.body).options
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Unavailable(f"the manager gave something that is no task: {error}") from None
    for name, text in (("task_id", str(offer.task_id)), ("job_id", str(offer.job_id))):
        # They become names of folders and parts of addresses.
        if not text.isascii() or not text.isalnum() or len(text) > TICKET_CHARS_MAX:
            raise Unavailable(f"the manager gave a task whose {name} is no plain number")
    return offer


def note(offer: Offer) -> Generator[Ask, Any, str]:
    """Note a task: the note's id. Durable on return. Raises `Rejected` for one that is too long to be noted."""
    kept = msgspec.structs.replace(offer, settings={"command_name": offer.command_name})
    stage = StageDraft("offer", "flamenco-offer", msgspec.json.encode(kept), over=Span(0, 0))
    accepted: JobAccepted = yield SubmitJob(f"task {offer.task_id} was given", (stage,), OFFERS)
    return accepted.job_id


def read_note(job: JobView) -> Offer | None:
    """The task of a note; None when it is none."""
    try:
        return _noted.decode(job.stages[0].template)
    except (msgspec.DecodeError, IndexError, RecursionError):
        return None
