"""
The push protocol (2015-02), as the document describes it: the manager calls its workers.

A worker listens at the port that it registered with. It is sent a task, asked every 10 s how it is, and told to kill what it runs; it
reports the end itself. Which workers are called is said in orchestra.toml, by host name, and each at the address it registered from.

A round asks all workers at once, in a thread, so that one that does not answer holds up nobody but the round.
"""

from __future__ import annotations

from collections.abc import Generator
from http import HTTPStatus
from typing import Any

import msgspec

from orchestra.dialects.asks import Apart, Ask
from orchestra.dialects.far_calls import CallAll, FarCall, FarReply
from orchestra.dialects.flamenco_compilers import Compilers
from orchestra.dialects.flamenco_crew import Crew, Steps
from orchestra.dialects.flamenco_desk import Card, Run
from orchestra.dialects.flamenco_logs import keep_log
from orchestra.dialects.flamenco_tasks import compile_run
from orchestra.errors import Malformed
from orchestra.statemachine.records import Cause
from orchestra.statemachine.reports import Happening

VISIT_MS = 10_000
"""How often a worker is asked how it is: the original's pause."""

CALLS_MAX = 200
"""Calls of one round; the others follow in the next."""

TOLD_BYTES_MAX = 32 * 1024 * 1024
"""A worker tells its whole log each time: as long as the last report, which brings it too, may usually be."""

GRACE_MS = 5_000
"""A worker that was sent a task says only after this long that it has nothing."""


class _Told(msgspec.Struct, frozen=True):
    """What a worker says of itself."""

    hostname: str
    status: str
    activity: str | None = None
    log: str | None = None
    time_cost: float | None = None


_told = msgspec.json.Decoder(_Told)


class Push:
    """The calls to workers."""

    def __init__(self, crew: Crew, compilers: Compilers, call_all: CallAll) -> None:
        self._crew = crew
        self._compilers = compilers
        self._call_all = call_all

    def round(self) -> Steps:
        """Send tasks, kill what has to end, and ask those that were not asked for long."""
        yield from self._crew.open()
        desk = self._crew.desk
        visited = [card for card in desk.cards.values() if card.visited]
        calls: list[tuple[Card, Run | None, FarCall]] = []
        for card in visited:
            call = yield from self._next(card)
            if call is not None and len(calls) < CALLS_MAX:
                calls.append((card, card.run, call))
        if not calls:
            return None
        asked = tuple(call for _, _, call in calls)
        replies = yield Apart(lambda: self._call_all(asked))
        for (card, run, call), reply in zip(calls, replies, strict=True):
            yield from self._answered(card, run, call, reply)
        return None

    def _next(self, card: Card) -> Generator[Ask, Any, FarCall | None]:
        run, now = card.run, self._crew.desk.now_ms()
        if run is not None:
            ending = run.stopping or run.taken_back or card.disabled
            if ending and not run.delivered:
                yield from self._crew.end(run, Happening.STOPPED, message="it was not begun")
                return None
            if ending and not run.told:
                return FarCall(card.ip, card.port, "DELETE", "/kill")
            if not run.delivered:
                return (yield from self._execute(run))
        if now - card.visit_ms >= VISIT_MS:
            card.visit_ms = now
            return FarCall(card.ip, card.port, "GET", "/info", reply_bytes_max=TOLD_BYTES_MAX)
        return None

    def _execute(self, run: Run) -> Generator[Ask, Any, FarCall | None]:
        try:
            compiled = compile_run(self._compilers, run, pull=False)
        except Malformed as error:
            yield from self._crew.failed(run, Cause.UNSTARTABLE, str(error))
            return None
        form = (
            ("task_id", str(run.ticket)),
            ("task_parser", compiled.parser),
            ("settings", msgspec.json.encode(compiled.settings).decode()),
            ("task_command", compiled.command),
        )
        return FarCall(run.card.ip, run.card.port, "POST", "/execute_task", form)

    def _answered(
        self, card: Card, run: Run | None, call: FarCall, reply: FarReply | None
    ) -> Steps:
        if reply is None or run is not card.run:
            # Who does not answer is given up when it was not seen for long; what came in between counts more.
            return
        now = self._crew.desk.now_ms()
        if call.path == "/info":
            yield from self._is(card, reply)
        elif call.path == "/execute_task" and run is not None and reply.status == HTTPStatus.OK:
            run.delivered, run.touched_ms = True, now
            # Its program runs from now on: one that ends before the worker is asked again has run too.
            yield from self._crew.progress(run)
        elif call.path == "/kill" and run is not None and reply.status == HTTPStatus.NO_CONTENT:
            # It is over when the worker says so, or has nothing any more.
            run.told, run.touched_ms, card.visit_ms = True, now, now - VISIT_MS + GRACE_MS

    def _is(self, card: Card, reply: FarReply) -> Steps:
        try:
            told = _told.decode(reply.body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return
        if reply.status != HTTPStatus.OK or told.hostname != card.hostname:
            return
        yield from self._crew.back(card)
        if not card.joined:
            yield from self._crew.join(card)
        run, now = card.run, card.seen_ms
        if run is None or not run.delivered:
            return
        if told.status == "rendering":
            run.touched_ms = now
            run.time_cost_s = int(min(max(told.time_cost or 0, 0), 10**9))
            yield from keep_log(run, told.log or "", told.activity or "")
            yield from self._crew.progress(run)
        elif now - run.touched_ms >= GRACE_MS:
            stop = run.told or run.stopping
            message = "it was stopped" if stop else "its worker has nothing to do any more"
            cause = Cause.NONE if stop else Cause.LOST
            yield from self._crew.end(run, Happening.STOPPED, cause=cause, message=message)
