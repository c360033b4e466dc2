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
    check_output,
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


class Shortened:
    """A sink to which the last byte of all output never comes."""

    def __init__(self, sink: AttemptSink) -> None:
        self._sink = sink

    async def running(self, attempt_id: str) -> None:
        await self._sink.running(attempt_id)

    async def progress(self, attempt_id: str, fraction: float, message: str) -> None:
        await self._sink.progress(attempt_id, fraction, message)

    async def output(self, attempt_id: str, stream: str, data: bytes) -> None:
        await self._sink.output(attempt_id, stream, data[:-1])

    async def ended(self, attempt_id: str, ended: Ended) -> None:
        await self._sink.ended(attempt_id, ended)


class Cutting(ProcessEngine):
    """Breaks the law on purpose: what is written comes torn."""

    async def start(self, order: Order, sink: AttemptSink) -> None:
        await super().start(order, Shortened(sink))


class Twice(ProcessEngine):
    """Breaks the law on purpose: an order that is repeated starts another program under another name."""

    _seen = 0

    async def start(self, order: Order, sink: AttemptSink) -> None:
        self._seen += 1
        other = attrs.evolve(order, attempt_id=f"{order.attempt_id}-{self._seen}")
        await super().start(order if self._seen == 1 else other, sink)


async def test_the_suite_sees_output_that_comes_torn(tmp_path: Path) -> None:
    bench = attrs.evolve(process_bench(tmp_path), make=lambda: Cutting(tmp_path))
    with pytest.raises(EngineBroken):
        await check_output(bench)


async def test_the_suite_sees_an_order_that_is_started_twice(tmp_path: Path) -> None:
    bench = attrs.evolve(process_bench(tmp_path), make=lambda: Twice(tmp_path))
    with pytest.raises(EngineBroken, match="one id is one attempt"):
        await check_same_id_once(bench)


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
