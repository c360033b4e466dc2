"""Forged, replayed, late and malformed reports: none is believed, and none makes the manager stumble."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from orchestra.ports import Log, Story
from orchestra.statemachine.lifecycles import TaskStatus
from orchestra.statemachine.queries import GetTask
from tests.dialects.flamenco_kit import Far, Yard, open_yard

pytestmark = pytest.mark.anyio

REPORTS = 4_000
WORDS = ("running", "finished", "failed", "aborted", "ready", "active", "completed", "canceled")
FORM = {"content-type": "application/x-www-form-urlencoded"}
MULTIPART = {"content-type": "multipart/form-data; boundary=x"}
PART = b'--x\r\nContent-Disposition: form-data; name="status"\r\n\r\n'


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """What is shown here does not depend on the loop."""
    return "asyncio"


class Scene:
    """Tasks that run, ended, and were given up, with the tickets of all."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.worker = yard.at("10.0.0.7", "worker")
        self.forger = yard.at("10.0.0.66", "forger")
        self.live: dict[str, Any] = {}
        self.past: list[int] = []

    async def prepare(self) -> None:
        assert await self.forger.register() == 204
        await self.yard.passes(20)
        for number, word in ((1, "finished"), (2, "failed"), (2, "failed"), (2, "failed")):
            await self.worker.posts(number)
            task = await self.worker.has_task()
            assert await self.worker.says(task, "running") == (204, "")
            assert await self.worker.says(task, word, log="it failed\n") == (204, "")
            self.past.append(task["task_id"])
            await self.yard.passes(8)
        await self.worker.posts(3)
        lost = await self.worker.has_task()
        assert await self.worker.says(lost, "running") == (204, "")
        await self.yard.passes(620)
        self.past.append(lost["task_id"])
        self.live = await self.worker.has_task()
        assert await self.worker.says(self.live, "running") == (204, "")

    async def seen(self) -> list[object]:
        """Everything that a report could change for good."""
        tasks = [await self.yard.asker.answer(GetTask(f"{number}.1")) for number in (1, 2, 3)]
        story = await self.yard.asker.story(Story(limit=500))
        attempts = [attempt.id for task in tasks for attempt in task.attempts]
        logs = [await self.yard.asker.log(Log(each, "stdout")) for each in attempts]
        # That its worker was away meanwhile belongs to the worker.
        return [*tasks, *logs, *(each for each in story if each.kind in ("job", "task", "attempt"))]


def true_looking(chance: random.Random) -> dict[str, str]:
    fields = {"status": chance.choice(WORDS), "time_cost": "1", "job_id": "3", "log": "x"}
    if chance.random() < 0.3:
        fields["activity"] = json.dumps({"current_frame": 10, "thumbnail": "/etc/passwd"})
    return fields


def broken_bodies(chance: random.Random) -> tuple[bytes, dict[str, str]]:
    noise = chance.randbytes(chance.randrange(1, 200))
    form = chance.choice(
        (
            noise,
            b"",
            b"status=",
            b"status=done",
            b"status=finished&status=failed",
            b"status=%ff%fe",
            b"status=finished&time_cost=-1",
            b"status=finished&time_cost=9e99",
            b"status=finished&time_cost=" + b"9" * 400,
            b"&".join(b"f%d=1" % each for each in range(100)),
        )
    )
    text = chance.choice(
        (
            noise,
            b"[]",
            b"null",
            b'{"status": ["finished"]}',
            b'{"status": "finished", "status": "failed"}',
            b'{"status": NaN}',
            b'{"status": "finished", "time_cost": 1e999}',
            b"[" * 5_000,
            b'{"status": "\\ud800"}',
        )
    )
    parts = chance.choice(
        (
            noise,
            PART + b"finished\r\n",
            PART + b"finished\r\n--y--",
            PART.replace(b'"status"', b"") + b"finished\r\n--x--",
            PART + b"\xff\xfe\r\n--x--",
            b"--x" * 300 + b"--",
            PART + b"finished\r\n--x-- " + noise,
        )
    )
    if parts.endswith(noise) and noise != parts:
        parts = PART + b"rendering\r\n--x--"
    return chance.choice(
        (
            (form, FORM),
            (text, {"content-type": "application/json"}),
            (parts, MULTIPART),
            (parts, {"content-type": "multipart/form-data"}),
        )
    )


def hostile(scene: Scene, chance: random.Random) -> Iterator[tuple[Far, str, dict[str, Any]]]:
    """Who sends, to which path, what."""
    live = scene.live["task_id"]
    for number in range(REPORTS):
        match number % 4:
            case 0:
                ticket = chance.choice(
                    (chance.getrandbits(48) ^ (1 << 47), live + 1, 0, 1, 3, 2**63 - 1)
                )
                yield scene.worker, f"/tasks/{ticket}", {"data": true_looking(chance)}
            case 1:
                yield scene.forger, f"/tasks/{live}", {"data": true_looking(chance)}
            case 2:
                past = chance.choice(scene.past)
                yield scene.worker, f"/tasks/{past}", {"data": true_looking(chance)}
            case _:
                content, headers = broken_bodies(chance)
                path = chance.choice((f"/tasks/{live}", "/tasks/-1", "/tasks/1e3", "/tasks/%00"))
                yield scene.worker, path, {"content": content, "headers": headers}


async def test_none_of_4000_hostile_reports_changes_anything() -> None:
    async with open_yard() as yard:
        scene = Scene(yard)
        await scene.prepare()
        before = await scene.seen()
        statuses: Counter[int] = Counter()
        for sender, path, words in hostile(scene, random.Random(11)):
            reply = await sender.send("PATCH", path, **words)
            statuses[reply.status_code] += 1
            assert reply.status_code in (400, 403), (path, words, reply.text)
        assert statuses.total() == REPORTS
        assert set(statuses) == {400, 403}
        assert await scene.seen() == before
        # What is true is believed all the same.
        assert await scene.worker.says(scene.live, "finished") == (204, "")
        assert (await yard.asker.answer(GetTask("3.1"))).status is TaskStatus.COMPLETED
        assert await scene.seen() != before


async def test_no_malformed_call_of_any_kind_makes_the_manager_stumble() -> None:
    async with open_yard() as yard:
        far, chance = yard.at("10.0.0.7"), random.Random(5)
        assert await far.register() == 204
        await far.posts(1)
        paths = [
            (route.method, route.path.replace("{any}", "0"))
            for route in yard.dialect.routes
            if route.name not in ("ReportTask", "CompiledTask")
        ]
        holes = ("0", "1", "9" * 30, "-1", "x", "..", "%00", "%ff", "jobfile_1.zip")
        for _ in range(1_500):
            method, path = chance.choice(paths)
            while "{" in path:
                head, _, rest = path.partition("{")
                path = head + chance.choice(holes) + rest.partition("}")[2]
            content, headers = broken_bodies(chance)
            reply = await far.send(method, path, content=content, headers=headers)
            assert reply.status_code < 500, (method, path, content, reply.text)
