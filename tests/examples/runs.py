"""Runs an example as a user does: a copy of its folder, its project file, the command `run` with two slots."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import anyio
import attrs

from orchestra import App
from orchestra.client import Client
from orchestra.statemachine.replies import JobView, TaskView
from tests.cli.kit import orchestra

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TIMEOUT_S = 240.0


@attrs.frozen
class Run:
    """A finished run: the shared folder, the job, and its tasks with their attempts."""

    shared: Path
    job: JobView
    tasks: dict[str, list[TaskView]]
    told: str
    """What the command wrote: a line for each change."""
    said: str = ""
    """What it said beside that: at the end what failed or was tried again, and why."""

    def why(self) -> str:
        """What went wrong, for a failing test."""
        ends = [task for tasks in self.tasks.values() for task in tasks if task.reason]
        return f"{self.job.status}: " + "; ".join(f"{task.selector} {task.reason}" for task in ends)


def copied(name: str, folder: Path) -> Path:
    """A copy of an example's folder, without what earlier runs left there."""
    return Path(shutil.copytree(EXAMPLES / name, folder / name, ignore=_outputs))


def _outputs(_: str, names: list[str]) -> set[str]:
    return {"out", "__pycache__"} & set(names)


def run(folder: Path, text: str = "") -> Run:
    """Run the project file of a folder (with ``text`` in its place) to its end."""
    file, kept = folder / "project.toml", folder / "farm.db"
    if text:
        file.write_text(text, encoding="utf-8")
    words = ("run", str(file), "--slots", "2", "--data", str(kept))
    done = orchestra(*words, bound_s=TIMEOUT_S)
    assert done.code in (0, 1), done.err
    ended = anyio.run(functools.partial(_kept, folder, str(kept), done.out))
    return attrs.evolve(ended, said=done.err)


async def _kept(folder: Path, kept: str, told: str) -> Run:
    async with App(kept).run(workers=0) as client:
        return await seen(client, folder / "out", told)


async def seen(client: Client, shared: Path, told: str) -> Run:
    """The first job of a server, which has ended."""
    job = await client.job("1")
    tasks: dict[str, list[TaskView]] = {}
    for task in await job.tasks():
        tasks.setdefault(task.stage, []).append(await client.task(task.id))
    return Run(shared, await job.view(), tasks, told)
