"""
One run in a member container: started, asked how it is, resumed, stopped, and believed only as far as its answers go.

Source: the TANGO REST guide and its container diagram; what its programs were measured to answer. The guide leaves open what a member
without an answer means, and its Project Manager stores whatever text comes. Here

- only the guide's words count. 204 is ``ready``; other texts are noted and change nothing, until too long nothing else came;
- ``ready`` after a start means that the run is gone, as after a restart of the program;
- ``completed`` that was said before the start already counts only when the start was answered as it should be;
- a stop is over when the word says so, or when nobody listens there any more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import anyio
import anyio.to_thread

from orchestra.dialects.far_calls import FarLine, FarReply, Silence
from orchestra.dialects.tango_places import Place
from orchestra.dialects.tango_words import MemberWord, Verb, heard, target_of
from orchestra.errors import Malformed
from orchestra.ports import AttemptSink, Ended
from orchestra.statemachine.counting import counted
from orchestra.statemachine.records import Cause
from orchestra.statemachine.replies import Order

FIRST_LOOK_MS = 200
"""After the start it is asked this soon, once: small stages take no longer."""

NUDGE_MS = 200
"""Reports do not make it ask more often than this."""

STRAYS_MAX = 2
"""Answers in a row that fit to no run of ours: one can have crossed the start."""

DESERTED_MAX = 3
"""Refused connections in a row after which its process is gone."""

_ALIVE = (MemberWord.STARTED, MemberWord.RUNNING)
_REFUSING = ("error", "failed", "fail")


def read_ids(template: bytes) -> tuple[str, str]:
    """``user_id`` and ``project_id`` of a stage's template. Raises `Malformed`."""
    try:
        found: object = json.loads(template)
    except (ValueError, RecursionError):
        raise Malformed("its template is no JSON", where="template") from None
    fields = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    ids: list[str] = []
    for name in ("user_id", "project_id"):
        text = fields.get(name)
        if not isinstance(text, str) or not text:
            raise Malformed(
                "is missing", where=f"template.{name}", remedy="a text that is not empty"
            )
        if not text.isprintable() or text[0] in "-." or any(c in '/\\"' for c in text):
            raise Malformed("is no plain name", where=f"template.{name}")
        ids.append(text)
    return ids[0], ids[1]


def text_of(answer: FarReply) -> str:
    """What was answered, for people: one line, without the quotes that some programs put around it."""
    shown = answer.body[:200].decode("utf-8", "replace").strip().strip('"')
    return "".join(c if c.isprintable() else " " for c in shown)


class MemberRun:
    """
    Args:
        place: Where it runs.
        line: The way there.
        order: What is to be run.
        sink: Where it is told how it goes.
        clock: Monotonic seconds, for limits.
    """

    def __init__(
        self,
        place: Place,
        line: FarLine,
        order: Order,
        sink: AttemptSink,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._place = place
        self._line = line
        self._order = order
        self._sink = sink
        self.ids = ("", "")
        self.rung = ""
        self.began = False
        """Its container was asked to start it and may have done so, or was found at it."""
        self._rung_sent: str = ""
        self._timed_out = False
        self._bell = anyio.Event()
        self._nudged = False
        self._looked_at = float("-inf")
        self._before: MemberWord | None = None
        self._believed = False
        self._noted = ""
        self._told_running = False
        self._resumes = 0
        self._strays = 0
        self._deserted = 0
        self._silent_since: float | None = None
        self._confused_since: float | None = None

    def climb(self, rung: str) -> None:
        """A stop has come to this rung."""
        self.rung = rung
        self._bell.set()

    def nudge(self) -> None:
        """Something was reported: look now."""
        if not self._nudged:
            self._nudged = True
            self._bell.set()

    async def conduct(self, *, ran_before: bool) -> Ended:
        """
        Run it to its end.

        Args:
            ran_before: An earlier attempt of the same task saw it run, and was lost: what goes on there is ours.
        """
        try:
            self.ids = read_ids(self._order.template)
        except Malformed as problem:
            return Ended("failed", cause=Cause.UNSTARTABLE, message=str(problem))
        if self.rung:
            return Ended("stopped", cause=Cause.CANCELLED, message="stopped before it was started")
        answer = await self._ask(Verb.STATUS_REQUEST)
        self._before = heard(answer.status, answer.body) if isinstance(answer, FarReply) else None
        alive = self._before in _ALIVE and self._order.number > 1
        if alive or (ran_before and self._before is MemberWord.COMPLETED):
            await self._note("an earlier attempt started it: it goes on")
            self._believed = True
        elif self.rung:
            return Ended("stopped", cause=Cause.CANCELLED, message="stopped before it was started")
        else:
            problem = await self._start()
            if problem is not None:
                return problem
        self.began = True
        return await self._attend()

    async def _start(self) -> Ended | None:
        answer = await self._ask(Verb.START)
        if answer is Silence.NOBODY:
            # Nothing of it can have begun. What waits is told by `why`, and no restart is used up.
            await self._note(f"start: {answer}")
            await self._pause(self._place.heartbeat_ms)
            return Ended("stopped", message=f"{self._place.shown}: {answer}")
        if isinstance(answer, Silence):
            await self._note(f"start: {answer}")
            return None
        await self._note(f"start: {answer.status} {text_of(answer)}")
        refused = 400 <= answer.status < 500 or text_of(answer).lower().startswith(_REFUSING)  # noqa: PLR2004 - HTTP's classes
        if refused:
            message = f"{self._place.shown} did not start it: {answer.status} {text_of(answer)}"
            return Ended("failed", cause=Cause.ERROR, message=message)
        # An empty word is what programs say to what they do not know; 500 may be said by one that began all the same.
        self._believed = answer.status == 204 or (answer.status < 300 and text_of(answer) != "")  # noqa: PLR2004 - HTTP's
        return None

    async def _attend(self) -> Ended:
        """Ask again and again, until it is over."""
        limit_ms = self._order.run_ms_max
        until = None if limit_ms is None else self._clock() + limit_ms / 1_000
        pause_ms = min(FIRST_LOOK_MS, self._place.heartbeat_ms)
        while True:
            await self._pause(pause_ms)
            pause_ms = self._place.heartbeat_ms
            await self._spread_nudges()
            late = until is not None and self._clock() >= until and not self._stopping
            if self.rung != self._rung_sent or late:
                self._rung_sent = self.rung
                self._timed_out |= late
                await self._ask_stop()
            self._nudged, self._looked_at = False, self._clock()
            answer = await self._ask(Verb.STATUS_REQUEST)
            ended = await self._judge(answer)
            if ended is not None:
                return ended

    @property
    def _stopping(self) -> bool:
        return bool(self.rung) or self._timed_out

    async def _judge(self, answer: FarReply | Silence) -> Ended | None:
        """What an answer means for the run; its end, if it is over."""
        if isinstance(answer, Silence):
            return await self._unanswered(answer)
        self._silent_since, self._deserted = None, 0
        word = heard(answer.status, answer.body)
        if word is None:
            return await self._confusing(answer)
        self._confused_since = None
        await self._note(str(word))
        if word in _ALIVE:
            self._strays, self._believed = 0, True
            if word is MemberWord.RUNNING:
                await self._is_running()
            return None
        if self._stopping:
            return self._over(f"it says {word}")
        if word is MemberWord.READY or (not self._believed and word is self._before):
            return self._stray(word)
        return await self._ended(word)

    async def _unanswered(self, silence: Silence) -> Ended | None:
        now = self._clock()
        self._deserted = self._deserted + 1 if silence is Silence.NOBODY else 0
        if self._silent_since is None:
            self._silent_since = now
        await self._note(str(silence))
        if self._stopping:
            return self._over(str(silence)) if silence is Silence.NOBODY else None
        if self._deserted >= DESERTED_MAX:
            message = f"{self._place.shown}: {silence} any more; its process has ended"
            return Ended("failed", cause=Cause.ERROR, message=message)
        if now - self._silent_since >= self._place.silent_ms / 1_000:
            # It may be alive behind a broken line, and hear this one.
            await self._ask_stop()
            seconds = self._place.silent_ms / 1_000
            message = f"{self._place.shown} has not answered for {seconds:g} s"
            return Ended("failed", cause=Cause.ERROR, message=message)
        return None

    async def _confusing(self, answer: FarReply) -> Ended | None:
        now = self._clock()
        if self._confused_since is None:
            self._confused_since = now
        told = f"{answer.status} {text_of(answer)}".strip()
        await self._note(f"{told}: none of the guide's words, nothing changes")
        if self._stopping or now - self._confused_since < self._place.confused_ms / 1_000:
            return None
        await self._ask_stop()
        seconds = self._place.confused_ms / 1_000
        message = f"{self._place.shown} has said nothing that can be understood for {seconds:g} s, last {told}"
        return Ended("failed", cause=Cause.ERROR, message=message)

    def _stray(self, word: MemberWord) -> Ended | None:
        self._strays += 1
        if self._strays < STRAYS_MAX:
            self._bell.set()
            return None
        if word is MemberWord.READY:
            message = f"{self._place.shown} knows nothing of it any more, or never began"
        else:
            message = (
                f"{self._place.shown} did not answer the start, and says {word} as it did before"
            )
        return Ended("failed", cause=Cause.ERROR, message=message)

    async def _ended(self, word: MemberWord) -> Ended | None:
        if word is MemberWord.COMPLETED:
            # The guide's diagram has no way from Started to Completed but through Running.
            await self._is_running()
            return await self._completed()
        if word is MemberWord.FAILED and self._resumes < self._place.resumes:
            self._resumes += 1
            answer = await self._ask_for("/resume")
            told = answer if isinstance(answer, Silence) else f"{answer.status} {text_of(answer)}"
            await self._note(f"resume {self._resumes} of {self._place.resumes}: {told}")
            return None
        if word is MemberWord.FAILED:
            tried = f", after {counted(self._resumes, 'time')} of resuming" if self._resumes else ""
            message = f"{self._place.shown} says failed{tried}"
        else:
            message = f"it was stopped at {self._place.shown}, and nobody here had asked for it"
        return Ended("failed", cause=Cause.ERROR, message=message)

    async def _completed(self) -> Ended:
        place, (user_id, project_id) = self._place, self.ids
        if place.output:
            path = place.output.replace("{user_id}", user_id).replace("{project_id}", project_id)
            if not await anyio.to_thread.run_sync(_is_there, path):
                message = f"{place.shown} says completed, and {path} is not there or is empty"
                return Ended("failed", cause=Cause.ERROR, message=message)
        told = {"container_id": place.container_id, "user_id": user_id, "project_id": project_id}
        return Ended("completed", result=json.dumps(told).encode())

    def _over(self, how: str) -> Ended:
        """The end of what was stopped."""
        if self._timed_out and not self.rung:
            limit_s = (self._order.run_ms_max or 0) / 1_000
            message = f"ran longer than its limit of {limit_s:g} s, and was stopped: {how}"
            return Ended("failed", cause=Cause.TIMEOUT, message=message)
        return Ended("stopped", cause=Cause.CANCELLED, message=how)

    # ---------------------------------------------------------------------------------------------------------- talking

    async def _ask(self, verb: Verb) -> FarReply | Silence:
        return await self._line.call(target_of(verb, *self.ids))

    async def _ask_for(self, path: str) -> FarReply | Silence:
        target = target_of(Verb.START, *self.ids)
        return await self._line.call(target.replace(f"/{Verb.START}", path, 1))

    async def _ask_stop(self) -> None:
        answer = await self._ask(Verb.STOP)
        told = str(answer) if isinstance(answer, Silence) else f"{answer.status} {text_of(answer)}"
        self._noted = ""
        await self._note(f"stop: {told}")

    async def _is_running(self) -> None:
        if not self._told_running:
            self._told_running = True
            await self._sink.running(self._order.attempt_id)

    async def _note(self, line: str) -> None:
        """A line of the attempt's output; what is said again is not told again."""
        if line != self._noted:
            self._noted = line
            await self._sink.output(self._order.attempt_id, "stdout", f"{line}\n".encode())

    async def _spread_nudges(self) -> None:
        early_s = self._looked_at + NUDGE_MS / 1_000 - self._clock()
        if self._nudged and early_s > 0 and self.rung == self._rung_sent:
            await self._pause(round(early_s * 1_000))

    async def _pause(self, pause_ms: int) -> None:
        with anyio.move_on_after(pause_ms / 1_000):
            await self._bell.wait()
        self._bell = anyio.Event()


def _is_there(path: str) -> bool:
    found = Path(path)
    try:
        return any(found.iterdir()) if found.is_dir() else found.stat().st_size > 0
    except OSError:
        return False
