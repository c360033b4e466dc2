"""
A member container of the digits pipeline: ``python members.py NAME``, with NAME one of `PORTS`.

The first three run a stage of stages.py as a program of its own. The last deploys what the third generated: it starts the generated
program as a service, asks it, and has completed when it answers right. The service lives as long as its container, or until the next
deployment of the same project takes its place.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import anyio
import httpx
import numpy as np
from stages import written

import orchestra
from orchestra.dialects import tango

PORTS = {"labelling": 8095, "autonn": 8100, "code_gen": 8888, "ondevice_deploy": 8891}
HERE = Path(__file__).resolve().parent
TRIED = 20


def program(name: str, shared: Path, manager: str) -> tuple[orchestra.App, tango.Member]:
    """A container that runs a stage as a program."""
    app = orchestra.App()
    argv = ["{python}", str(HERE / "stages.py"), name, str(shared), "{user_id}", "{project_id}"]
    return app, tango.member(app, container_id=name, argv=argv, manager=manager, timeout="10m")


def deployer(name: str, shared: Path, manager: str) -> tuple[orchestra.App, tango.Member]:
    """The container that deploys: its task is a function, and the services that it starts are its own processes."""
    app = orchestra.App()
    services: dict[Path, subprocess.Popen[str]] = {}

    @app.task
    def deploy(user_id: str, project_id: str) -> str:
        project = shared / "common" / user_id / project_id
        former = services.pop(project, None)
        if former is not None:
            former.kill()
            former.wait()
        argv = [sys.executable, str(project / "nn_model" / "predictor.py"), "0"]
        service = subprocess.Popen(argv, stdin=PIPE, stdout=PIPE, text=True)  # noqa: S603 - what the stage before generated
        try:
            told = tried(service, project)
        except BaseException:
            service.kill()
            service.wait()
            raise
        services[project] = service
        written(project / "deployment.json", json.dumps(told).encode())
        return str(told["url"])

    return app, tango.member(app, container_id=name, manager=manager)


def tried(service: subprocess.Popen[str], project: Path) -> dict[str, str | int]:
    """Where the service answers, after it read some digits. Raises `RuntimeError` when it reads badly."""
    assert service.stdout is not None
    url = f"http://127.0.0.1:{int(service.stdout.readline())}/"
    images = np.load(project / "dataset.npz")
    pairs = zip(images["judge"][:TRIED], images["judge_labels"][:TRIED], strict=True)
    right = sum(1 for image, label in pairs if asked(url, image.tolist()) == label)
    if right < TRIED * 3 // 4:
        raise RuntimeError(f"the service read {right} of {TRIED} digits right")
    return {"url": url, "pid": service.pid, "right": right, "of": TRIED}


def asked(url: str, pixels: list[float]) -> int:
    """What the service reads in an image."""
    return int(httpx.post(url, json=pixels, timeout=30).raise_for_status().json()["digit"])


def main() -> None:
    parser = argparse.ArgumentParser(description="A member container of the digits pipeline.")
    parser.add_argument("name", choices=tuple(PORTS))
    parser.add_argument("--listen", help="HOST:PORT; by default the container's usual port here")
    parser.add_argument("--manager", default="", help="HOST:PORT of the Project Manager")
    parser.add_argument("--shared", type=Path, default=HERE / "out", help="folder of all stages")
    given = parser.parse_args()
    make = deployer if given.name == "ondevice_deploy" else program
    app, member = make(given.name, given.shared.resolve(), given.manager)

    async def serve() -> None:
        listen = given.listen or f"127.0.0.1:{PORTS[given.name]}"
        await app.serve_member(member, listen, ready=lambda at: print(at, flush=True))

    anyio.run(serve)


if __name__ == "__main__":
    main()
