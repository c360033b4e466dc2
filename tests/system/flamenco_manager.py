"""
A manager of Flamenco 2015 as a process, as strict as the wire of the running programs: what it is asked in another way is refused.

``python -m tests.system.flamenco_manager PORT FOLDER``. FOLDER holds what it serves (``jobfile.zip``, ``task.json`` for the next task to
ask for); it writes what was sent back to ``taskfile.zip`` and ``thumbnail``, then each request to ``calls.jsonl``, and answers a report
with 403 while there is a file ``cancelled``. An archive is not sent while there is a file ``held``. It knows nothing of orchestra.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from email.message import Message
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

RUNNING, ENDS = "running", ("finished", "failed", "aborted")
FIELDS = {"status", "log", "activity", "time_cost", "job_id", "task_id"}
EMPTY_ZIP = b"PK\x05\x06" + bytes(18)
SETTINGS = {"commands": {"default": {"Linux": "/opt/blender", "Darwin": "b", "Windows": "b.exe"}}}
LOCK = threading.Lock()
PAUSE_S = 0.02
"""Between two looks whether an archive is held still."""


class Manager(ThreadingHTTPServer):
    """What it has, and what it was told."""

    def __init__(self, port: int, folder: Path) -> None:
        super().__init__(("127.0.0.1", port), Asked)
        self.folder = folder

    def note(self, **words: object) -> None:
        with LOCK, (self.folder / "calls.jsonl").open("a") as file:
            file.write(json.dumps(words) + "\n")

    def task(self) -> dict[str, Any] | None:
        """The next task, once."""
        with LOCK:
            path = self.folder / "task.json"
            if not path.exists():
                return None
            found = json.loads(path.read_text())
            path.unlink()
            return found


class Asked(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.there.note(method="GET", path=path)
        if path == "/tasks/compiled/0":
            task = self.there.task()
            if task is None:
                return self._answer(400, b'""\n')
            files = [["jobfile", "jobfile.zip"], ["jobsupportfile", "jobsupportfile.zip"]]
            body = {"options": task, "files": {"jobfiles": files}}
            return self._answer(200, json.dumps(body).encode())
        if re.fullmatch(r"/static/storage/(\d+)/jobfile_\1\.zip", path):
            while (self.there.folder / "held").exists():
                threading.Event().wait(PAUSE_S)
            return self._answer(200, (self.there.folder / "jobfile.zip").read_bytes())
        if re.fullmatch(r"/static/storage/(\d+)/jobsupportfile_\1\.zip", path):
            return self._answer(200, EMPTY_ZIP)
        if path == "/settings/simple_blender_render":
            return self._answer(200, json.dumps(SETTINGS).encode())
        return self._answer(404, b'{"code": 404, "message": "No interface defined for URL"}')

    def do_POST(self) -> None:
        fields, files = self._read()
        if "file" in files:
            (self.there.folder / "thumbnail").write_bytes(files["file"])
        self.there.note(method="POST", path=self.path, fields=fields, files=sorted(files))
        if self.path == "/workers":
            known = set(fields) == {"port", "hostname", "system"} and fields["port"].isdigit()
            return self._answer(204 if known and not files else 400, b"")
        if (
            self.path == "/tasks/thumbnails"
            and set(fields) == {"task_id"}
            and set(files) == {"file"}
        ):
            return self._answer(200, b"null")
        return self._answer(404, b"")

    def do_PATCH(self) -> None:
        fields, files = self._read()
        if "taskfile" in files:
            (self.there.folder / "taskfile.zip").write_bytes(files["taskfile"])
        self.there.note(method="PATCH", path=self.path, fields=fields, files=sorted(files))
        status = fields.get("status")
        fit = (
            re.fullmatch(r"/tasks/\d+", self.path) is not None
            and (status == RUNNING or status in ENDS)
            and set(fields) <= FIELDS
            and all(fields[name].isdigit() for name in {"time_cost", "job_id"} & set(fields))
            and set(files) <= ({"taskfile"} if status in ENDS else set())
        )
        if not fit:
            return self._answer(400, b"")
        if status == RUNNING and (self.there.folder / "cancelled").exists():
            return self._answer(403, b'"Task Cancelled"')
        return self._answer(204, b"")

    @property
    def there(self) -> Manager:
        return cast("Manager", self.server)

    def _read(self) -> tuple[dict[str, str], dict[str, bytes]]:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers["Content-Type"]
        if kind == "application/x-www-form-urlencoded":
            pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
            return dict(pairs), {}
        read = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
        fields: dict[str, str] = {}
        files: dict[str, bytes] = {}
        for part in cast("list[Message]", read.get_payload()):
            name = str(part.get_param("name", header="content-disposition"))
            content = cast("bytes", part.get_payload(decode=True))
            if part.get_filename() is None:
                fields[name] = content.decode()
            else:
                files[name] = content
        return fields, files

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """It keeps no log."""


if __name__ == "__main__":
    Manager(int(sys.argv[1]), Path(sys.argv[2])).serve_forever()
