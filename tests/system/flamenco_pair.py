"""A strict manager of 2015 and a worker of ours as processes, and programs for them to run."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil

from orchestra.testing.free_port import free_port
from tests.system.farm import Child, until
from tests.system.test_flamenco import BOUND_S
from tests.tidy import ROOT

DRAWS = """\
import pathlib, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--render-output") + 1]).parent
first, last = (int(sys.argv[sys.argv.index(f"--frame-{end}") + 1]) for end in ("start", "end"))
for frame in range(first, last + 1):
    print(f"Fra:{frame} Mem:1M | Remaining:00:01.00 | Sample 1/2", flush=True)
    path = out / f"{frame:06d}.png"
    path.write_bytes(b"\\x89PNG\\r\\n\\x1a\\n" + bytes([frame]))
    print(f"Saved: '{path}'", flush=True)
"""
TREE = "sleep 600 & echo $! > {0}.new; mv {0}.new {0}; while :; do echo Fra:1; sleep 0.2; done\n"
"""A program that starts another, says which, and goes on."""

MARKED = ["==command==", "-b", "==jobpath==shot.blend", "--render-output", "==outputpath==/####"]


class Manager:
    """A strict manager of 2015 as a process, and what it was told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        folder.mkdir()
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w") as files:
            files.writestr("shot.blend", b"a scene")
        (folder / "jobfile.zip").write_bytes(zipped.getvalue())
        argv = [sys.executable, "-m", "tests.system.flamenco_manager", str(self.port), str(folder)]
        with (folder / "err").open("wb") as errors:
            self.process = subprocess.Popen(
                argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
            )

    def calls(self) -> list[dict[str, Any]]:
        path = self.folder / "calls.jsonl"
        if not path.exists():
            return []
        whole, _, _ = path.read_text().rpartition("\n")  # the line after it is being written
        return [json.loads(line) for line in whole.splitlines()]

    def ends(self) -> list[dict[str, str]]:
        """The reports of ends."""
        told = [call["fields"] for call in self.calls() if call["method"] == "PATCH"]
        return [fields for fields in told if fields["status"] != "running"]

    async def told_end(self, number: int = 1) -> dict[str, str]:
        await until(lambda: len(self.ends()) >= number, BOUND_S)
        return self.ends()[number - 1]

    def gives(self, ticket: int, command: list[str], kind: str = "simple_blender_render") -> None:
        """A task for who asks next."""
        task = {
            "task_id": ticket,
            "job_id": 3,
            "task_parser": "blender_render",
            "settings": {"frame_start": 1, "frame_end": 2},
            "type": kind,
            "task_command": json.dumps(command),
        }
        written = self.folder / "task.new"
        written.write_text(json.dumps(task))
        written.rename(self.folder / "task.json")


@contextmanager
def managed(folder: Path) -> Generator[Manager]:
    manager = Manager(folder / "manager")
    try:
        yield manager
    finally:
        manager.process.kill()
        manager.process.wait()


class Worker:
    """Our worker as a process."""

    def __init__(self, folder: Path, manager: str, table: str) -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir(exist_ok=True)
        self.children: list[Child] = []
        program = folder / "draws"
        program.write_text(f"#!{sys.executable}\n{DRAWS}")
        program.chmod(0o755)
        (folder / "worker.toml").write_text(
            f'[dialects.flamenco-worker]\nmanager = "{manager}"\nhostname = "ours"\n{table}\n'
            "[dialects.flamenco-worker.programs]\n"
            f'simple_blender_render = "{program}"\n"/opt/blender" = "{program}"\n'
            'shell = "/bin/sh"\n'
        )

    async def start(self) -> Child:
        words = ["serve", "--listen", "127.0.0.1:0", "--data", str(self.folder / "worker.db")]
        words += ["--config", str(self.folder / "worker.toml"), "--json"]
        words += ["--dialect", f"flamenco-worker=127.0.0.1:{self.port}"]
        env = dict(os.environ)
        child = Child([sys.executable, "-m", "orchestra", *words], env, self.folder / "worker.err")
        self.children.append(child)
        await child.line()
        return child


@asynccontextmanager
async def worker(folder: Path, manager: str, table: str) -> AsyncGenerator[Worker]:
    made = Worker(folder, manager, table)
    try:
        await made.start()
        yield made
    finally:
        for child in made.children:
            child.kill()


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
