"""A disk that gets full under a real server: a clear error, nothing acknowledged is lost, reads go on, and so does work afterwards."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from orchestra.errors import StoreFailed
from orchestra.statemachine.commands import SubmitJob
from tests.system.farm import BOUND_S, Farm, open_farm, until
from tests.system.laws import not_ended_once, still_alive

pytestmark = [pytest.mark.anyio, pytest.mark.system, pytest.mark.prompt]

BALLAST_BYTES = 500_000
JOBS_MAX = 400
BIG = "x" * 40_000
SCRIPT = 'echo 1 >> "$RUNS/$ORCHESTRA_TASK"; while [ ! -e "$RUNS/../go" ]; do sleep 0.02; done'
"""It ends while the disk is full."""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("needs root on Linux to mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs root that may mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


async def submit(farm: Farm, number: int, padding: str = BIG) -> str:
    async with farm.client() as client:
        stage = farm.stage(f"true {padding}", 1, labels=("nobody",))
        return (await client.submit(SubmitJob(f"job-{number}", (stage,)), key=f"job-{number}")).id


async def fill(farm: Farm, place: Path) -> list[str]:
    """Submit until the disk has no place for the shortest job; the jobs that were acknowledged."""
    acknowledged: list[str] = []
    for padding in (BIG, ""):
        refused: StoreFailed | None = None
        while refused is None and len(acknowledged) < JOBS_MAX:
            try:
                acknowledged.append(await submit(farm, len(acknowledged), padding))
            except StoreFailed as error:
                refused = error
        assert refused is not None, "the disk never got full"
        assert refused.full
        assert "full" in str(refused)
        take_the_rest(place / "rest")
    return acknowledged


def take_the_rest(file: Path) -> None:
    """Leave no byte of a file system free."""
    with file.open("ab", buffering=0) as rest, contextlib.suppress(OSError):
        while True:
            rest.write(bytes(4_096))


async def jobs_of(farm: Farm) -> list[str]:
    async with farm.client() as client:
        return sorted(job.id for job in await client.jobs(limit=500))


async def test_service_goes_on(small: Path, tmp_path: Path, told: Callable[[str], None]) -> None:
    ballast = small / "ballast"
    ballast.write_bytes(bytes(BALLAST_BYTES))
    async with open_farm(tmp_path) as farm:
        farm.data = small / "farm.db"
        server = await farm.serve()
        await farm.join("one", 1)
        async with farm.client() as client:
            running = await client.submit(SubmitJob("runs", (farm.stage(SCRIPT, 1),)))
        await until(lambda: bool(farm.runs()))
        acknowledged = [running.id, *await fill(farm, small)]
        assert len(acknowledged) > 3
        async with httpx.AsyncClient(base_url=farm.url() + "/api/v1", timeout=BOUND_S) as http:
            template = {"argv": ["true", BIG]}
            stage = {"name": "s", "app": "process", "template": template}
            response = await http.post("/jobs", json={"name": "raw", "stages": [stage]})
            assert response.status_code == 507
            assert "full" in response.json()["detail"]
            assert (await http.get("/overview")).status_code == 200
        assert await jobs_of(farm) == acknowledged
        (farm.folder / "go").touch()
        await until(lambda: not still_alive(farm.mark))
        ballast.unlink()
        (small / "rest").unlink()
        again = await submit(farm, len(acknowledged))
        assert await jobs_of(farm) == [*acknowledged, again]
        async with farm.client() as client:
            await (await client.job(running.id)).wait(BOUND_S)
        server.kill()
        await farm.serve()
        assert await jobs_of(farm) == [*acknowledged, again]
        with anyio.fail_after(BOUND_S):
            async with farm.client() as client:
                for job_id in (*acknowledged, again):
                    assert (await (await client.job(job_id)).view()).tasks == 1
        assert not_ended_once({running.id: 1}, await farm.story()) == []
    told(f"{len(acknowledged)} jobs fitted")
