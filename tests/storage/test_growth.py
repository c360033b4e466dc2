"""The data file grows with each task by about what the README says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import orchestra
from tests.tidy import ROOT

pytestmark = pytest.mark.anyio

TASKS = 1_000


@pytest.fixture
def anyio_backend() -> str:
    """The same rows are written on either event loop."""
    return "asyncio"


async def test_a_task_costs_what_the_readme_says(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    told = re.search(r"([0-9.]+) KiB once it has run", " ".join(text.split()))
    assert told is not None
    path = tmp_path / "farm.db"
    app = orchestra.App(str(path))

    @app.task
    async def quiet(number: int) -> int:
        return number

    async def run(tasks: int) -> int:
        async with app.run(workers=2, slots=8) as client:
            await (await client.submit(quiet.map(range(tasks)))).results()
        return path.stat().st_size

    grown = -await run(1) + await run(TASKS)
    assert grown / TASKS / 1024 == pytest.approx(float(told[1]), rel=0.25)
