"""Functions: their arguments, results, contexts and ends, in each of the three modes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import attrs
import psutil
import pytest

from orchestra.engines import callables
from orchestra.engines.callables import CallablesEngine, register
from orchestra.engines.context import Context, LoopContext, Stopped, ThreadContext
from orchestra.errors import Malformed
from orchestra.ports import Ended
from orchestra.statemachine.limits import LOG_BYTES_MAX, REASON_CHARS_MAX, RESULT_BYTES_MAX
from orchestra.statemachine.records import Cause
from orchestra.testing.check_engine import Recorder, order_for
from tests.engines import apps

ROOT = str(Path(__file__).resolve().parent.parent.parent)

pytestmark = pytest.mark.anyio


async def call(
    fn: Callable[..., object],
    *args: object,
    item: object = None,
    mode: str = "",
    param: str = "",
    run_ms_max: int | None = None,
    **kwargs: object,
) -> Ended:
    """Run one call in an engine of its own."""
    ended, _, _ = await told(
        fn, *args, item=item, mode=mode, param=param, run_ms_max=run_ms_max, **kwargs
    )
    return ended


def is_there(path: str) -> bool:
    return Path(path).exists()


async def told(
    fn: Callable[..., object],
    *args: object,
    item: object = None,
    mode: str = "",
    param: str = "",
    run_ms_max: int | None = None,
    **kwargs: object,
) -> tuple[Ended, Recorder, str]:
    sink = Recorder()
    order = order_for(
        "work",
        json.dumps({"args": args, "kwargs": kwargs}).encode(),
        item=b"" if item is None else json.dumps(item).encode(),
        run_ms_max=run_ms_max,
    )
    async with CallablesEngine([register(fn, "work", mode, param=param)]) as engine:
        await engine.start(order, sink)
        ended = await sink.end_of(order.attempt_id)
    return ended, sink, order.attempt_id


@attrs.frozen
class Star:
    name: str
    flux: float
    seen: datetime.date | None = None


@dataclass
class Plain:
    path: Path
    raw: bytes = b"\x00\xff"


# ---------------------------------------------------------------------------------------------- arguments and results


@pytest.mark.parametrize("mode", ["thread", "process"])
async def test_arguments_have_the_types_that_are_annotated(mode: str) -> None:
    ended = await call(apps.moved, {"x": 3}, 4, scale=2, mode=mode)
    assert ended.result == b'{"x":7,"y":1.0}'


async def test_the_item_is_the_next_positional_argument() -> None:
    def joined(*words: str, sep: str = "-") -> str:
        return sep.join(words)

    assert (await call(joined, "a", item="b", sep="+")).result == b'"a+b"'


async def test_the_item_goes_to_the_parameter_that_is_named_for_it() -> None:
    def shown(a: int, b: int, c: int = 0) -> list[int]:
        return [a, b, c]

    assert (await call(shown, 1, item=3, param="c", b=2)).result == b"[1,2,3]"


async def test_an_item_can_be_left_out() -> None:
    def count(*words: str) -> int:
        return len(words)

    order = order_for("work", b'{"args": ["a"], "item": false}', item=b'"b"')
    async with CallablesEngine([register(count, "work")]) as engine:
        await engine.start(order, sink := Recorder())
        assert (await sink.end_of(order.attempt_id)).result == b"1"


@pytest.mark.parametrize(
    "fn",
    [
        lambda ctx, a: a + ctx.attempt,
        lambda a, ctx: a + ctx.attempt,
    ],
)
async def test_a_first_parameter_called_ctx_is_the_context(fn: Callable[..., int]) -> None:
    wants = next(iter(fn.__code__.co_varnames)) == "ctx"
    ended = await call(fn, item=2)
    assert ended.result == b"3" if wants else "ctx" in ended.message


async def test_the_context_may_stand_anywhere() -> None:
    def last(a: int, c: Context) -> int:
        return a + c.attempt

    def middle(a: int, c: Context, b: int = 5) -> list[int]:
        return [a, c.attempt, b]

    def named(a: int, *, c: Context) -> int:
        return a + c.attempt

    assert (await call(last, item=1)).result == b"2"
    assert (await call(middle, 1)).result == b"[1,1,5]"
    assert (await call(middle, 1, 7)).result == b"[1,1,7]"
    assert (await call(named, 1)).result == b"2"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ((), "missing 2 required positional arguments: 'point' and 'by'"),
        (({"x": "3"}, 1), "argument point: Expected `int`, got `str` - at `$.x`"),
        (({"x": 3}, "many"), "argument by: Expected `int`, got `str`"),
        (({"x": 3}, 1, 2), "argument 3: it takes at most 2 by position"),
        (({"y": 3}, 1), "argument point: Object missing required field `x`"),
    ],
)
async def test_wrong_arguments_are_named(args: tuple[object, ...], told: str) -> None:
    ended = await call(apps.moved, *args)
    assert (ended.outcome, ended.cause) == ("failed", Cause.ERROR)
    assert told in ended.message


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (b"[]", "template: Expected `object`"),
        (b'{"argv": ["true"]}', "unknown field `argv`"),
        (b'{"args": 1}', "Expected `array`"),
        (b"\xff", "template: "),
    ],
)
async def test_wrong_templates_are_told(template: bytes, told: str) -> None:
    async with CallablesEngine([register(apps.work)]) as engine:
        order = order_for("work", template)
        await engine.start(order, sink := Recorder())
        ended = await sink.end_of(order.attempt_id)
    assert told in ended.message


async def test_types_that_json_has_not_come_and_go() -> None:
    def back(star: Star, plain: Plain, where: Path | None = None) -> list[object]:
        return [star, plain, {1}, where]

    ended = await call(
        back, {"name": "Vega", "flux": 1, "seen": "2026-01-02"}, {"path": "/a", "raw": "AP8="}
    )
    assert ended.result is not None, ended
    assert json.loads(ended.result) == [
        {"name": "Vega", "flux": 1.0, "seen": "2026-01-02"},
        {"path": "/a", "raw": "AP8="},
        [1],
        None,
    ]


class Array:
    """What numpy's arrays and scalars look like from afar."""

    def tolist(self) -> list[float]:
        return [1.5, 2.0]


async def test_arrays_become_lists() -> None:
    assert (await call(lambda: {"values": Array()})).result == b'{"values":[1.5,2.0]}'


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (object(), "builtins.object is not known - return plain values"),
        (
            "x" * RESULT_BYTES_MAX,
            "bytes long, at most 1048576 are kept - write big results to a file",
        ),
    ],
    ids=["object", "long"],
)
async def test_results_that_can_not_be_kept_say_what_to_do(value: object, told: str) -> None:
    ended = await call(lambda: value)
    assert (ended.outcome, ended.cause) == ("failed", Cause.ERROR)
    assert told in ended.message


async def test_unresolved_annotations_do_not_hinder() -> None:
    def later(a: NotThere) -> NotThere:  # type: ignore[name-defined]  # noqa: F821 - that is the point
        return a

    assert (await call(later, [1])).result == b"[1]"


@pytest.mark.parametrize(
    ("fn", "mode", "told"),
    [
        (apps.plain_work, "async", "only a coroutine function"),
        (apps.work, "thread", "a coroutine function runs"),
        (apps.work, "fibre", "'fibre' is no mode - one of async, thread, process"),
    ],
)
def test_modes_go_with_functions(fn: Callable[..., object], mode: str, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        register(fn, "work", mode)


# --------------------------------------------------------------------------------------------------------------- ends


def outer() -> None:
    inner(1)


def inner(depth: int) -> None:
    if depth:
        inner(depth - 1)
    raise ValueError("no such star\nnor any other")


async def test_an_exception_is_told_by_its_last_line_and_innermost_calls() -> None:
    ended = await call(outer)
    assert (ended.outcome, ended.cause) == ("failed", Cause.ERROR)
    lines = ended.message.splitlines()
    assert lines[:2] == ["ValueError: no such star", "nor any other"]
    assert lines[-1].strip().startswith(__file__)
    assert "in inner" in lines[-1]
    assert "orchestra/engines" not in ended.message


async def test_messages_are_bounded() -> None:
    def long() -> None:
        raise ValueError("x" * 10_000)

    def deep(depth: int) -> None:
        deep(depth - 1)

    assert len((await call(long)).message) <= REASON_CHARS_MAX
    ended = await call(deep, 10_000)
    assert ended.message.startswith("RecursionError")
    assert len(ended.message) <= REASON_CHARS_MAX


async def test_a_function_that_exits_is_a_failure() -> None:
    ended = await call(lambda: sys.exit("enough"))
    assert (ended.outcome, ended.message.splitlines()[0]) == ("failed", "SystemExit: enough")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("fn", "mode"),
    [
        (apps.cancels_its_own, "async"),
        (apps.cancels_itself, "async"),
        (apps.raises_cancelled, "thread"),
        (apps.raises_cancelled, "process"),
        (apps.cancels_its_own, "process"),
    ],
)
async def test_a_cancellation_of_its_own_is_a_failure_and_not_for_ever(
    fn: Callable[..., object], mode: str
) -> None:
    with anyio.fail_after(60):
        ended = await call(fn, mode=mode)
    assert ended.outcome == "failed"
    assert ended.message.splitlines()[0] == "asyncio.exceptions.CancelledError"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_end_is_told_whatever_a_function_did_to_its_task() -> None:
    async def logs(ctx: Context) -> str:
        for _ in range(100):
            ctx.log("line")
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "done"

    with anyio.fail_after(60):
        ended, _, _ = await told(logs)
    assert (ended.outcome, ended.result) == ("completed", b'"done"')


async def test_stopped_without_a_stop_is_a_failure() -> None:
    def gives_up() -> None:
        raise Stopped

    ended = await call(gives_up)
    assert (ended.outcome, ended.message) == (
        "failed",
        "it raised Stopped, and nobody had asked for it",
    )


async def test_an_unknown_app_fails() -> None:
    async with CallablesEngine([]) as engine:
        order = order_for("nothing", b"{}")
        await engine.start(order, sink := Recorder())
        ended = await sink.end_of(order.attempt_id)
    assert (ended.cause, ended.message) == (
        Cause.UNSTARTABLE,
        "no function is registered as 'nothing'",
    )


async def test_a_stop_passes_through_a_task_group() -> None:
    async def nested(ctx: Context) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(ctx.sleep, 600)
            group.start_soon(ctx.sleep, 600)

    async with CallablesEngine([register(nested)]) as engine:
        order = order_for("nested", b"{}")
        await engine.start(order, sink := Recorder())
        await sink.start_of(order.attempt_id)
        await engine.stop(order.attempt_id, "asked")
        assert (await sink.end_of(order.attempt_id)).outcome == "stopped"


async def test_what_finishes_after_a_stop_is_stopped() -> None:
    begun = anyio.Event()

    async def finishing(ctx: Context) -> str:
        begun.set()
        with contextlib.suppress(Stopped):
            await ctx.sleep(600)
        return "what there was"

    async with CallablesEngine([register(finishing)]) as engine:
        order = order_for("finishing", b"{}")
        await engine.start(order, sink := Recorder())
        await begun.wait()
        await engine.stop(order.attempt_id, "asked")
        assert (await sink.end_of(order.attempt_id)).outcome == "stopped"


async def test_a_coroutine_without_a_context_is_cancelled_at_term_not_before() -> None:
    async with CallablesEngine([register(apps.work)]) as engine:
        order = order_for("work", b'{"args": ["deaf"]}')
        await engine.start(order, sink := Recorder())
        await sink.start_of(order.attempt_id)
        await engine.stop(order.attempt_id, "asked")
        await anyio.wait_all_tasks_blocked()
        assert order.attempt_id not in sink.ends
        await engine.stop(order.attempt_id, "term")
        assert (await sink.end_of(order.attempt_id)).outcome == "stopped"


async def test_a_thread_that_does_not_listen_stays_unconfirmed_until_it_returns() -> None:
    release = threading.Event()

    def deaf() -> str:
        release.wait(20)
        return "at last"

    async with CallablesEngine([register(deaf)]) as engine:
        stopped, late = order_for("deaf", b"{}"), order_for("deaf", b"{}", run_ms_max=50)
        sink = Recorder()
        for order in (stopped, late):
            await engine.start(order, sink)
            await sink.start_of(order.attempt_id)
        for rung in ("asked", "term", "kill"):
            await engine.stop(stopped.attempt_id, rung)
        with anyio.move_on_after(0.2):
            await sink.end_of(stopped.attempt_id)
        assert sink.ends == {}
        assert len(await engine.query()) == 2
        release.set()
        assert (await sink.end_of(stopped.attempt_id)).outcome == "stopped"
        assert (await sink.end_of(late.attempt_id)).cause is Cause.TIMEOUT


async def test_leaving_leaves_a_deaf_thread_behind_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callables, "LEAVE_S", 0.1)
    release = threading.Event()
    sink, order = Recorder(), order_for("deaf", b"{}")
    try:
        async with CallablesEngine([register(lambda: release.wait(20), "deaf")]) as engine:
            await engine.start(order, sink)
            await sink.start_of(order.attempt_id)
    finally:
        release.set()
    ended = sink.ends[order.attempt_id]
    assert (ended.outcome, ended.cause) == ("failed", Cause.LOST)
    assert "thread" in ended.message


# ------------------------------------------------------------------------------------------------------------ context


@pytest.mark.parametrize("mode", ["thread", "process"])
async def test_progress_logs_and_identity(mode: str) -> None:
    ended, sink, id = await told(apps.tells, item=[1, "two"], mode=mode)
    assert ended.result is not None, ended
    assert json.loads(ended.result) == [id[:-5], 1, [1, "two"], False, True]
    assert sink.written[id, "stdout"] == b"first\nsecond\n"
    assert sink.told[id][-1] == (1.0, "done")


async def test_track_tells_how_far_it_is() -> None:
    seen: list[float] = []

    async def watched(ctx: Context) -> int:
        total = 0
        for number in ctx.track(range(4), message="summing"):
            total += number
            await ctx.sleep(0.15)
        return total

    ended, sink, id = await told(watched)
    seen = [fraction for fraction, _ in sink.told[id]]
    assert ended.result == b"6"
    assert seen == sorted(seen)
    assert 0.0 < seen[0] < 1.0 or seen[0] == 0.0
    assert {message for _, message in sink.told[id]} == {"summing"}
    assert seen[-1] >= 0.75


async def test_track_raises_stopped_between_two_items() -> None:
    for kind in (LoopContext, ThreadContext):
        context = kind("task", 1, None)
        done: list[int] = []

        def run(context: LoopContext | ThreadContext, done: list[int]) -> None:
            for number in context.track(range(10)):
                done.append(number)
                if number == 3:
                    context.ask_to_stop()

        with pytest.raises(Stopped):
            run(context, done)
        assert done == [0, 1, 2, 3]
        assert context.told == (0.3, "")


async def test_track_in_async_for() -> None:
    context = LoopContext("task", 1, None)

    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    assert [n async for n in context.track(range(3))] == [0, 1, 2]
    assert context.told == (1.0, "")
    assert [n async for n in context.track(numbers(), total=3)] == [0, 1, 2]
    with pytest.raises(TypeError, match="async for"):
        list(context.track(numbers()))


async def test_track_without_a_length_counts() -> None:
    context = ThreadContext("task", 1, None)

    def numbers() -> Iterator[int]:
        yield from range(3)

    assert list(context.track(numbers())) == [0, 1, 2]
    assert context.told == (0.0, "2 done")


async def test_waiting_blocks_threads_only() -> None:
    with pytest.raises(RuntimeError, match=r"await ctx\.sleep\(1\)"):
        LoopContext("task", 1, None).wait(1)


async def test_the_folder_goes_with_the_attempt() -> None:
    def writes(ctx: Context) -> str:
        (ctx.folder / "file").write_text("x")
        return str(ctx.folder)

    ended = await call(writes)
    assert ended.result is not None
    assert not is_there(json.loads(ended.result))


async def test_a_log_is_bounded_and_says_so() -> None:
    context = LoopContext("task", 1, None)
    line = "x" * (1024 * 1024 - 1)
    for _ in range(40):
        context.log(line)
    taken = context.take()
    assert LOG_BYTES_MAX - 2 * len(line) < len(taken) <= LOG_BYTES_MAX
    assert taken.endswith(b"(the log is full: what follows is dropped)\n")


async def test_a_thread_that_logs_faster_than_it_is_read_waits() -> None:
    context = ThreadContext("task", 1, None)

    def logs() -> None:
        for _ in range(8):
            context.log("x" * 512 * 1024)

    thread = threading.Thread(target=logs)
    thread.start()
    try:
        thread.join(0.2)
        assert thread.is_alive()
        assert context.unsent_bytes < 3 * 1024 * 1024
    finally:
        while thread.is_alive():
            context.take()
            thread.join(0.005)


# ---------------------------------------------------------------------------------------------------------- processes


async def test_a_process_serves_many_calls() -> None:
    async with CallablesEngine([register(apps.own_pid, "work", "process")]) as engine:
        sink, pids = Recorder(), set[bytes | None]()
        for _ in range(5):
            order = order_for("work", b"{}")
            await engine.start(order, sink)
            pids.add((await sink.end_of(order.attempt_id)).result)
            assert sink.written[order.attempt_id, "stdout"] == b"here\n"
    assert len(pids) == 1
    assert not psutil.pid_exists(int(pids.pop() or 0))


async def test_a_process_that_dies_fails_its_call_and_no_other() -> None:
    registry = [
        register(apps.killed, "killed", "process"),
        register(apps.exits, "exits", "process"),
        register(apps.moved, "moved", "process"),
    ]
    async with CallablesEngine(registry) as engine:
        sink = Recorder()
        for app, template, cause, signal_name, code in (
            ("killed", b"{}", Cause.SIGNAL, "SIGKILL", None),
            ("exits", b'{"args": [7]}', Cause.EXIT, "", 7),
            ("moved", b'{"args": [{"x": 1}, 1]}', Cause.NONE, "", None),
        ):
            order = order_for(app, template)
            await engine.start(order, sink)
            ended = await sink.end_of(order.attempt_id)
            assert (ended.cause, ended.signal, ended.exit_code) == (cause, signal_name, code)


async def test_children_of_a_killed_call_end_with_it() -> None:
    async with CallablesEngine([register(apps.forks, "forks", "process")]) as engine:
        order = order_for("forks", b"{}")
        await engine.start(order, sink := Recorder())
        key = (order.attempt_id, "stdout")
        await sink.until(lambda: key in sink.written, "it tells of its child", 20)
        child = psutil.Process(int(sink.written[key].split()[1]))
        assert child.is_running()
        await engine.stop(order.attempt_id, "kill")
        assert (await sink.end_of(order.attempt_id)).outcome == "stopped"
        assert not child.is_running()


async def test_a_deaf_call_is_ended_by_its_time_limit() -> None:
    begin = time.monotonic()
    ended = await call(apps.deaf_plain, 600, mode="process", run_ms_max=700)
    assert (ended.outcome, ended.cause) == ("failed", Cause.TIMEOUT)
    assert time.monotonic() - begin < 10


async def test_a_call_ends_when_the_lease_passes() -> None:
    async with CallablesEngine([register(apps.deaf_plain, "work", "process")]) as engine:
        order = order_for("work", b'{"args": [600]}')
        await engine.start(order, sink := Recorder())
        await sink.start_of(order.attempt_id)
        engine.extend(time.monotonic() + 0.1)
        ended = await sink.end_of(order.attempt_id)
        assert (ended.outcome, ended.cause) == ("failed", Cause.LOST)


async def test_functions_that_no_other_process_can_find_are_refused() -> None:
    def local() -> None: ...

    for fn, why in (
        (local, "can not be found by another process"),
        (lambda: 1, "can not be found"),
    ):
        ended = await call(fn, mode="process")
        assert ended.cause is Cause.UNSTARTABLE
        assert why in ended.message
        assert "define it at the top of a module" in ended.message


MAIN = """
import anyio, sys
from orchestra.engines.callables import CallablesEngine, register
from orchestra.testing.check_engine import Recorder, order_for
class Task:
    def __init__(self, fn): self.fn = fn
@Task
def double(x: int) -> int:
    return 2 * x
async def slow(x: int) -> int:
    await anyio.sleep(0.01)
    return 3 * x
async def main():
    registry = [register(double.fn, "double", "process"), register(slow, "slow", "process")]
    async with CallablesEngine(registry) as engine:
        for app in ("double", "slow"):
            order = order_for(app, b'{"args": [21]}')
            await engine.start(order, sink := Recorder())
            print(await sink.end_of(order.attempt_id))
if __name__ == "__main__":
    anyio.run(main)
"""


async def test_functions_of_the_main_program_run_in_processes(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(MAIN)
    env = {**os.environ, "PYTHONPATH": ROOT}
    done = await anyio.run_process([sys.executable, str(script)], env=env)
    assert b"result=b'42'" in done.stdout
    assert b"result=b'63'" in done.stdout


def test_a_call_accepts_anything_named_ctx() -> None:
    """Tasks stay plain callables: a test gives its own context."""

    class Fake:
        def track(self, iterable: Any, **_: object) -> Any:
            return iterable

    assert apps.tracked(Fake(), 3) == 3  # type: ignore[arg-type]  # as a user's test would
