"""Tiled renders: the tiles, then a merge task that gets what their workers sent back."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from orchestra.config import DialectPort
from orchestra.dialects.flamenco_compilers import (
    MARK_JOB,
    MARK_OUTPUT,
    Piece,
    Place,
    TiledBlenderRender,
)
from orchestra.dialects.flamenco_options import read_options
from orchestra.errors import Malformed
from orchestra.statemachine.lifecycles import JobStatus
from tests.dialects.flamenco_kit import RENDER, Far, open_yard

pytestmark = pytest.mark.anyio

TILED = {"tiler": "/srv/tile.py", "merger": "/srv/merge"}
TILES = 2


async def sends_back(worker: Far, task: dict[str, Any], name: str) -> None:
    """The end of a task, with one file."""
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as files:
        files.writestr(name, f"of {worker.hostname}")
    file = {"taskfile": ("taskfile.zip", zipped.getvalue(), "application/zip")}
    path, form = f"/tasks/{task['task_id']}", {"status": "finished", "time_cost": 1}
    assert (await worker.send("PATCH", path, data=form, files=file)).status_code == 204


async def test_tiles_are_rendered_anywhere_and_merged_after_the_last(tmp_path: Path) -> None:
    async with open_yard(storage=str(tmp_path), tiled=TILED) as yard:
        one, two = yard.at("10.0.0.1", "one"), yard.at("10.0.0.2", "two")
        await one.posts(1, "tiled_blender_render", tiles=TILES)
        tasks = [await one.has_task(), await two.has_task()]
        for number, task in enumerate(tasks):
            argv = json.loads(task["task_command"])
            assert argv[argv.index("--render-output") + 1] == f"{MARK_OUTPUT}/merged-{number}"
            assert argv[argv.index("--python") + 1] == "/srv/tile.py"
            assert argv[-3:] == ["--", str(number), str(TILES)]
            programs = await one.json("GET", f"/settings/{task['type']}")
            assert programs["commands"]["default"]["Linux"] == "blender"
            name = f"/static/storage/1/dependencies_{task['task_id']}.zip"
            assert (await one.send("GET", name)).status_code == 404
        await sends_back(one, tasks[0], "merged-0.png")
        assert await one.poll() is None
        await sends_back(two, tasks[1], "merged-1.png")
        merge = await one.has_task()
        assert merge["type"] == "tiled_blender_render_simple_mix"
        assert json.loads(merge["task_command"]) == [
            "==command==",
            f"{MARK_OUTPUT}/merged",
            *(f"{MARK_JOB}/merged-{tile}" for tile in range(TILES)),
        ]
        programs = await one.json("GET", "/settings/tiled_blender_render_simple_mix")
        assert programs["commands"]["default"]["Linux"] == "/srv/merge"
        name = f"/static/storage/1/dependencies_{merge['task_id']}.zip"
        for path in (name, "/tasks/zip/dep/1"):
            got = await one.send("GET", path)
            assert (got.status_code, got.headers["content-type"]) == (200, "application/zip")
            with zipfile.ZipFile(io.BytesIO(got.content)) as files:
                assert {each: files.read(each) for each in files.namelist()} == {
                    "merged-0.png": b"of one",
                    "merged-1.png": b"of two",
                }
            assert (await two.send("GET", path)).status_code == 404, "it is the worker's own"
        assert await one.says(merge, "finished") == (204, "")
        assert (await yard.job()).status is JobStatus.COMPLETED


async def test_a_merge_waits_for_no_tile_that_failed_for_good() -> None:
    async with open_yard(tiled=TILED, failures_max=1) as yard:
        one = yard.at("10.0.0.1", "one")
        await one.posts(1, "tiled_blender_render", tiles=TILES)
        for word in ("finished", "failed"):
            assert await one.says(await one.has_task(), word) == (204, "")
        assert await one.poll() is None
        assert (await yard.job()).status is JobStatus.FAILED


async def test_a_merge_comes_after_its_tiles_when_a_cancelled_job_is_requeued() -> None:
    async with open_yard(tiled=TILED) as yard:
        one = yard.at("10.0.0.1", "one")
        await one.posts(1, "tiled_blender_render", tiles=TILES)
        await one.json("PUT", "/jobs", data={"id": "1", "command": "cancel"})
        assert (await yard.job()).status is JobStatus.CANCELLED
        await one.json("PUT", "/jobs", data={"id": "1", "command": "requeue"})
        done: list[str] = []
        for _ in range(TILES + 1):
            task = await one.has_task()
            done.append(task["type"])
            assert await one.says(task, "finished") == (204, "")
        assert done == [*["tiled_blender_render"] * TILES, "tiled_blender_render_simple_mix"]
        assert (await yard.job()).status is JobStatus.COMPLETED


def test_where_files_are_shared_the_parts_lie_beside_the_whole() -> None:
    options = read_options(DialectPort("flamenco", None, {"tiled": TILED}))
    tiled = options.compilers().by_name["tiled_blender_render"]
    settings = tiled.read(json.dumps({**RENDER, "tiles": 3}))
    _, merge = tiled.stages(settings)
    assert merge.after == ("tiles",)
    argv = tiled.command(settings, TiledBlenderRender.kinds[1], Piece(), Place("Linux", pull=False))
    assert argv == ("/srv/merge", "/farm/out", "/farm/out-0", "/farm/out-1", "/farm/out-2")


@pytest.mark.parametrize("table", [{"tiler": "/a"}, {"merger": "/a"}, {**TILED, "more": "x"}, 5])
def test_a_tiled_render_has_two_programs(table: object) -> None:
    with pytest.raises(Malformed, match=r"tiler and|table|text"):
        read_options(DialectPort("flamenco", None, {"tiled": table}))
    assert "tiled_blender_render" not in (read_options(DialectPort("flamenco")).compilers().by_name)
