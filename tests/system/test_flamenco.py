"""Flamenco's workers as processes against a real server: at both of its ports, and a render of which one worker is killed half-way."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import pytest

from orchestra.statemachine.lifecycles import JOB_FINAL, JobStatus
from orchestra.statemachine.queries import GetJob, GetTask, ListTasks
from orchestra.statemachine.replies import JobView
from orchestra.testing.free_port import free_port
from tests.system.farm import Farm, open_farm, until
from tests.tidy import ROOT

pytestmark = [pytest.mark.anyio, pytest.mark.system]

BOUND_S = 300.0
FRAMES = 6
CHUNK = 2

SCENE = """\
import bpy, math, sys
scene = bpy.context.scene
cube = bpy.data.objects["Cube"]
for frame, angle in ((1, 0.0), (10, math.pi)):
    cube.rotation_euler = (0, 0, angle)
    cube.keyframe_insert("rotation_euler", frame=frame)
scene.render.resolution_x, scene.render.resolution_y = 96, 54
scene.render.resolution_percentage = 100
scene.render.engine = "CYCLES"
scene.cycles.device, scene.cycles.samples, scene.cycles.use_denoising = "CPU", 2, False
scene.render.image_settings.file_format = "PNG"
bpy.ops.wm.save_as_mainfile(filepath=sys.argv[-1])
"""

DRAW = """\
import struct, sys, zlib

def word(name):
    return sys.argv[sys.argv.index(name) + 1]

def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(
        ">I", zlib.crc32(kind + content))

side = 64
output = word("--render-output").rstrip("#")
for frame in range(int(word("--frame-start")), int(word("--frame-end")) + 1):
    print(f"Fra:{frame} Mem:1M | Remaining:00:01 | Sample 1/2", flush=True)
    rows = b"".join(
        b"\\0" + bytes((x * y + 40 * frame) % 256 for x in range(side)) for y in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path = f"{output}{frame:06d}.png"
    with open(path, "wb") as file:
        file.write(b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", head)
                   + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    print(f"Saved: '{path}'", flush=True)
"""


class Crew:
    """Workers as processes, each the leader of its own group with what it runs."""

    def __init__(self, farm: Farm, folder: Path) -> None:
        self.farm = farm
        self._folder = folder
        self._workers: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, url: str, hostname: str, *words: str) -> None:
        argv = [sys.executable, "-m", "tests.system.flamenco_worker", url, hostname]
        errors = self._folder / f"{hostname}.err"
        with errors.open("wb") as stderr:
            self._workers[hostname] = subprocess.Popen(
                [*argv, str(self._folder / hostname), *words],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    async def dies(self, hostname: str) -> None:
        """Wait until a worker is dead."""
        worker = self._workers[hostname]
        await until(lambda: worker.poll() is not None, BOUND_S)
        assert worker.returncode == -signal.SIGKILL, (self._folder / f"{hostname}.err").read_text()

    def close(self) -> None:
        for worker in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()

    async def job_ends(self, number: int) -> JobView:
        found: list[JobView] = []

        async def ended(client: Any) -> bool:
            found.append(await client.asker.answer(GetJob(str(number))))
            return found[-1].status in JOB_FINAL

        await self.farm.until(ended, BOUND_S)
        return found[-1]


@asynccontextmanager
async def crew(
    folder: Path, program: str, *words: str, further: str = "", patience_s: int = 10
) -> AsyncGenerator[Crew]:
    toml = folder / "orchestra.toml"
    toml.write_text(
        "[dialects.flamenco]\n"
        f'storage = "{folder}/shelf"\ntask_timeout_s = {patience_s}\nworker_timeout_s = 60\n'
        # On a busy machine a worker may be silent for longer than that: then it was a try in vain.
        "failures_max = 50\n"
        f'[dialects.flamenco.commands.simple_blender_render]\nLinux = "{program}"\n{further}'
    )
    async with open_farm(folder) as farm:
        await farm.serve(further=["--config", str(toml), *words])
        found = Crew(farm, folder)
        try:
            yield found
        finally:
            found.close()


async def post(url: str, fields: dict[str, Any], jobfile: bytes | None = None) -> None:
    files = None if jobfile is None else {"jobfile": ("jobfile.zip", jobfile, "application/zip")}
    async with httpx.AsyncClient(timeout=BOUND_S) as client:
        reply = await client.post(f"{url}/tasks", data=fields, files=files)
    assert reply.status_code == 202, reply.text


async def test_workers_at_both_ports_of_one_manager(tmp_path: Path) -> None:
    own = free_port()
    async with crew(tmp_path, "false", "--dialect", f"flamenco=127.0.0.1:{own}") as farm:
        main = f"{farm.farm.url()}/flamenco"
        farm.start(main, "below")
        farm.start(f"http://127.0.0.1:{own}", "root")
        said = ["one", "two", "three", "four"]
        for number, text in enumerate(said, 1):
            fields = {"task_id": number, "type": "print_string"}
            await post(main, {**fields, "settings": json.dumps({"text": text})})
        for number, text in enumerate(said, 1):
            assert (await farm.job_ends(number)).status is JobStatus.COMPLETED
            async with farm.farm.client() as client:
                task = await client.asker.answer(GetTask(f"{number}.1"))
                assert await client.log(task.attempts[-1].id) == f"{text}\n".encode()


def a_program(folder: Path) -> tuple[str, bytes]:
    """Blender and a scene that it made, or a small program that draws frames where there is none."""
    blender = shutil.which("blender")
    if blender is None:
        drawing = folder / "draw"
        drawing.write_text(f"#!{sys.executable}\n{DRAW}")
        drawing.chmod(drawing.stat().st_mode | stat.S_IXUSR)
        return str(drawing), b"no scene"
    script, scene = folder / "scene.py", folder / "shot.blend"
    script.write_text(SCENE)
    words = ["--background", "--factory-startup", "--python-exit-code", "3", "--python"]
    argv = [blender, *words, str(script), "--", str(scene)]
    subprocess.run(argv, check=True, capture_output=True, timeout=BOUND_S)
    return blender, scene.read_bytes()


async def test_a_render_goes_on_when_a_worker_is_killed_half_way(
    tmp_path: Path, told: Callable[[str], None]
) -> None:
    program, scene = await anyio.to_thread.run_sync(a_program, tmp_path)
    told(f"rendered by {Path(program).name}")
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as files:
        files.writestr("shot.blend", scene)
    settings = {"frame_start": 1, "frame_end": FRAMES, "chunk_size": CHUNK}
    settings |= {"filepath": "/shots/shot.blend"}
    fields = {"task_id": 7, "type": "simple_blender_render", "parser": "blender_render"}
    async with crew(tmp_path, program) as farm, httpx.AsyncClient(timeout=BOUND_S) as client:
        main = f"{farm.farm.url()}/flamenco"
        await post(main, {**fields, "settings": json.dumps(settings)}, zipped.getvalue())
        farm.start(main, "doomed", "1")
        await farm.dies("doomed")
        assert (await client.get(f"{main}/jobs/1/thumbnail")).status_code == 200
        farm.start(main, "steady")
        assert (await farm.job_ends(1)).status is JobStatus.COMPLETED
        picture = (await client.get(f"{main}/jobs/1/thumbnail")).content
        async with farm.farm.client() as native:
            tasks = (await native.asker.answer(ListTasks("1"))).items
            seen = [await native.asker.answer(GetTask(task.id)) for task in tasks]
        workers = {attempt.worker for task in seen for attempt in task.attempts}
        assert {name.partition("@")[0] for name in workers} == {"doomed", "steady"}
        assert seen[0].attempts[0].worker.startswith("doomed@")
        assert seen[0].attempts[-1].worker.startswith("steady@")
        frames: dict[str, bytes] = {}
        for number, task in enumerate(seen):
            result = json.loads(task.attempts[-1].result or b"")
            assert result["activity"]["current_frame"] == (number + 1) * CHUNK
            with zipfile.ZipFile(tmp_path / "shelf" / f"output-{task.id}.zip") as files:
                frames |= {name: files.read(name) for name in files.namelist()}
        assert sorted(frames) == [f"{number:06d}.png" for number in range(1, FRAMES + 1)]
        assert len(set(frames.values())) == FRAMES, "each frame shows something else"
        assert picture in frames.values()
