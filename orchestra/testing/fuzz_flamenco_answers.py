"""
What Flamenco's manager answers a worker that asks it: a corpus, and a world in which one of its answers is what is fed.

Whatever comes, the worker leaves no file outside its folder, and comes back for the next task.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestra.dialects.far_calls import FarCall, FarReply
from orchestra.errors import Unavailable
from orchestra.testing.fuzz import FuzzBroken
from orchestra.testing.fuzz_answers import (
    NO_CONTENT,
    FedConnection,
    answer,
    chunked,
    named,
    split,
)
from orchestra.testing.fuzz_flamenco_worker import ROUNDS_MAX, Farm, worker_of
from orchestra.testing.fuzz_worlds import reframed
from orchestra.testing.invariants import snapshot
from orchestra.transports.far_calls import exchanged
from orchestra.transports.far_files import FolderParcels

ROUND_MS = 61_000
"""Longer than the longest pause between two reports."""

TASKS_MAX = 20
"""After so many a worker and its core begin anew: to look whether all that is kept is as it should be takes longer and longer."""

ARCHIVES = ("jobfile", "jobsupportfile", "dependencies")
"""For these the worker's folder is there; other calls leave the disk in peace."""

NAMES = (
    *ARCHIVES, "info", "workers", "task", "begins", "settings", "goes-on", "picture", "ends",
)  # fmt: skip
"""The calls that a worker makes, by their first word or by what they tell."""

OFFER: Mapping[str, Any] = {
    "task_id": 22,
    "job_id": 3,
    "type": "theirs",
    "task_parser": "blender_render",
    "settings": {"frame_start": 5, "command_name": "default"},
    "task_command": '["==command==", "-b", "==jobpath==a.blend", "-o", "==outputpath==/#", "{x}"]',
}
SETTINGS = {"commands": {"default": {"Linux": "/usr/bin/blender", "Windows": "blender.exe"}}}


class _Answering:
    """
    A manager one of whose answers is what is fed, while all others are as they should be: one task, and then none.

    Args:
        folder: Of the worker, below a folder in which nothing else may appear.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parcels = FolderParcels(lambda _: FedConnection(self._raw))
        self._name, self._raw = "", b""
        self._offers = 0
        self.used = self.finished = False

    def begin(self, name: str, raw: bytes) -> None:
        """The call of this name is answered so, once."""
        self._name, self._raw = name, raw
        self._offers = 0
        self.used = self.finished = False

    @property
    def is_asked_again(self) -> bool:
        """Whether the worker wants the next task."""
        return self._offers > 1

    def call(self, call: FarCall) -> FarReply | None:
        """As `Parcels.call`."""
        return self._answered(_name_of(call), call)

    def send(self, call: FarCall, field: str, path: str) -> FarReply | None:
        """As `Parcels.send`: nothing but what the task made."""
        self._own(path)
        if field == "taskfile":
            self.finished = dict(call.form)["status"] == "finished"
        return self._answered("ends" if field == "taskfile" else "picture", call)

    def fetch(self, call: FarCall, folder: str) -> int | None:
        """As `Parcels.fetch`: what is in the archive is below the folder."""
        self._own(folder)
        name = call.path.rpartition("/")[2].partition("_")[0]
        if not self._is_fed(name):
            return 200 if name == "jobfile" else 404
        status = self._parcels.fetch(call, folder)
        for top in (self._folder.parent, self._folder, Path(folder).parent):
            beside = [each.name for each in top.iterdir() if not Path(folder).is_relative_to(each)]
            if beside and beside != ["output"]:
                raise FuzzBroken(f"{beside} lies beside the folder of an archive")
        return status

    def clear(self, folder: str) -> None:
        """As `Parcels.clear`."""
        self._own(folder)
        if self._name in ARCHIVES:
            self._parcels.clear(folder)

    def prepare(self, folder: str) -> None:
        """As `Parcels.prepare`."""
        self._own(folder)
        if self._name in ARCHIVES:
            self._parcels.prepare(folder)

    def _own(self, path: str) -> None:
        if not path.startswith(f"{self._folder}/") or ".." in path.split("/"):
            raise FuzzBroken(f"{path!r} is not the worker's")

    def _is_fed(self, name: str) -> bool:
        fed = name == self._name and not self.used
        self.used = self.used or fed
        return fed

    def _answered(self, name: str, call: FarCall) -> FarReply | None:
        self._offers += name == "task"
        if self._is_fed(name):
            return exchanged(FedConnection(self._raw), call)
        if name == "task":
            good = json.dumps({"options": OFFER}).encode()
            return FarReply(400, b'""\n') if self.is_asked_again else FarReply(200, good)
        if name == "settings":
            return FarReply(200, json.dumps(SETTINGS).encode())
        return FarReply(204, b"")


def _name_of(call: FarCall) -> str:
    """What a call is named by in an input: a path's first part, or what is told of a task."""
    if call.method == "PATCH":
        return "goes-on" if "log" in dict(call.form) else "begins"
    first = call.path.strip("/").partition("?")[0].partition("/")[0]
    return "task" if first == "tasks" else first


class AnswerWorld:
    """
    Answers of a manager to a worker that asks it.

    Whatever is answered once, the worker comes back for the next task. Accepted: the task of this round ran to its end, and nothing was
    complained of.
    """

    def __init__(self) -> None:
        top = tempfile.mkdtemp(prefix="orchestra-fuzz-")
        weakref.finalize(self, shutil.rmtree, top, ignore_errors=True)
        folder = Path(top, "work")
        folder.mkdir()
        self._manager = _Answering(folder)
        self._now_ms = self._tasks = 0
        self._folder = str(folder)
        self._open(self._folder)

    def _open(self, folder: str) -> None:
        """A worker that has done nothing yet."""
        self._farm = Farm(folder)
        dialect = worker_of(self._manager, lambda: self._now_ms, folder=folder)
        (self._chore,) = dialect.chores

    def feed(self, raw: bytes) -> bool:
        """As `fuzz.World.feed`. What has a length is fed once more with the length that fits."""
        fitting = reframed(raw)
        taken = self._feed(raw)
        return (fitting != raw and self._feed(fitting)) or taken

    def _feed(self, raw: bytes) -> bool:
        name, found = split(raw)
        if name not in NAMES:
            return False
        self._tasks += 1
        if self._tasks % TASKS_MAX == 0:
            self._open(self._folder)
        self._manager.begin(name, found)
        before = snapshot(self._farm.core.state)
        well = self._round()
        if not well and name in ("info", "task"):
            self._farm.check(before, refused=True)
        for _ in range(ROUNDS_MAX):
            self._farm.work()
            well &= self._round()
            if self._manager.is_asked_again:
                break
        else:
            raise FuzzBroken("the worker never asks for the next task")
        self._farm.check(before, refused=False)
        return well and self._manager.used and self._manager.finished

    def _round(self) -> bool:
        """The worker's chore, once; whether there is nothing to complain of."""
        self._now_ms += ROUND_MS
        try:
            self._farm.carry_out(self._chore.begin())
        except Unavailable:
            return False
        return True


def _archive(method: int, *names: str) -> bytes:
    """An archive of these files, made at no time."""
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w") as archive:
        for name in names:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = method
            archive.writestr(entry, name.encode() * 40)
    return kept.getvalue()


def answers() -> Sequence[bytes]:
    """The corpus."""
    found = [*named("info", answer(b"{}"), answer(b"", b"404 Not Found"))]
    found += named("workers", answer(b'"registered"'), answer(b"", NO_CONTENT))
    offer = json.dumps({"options": OFFER, "files": {}}).encode()
    older = {name: OFFER[name] for name in ("task_id", "job_id", "task_command", "task_parser")}
    older |= {"task_id": "a7", "task_parser": "simple_blender_render", "settings": None}
    shell = {**OFFER, "type": "shell", "task_command": '["shell", "-x", "==jobpath==a"]'}
    for each in (OFFER, older, shell):
        body = json.dumps({"options": each}).encode()
        found += named("task", answer(body), chunked(body))
    found += named("task", answer(offer, sized=False))
    settings = json.dumps(SETTINGS).encode()
    found += named("settings", answer(settings), chunked(settings))
    for told in ("begins", "goes-on", "ends", "picture"):
        found += named(told, answer(b"", NO_CONTENT), answer(b"", b"503 Service Unavailable"))
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        packed = _archive(method, "a.blend", "textures/b.png")
        found += named("jobfile", answer(packed, b"200 OK", b"Content-Type: application/zip"))
        found += named("dependencies", answer(packed, sized=False))
    found += named("jobsupportfile", answer(_archive(zipfile.ZIP_STORED, "c/d.txt")))
    return found
