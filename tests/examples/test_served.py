"""The project file that `run` takes, given to a server with two workers in processes of their own: it comes to the same."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from orchestra.compose import connect
from orchestra.statemachine.lifecycles import JobStatus
from tests.cli.kit import line_with, orchestra, running
from tests.examples.runs import TIMEOUT_S, Run, copied, seen

pytestmark = [pytest.mark.slow, pytest.mark.system]


async def _seen(url: str, shared: Path, told: str) -> Run:
    async with connect(url) as client:
        return await seen(client, shared, told)


def served(folder: Path, workers: tuple[str, ...]) -> Run:
    """Submit the project file of a folder to a server without a worker of its own, which others have joined."""
    place = folder.parent
    with ExitStack() as processes:
        words = ["serve", "--data", str(place / "farm.db"), "--listen", "127.0.0.1:0"]
        server = processes.enter_context(running(*words, "--local-worker", "0", "--json"))
        url = json.loads(line_with(server, "{"))["url"]
        for name in workers:
            join = ("worker", url, "--name", name, "--slots", "1", "--folder", str(place / name))
            line_with(processes.enter_context(running(*join)), "is connected", "stderr")
        submit = ("submit", str(folder / "project.toml"), "--wait", "--server", url)
        done = orchestra(*submit, bound_s=TIMEOUT_S)
        assert done.code == 0, done.err
        return anyio.run(functools.partial(_seen, url, folder / "out", done.out))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_server_with_two_workers_finds_what_run_finds(
    tmp_path: Path, finished: Callable[[str], Run]
) -> None:
    alone = finished("digits")
    done = served(copied("digits", tmp_path), ("one", "two"))
    assert done.job.status is JobStatus.COMPLETED, done.why()
    assert done.job.counts == alone.job.counts
    assert {task.attempts[-1].worker for task in done.tasks["train"]} == {"one", "two"}
    # The pictures of the report too: everything in the project is seeded.
    assert {"report.md", "confusion.png", "best.json", "result.json"} < files(done.shared).keys()
    assert files(done.shared) == files(alone.shared)
