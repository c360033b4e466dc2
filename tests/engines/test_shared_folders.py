"""A job's folder on a machine is there while an attempt runs, whoever else uses it, and gone afterwards if nobody wrote to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra.engines.process import ProcessEngine
from orchestra.engines.shared_folders import SharedFolders
from orchestra.testing.check_engine import Recorder, order_for

ROUNDS = 2_000
HAMMER = f"""
import sys
from pathlib import Path
from orchestra.engines import shared_folders
if sys.argv[2] == "careless":
    shared_folders.fcntl.flock = lambda descriptor, how: None
folders = shared_folders.SharedFolders(sys.argv[1])
missed = 0
for _ in range({ROUNDS}):
    folders.use("job")
    for _ in range(20):
        missed += not Path(folders.path("job")).is_dir()
    folders.leave("job")
print(missed)
"""


async def play(engine: ProcessEngine, job: str, code: str) -> None:
    template = {"argv": [sys.executable, "-I", "-S", "-c", code, "{shared}"]}
    order = order_for("process", json.dumps(template).encode(), job_id=job)
    sink = Recorder()
    await engine.start(order, sink)
    ended = await sink.end_of(order.attempt_id)
    assert ended.outcome == "completed", ended


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def hammered(place: Path, how: str) -> list[int]:
    """How often each of two processes did not find the folder that it used."""
    argv = [sys.executable, "-c", HAMMER, str(place), how]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [each.communicate(timeout=120)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0]
    return [int(text) for text in told]


@pytest.mark.anyio
async def test_nothing_is_left_of_jobs_that_wrote_nothing(tmp_path: Path) -> None:
    async with ProcessEngine(tmp_path) as engine:
        for number in range(5):
            await play(engine, f"job-{number}", "import os, sys; os.listdir(sys.argv[1])")
        assert names(tmp_path / "shared") == set()


@pytest.mark.anyio
async def test_what_is_in_a_folder_stays_for_the_attempts_that_come_after(tmp_path: Path) -> None:
    async with ProcessEngine(tmp_path) as engine:
        await play(engine, "job", "import sys; open(sys.argv[1] + '/a', 'w').write('kept')")
        await play(engine, "job", "import sys; assert open(sys.argv[1] + '/a').read() == 'kept'")
    assert names(tmp_path / "shared" / "job") == {"a"}
    async with ProcessEngine(tmp_path):
        assert names(tmp_path / "shared") == {"job"}


@pytest.mark.anyio
async def test_an_engine_removes_what_a_killed_one_left_empty(tmp_path: Path) -> None:
    for name in ("empty", "full"):
        (tmp_path / "shared" / name).mkdir(parents=True)
    (tmp_path / "shared" / "full" / "file").touch()
    used = SharedFolders(str(tmp_path / "shared"))
    used.use("used")
    async with ProcessEngine(tmp_path):
        assert names(tmp_path / "shared") == {"full", "used"}
    used.leave("used")
    assert names(tmp_path / "shared") == {"full"}


def test_the_last_user_removes_it_and_no_other(tmp_path: Path) -> None:
    one, other = SharedFolders(str(tmp_path)), SharedFolders(str(tmp_path))
    one.use("job")
    one.use("job")
    other.use("job")
    one.leave("job")
    one.leave("job")
    assert Path(other.path("job")).is_dir()
    other.leave("job")
    assert not Path(other.path("job")).exists()


def test_who_did_not_use_it_may_leave(tmp_path: Path) -> None:
    folders = SharedFolders(str(tmp_path))
    (tmp_path / "job").mkdir()
    folders.leave("job")
    assert Path(folders.path("job")).is_dir()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "link").symlink_to(tmp_path / "elsewhere")
    SharedFolders(str(tmp_path / "shared")).sweep()
    assert (tmp_path / "elsewhere").is_dir()


@pytest.mark.system
def test_processes_that_come_and_go_never_miss_it(tmp_path: Path) -> None:
    assert hammered(tmp_path, "careful") == [0, 0]
    assert names(tmp_path) == set()


@pytest.mark.system
def test_processes_that_take_no_lock_miss_it(tmp_path: Path) -> None:
    assert any(hammered(tmp_path, "careless"))
