"""A campaign that is killed leaves no process behind that plays on."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys

import anyio
import psutil
import pytest

from orchestra.testing.determinism import CHILD
from orchestra.testing.processes import ORPHANED

pytestmark = pytest.mark.anyio

CAMPAIGN = ["prove", "core", "--schedules", "1000000", "--processes", "2"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_a_campaign_that_is_killed_leaves_nobody(end: signal.Signals) -> None:
    words = [sys.executable, "-m", "orchestra", *CAMPAIGN]
    quiet = subprocess.DEVNULL
    async with await anyio.open_process(words, stdout=quiet, stderr=quiet) as campaign:
        played: list[psutil.Process] = []
        try:
            with anyio.fail_after(60):
                while len(played) < 2:
                    assert campaign.returncode is None
                    await anyio.sleep(0.01)
                    played = [
                        each for each in psutil.Process(campaign.pid).children() if _plays(each)
                    ]
                campaign.send_signal(end)
                await campaign.wait()
                while any(_is_alive(each) for each in played):
                    await anyio.sleep(0.01)
        finally:
            with contextlib.suppress(ProcessLookupError):
                campaign.kill()
            for each in played:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()


async def test_one_that_plays_in_another_interpreter_ends_with_its_campaign() -> None:
    words = [sys.executable, "-m", CHILD, "schedules", "asyncio", "1", "1000000", ""]
    async with await anyio.open_process(words) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            with anyio.fail_after(60):
                await child.stdout.receive()
                await child.stdin.aclose()
                assert await child.wait() == ORPHANED
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()


def _plays(process: psutil.Process) -> bool:
    """Whether it is one that plays, and not the one that keeps count of what they share."""
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
