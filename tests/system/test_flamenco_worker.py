"""Our worker of Flamenco as a process, in both protocols: against a strict manager of 2015, and against our own."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import psutil
import pytest

from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.queries import GetTask
from orchestra.testing.free_port import free_port
from tests.system.farm import PAUSE_S, until
from tests.system.flamenco_pair import (
    DRAWS,
    MARKED,
    TREE,
    Manager,
    Worker,
    is_gone,
    managed,
    worker,
)
from tests.system.test_flamenco import BOUND_S, Crew, crew, post

pytestmark = [pytest.mark.anyio, pytest.mark.system]

# a strict manager of 2015 ---------------------------------------------------------------------------------------------


async def test_the_calls_of_a_worker_that_asks_in_their_order(tmp_path: Path) -> None:
    with managed(tmp_path) as manager:
        command = [*MARKED, "--frame-start", "1", "--frame-end", "2"]
        manager.gives(22, command)
        table = f'folder = "{tmp_path}/work"'
        async with worker(tmp_path / "w", f"127.0.0.1:{manager.port}", table):
            end = await manager.told_end()
            assert {name: end[name] for name in ("status", "job_id")} == {
                "status": "finished",
                "job_id": "3",
            }
            assert json.loads(end["activity"])["current_frame"] == 2
            assert end["log"].splitlines()[-1].endswith("/output/22/000002.png'")
            asked = [f"{call['method']} {call['path']}" for call in manager.calls()]
            first = asked[: asked.index("GET /settings/simple_blender_render") + 1]
            assert first[-8:] == [
                "GET /info",
                "POST /workers",
                "GET /tasks/compiled/0",
                "PATCH /tasks/22",
                "GET /static/storage/3/jobfile_3.zip",
                "GET /static/storage/3/jobsupportfile_3.zip",
                "GET /static/storage/3/dependencies_22.zip",
                "GET /settings/simple_blender_render",
            ]
            with zipfile.ZipFile(manager.folder / "taskfile.zip") as files:
                assert files.namelist() == ["000001.png", "000002.png"]
            assert (manager.folder / "thumbnail").read_bytes()[-1] == 2
            await until(lambda: not (tmp_path / "work" / "22").exists(), BOUND_S)
            # What may not run has failed, with the reason, and the next one runs.
            manager.gives(23, ["/usr/bin/env", "true"], "other")
            refused = await manager.told_end(2)
            assert refused["status"] == "failed"
            assert "this worker may not run '/usr/bin/env'" in refused["log"]
            manager.gives(24, ["shell", "-c", "exit 0"], "other")
            assert "code from afar" in (await manager.told_end(3))["log"]


async def test_a_cancelled_task_ends_with_its_tree_and_does_not_crash_the_worker(
    tmp_path: Path,
) -> None:
    with managed(tmp_path) as manager:
        script, pid = tmp_path / "long.sh", tmp_path / "pid"
        script.write_text(TREE.format(pid))
        manager.gives(22, ["shell", str(script)])
        table = f'folder = "{tmp_path}/work"'
        async with worker(tmp_path / "w", f"127.0.0.1:{manager.port}", table) as ours:
            await until(pid.exists, BOUND_S)
            (manager.folder / "cancelled").touch()
            end = await manager.told_end()
            assert end["status"] == "aborted"
            await until(lambda: is_gone(int(pid.read_text())), BOUND_S)
            (manager.folder / "cancelled").unlink()
            manager.gives(23, [*MARKED, "--frame-start", "1", "--frame-end", "1"])
            assert (await manager.told_end(2))["status"] == "finished"
            ours.children[-1].check()


async def test_a_task_that_was_given_once_survives_a_kill_while_its_files_come(
    tmp_path: Path,
) -> None:
    """This manager never gives a task again: what its worker forgets is lost."""
    with managed(tmp_path) as manager:
        held = manager.folder / "held"
        held.touch()
        manager.gives(22, [*MARKED, "--frame-start", "1", "--frame-end", "2"])
        table = f'folder = "{tmp_path}/work"'
        async with worker(tmp_path / "w", f"127.0.0.1:{manager.port}", table) as ours:

            def fetches() -> int:
                return sum("/jobfile_" in call["path"] for call in manager.calls())

            await until(lambda: fetches() == 1, BOUND_S)
            ours.children[-1].kill()
            await ours.start()
            await until(lambda: fetches() == 2, BOUND_S)
            asked = sum(call["path"] == "/tasks/compiled/0" for call in manager.calls())
            assert asked == 1, "it asks for no other"
            held.unlink()
            assert (await manager.told_end())["status"] == "finished"
            with zipfile.ZipFile(manager.folder / "taskfile.zip") as files:
                assert files.namelist() == ["000001.png", "000002.png"]


@asynccontextmanager
async def called(
    folder: Path, manager: Manager
) -> AsyncGenerator[tuple[Worker, httpx.AsyncClient]]:
    """A worker that has registered, and somebody who calls it."""
    async with (
        worker(folder / "w", f"127.0.0.1:{manager.port}", 'protocol = "push"') as ours,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{ours.port}", timeout=BOUND_S) as client,
    ):

        def registered() -> bool:
            return any(call["path"] == "/workers" for call in manager.calls())

        await until(registered, BOUND_S)
        yield ours, client


async def test_what_a_called_worker_answers_when_it_has_nothing(tmp_path: Path) -> None:
    with managed(tmp_path) as manager:
        async with called(tmp_path, manager) as (ours, client):
            calls = manager.calls()
            assert [f"{call['method']} {call['path']}" for call in calls] == [
                "GET /info",
                "POST /workers",
            ]
            assert calls[1]["fields"]["port"] == str(ours.port)
            moved = await client.get("/")
            assert (moved.status_code, moved.headers["location"]) == (302, "/info")
            told = (await client.get("/info")).json()
            assert (told.pop("mac_address") > 0, told.pop("system").split()[0]) == (True, "Linux")
            assert told == {
                "activity": None,
                "hostname": "ours",
                "log": None,
                "status": "enabled",
                "time_cost": None,
            }
            machine = (await client.get("/run_info")).json()
            assert set(machine["update_frequent"]) == {"load_average", "worker_cpu_percent"}
            assert machine["update_less_frequent"]["worker_num_cpus"] >= 1
            assert (await client.head("/command")).status_code == 503
            assert (await client.get("/pid")).status_code == 500
            assert (await client.delete("/kill")).status_code == 204


async def test_a_called_worker_runs_kills_and_reports(tmp_path: Path) -> None:
    with managed(tmp_path) as manager:
        script, pid = tmp_path / "long.sh", tmp_path / "pid"
        script.write_text(TREE.format(pid))
        async with called(tmp_path, manager) as (_, client):

            async def execute(ticket: int, *command: str) -> tuple[int, str]:
                form = {"task_id": ticket, "task_parser": "blender_render", "settings": "{}"}
                form["task_command"] = json.dumps(command)
                reply = await client.post("/execute_task", data=form)
                return reply.status_code, reply.text

            async def until_it(path: str, met: Callable[[httpx.Response], bool]) -> httpx.Response:
                with anyio.fail_after(BOUND_S):
                    while not met(reply := await client.get(path)):
                        await anyio.sleep(PAUSE_S)
                return reply

            assert await execute(12, "shell", str(script)) == (200, '{"pid":0}')
            await until(pid.exists, BOUND_S)
            assert (await execute(13, "shell", str(script)))[0] == 500
            shell = (await until_it("/pid", lambda reply: reply.status_code == 200)).json()["pid"]
            assert int(pid.read_text()) in {
                child.pid for child in psutil.Process(shell).children(recursive=True)
            }
            spoken = await until_it("/info", lambda reply: bool(reply.json()["log"]))
            told = spoken.json()
            assert (told["status"], told["log"][:6]) == ("rendering", "Fra:1\n")
            assert json.loads(told["activity"])["current_frame"] == 1
            assert (await client.delete("/kill")).status_code == 204
            assert (await manager.told_end())["status"] == "aborted"
            await until(lambda: is_gone(int(pid.read_text())), BOUND_S)
            script.write_text("echo gone; exit 3\n")
            assert await execute(14, "shell", str(script)) == (200, '{"pid":0}')
            failed = await manager.told_end(2)
            assert (failed["status"], failed["log"].splitlines()[0]) == ("failed", "gone")


# our own manager ------------------------------------------------------------------------------------------------------


async def test_a_render_of_our_manager_by_our_worker_that_is_killed_meanwhile(
    tmp_path: Path,
) -> None:
    """The worker's process dies and returns: the task is its own still, and is finished."""
    (tmp_path / "farm").mkdir()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as files:
        files.writestr("shot.blend", b"a scene")
    async with crew(tmp_path / "farm", "false", patience_s=300) as farm:
        main = f"127.0.0.1:{farm.farm.port}/flamenco"
        held = tmp_path / "held"
        table = f'folder = "{tmp_path}/work"'
        made = Worker(tmp_path / "w", main, table)
        program = tmp_path / "w" / "draws"
        waits = f"while pathlib.Path({str(held)!r}).exists():\n    time.sleep(0.05)\n"
        program.write_text(f"#!{sys.executable}\n{DRAWS.replace('out = ', waits + 'out = ', 1)}")
        held.touch()
        try:
            child = await made.start()
            settings = {"frame_start": 1, "frame_end": 4, "chunk_size": 2}
            settings |= {"filepath": "/shots/shot.blend"}
            fields = {"task_id": 7, "type": "simple_blender_render", "parser": "blender_render"}
            sent = {**fields, "settings": json.dumps(settings)}
            await post(f"http://{main}", sent, zipped.getvalue())
            await runs_in(farm)
            child.kill()
            await made.start()
            held.unlink()
            assert (await farm.job_ends(1)).status is JobStatus.COMPLETED
            await check_render(farm, tmp_path / "farm" / "shelf")
        finally:
            for each in made.children:
                each.kill()


async def runs_in(farm: Crew) -> None:
    """Wait until a task of job 1 is known to run."""

    async def met(client: Any) -> bool:
        task = await client.asker.answer(GetTask("1.1"))
        return task.status == "running"

    await farm.farm.until(met, BOUND_S)


async def check_render(farm: Crew, shelf: Path) -> None:
    """All frames came back, each task was tried once, and the last picture is the job's."""
    frames: list[str] = []
    async with farm.farm.client() as client:
        for number in (1, 2):
            task = await client.asker.answer(GetTask(f"1.{number}"))
            (attempt,) = task.attempts
            assert attempt.worker.startswith("ours@127.0.0.1")
            log = await client.log(attempt.id)
            assert b"Saved: '" in log
            with zipfile.ZipFile(shelf / f"output-{task.id}.zip") as files:
                frames += files.namelist()
    assert frames == [f"{number:06d}.png" for number in range(1, 5)]
    async with httpx.AsyncClient(timeout=BOUND_S) as client:
        picture = await client.get(f"{farm.farm.url()}/flamenco/jobs/1/thumbnail")
    assert picture.content.startswith(b"\x89PNG")


async def test_our_manager_calls_our_worker_and_kills_what_it_runs(tmp_path: Path) -> None:
    (tmp_path / "farm").mkdir()
    port = free_port()
    further = '[dialects.flamenco.workers."ours"]\npush = true\n'
    words = ("--dialect", f"flamenco=127.0.0.1:{port}")
    blender = tmp_path / "blender"
    async with crew(
        tmp_path / "farm", str(blender), *words, further=further, patience_s=300
    ) as farm:
        output = tmp_path / "out"
        output.mkdir()
        table = f'protocol = "push"\nroots = ["{tmp_path}"]'
        made = Worker(tmp_path / "w", f"127.0.0.1:{port}", table)
        toml = tmp_path / "w" / "worker.toml"
        toml.write_text(f'{toml.read_text()}"{blender}" = "{tmp_path}/w/draws"\n')
        try:
            await made.start()
            settings = {"frame_start": 1, "frame_end": 3, "filepath": f"{tmp_path}/shot.blend"}
            settings |= {"output_path": f"{output}/####"}
            fields = {"task_id": 7, "type": "simple_blender_render", "parser": "blender_render"}
            await post(f"http://127.0.0.1:{port}", {**fields, "settings": json.dumps(settings)})
            assert (await farm.job_ends(1)).status is JobStatus.COMPLETED
            assert len(list(output.iterdir())) == 3
            started = tmp_path / "started"
            waits = f"pathlib.Path({str(started)!r}).touch()\ntime.sleep(600)\n"
            (tmp_path / "w" / "draws").write_text(
                f"#!{sys.executable}\n{DRAWS.replace('out = ', waits + 'out = ', 1)}"
            )
            again = {**fields, "task_id": 8, "settings": json.dumps(settings)}
            await post(f"http://127.0.0.1:{port}", again)
            await until(started.exists, BOUND_S)
            async with httpx.AsyncClient(timeout=BOUND_S) as client:
                form = {"id": "2", "command": "cancel"}
                await client.put(f"http://127.0.0.1:{port}/jobs", data=form)
            assert (await farm.job_ends(2)).status is JobStatus.CANCELLED
            made.children[-1].check()
        finally:
            for each in made.children:
                each.kill()
