"""
The command line of whoever's environment this runs in: how long ``--help`` takes, and how long until a server of a new file is ready.

``--of orchestra``: ``serve`` with a file, until it says that it accepts connections; then it holds the file, has an API over HTTP and a
worker for programs. ``--of huey``: the consumer of a SQLite file with two threads, until its log says that it started; it has no API.
CPU time is that of the process until then.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import tell
from http_load import cpu_s

HUEY_TASKS = """from huey import SqliteHuey
huey = SqliteHuey(filename={path!r}, fsync=True)

@huey.task()
def noop(i):
    return i
"""


def help_of(of: str) -> dict[str, float]:
    """A whole process that prints its help."""
    module = "orchestra" if of == "orchestra" else "huey.bin.huey_consumer"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", module, "--help"], check=True, capture_output=True)
    took_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"ready_cpu_ms": used_s * 1e3, "ready_ms": took_s * 1e3}


def ready_of(of: str, folder: str) -> dict[str, float]:
    """From the start of a server's process to its being ready."""
    if of == "orchestra":
        argv = ["-m", "orchestra", "serve", "--data", f"{folder}/farm.db"]
        argv += ["--listen", "127.0.0.1:0", "--json"]
        sign = '"url"'
    else:
        Path(folder, "bench_tasks.py").write_text(HUEY_TASKS.format(path=f"{folder}/huey.db"))
        argv = ["-m", "huey.bin.huey_consumer", "bench_tasks.huey", "-w", "2"]
        sign = "Huey consumer started"
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), folder]),
    }
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *argv],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            said: list[str] = []
            for line in server.stdout:
                said.append(line)
                if sign in line:
                    break
            else:
                raise SystemExit("".join(said) or "it said nothing")
            ready_s = time.perf_counter() - began
            return {"ready_ms": ready_s * 1e3, "ready_cpu_ms": cpu_s(server.pid) * 1e3}
        finally:
            server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--of", choices=("orchestra", "huey"), default="orchestra")
    parser.add_argument("--what", choices=("help", "serve"), default="serve")
    chosen = parser.parse_args()
    if chosen.what == "help":
        tell(help_of(chosen.of))
        return
    with tempfile.TemporaryDirectory(prefix="bench-start-", ignore_cleanup_errors=True) as folder:
        tell(ready_of(chosen.of, folder))


if __name__ == "__main__":
    main()
