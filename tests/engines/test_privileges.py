"""A program gets no more rights than its worker has, whatever it starts: who became another user could not be ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestra.engines.process import ProcessEngine
from orchestra.testing.check_engine import Recorder, order_for

NOBODY = 65534


async def printed(engine: ProcessEngine, *argv: str) -> str:
    order = order_for("process", json.dumps({"argv": argv}).encode())
    sink = Recorder()
    await engine.start(order, sink)
    ended = await sink.end_of(order.attempt_id)
    assert ended.outcome == "completed", ended
    return sink.written[order.attempt_id, "stdout"].decode()


@pytest.mark.anyio
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize("mode", ["", "plain"])
async def test_programs_gain_none(tmp_path: Path, mode: str) -> None:
    async with ProcessEngine(tmp_path, guardian_mode=mode) as engine:
        told = await printed(engine, "grep", "NoNewPrivs", "/proc/self/status")
    assert told.split() == ["NoNewPrivs:", "1"]


def changing_user(folder: Path) -> list[str]:
    """A program that says as whom it runs, which is nobody where the system heeds it."""
    folder.chmod(0o755)
    whoami = folder / "whoami"
    shutil.copy(shutil.which("id") or "", whoami)
    os.chown(whoami, NOBODY, NOBODY)
    whoami.chmod(0o4755)
    argv = [str(whoami), "-u"]
    bare = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    if int(bare) != NOBODY:
        pytest.skip("needs root, and a file system on which programs may change their user")
    return argv


@pytest.mark.anyio
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who can make such a program")
async def test_a_program_of_another_user_runs_as_the_worker_does(tmp_path: Path) -> None:
    argv = changing_user(tmp_path)
    async with ProcessEngine(tmp_path / "work") as engine:
        assert int(await printed(engine, *argv)) == os.geteuid()
