"""The command that makes trouble is killed itself: nothing is left of what it started, mounted and wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from orchestra.testing.chaos import undertaker
from orchestra.testing.chaos.undertaker import SMALL, bury, living, mark_of
from tests.tidy import ROOT

pytestmark = [pytest.mark.system, pytest.mark.prompt]

if sys.platform != "linux":
    pytest.skip("needs Linux", allow_module_level=True)

WAIT_S = 60.0

OWNER = """
import sys
from contextlib import nullcontext
from functools import partial

import anyio

from orchestra.testing.chaos import campaign
from orchestra.testing.chaos.farm import Plan

async def strike(farm, rng, tally):
    for worker in farm.workers:
        worker.child.freeze(whole=True)  # it, its guardian and its program: none of them sees anybody die
    print(farm.data.parent.name, flush=True)
    await anyio.sleep_forever()

if sys.argv[1] == "alone":
    campaign.undertaken = lambda folder: nullcontext()
kind = campaign.Kind(strike=strike, small_disk=True)
episode = campaign.Episode("disk", 1, 1)
anyio.run(campaign.put_through, episode, kind, Plan(workers=1, doors=1, clients=1, open=2))
"""


@contextmanager
def killed_owner(how: str, folder: Path) -> Generator[tuple[Path, bool]]:
    """The folder of a farm whose owner is killed while a worker is frozen, and whether a small disk could be mounted for it."""
    words = [sys.executable, "-c", OWNER, how]
    env = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=env, cwd=ROOT) as owner:
        try:
            assert owner.stdout is not None
            mounted = owner.stdout.readline().strip() == SMALL.encode()
            (farm,) = folder.glob("orchestra-chaos-*")
            assert len(living([mark_of(farm)])) >= 4, "a server, a worker, its guardian, a client"
            children = psutil.Process(owner.pid).children()
            undertakers = [each for each in children if undertaker.__name__ in each.cmdline()]
            assert len(undertakers) == (how != "alone")
        finally:
            owner.kill()
    try:
        psutil.wait_procs(undertakers, WAIT_S)
        yield farm, mounted
    finally:
        bury(farm)


def left_of(farm: Path) -> list[str]:
    """Processes, a mount, files."""
    left = [str(each) for each in living([mark_of(farm), f"{farm}/"])]
    left += [f"{farm / SMALL} is mounted"] if (farm / SMALL).is_mount() else []
    return left + ([f"{farm} is there"] if farm.exists() else [])


def test_nothing_is_left_of_a_farm_whose_owner_is_killed(tmp_path: Path) -> None:
    with killed_owner("undertaken", tmp_path) as (farm, _):
        assert left_of(farm) == []


def test_without_an_undertaker_all_of_it_is_left(tmp_path: Path) -> None:
    with killed_owner("alone", tmp_path) as (farm, mounted):
        assert len(living([mark_of(farm)])) >= 2, "the frozen worker and its guardian"
        assert (farm / SMALL).is_mount() == mounted
    assert left_of(farm) == []
