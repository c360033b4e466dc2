"""``kill -9`` in the middle of commits: what was acknowledged is there, and nothing is torn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import anyio
import pytest

from orchestra.ports import Log, Rows, Story
from orchestra.statemachine import limits
from orchestra.storage.sqlite import SqliteStore
from orchestra.storage.sqlite_files import check_file
from orchestra.testing import store_samples as samples
from tests.storage.committer import WIDTH
from tests.tidy import ROOT

pytestmark = pytest.mark.system


def killed_after(path: str, when: str, backend: str, wanted: int) -> int:
    """Let a committer run until it has acknowledged ``wanted`` batches, kill it, and return the last one it acknowledged."""
    command = [sys.executable, "-m", "tests.storage.committer", path, when, backend]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            for _ in range(wanted):
                line = child.stdout.readline()
            child.kill()
            rest = child.stdout.read().split(b"\n")
        finally:
            child.kill()
    assert line.endswith(b"\n"), "the committer died by itself"
    return int(rest[-2] if len(rest) > 1 else line)


async def count(path: str) -> int:
    """Open what the killed process left, see that it is whole, and return the number of batches in it."""
    store = await SqliteStore.open(path)
    try:
        loaded = await store.load()
        assert len(loaded.rows) == loaded.story_number == loaded.number * WIDTH
        assert loaded.quarantined == ()
        newest = await store.rows(Rows("job", limit=WIDTH, newest_first=True))
        assert [row.id for row in newest][::-1] == sorted(
            samples.root_id(loaded.number * WIDTH - place) for place in range(WIDTH)
        )
        told = await store.story(Story(loaded.story_number - WIDTH, limits.PAGE_MAX))
        assert len(told) == WIDTH
        assert (await store.log(Log(samples.ATTEMPT, "stdout"))).size == loaded.number * 4
    finally:
        await store.aclose()
    assert check_file(path) == []
    return loaded.number


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_no_acknowledged_batch_is_lost(backend: str, tmp_path: Path) -> None:
    rng = Random(backend)
    path = str(tmp_path / "store.db")
    for _ in range(4):
        acknowledged = killed_after(path, "after", backend, rng.randint(1, 60))
        stored = anyio.run(count, path)
        assert acknowledged <= stored <= acknowledged + 1


def test_a_reply_before_the_commit_is_found_out(tmp_path: Path) -> None:
    """The negative control: the same test sees batches vanish when the reply comes first."""
    lost = 0
    for turn in range(10):
        path = str(tmp_path / f"{turn}.db")
        acknowledged = killed_after(path, "early", "asyncio", 20 + turn)
        lost += acknowledged - anyio.run(count, path)
        if lost:
            break
    assert lost > 0
