"""The suite finds out transports that break the contract: each law is broken on purpose, and the check that guards it fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest

from orchestra.errors import Conflict, OrchestraError, Rejected, Unavailable
from orchestra.ports import Lagged, LogChunk, Moved
from orchestra.statemachine.replies import JobChanged
from orchestra.testing import check_transport as suite
from orchestra.testing.transport_bench import Check, FarEnd, Link, TransportBroken
from tests.transports.far_ends import serve_memory

pytestmark = pytest.mark.anyio


class Honest:
    """A transport that changes nothing; each liar below changes one thing."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def ask(self, command: Any, *, key: str = "") -> Any:
        return await self.inner.ask(command, key=key)

    async def answer(self, query: Any) -> Any:
        return await self.inner.answer(query)

    async def story(self, query: Any) -> Any:
        return await self.inner.story(query)

    async def log(self, query: Any) -> Any:
        return await self.inner.log(query)

    async def append_log(self, worker_id: str, incarnation: int, chunks: Any) -> None:
        await self.inner.append_log(worker_id, incarnation, chunks)

    async def backup(self, target: str) -> None:
        await self.inner.backup(target)

    def watch(self, watch: Any) -> Any:
        return self.inner.watch(watch)


class ForgetsKeys(Honest):
    async def ask(self, command: Any, *, key: str = "") -> Any:
        return await self.inner.ask(command, key=key and "")


class AsksTwice(Honest):
    async def ask(self, command: Any, *, key: str = "") -> Any:
        await self.inner.ask(command, key=key)
        return await self.inner.ask(command, key=key)


class LosesAsks(Honest):
    """Every second one is acknowledged with the answer of the one before it, and never made."""

    last: Any = None

    async def ask(self, command: Any, *, key: str = "") -> Any:
        lost, self.last = self.last, None
        if lost is not None:
            return lost
        self.last = await self.inner.ask(command, key=key)
        return self.last


class CutsNames(Honest):
    async def ask(self, command: Any, *, key: str = "") -> Any:
        name = getattr(command, "name", "")
        shorter = attrs.evolve(command, name=name[:-1]) if name else command
        return await self.inner.ask(shorter, key=key)


class FlattensErrors(Honest):
    async def answer(self, query: Any) -> Any:
        try:
            return await self.inner.answer(query)
        except Rejected as error:
            raise Rejected(error.message) from error


class LosesRemedies(Honest):
    async def ask(self, command: Any, *, key: str = "") -> Any:
        try:
            return await self.inner.ask(command, key=key)
        except Conflict as error:
            raise Conflict(error.message, where=error.where) from error


class SwallowsErrors(Honest):
    async def ask(self, command: Any, *, key: str = "") -> Any:
        try:
            return await self.inner.ask(command, key=key)
        except OrchestraError:
            return None


class MixesAnswers(Honest):
    last: Any = None

    async def ask(self, command: Any, *, key: str = "") -> Any:
        answer = await self.inner.ask(command, key=key)
        await anyio.lowlevel.checkpoint()
        if isinstance(answer, JobChanged):
            answer, MixesAnswers.last = MixesAnswers.last or answer, answer
        return answer


class Watches(Honest):
    def change(self, number: int, push: Any) -> Any:
        raise NotImplementedError

    @asynccontextmanager
    async def watch(self, watch: Any) -> AsyncIterator[Any]:
        async with self.inner.watch(watch) as pushes:

            async def changed() -> Any:
                number = 0
                async for push in pushes:
                    number += 1
                    found = self.change(number, push)
                    if found is not None:
                        yield found

            stream: Any = changed()
            try:
                yield stream
            finally:
                await stream.aclose()


class LosesAPush(Watches):
    def change(self, number: int, push: Any) -> Any:
        return None if number == 200 else push


class ShiftsNumbers(Watches):
    def change(self, number: int, push: Any) -> Any:
        return attrs.evolve(push, number=number + 1) if isinstance(push, Moved) else push


class HidesLags(Watches):
    def change(self, number: int, push: Any) -> Any:
        return None if number and isinstance(push, Lagged) else push


class DamagesOutput(Honest):
    async def append_log(self, worker_id: str, incarnation: int, chunks: Any) -> None:
        text = [
            LogChunk(c.attempt_id, c.stream, c.offset, c.data.decode("utf-8", "replace").encode())
            for c in chunks
        ]
        await self.inner.append_log(worker_id, incarnation, text)


class HangsAfterALoss(Honest):
    async def ask(self, command: Any, *, key: str = "") -> Any:
        try:
            return await self.inner.ask(command, key=key)
        except Unavailable:
            await anyio.sleep_forever()


def lying(liar: type[Honest]) -> Callable[[FarEnd], Any]:
    @asynccontextmanager
    async def serve(far: FarEnd) -> AsyncIterator[Link]:
        async with serve_memory(far) as link:
            yield attrs.evolve(link, asker=liar(link.asker))

    return serve


LIES: list[tuple[type[Honest], Check]] = [
    (ForgetsKeys, suite.check_keys_arrive),
    (AsksTwice, suite.check_everything_goes_through),
    (LosesAsks, suite.check_everything_goes_through),
    (CutsNames, suite.check_everything_goes_through),
    (FlattensErrors, suite.check_errors_keep_their_words),
    (LosesRemedies, suite.check_errors_keep_their_words),
    (SwallowsErrors, suite.check_errors_keep_their_words),
    (MixesAnswers, suite.check_answers_find_their_questions),
    (LosesAPush, suite.check_watch_is_complete),
    (ShiftsNumbers, suite.check_watch_is_complete),
    (HidesLags, suite.check_watch_is_complete),
    (DamagesOutput, suite.check_output_arrives_whole),
]


async def test_an_honest_transport_passes() -> None:
    await suite.check_transport(lying(Honest), wire=False)


@pytest.mark.parametrize(("liar", "check"), LIES, ids=lambda value: value.__name__)
async def test_a_lie_is_found_out(liar: type[Honest], check: Check) -> None:
    with pytest.raises(TransportBroken):
        await check(lying(liar))


async def test_hanging_after_a_loss_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "PATIENCE_S", 0.3)
    with pytest.raises(TimeoutError):
        await suite.check_lost_connection_is_told(lying(HangsAfterALoss))
