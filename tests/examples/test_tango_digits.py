"""
Four member containers as processes, driven through the pipeline by a Project Manager that behaves as TANGO's does: it starts the next
container inside the report of the one before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import psutil
import pytest

from tests.examples.runs import EXAMPLES
from tests.tidy import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.system]

STAGES = ("labelling", "autonn", "code_gen", "ondevice_deploy")
IDS = "user_id=kyunghee&project_id=1"
HINT = "pip install '.[examples]'"
BOUND_S = 240.0
PAUSE_S = 0.1
"""Between two looks at what other processes do."""

CALL_S = 5.0
"""The Project Manager's own limit."""


def get(url: str, timeout_s: float = CALL_S) -> str:
    reply = httpx.get(url, timeout=timeout_s)
    assert reply.status_code == 200
    return reply.text


class ProjectManager(ThreadingHTTPServer):
    """Its ``auto`` mode: a report that is no failure starts the next container of the workflow before it is answered."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Report)
        self.members: dict[str, str] = {}
        self.reports: list[tuple[str, str]] = []
        self.replies: list[str] = []
        self.over = threading.Event()

    def start(self, container: str) -> None:
        self.replies.append(get(f"{self.members[container]}/start?{IDS}"))

    def reported(self, container: str, status: str) -> None:
        self.reports.append((container, status))
        place = STAGES.index(container)
        if status != "success" or place + 1 == len(STAGES):
            self.over.set()
        else:
            self.start(STAGES[place + 1])


class _Report(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, ProjectManager)
        asked = urlsplit(self.path)
        assert asked.path == "/status_report"
        given = dict(parse_qsl(asked.query))
        self.server.reported(given["container_id"], given["status"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": 200}')

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@contextmanager
def managed() -> Generator[ProjectManager]:
    with ProjectManager() as manager:
        thread = threading.Thread(target=manager.serve_forever)
        thread.start()
        try:
            yield manager
        finally:
            manager.shutdown()
            thread.join()


@contextmanager
def container(name: str, manager: ProjectManager, shared: Path) -> Generator[None]:
    """The process of one member; it is stopped as an operator stops it."""
    program = [sys.executable, str(EXAMPLES / "tango_digits" / "members.py"), name]
    words = ["--listen", "127.0.0.1:0", "--shared", str(shared)]
    words += ["--manager", f"127.0.0.1:{manager.server_address[1]}"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*program, *words]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, f"{name} did not start"
            manager.members[name] = f"http://{address}"
            yield
        finally:
            process.terminate()
            process.wait(BOUND_S)


@contextmanager
def member(name: str, shared: Path) -> Generator[str]:
    """The process of one member that reports to nobody: its manager asks it. Gives its address."""
    program = [sys.executable, str(EXAMPLES / "tango_digits" / "members.py"), name]
    words = ["--listen", "127.0.0.1:0", "--shared", str(shared)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*program, *words], env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, f"{name} did not start"
            yield address
        finally:
            process.terminate()
            process.wait(BOUND_S)


@contextmanager
def served_manager(folder: Path, addresses: dict[str, str]) -> Generator[str]:
    """Our Project Manager over these members, with the example's settings."""
    settings = (EXAMPLES / "tango_digits" / "orchestra.toml").read_text()
    for name, usual in (*zip(STAGES, (8095, 8100, 8888, 8891), strict=True),):
        assert f"127.0.0.1:{usual}" in settings
        settings = settings.replace(f"127.0.0.1:{usual}", addresses[name])
    settings = settings.replace("127.0.0.1:8085", "127.0.0.1:0")
    (folder / "orchestra.toml").write_text(settings)
    words = ["serve", "--config", str(folder / "orchestra.toml"), "--listen", "127.0.0.1:0"]
    words += ["--data", str(folder / "farm.db"), "--local-worker", "0", "--json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "orchestra", *words]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "the manager did not start"
            yield json.loads(line)["url"] + "/tango"
        finally:
            process.terminate()
            process.wait(BOUND_S)


def posted(url: str, form: str) -> dict[str, Any]:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    reply = httpx.post(url, content=form, headers=headers, timeout=60)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def followed(manager: str) -> dict[str, Any]:
    """Ask where the project is until its pipeline is over."""
    until = time.monotonic() + BOUND_S
    shown: dict[str, Any] = {}
    while time.monotonic() < until:
        shown = posted(f"{manager}/api/status_request", IDS)
        over = shown["container_status"] == "completed" and shown["container"] == STAGES[-1]
        if over or shown["container_status"] in ("failed", "stopped"):
            return shown
        threading.Event().wait(PAUSE_S)
    raise AssertionError(f"it did not end: {shown}")


def asked(url: str, pixels: object) -> dict[str, Any]:
    return dict(httpx.post(url, json=pixels, timeout=60).json())


def test_the_pipeline_from_labels_to_a_service(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    require(modules=("sklearn", "numpy"), hint=HINT)
    import numpy as np

    project = tmp_path / "common" / "kyunghee" / "1"
    with managed() as manager, ExitStack() as stack:
        for name in STAGES:
            stack.enter_context(container(name, manager, tmp_path))
        for member in manager.members.values():
            assert get(f"{member}/status_request?user_id=&project_id=") == "ready"
        manager.start(STAGES[0])
        assert manager.over.wait(BOUND_S)
        assert manager.reports == [(name, "success") for name in STAGES]
        assert manager.replies == ["starting"] * 4
        for member in manager.members.values():
            assert get(f"{member}/status_request?{IDS}") == "completed"
        assert json.loads((project / "accuracy.json").read_bytes())["accuracy"] > 0.9

        deployed = json.loads((project / "deployment.json").read_bytes())
        images = np.load(project / "dataset.npz")
        some = slice(100, 130)
        said = [asked(deployed["url"], image)["digit"] for image in images["judge"][some].tolist()]
        right = int(np.sum(np.array(said) == images["judge_labels"][some]))
        assert right >= 25, f"{right} of 30"
        service = psutil.Process(deployed["pid"])

        # A second deployment takes the place of the first; the pipeline before it is left alone.
        manager.over.clear()
        manager.start(STAGES[-1])
        assert manager.over.wait(BOUND_S)
        assert manager.reports[-1] == (STAGES[-1], "success")
        assert not service.is_running()
        again = json.loads((project / "deployment.json").read_bytes())
        assert asked(again["url"], images["judge"][0].tolist())["digit"] in range(10)
        second = psutil.Process(again["pid"])
    psutil.wait_procs([second], timeout=60)
    assert not second.is_running()


def test_the_pipeline_with_our_own_project_manager(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    """The same four processes, started, asked and followed by the manager of the example's orchestra.toml."""
    require(modules=("sklearn", "numpy"), hint=HINT)
    import numpy as np

    project = tmp_path / "common" / "kyunghee" / "1"
    with ExitStack() as stack:
        addresses = {name: stack.enter_context(member(name, tmp_path)) for name in STAGES}
        manager = stack.enter_context(served_manager(tmp_path, addresses))
        started = posted(f"{manager}/api/container_start", f"{IDS}&container_id=labelling")
        assert started["status"] == 200
        shown = followed(manager)
        assert (shown["container"], shown["container_status"]) == (STAGES[-1], "completed"), shown
        assert shown["containers"] == dict.fromkeys(STAGES, "completed")
        assert json.loads((project / "accuracy.json").read_bytes())["accuracy"] > 0.9
        deployed = json.loads((project / "deployment.json").read_bytes())
        images = np.load(project / "dataset.npz")
        some = slice(100, 130)
        said = [asked(deployed["url"], image)["digit"] for image in images["judge"][some].tolist()]
        right = int(np.sum(np.array(said) == images["judge_labels"][some]))
        assert right >= 25, f"{right} of 30"


def test_a_stage_without_what_the_one_before_makes_has_failed(
    tmp_path: Path, require: Callable[..., None]
) -> None:
    """The control of the test above: TANGO's own code generator reports success here."""
    require(modules=("sklearn", "numpy"), hint=HINT)
    with managed() as manager, container("code_gen", manager, tmp_path):
        manager.start("code_gen")
        assert manager.over.wait(BOUND_S)
        assert manager.reports == [("code_gen", "failed")]
        assert get(f"{manager.members['code_gen']}/status_request?{IDS}") == "failed"
