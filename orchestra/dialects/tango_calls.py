"""
What a member container answers: the three calls of TANGO's REST guide, in the guide's words or in those of its programs. Pure.

Source: the guide, and the replies of the code generator, the deployers and the trainer as they were measured.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import StrEnum
from typing import Any, cast

import attrs

from orchestra.dialects.asks import Ask, Dialogue
from orchestra.dialects.tango_jobs import Ids, name_of
from orchestra.dialects.tango_refusals import status_of_refusal
from orchestra.dialects.tango_runs import Runs
from orchestra.dialects.tango_secrets import check_asker, check_secret
from orchestra.dialects.tango_words import MemberWord, Verb, ids_of, verb_of
from orchestra.dialects.wire import Role, Route, WireRequest, WireResponse
from orchestra.errors import Malformed, NotFound, OrchestraError, Rejected
from orchestra.statemachine.values import value

ID_NAMES = ("user_id", "project_id")


class Replies(StrEnum):
    """
    How calls are answered.

    ``guide``: as the REST guide says, ``starting``, ``finished`` or ``error`` and bare words, with status 200. ``programs``: as the
    code generator and the deployers do, with quotes around the words and ``started`` after a start. ``autonn``: as the trainer of
    2024 does, 204 for what was never started and 208 for what is over; it alone knows ``/resume``.
    """

    GUIDE = "guide"
    PROGRAMS = "programs"
    AUTONN = "autonn"


@value
class Told:
    """A reply before it is on the wire."""

    status: int
    text: str


class Calls:
    """What is answered to each call, in the words of one way to reply."""

    def __init__(self, runs: Runs, replies: Replies, secret: str = "") -> None:
        self._runs = runs
        self._replies = replies
        self._secret = secret

    def any(self, request: WireRequest) -> Ask:
        """The call that is named by an argument without a value."""
        if self._replies is Replies.AUTONN and "resume" in request.query:
            return self.resume(request)
        return self.named(verb_of(attrs.evolve(request, target="/")), request)

    def named(self, verb: Verb, request: WireRequest) -> Ask:
        """The call that is named by its path."""
        if verb is Verb.STATUS_REQUEST:
            return Dialogue(lambda: self._status(request))
        check_asker(request)
        check_secret(request, self._secret)
        begin = self._start if verb is Verb.START else self._stop
        return Dialogue(lambda: begin(request))

    def resume(self, request: WireRequest) -> Ask:
        """A failed run is started again."""
        check_asker(request)
        check_secret(request, self._secret)
        return Dialogue(lambda: self._resume(request))

    def _start(self, request: WireRequest) -> Generator[Ask, Any, Told]:
        try:
            yield from self._runs.start(_named_ids(request))
        except Rejected:
            return self._not_done()
        return self._said("starting" if self._replies is Replies.GUIDE else "started")

    def _stop(self, request: WireRequest) -> Generator[Ask, Any, Told]:
        autonn = self._replies is Replies.AUTONN
        try:
            yield from self._runs.stop(_named_ids(request))
        except NotFound:
            return self._said("success") if autonn else self._not_done()
        except Rejected:
            return self._not_done()
        return self._said("success" if autonn else "finished")

    def _status(self, request: WireRequest) -> Generator[Ask, Any, Told]:
        ids = ids_of(request)
        if not ids[0]:
            return self._said(MemberWord.READY)
        word = yield from self._runs.word(ids)
        if self._replies is not Replies.AUTONN:
            return self._said(word or MemberWord.READY)
        if word is None:
            return Told(204, "")
        over = word not in (MemberWord.STARTED, MemberWord.RUNNING)
        return self._said(word, 208 if over else 200)

    def _resume(self, request: WireRequest) -> Generator[Ask, Any, Told]:
        resumed = yield from self._runs.resume(_named_ids(request))
        return self._said("started" if resumed else "failed")

    def _not_done(self) -> Told:
        if self._replies is Replies.AUTONN:
            return self._said(MemberWord.FAILED, 400)
        return self._said("error")

    def _said(self, word: str, status: int = 200) -> Told:
        text = str(word)
        return Told(status, text if self._replies is Replies.GUIDE else f'"{text}"')


def _named_ids(request: WireRequest) -> Ids:
    """Ids of a run: both there, and fit to be a part of a path and an argument of a program. Raises `Malformed`."""
    ids = ids_of(request)
    for name, text in zip(ID_NAMES, ids, strict=True):
        if not text:
            raise Malformed("is empty", where=name)
        if not text.isprintable() or text[0] in "-." or any(c in '/\\"' for c in text):
            raise Malformed("is no plain name", where=name)
    name_of(ids)
    return ids


def routes_of(calls: Calls, replies: Replies) -> tuple[Route, ...]:
    """The routes of a member that replies so."""

    def route(name: str, path: str, ask: Callable[[WireRequest], Ask], summary: str) -> Route:
        role = Role.VIEWER if name in ("StatusRequest", "Unknown") else Role.OPERATOR
        return Route(name, "GET", path, ask, _encode, role, summary=summary, media_types=())

    def named(verb: Verb) -> Callable[[WireRequest], Ask]:
        return lambda request: calls.named(verb, request)

    found = [
        route("Start", "/start", named(Verb.START), "Start the task of a user's project"),
        route("Stop", "/stop", named(Verb.STOP), "Stop it"),
        route("StatusRequest", "/status_request", named(Verb.STATUS_REQUEST), "How it is"),
        route("AnyCall", "/", calls.any, "The same calls, named by an argument"),
    ]
    if replies is Replies.AUTONN:
        found.append(route("Resume", "/resume", calls.resume, "Start it again after a failure"))
    if replies is Replies.PROGRAMS:
        found.append(route("Unknown", "/{command}", _unknown, "What they do not know"))
    return tuple(found)


def _unknown(_: WireRequest) -> Ask:
    def steps() -> Generator[Ask, Any, Told]:
        yield from ()
        return Told(200, '""')

    return Dialogue(steps)


def _encode(_: WireRequest, answer: object) -> WireResponse:
    told = cast("Told", answer)
    return WireResponse(told.status, told.text.encode(), "text/plain")


def refuse(error: OrchestraError) -> WireResponse:
    """``error``, with HTTP's own status: what is refused here is no call of the guide, or could not be answered."""
    status, headers = status_of_refusal(error)
    return WireResponse(status, b"error", "text/plain", headers)
