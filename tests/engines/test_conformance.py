"""Every engine keeps the contract of `orchestra.ports.Engine`, and the suite sees one that does not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import attrs
import pytest

from orchestra.engines.callables import CallablesEngine, register
from orchestra.engines.process import ProcessEngine
from orchestra.ports import AttemptSink, Ended
from orchestra.statemachine.replies import Order
from orchestra.testing.check_engine import (
    CHECKS,
    Check,
    EngineBench,
    EngineBroken,
    check_leaving,
    check_same_id_once,
    check_stubborn,
)
from tests.engines import apps

pytestmark = pytest.mark.anyio

SAID = b"".join(b"line %d\n" % number for number in range(100))
TALKING = "for number in range(100): print('line', number, flush=number % 7 == 0)"
STUBBORN = (
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('ready', flush=True)\n"
    "while True: time.sleep(600)\n"
)


def argv(*words: str) -> bytes:
    return json.dumps({"argv": words}).encode()


def process_bench(folder: Path, mode: str = "") -> EngineBench:
    return EngineBench(
        make=lambda: ProcessEngine(folder, guardian_mode=mode),
        app="process",
        quick=argv("true"),
        failing=argv("false"),
        lasting=argv("sleep", "600"),
        talking=argv(sys.executable, "-I", "-S", "-c", TALKING),
        said=SAID,
        stubborn=argv(sys.executable, "-I", "-S", "-c", STUBBORN),
        broken=argv("/no/such/program"),
    )


def callables_bench(mode: str) -> EngineBench:
    fn = apps.work if mode == "async" else apps.plain_work

    def template(what: str) -> bytes:
        return json.dumps({"args": [what]}).encode()

    return EngineBench(
        make=lambda: CallablesEngine([register(fn, "work", mode)]),
        app="work",
        quick=template("quick"),
        failing=template("failing"),
        lasting=template("lasting"),
        talking=template("talking"),
        said=SAID,
        stubborn=template("stubborn") if mode == "process" else None,
        broken=b'{"args": [7]}',
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("mode", ["async", "thread", "process"])
async def test_callables_engine(check: Check, mode: str) -> None:
    await check(callables_bench(mode))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_process_engine(check: Check, tmp_path: Path) -> None:
    await check(process_bench(tmp_path))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_process_engine_without_adoption_and_proc(check: Check, tmp_path: Path) -> None:
    await check(process_bench(tmp_path, "plain"))


class Hasty(ProcessEngine):
    """Breaks the law on purpose: tells the end when a stop is asked for, not when it is over."""

    async def start(self, order: Order, sink: AttemptSink) -> None:
        self.sink = sink
        await super().start(order, sink)

    async def stop(self, attempt_id: str, rung: str) -> None:
        await super().stop(attempt_id, rung)
        if attempt_id in await self.query():
            await self.sink.ended(attempt_id, Ended("stopped"))


class Forgetful(CallablesEngine):
    """Breaks the law on purpose: does not know which attempts it had."""

    async def start(self, order: Order, sink: AttemptSink) -> None:
        await sink.running(order.attempt_id)
        await sink.ended(order.attempt_id, Ended("completed", result=b"null"))


class Silent(CallablesEngine):
    """Breaks the law on purpose: leaves without a word."""

    async def start(self, order: Order, sink: AttemptSink) -> None:
        await sink.running(order.attempt_id)


async def test_the_suite_sees_an_end_that_is_told_too_early(tmp_path: Path) -> None:
    bench = attrs.evolve(process_bench(tmp_path), make=lambda: Hasty(tmp_path))
    with pytest.raises(BaseExceptionGroup) as caught:
        await check_stubborn(bench)
    assert caught.group_contains(EngineBroken) or caught.group_contains(AssertionError)


async def test_the_suite_sees_an_attempt_that_runs_twice() -> None:
    with pytest.raises(EngineBroken, match=r"not told after the end|told once"):
        await check_same_id_once(
            attrs.evolve(callables_bench("async"), make=lambda: Forgetful([register(apps.work)]))
        )


async def test_the_suite_sees_an_engine_that_leaves_without_a_word() -> None:
    bench = attrs.evolve(callables_bench("async"), make=lambda: Silent([register(apps.work)]))
    with pytest.raises(EngineBroken, match="every end is told"):
        await check_leaving(bench)
