"""An orchestrator that runs out of memory in the middle: whoever asked is told, what is stored counts, and it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestra.compose import open_orchestrator
from orchestra.errors import OrchestraError, StoreFailed, Unavailable, shortage
from orchestra.runtime import orchestrator as runtime
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import StageDraft, SubmitJob
from orchestra.statemachine.queries import GetOverview, ListJobs
from orchestra.storage.codec import RowCodec
from orchestra.storage.sqlite import SqliteStore
from orchestra.testing import store_samples as samples

pytestmark = pytest.mark.anyio

PATIENCE_S = 30.0


class Failing:
    """Calls through, but for the calls that are told to fail."""

    def __init__(self, call: Callable[..., Any], error: Exception) -> None:
        self.call = call
        self.error = error
        self.fails = 0
        self.late = False
        """Whether it fails after it has done what it does."""

    def __call__(self, *args: Any, **more: Any) -> Any:
        if not self.fails:
            return self.call(*args, **more)
        self.fails -= 1
        if self.late:
            self.call(*args, **more)
        raise self.error


async def submit(asker: Orchestrator, name: str, key: str = "") -> int:
    command = SubmitJob(name, (StageDraft("only", "nobody"),))
    return (await asker.ask(command, key=key)).number


async def names(asker: Orchestrator) -> list[str]:
    return [job.name for job in (await asker.answer(ListJobs())).items]


def test_a_shortage_is_told_from_a_bug() -> None:
    assert isinstance(shortage(MemoryError()), Unavailable)
    assert isinstance(shortage(RuntimeError("can't start new thread")), Unavailable)
    assert shortage(RuntimeError("something else")) is None
    assert shortage(ValueError("can't start new thread")) is None


@pytest.mark.parametrize("kept", [False, True])
async def test_a_step_without_memory_is_refused_and_what_is_stored_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: bool
) -> None:
    step = Failing(runtime.step, MemoryError())
    step.late = True  # memory holds what nobody is told of, and must not show it
    monkeypatch.setattr(runtime, "step", step)
    with anyio.fail_after(PATIENCE_S):
        async with open_orchestrator(str(tmp_path / "farm.db") if kept else None) as asker:
            await submit(asker, "first")
            step.fails = 1
            with pytest.raises(Unavailable, match="memory is short"):
                await submit(asker, "second", key="two")
            assert await names(asker) == ["first"]
            assert await submit(asker, "second", key="two") == 2
            assert await names(asker) == ["second", "first"]


async def test_a_load_without_memory_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Failing(runtime.step, MemoryError())
    load = Failing(runtime.load, MemoryError())
    monkeypatch.setattr(runtime, "step", step)
    monkeypatch.setattr(runtime, "load", load)
    with anyio.fail_after(PATIENCE_S):
        async with open_orchestrator(None) as asker:
            step.fails = load.fails = 1
            for _ in range(2):
                with pytest.raises(Unavailable, match="memory is short"):
                    await submit(asker, "first")
            assert await submit(asker, "first") == 1


async def test_a_question_without_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Failing(runtime.answer, MemoryError())
    monkeypatch.setattr(runtime, "answer", answer)
    with anyio.fail_after(PATIENCE_S):
        async with open_orchestrator(None) as asker:
            answer.fails = 1
            with pytest.raises(Unavailable, match="memory is short"):
                await asker.answer(GetOverview())
            assert (await asker.answer(GetOverview())).slots == 0


class ShortCodec(RowCodec):
    """Runs out of memory while it encodes so many rows."""

    def __init__(self) -> None:
        super().__init__()
        self.write = Failing(super().encode, MemoryError())

    def encode(self, record: Any) -> bytes:
        encoded: bytes = self.write(record)
        return encoded


async def test_a_commit_without_memory_fails_and_the_next_load_goes_on(tmp_path: Path) -> None:
    codec = ShortCodec()
    store = await SqliteStore.open(str(tmp_path / "store.db"), codec=codec)
    try:
        await store.load()
        await store.commit(samples.numbered(1, 1, samples.job(7)))
        codec.write.fails = 1
        for _ in range(2):  # the second, because it is not known what came of the first
            with pytest.raises(StoreFailed):
                await store.commit(samples.numbered(2, 2, samples.job(8)))
        assert (await store.load()).number == 1
        await store.commit(samples.numbered(2, 2, samples.job(8)))
        assert (await store.load()).number == 2
    finally:
        await store.aclose()


async def test_a_system_that_gives_no_thread_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = await SqliteStore.open(str(tmp_path / "store.db"))
    start = Failing(threading.Thread.start, RuntimeError("can't start new thread"))
    try:
        await store.load()
        with monkeypatch.context() as patched:
            patched.setattr(anyio.to_thread, "run_sync", start)
            start.fails = 2
            with pytest.raises(StoreFailed, match="thread"):
                await store.commit(samples.numbered(1, 1, samples.job(7)))
            with pytest.raises(StoreFailed, match="thread"):
                await store.load()
        await store.commit(samples.numbered(1, 1, samples.job(7)))
        assert (await store.load()).number == 1
    finally:
        await store.aclose()


async def test_another_error_in_a_thread_stays_a_bug(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = await SqliteStore.open(str(tmp_path / "store.db"))
    bug = Failing(threading.Thread.start, RuntimeError("a bug"))
    try:
        with monkeypatch.context() as patched:
            patched.setattr(anyio.to_thread, "run_sync", bug)
            bug.fails = 1
            with pytest.raises(RuntimeError, match="a bug") as found:
                await store.load()
        assert not isinstance(found.value, OrchestraError)
    finally:
        await store.aclose()
