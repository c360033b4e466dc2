"""
Programs that try to outlive their stop, each a script for ``python -I -S -c``. All print ``ready`` when their processes exist.

Every process carries a mark in its command line, so that a test finds what is left without the engine's help.
"""

from __future__ import annotations

import psutil

_PRELUDE = """
import os, signal, sys, time
MARK = sys.argv[1]
def sleeper(ignore=False, clean=False):
    code = "import signal, time\\n"
    if ignore:
        code += "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGHUP, signal.SIG_IGN)\\n"
    code += "print('ready', flush=True)\\ntime.sleep(600)\\n"
    argv = [sys.executable, "-I", "-S", "-c", code, MARK]
    os.execve(sys.executable, argv, {} if clean else os.environ)
def forked(job):
    if os.fork() == 0:
        job()
        os._exit(0)
"""

SCRIPTS = {
    "forks": """
forked(lambda: sleeper())
time.sleep(600)
""",
    "changes session": """
forked(lambda: (os.setsid(), sleeper()))
time.sleep(600)
""",
    "changes group": """
forked(lambda: (os.setpgid(0, 0), sleeper()))
time.sleep(600)
""",
    "forks twice": """
forked(lambda: (os.setsid(), forked(lambda: (os.setsid(), sleeper()))))
time.sleep(600)
""",
    "ignores TERM": """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
forked(lambda: sleeper(ignore=True))
time.sleep(600)
""",
    "forks at TERM": """
def again(*_):
    forked(lambda: (os.setsid(), sleeper(ignore=True)))
signal.signal(signal.SIGTERM, again)
print("ready", flush=True)
while True: time.sleep(600)
""",
    "daemon without environment": """
forked(lambda: (os.setsid(), signal.signal(signal.SIGTERM, signal.SIG_IGN), forked(lambda: sleeper(True, clean=True))))
time.sleep(600)
""",
    "hops": """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
until = time.monotonic() + 20
while time.monotonic() < until:
    if os.fork(): os._exit(0)
    os.setsid()
""",
    "stops itself": """
forked(lambda: (print("ready", flush=True), os.kill(os.getpid(), signal.SIGSTOP), time.sleep(600)))
time.sleep(600)
""",
}


def script(name: str) -> str:
    return _PRELUDE + SCRIPTS[name]


def alive(mark: str) -> list[psutil.Process]:
    """Processes with this mark in their command line, by the process table alone; zombies are dead."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if mark in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
