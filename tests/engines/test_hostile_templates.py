"""What a task brings along is somebody's input: whatever it is, the attempt fails and says why, and the worker goes on."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import anyio
import attrs
import pytest

import orchestra
from orchestra import compose
from orchestra.client import Client
from orchestra.engines.arguments import arguments, plan, read_item
from orchestra.engines.argv import Blanks, read_template
from orchestra.engines.member_run import read_ids
from orchestra.errors import Malformed, Unavailable
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import StageDraft, SubmitJob
from orchestra.statemachine.queries import GetTask
from orchestra.statemachine.replies import Order
from orchestra.testing.core import Core
from orchestra.testing.fuzz import mutate
from orchestra.worker.references import Results

DEEP = b"[" * 60_000 + b"]" * 60_000
"""Deeper than Python's stack."""

TEMPLATES = (
    DEEP,
    b'{"args": [' + DEEP + b"]}",
    b'{"kwargs": {"frame": ' + DEEP + b"}}",
    b'{"argv": [' + DEEP + b"]}",
    b'{"argv": ["true"], "memory_bytes": 1' + b"0" * 30 + b"}",
    b'{"argv": ["true"], "memory_bytes": 9223372036854775807}',
    b'{"argv": ["true"], "env": {"A=B": "c"}}',
    b'{"argv": ["true"], "folder": "\\u0000"}',
    b'{"argv": ["true"], "folder": "' + b"x/" * 5_000 + b'"}',
    b'{"argv": ["' + b"x" * 200_000 + b'"]}',
    b'{"argv": ["true", "\\ud800"]}',
    b'{"argv": ["true", "{item.' + b"0." * 5_000 + b'}"]}',
    b'{"$result": "first"}\xff',
    b'{"args": [{"$result": ' + DEEP + b"}]}",
    b'{"args": [{"$results": "nowhere"}]}',
    b"\xff\xfe",
    b"null",
    b"",
)

PATIENCE_S = 60.0

app = orchestra.App()


@app.task
async def render(ctx: orchestra.Context, frame: int) -> str:
    return f"{frame:04}.png"


@app.task(mode="process")
def mill(frame: int) -> int:
    return frame


NAMES = (render.name, mill.name, "process")


async def ended(asker: Orchestrator, draft: StageDraft) -> tuple[str, int, str]:
    """How the only task of a job ended: its status, how often it was lost, and why."""
    accepted = await asker.ask(SubmitJob("hostile", (draft,)))
    job = await Client(asker.for_principal("me")).job(accepted.job_id)
    with anyio.fail_after(PATIENCE_S):
        await job.wait()
    task = await asker.answer(GetTask(f"{job.number}.1"))
    return task.status, task.losses, task.reason


@pytest.mark.anyio
async def test_no_template_ends_a_worker(tmp_path: Path) -> None:
    tasks = {task.name: task for task in (render, mill)}
    async with (
        compose.open_orchestrator(None) as asker,
        compose.local_workers(
            asker, tasks, count=1, slots=4, processes=True, folder=str(tmp_path / "folder")
        ),
    ):
        for name in NAMES:
            for template in TEMPLATES:
                draft = StageDraft("only", name, template, retries=0)
                status, losses, reason = await ended(asker, draft)
                assert losses == 0, (name, template[:60])
                assert status in ("failed", "completed"), (name, template[:60])
                assert status == "completed" or reason, (name, template[:60])
            deep = StageDraft("only", name, b"", over=(DEEP,))
            assert (await ended(asker, deep))[:2] == ("failed", 0)
        good = StageDraft("only", render.name, b'{"args": [7]}')
        assert (await ended(asker, good))[:2] == ("completed", 0)


def order_of_some_task() -> Order:
    core = Core()
    core.submit(StageDraft("only", "app"))
    core.join()
    core.settle()
    (order,) = core.held()
    return order


ORDER = order_of_some_task()
PLAN = plan(render.fn)


def read_arguments(raw: bytes) -> None:
    arguments(PLAN, raw, b"1", "")


def read_program(raw: bytes) -> None:
    template = read_template(raw)
    blanks = Blanks(attrs.evolve(ORDER, item=b'{"a": [1, {"b": null}]}'), "/folder", "/shared")
    for word in template.argv:
        blanks.filled(word, "argv")


def read_references(raw: bytes) -> None:
    class Away:
        """An orchestrator that does not answer."""

        async def answer(self, query: object) -> object:
            raise Unavailable(f"nobody answers {query}")

    async def play() -> None:
        await Results().filled(attrs.evolve(ORDER, template=raw), Away())

    anyio.run(play)


CORPUS: tuple[bytes, ...] = (
    b'{"args": [1, "two", null], "kwargs": {"frame": 1}, "item": true}',
    b'{"argv": ["prog", "{item.a.0}", "{{x}}", "{index}"], "env": {"A": "{task}"}, "folder": "/x", "stdin": "y"}',
    b'{"user_id": "u1", "project_id": "p1"}',
    b'{"args": [{"$result": "first"}, {"$results": "second"}]}',
    b'[1, [2, {"x": "y"}]]',
)


@pytest.mark.aside
@pytest.mark.parametrize(
    ("read", "inputs"),
    [
        (read_arguments, 20_000),
        (read_program, 20_000),
        (read_ids, 20_000),
        (read_item, 20_000),
        (read_references, 500),
    ],
)
def test_whatever_a_template_is_it_is_read_or_refused(
    read: Callable[[bytes], object], inputs: int
) -> None:
    rng = random.Random(5)
    refused = 0
    for number in range(inputs):
        raw = CORPUS[number] if number < len(CORPUS) else mutate(rng, CORPUS)
        try:
            read(raw)
        except (Malformed, Unavailable):
            refused += 1
    assert 0 < refused < inputs
