"""
The server as a real process is killed at its first flush, at its second, and so on, until a script of submissions comes to its end: what
was acknowledged is in its file. Each thread counts its own flushes; the process ends with the first that comes to the number.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from orchestra.compose import connect
from orchestra.errors import Unavailable
from orchestra.ports import Rows
from orchestra.statemachine.commands import StageDraft, SubmitJob
from orchestra.statemachine.records import Job
from orchestra.storage.sqlite import SqliteStore
from orchestra.storage.sqlite_files import check_file
from orchestra.testing.free_port import free_port
from tests.system.farm import BOUND_S, Child

pytestmark = [pytest.mark.anyio, pytest.mark.system, pytest.mark.slow, pytest.mark.prompt]

SUBMISSIONS = 4
FLUSHES_MAX = 60
"""More than a start and so few submissions take."""

if sys.platform != "linux":
    pytest.skip("needs Linux", allow_module_level=True)


@pytest.fixture(autouse=True)
def strace_is_here(require: Callable[..., None]) -> None:
    require(programs=("strace",), hint="apt-get install strace")


class Seen(NamedTuple):
    """What came of one script: whether the server was killed in it, what was acknowledged, and what its file holds and has wrong."""

    killed: bool
    acknowledged: set[str]
    stored: set[str]
    problems: list[str]


def serve(flush: int, folder: Path, breaks: str) -> tuple[Child, str, int]:
    """A server that is killed at a flush, its file, and its port."""
    folder.mkdir()
    data, port = str(folder / "farm.db"), free_port()
    program = ["tests.system.server", breaks] if breaks else ["orchestra"]
    words = ["serve", "--data", data, "--listen", f"127.0.0.1:{port}", "--local-worker", "0"]
    inject = f"inject=fsync,fdatasync:signal=KILL:when={flush}"
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", inject]
    argv = [*strace, sys.executable, "-m", *program, *words, "--json"]
    return Child(argv, dict(os.environ), folder / "server.err"), data, port


async def killed_at(flush: int, folder: Path, breaks: str = "") -> Seen:
    """Submit to a server that is killed at a flush."""
    child, data, port = serve(flush, folder, breaks)
    acknowledged: set[str] = set()
    killed = True
    try:
        with contextlib.suppress(
            Unavailable, AssertionError
        ):  # it was killed before it served, or since
            await child.line()
            async with connect(f"http://127.0.0.1:{port}") as client:
                for number in range(SUBMISSIONS):
                    work = SubmitJob(f"job-{number}", (StageDraft("only", "app"),))
                    await client.asker.ask(work, key=f"key-{number}")
                    acknowledged.add(work.name)
            killed = False
    finally:
        programs = psutil.Process(child.pid).children(recursive=True)
        for process in programs:
            with contextlib.suppress(psutil.NoSuchProcess):  # the flush has killed it just now
                process.kill()
        psutil.wait_procs(programs, timeout=BOUND_S)
        child.kill()
    store = await SqliteStore.open(data)
    rows = await store.rows(Rows("job", limit=500))
    await store.aclose()
    stored = {row.name for row in rows if isinstance(row, Job)}
    return Seen(killed, acknowledged, stored, check_file(data))


async def test_whatever_flush_a_server_is_killed_at_what_it_acknowledged_is_there(
    tmp_path: Path, told: Callable[[str], None]
) -> None:
    counts: list[int] = []
    for flush in range(1, FLUSHES_MAX):
        seen = await killed_at(flush, tmp_path / str(flush))
        assert seen.acknowledged <= seen.stored, f"flush {flush}"
        assert seen.problems == [], f"flush {flush}"
        counts.append(len(seen.acknowledged))
        if not seen.killed:
            break
    told(f"killed at {len(counts) - 1} flushes, with so many acknowledged before: {counts}")
    assert counts[0] == 0
    assert counts[-1] == SUBMISSIONS
    assert len(counts) > SUBMISSIONS, "each submission is flushed"


async def test_a_reply_before_its_commit_is_found_out(tmp_path: Path) -> None:
    for flush in range(1, FLUSHES_MAX):
        seen = await killed_at(flush, tmp_path / str(flush), "reply after commit")
        if seen.acknowledged - seen.stored:
            return
        assert seen.killed, "nothing was lost at any flush"
