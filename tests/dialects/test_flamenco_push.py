"""The push protocol of 2015-02: the manager sends tasks, asks how they are, and kills; a worker that dies is reported once."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import pytest

from orchestra.dialects.far_calls import FarCall, FarReply
from orchestra.ports import Story
from orchestra.statemachine.lifecycles import JobStatus, TaskStatus
from orchestra.statemachine.queries import GetTask
from tests.dialects.flamenco_kit import Far, Yard, open_yard

pytestmark = pytest.mark.anyio

PUSHED: dict[str, object] = {"render-*": {"push": True}}


RUN_INFO = {
    "hostname": "fsiddi-macpro.local",
    "mac_address": 158929712651,
    "system": "Darwin 14.1.0",
    "update_frequent": {
        "load_average": {"15min": 2.18, "1min": 2.18, "5min": 2.11},
        "worker_cpu_percent": 7.0,
    },
    "update_less_frequent": {
        "worker_architecture": "x86_64",
        "worker_disk_percent": 90.7,
        "worker_mem_percent": 56.7,
        "worker_num_cpus": 16,
    },
}
"""The document's example of how a worker is."""


class Listening:
    """A worker of the alpha: it answers at its port, and does one thing at a time."""

    def __init__(self, hostname: str = "render-1") -> None:
        self.hostname = hostname
        self.alive = True
        self.task: dict[str, str] = {}
        self.activity: dict[str, object] = {}
        self.log: str | None = None
        self.read_bytes: list[int] = []
        self.calls: list[str] = []

    def answer(self, call: FarCall) -> FarReply | None:
        if not self.alive:
            return None
        self.calls.append(f"{call.method} {call.path}")
        match call.path:
            case "/info":
                self.read_bytes.append(call.reply_bytes_max)
                return FarReply(200, json.dumps(self._says()).encode()[: call.reply_bytes_max])
            case "/run_info":
                return FarReply(200, json.dumps(RUN_INFO).encode())
            case "/execute_task" if self.task:
                return FarReply(500, b'{"error": "Processus failed"}')
            case "/execute_task":
                self.task = dict(call.form)
                return FarReply(200, b'{"pid": 0}')
            case _:
                self.task = {}
                return FarReply(204, b"")

    def _says(self) -> dict[str, object]:
        return {
            "activity": json.dumps(self.activity) if self.activity else None,
            "hostname": self.hostname,
            "log": self.log,
            "mac_address": 158929712651,
            "status": "rendering" if self.task else "enabled",
            "system": "Linux 6.1",
            "time_cost": 1 if self.task else None,
        }


class Network:
    """Workers by their ports."""

    def __init__(self) -> None:
        self.at: dict[tuple[str, int], Listening] = {}

    def call_all(self, calls: Sequence[FarCall]) -> tuple[FarReply | None, ...]:
        return tuple(
            None if (found := self.at.get((call.host, call.port))) is None else found.answer(call)
            for call in calls
        )


@asynccontextmanager
async def pushed(count: int = 1) -> AsyncGenerator[tuple[Yard, list[Listening], list[Far]]]:
    """A yard, workers that listen at an address of one machine, and the same as those who report."""
    network = Network()
    listening, fars = [Listening(f"render-{number}") for number in range(count)], list[Far]()
    async with open_yard(network.call_all, workers=PUSHED) as yard:
        for number, each in enumerate(listening):
            network.at["10.0.0.7", 15_000 + number] = each
            far = yard.at("10.0.0.7", each.hostname, 15_000 + number)
            assert await far.register() == 204
            fars.append(far)
        yield yard, listening, fars


async def reports(far: Far, task: dict[str, str], status: str) -> tuple[int, str]:
    return await far.says({"task_id": task["task_id"], "job_id": 1}, status, log="Fra:5 \n")


async def test_a_task_is_sent_asked_after_and_ended_by_the_worker() -> None:
    async with pushed() as (yard, (worker,), (far,)):
        await far.posts(output_path="/farm/out/######")
        await yard.passes(1)
        task = worker.task
        assert set(task) == {"task_id", "task_parser", "settings", "task_command"}
        argv = json.loads(task["task_command"])
        assert argv[0] == "blender"
        assert {"/farm/shot.blend", "/farm/out/######"} < set(argv)
        assert json.loads(task["settings"])["frame_start"] == 5
        worker.activity = {"current_frame": 7, "process": "Sample 1/8"}
        await yard.passes(11)
        seen = await yard.asker.answer(GetTask("1.1"))
        assert seen.status is TaskStatus.RUNNING
        assert seen.attempts[0].progress == pytest.approx(2 / 6)
        (shown,) = (await far.json("GET", "/workers")).values()
        assert json.loads(shown["activity"])["current_frame"] == 7
        worker.task = {}
        assert await reports(far, task, "finished") == (204, "")
        assert (await yard.job()).status is JobStatus.COMPLETED
        assert worker.calls.count("POST /execute_task") == 1
        # It is asked about every 10 s, not in each round.
        assert worker.calls.count("GET /info") <= 3


async def test_how_a_called_worker_is_comes_from_itself() -> None:
    async with pushed() as (_, (worker,), (far,)):
        told = await far.json("GET", "/workers/1")
        for name in ("mac_address", "update_frequent", "update_less_frequent"):
            assert told[name] == RUN_INFO[name]
        assert told["hostname"] == "render-0"
        worker.alive = False
        assert await far.json("GET", "/workers/1") == {"connection": "offline"}


async def test_two_at_one_address_are_two() -> None:
    async with pushed(2) as (yard, listening, fars):
        await fars[0].posts(chunk_size=3)
        await yard.passes(1)
        assert len({worker.task["task_id"] for worker in listening}) == 2
        for worker, far in zip(listening, fars, strict=True):
            assert await reports(far, worker.task, "finished") == (204, "")
        assert (await yard.job()).status is JobStatus.COMPLETED


async def test_a_busy_worker_is_asked_again_and_is_not_believed_to_have_it() -> None:
    """The original ignored the answer, and showed tasks as running that were not."""
    async with pushed() as (yard, (worker,), (far,)):
        worker.task = {"task_id": "of another manager"}
        await far.posts()
        await yard.passes(3)
        assert (await yard.asker.answer(GetTask("1.1"))).status is TaskStatus.LEASED
        worker.task = {}
        await yard.passes(1)
        assert await reports(far, worker.task, "finished") == (204, "")


async def test_a_cancelled_task_is_killed_and_over_when_the_worker_says_so() -> None:
    async with pushed() as (yard, (worker,), (far,)):
        await far.posts()
        await yard.passes(1)
        task = worker.task
        assert (await far.send("DELETE", "/tasks/12")).status_code == 202
        await yard.passes(3)
        assert worker.calls.count("DELETE /kill") == 1
        assert (await yard.job()).status is JobStatus.CANCELLING
        assert await reports(far, task, "aborted") == (204, "")
        assert (await yard.job()).status is JobStatus.CANCELLED


async def test_a_killed_task_whose_worker_forgot_to_say_so_is_over_too() -> None:
    async with pushed() as (yard, (worker,), (far,)):
        await far.posts()
        await yard.passes(1)
        assert worker.task
        await far.send("DELETE", "/tasks/12")
        await yard.passes(20)
        assert (await yard.job()).status is JobStatus.CANCELLED
        assert worker.task == {}


async def test_a_worker_that_dies_while_it_renders_is_reported_once() -> None:
    async with pushed(2) as (yard, listening, fars):
        await fars[0].posts()
        await yard.passes(1)
        pairs = sorted(zip(listening, fars, strict=True), key=lambda pair: not pair[0].task)
        (doomed, far), (steady, other) = pairs
        assert doomed.task
        late = doomed.task
        doomed.alive = False
        await yard.passes(75)
        again = steady.task
        assert again["task_id"] != late["task_id"]
        await yard.passes(120)
        story = await yard.asker.story(Story(limit=500))
        over = [each for each in story if each.kind == "attempt" and each.verb in ("fail", "stop")]
        assert len(over) == 1
        assert await reports(far, late, "finished") == (403, '"Task Cancelled"')
        assert await reports(other, again, "finished") == (204, "")
        assert (await yard.job()).status is JobStatus.COMPLETED
        # It comes back without registering, as a process that was only frozen does.
        doomed.alive, doomed.task = True, {}
        await yard.passes(11)
        shown = await far.json("GET", "/workers")
        assert {each["connection"] for each in shown.values()} == {"online"}


async def test_a_task_that_its_worker_lost_runs_again() -> None:
    async with pushed() as (yard, (worker,), (far,)):
        await far.posts()
        await yard.passes(1)
        lost = worker.task
        worker.task = {}
        await yard.passes(12)
        assert worker.task
        assert worker.task["task_id"] != lost["task_id"]
        assert await reports(far, worker.task, "finished") == (204, "")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"hostname": 1}', b"\xff", b"[" * 10_000])
async def test_nonsense_from_a_worker_is_no_sign_of_life(body: bytes) -> None:
    def call_all(calls: Sequence[FarCall]) -> tuple[FarReply | None, ...]:
        return tuple(FarReply(200, body) for _ in calls)

    async with open_yard(call_all, workers=PUSHED) as yard:
        far = yard.at("10.0.0.7", "render-1", 15_000)
        assert await far.register() == 204
        await yard.passes(75)
        (shown,) = (await far.json("GET", "/workers")).values()
        assert shown["connection"] == "offline"


async def test_only_workers_of_the_operators_list_are_called() -> None:
    called: list[FarCall] = []

    def call_all(calls: Sequence[FarCall]) -> tuple[FarReply | None, ...]:
        called.extend(calls)
        return (None,) * len(calls)

    async with open_yard(call_all, workers=PUSHED) as yard:
        far = yard.at("10.0.0.7", "other", 22)
        assert await far.register() == 204
        await far.posts()
        await yard.passes(12)
        assert called == []
        listed: dict[str, Any] = {"port": 15_000, "hostname": "render-9", "system": "Linux"}
        sent = {"content": urlencode(listed), "headers": {"content-type": FORM}}
        assert (await far.send("POST", "/workers", **sent)).status_code == 204
        await yard.passes(12)
        assert {(call.host, call.port) for call in called} == {("10.0.0.7", 15_000)}


FORM = "application/x-www-form-urlencoded"
