"""Runs an example as a user does: a copy of its folder, its project file, two slots."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import anyio
import attrs

from orchestra import App
from orchestra.dialects.project_file import parse
from orchestra.statemachine.replies import JobView, TaskView

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TIMEOUT_S = 240.0


@attrs.frozen
class Run:
    """A finished run: the shared folder, the job, and its tasks with their attempts."""

    shared: Path
    job: JobView
    tasks: dict[str, list[TaskView]]

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
    """Run the project file of a folder (or ``text`` in its place) to its end."""
    content = text or (folder / "project.toml").read_text(encoding="utf-8")
    return anyio.run(functools.partial(_run, folder, content))


async def _run(folder: Path, text: str) -> Run:
    async with App().run(slots=2, processes=True) as client:
        job = await client.submit(parse(text, folder=str(folder)))
        view = await job.wait(TIMEOUT_S)
        tasks: dict[str, list[TaskView]] = {}
        for task in await job.tasks():
            tasks.setdefault(task.stage, []).append(await client.task(task.id))
        return Run(folder / "out", view, tasks)
