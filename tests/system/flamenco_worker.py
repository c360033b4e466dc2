"""
A worker of Flamenco's pull protocol, as one of 2015-03 speaks: it registers, asks, fetches, runs, reports, and begins again.

``python -m tests.system.flamenco_worker URL HOSTNAME FOLDER [PICTURES]``. It knows nothing of orchestra. With PICTURES it kills itself and
what it runs, as a power cut would, once it has sent so many.
"""

from __future__ import annotations

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

BOUNDARY = "a-line-between-two-parts"
PAUSE_S = 0.2
SAVED = re.compile(r"Saved: ?'?([^'\r\n]+?)'?(?: Time|\r|\n)")


class Manager:
    """Whoever is at the other end."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = ""
    ) -> tuple[int, bytes]:
        headers = {"Content-Type": kind} if kind else {}
        request = urllib.request.Request(  # noqa: S310 - the address of the test's own server
            self._url + path, data=body, headers=headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310 - as above
                return reply.status, reply.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    def form(self, method: str, path: str, fields: dict[str, Any]) -> int:
        body = urllib.parse.urlencode(fields).encode()
        return self.ask(method, path, body, "application/x-www-form-urlencoded")[0]

    def parts(
        self, method: str, path: str, fields: dict[str, Any], file: tuple[str, str, bytes]
    ) -> int:
        name, file_name, content = file
        between = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
        parts = [f'{between}"{key}"\r\n\r\n{value}\r\n'.encode() for key, value in fields.items()]
        head = f'{between}"{name}"; filename="{file_name}"\r\n'
        parts += [head.encode(), b"Content-Type: application/octet-stream\r\n\r\n", content]
        body = b"".join([*parts, f"\r\n--{BOUNDARY}--\r\n".encode()])
        return self.ask(method, path, body, f"multipart/form-data; boundary={BOUNDARY}")[0]


class Worker:
    """One worker."""

    def __init__(self, url: str, hostname: str, folder: Path, pictures: int) -> None:
        self._manager = Manager(url)
        self._pictures = pictures
        self._hostname, self._folder = hostname, folder

    def once(self) -> None:
        me = {"port": 7777, "hostname": self._hostname, "system": "Linux 6.1"}
        self._manager.ask("GET", "/info")
        self._manager.form("POST", "/workers", me)
        status, body = self._manager.ask("GET", "/tasks/compiled/0")
        if status == 200:
            self._run(json.loads(body)["options"])

    def _run(self, task: dict[str, Any]) -> None:
        ticket, job = task["task_id"], task["job_id"]
        path = f"/tasks/{ticket}"
        begun = {"status": "running", "time_cost": 0, "job_id": job}
        if self._manager.form("PATCH", path, begun) != 204:
            return
        folder = self._folder / str(ticket)
        output = folder / "output"
        output.mkdir(parents=True)
        status, content = self._manager.ask("GET", f"/static/storage/{job}/jobfile_{job}.zip")
        if status != 200:
            return
        with zipfile.ZipFile(io.BytesIO(content)) as files:
            files.extractall(folder)
        _, read = self._manager.ask("GET", f"/settings/{task['type']}")
        program = json.loads(read)["commands"]["default"]["Linux"]
        places = {"==jobpath==": str(folder), "==outputpath==": str(output), "==command==": program}
        argv: list[str] = json.loads(task["task_command"])
        for mark, place in places.items():
            argv = [word.replace(mark, place) for word in argv]
        code, log = self._watch(argv, task)
        word = {0: "finished", -signal.SIGKILL: "aborted"}.get(code, "failed")
        zipped = io.BytesIO()
        with zipfile.ZipFile(zipped, "w") as files:
            for file in sorted(output.iterdir()):
                files.write(file, file.name)
        ended = {"status": word, "time_cost": 1, "job_id": job, "log": log}
        self._manager.parts("PATCH", path, ended, ("taskfile", "taskfile.zip", zipped.getvalue()))

    def _watch(self, argv: list[str], task: dict[str, Any]) -> tuple[int, str]:
        log, sent = "", 0
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            while piece := os.read(process.stdout.fileno(), 65_536):
                log += piece.decode(errors="replace")
                fields = {"status": "running", "log": log, "time_cost": 1}
                fields |= {"job_id": task["job_id"], "task_id": task["task_id"]}
                if self._manager.form("PATCH", f"/tasks/{task['task_id']}", fields) != 204:
                    process.kill()
                saved_all = SAVED.findall(log)
                for saved in saved_all[sent:]:
                    picture = ("file", "last.png", Path(saved).read_bytes())
                    named = {"task_id": task["task_id"]}
                    self._manager.parts("POST", "/tasks/thumbnails", named, picture)
                    self._pictures -= 1
                    if self._pictures == 0:
                        os.killpg(0, signal.SIGKILL)
                sent = len(saved_all)
        return process.returncode, log


def main(url: str, hostname: str, folder: str, pictures: str = "0") -> None:
    worker = Worker(url, hostname, Path(folder), int(pictures))
    while True:
        worker.once()
        # Another process ends this one; until then it asks, with a pause, as the real one does.
        select.select([], [], [], PAUSE_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
