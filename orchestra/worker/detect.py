"""
What this machine has, and how busy it is. Nothing here raises: what can not be found out is left out.

Limits of a container count, not the machine's: cpus by affinity and cgroup quota, memory by cgroup limit.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import socket
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from orchestra.statemachine.records import Amounts
from orchestra.statemachine.values import value

_CGROUP = Path("/sys/fs/cgroup")
_NVIDIA_SMI_S = 5.0
"""A driver that hangs must not hang the worker's start."""


@value
class Gpu:
    """``memory_bytes`` is 0 when it is not known."""

    name: str
    memory_bytes: int = 0


@value
class Vitals:
    """How busy the machine is now. ``load`` is the one-minute load average per cpu: 1.0 is fully used."""

    load: float = 0.0
    memory_free_bytes: int = 0
    disk_free_bytes: int = 0


@value
class Shares:
    """How busy the machine is, in percent of all that it has. ``loads`` are the load averages of 1, 5 and 15 minutes."""

    loads: tuple[float, float, float]
    cpu_percent: float
    disk_percent: float
    memory_percent: float
    architecture: str
    cpus: int


@value
class Machine:
    """What a machine has. ``cpus`` is in thousandths (a quota may allow half of one)."""

    cpus: int
    memory_bytes: int
    disk_bytes: int
    gpus: tuple[Gpu, ...]
    host: dict[str, str]

    def capacity(self) -> Amounts:
        """Counted resources as a worker offers them; what is not there is left out."""
        amounts = {
            "cpu": self.cpus,
            "memory": self.memory_bytes * 1_000,
            "disk": self.disk_bytes * 1_000,
            "gpu": len(self.gpus) * 1_000,
        }
        return tuple(sorted((name, amount) for name, amount in amounts.items() if amount > 0))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def cgroup_folders(
    kind: str, root: Path = _CGROUP, own: Path = Path("/proc/self/cgroup")
) -> list[Path]:
    """Folders of this process' control group, innermost first; ``kind`` is a version 1 controller."""
    folders: list[Path] = []
    for line in _text(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and kind not in controllers.split(","):
            continue
        top = root / kind if controllers else root
        # A container that has a namespace of its own sees itself at the top.
        folders += [top / path.lstrip("/"), top]
    return folders


def _quota_cpus(folders: list[Path]) -> float:
    """How many cpus the control group may use; infinite without a limit."""
    allowed = math.inf
    for folder in folders:
        words = _text(folder / "cpu.max").split()
        if len(words) != 2:  # noqa: PLR2004 - "quota period"
            words = [_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")]
        quota, period = _number(words[0]), _number(words[1])
        if quota and period:
            allowed = min(allowed, quota / period)
    return allowed


def cpus(root: Path = _CGROUP, own: Path = Path("/proc/self/cgroup")) -> int:
    """Cpus that this process may use, in thousandths; at least a tenth of one."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0)
    count = count or float(os.cpu_count() or 1)
    return max(100, int(min(count, _quota_cpus(cgroup_folders("cpu", root, own))) * 1_000))


def memory_bytes(root: Path = _CGROUP, own: Path = Path("/proc/self/cgroup")) -> int:
    """Memory that this process may use; 0 when it is not known."""
    total = _psutil_number("virtual_memory", "total")
    for folder in cgroup_folders("memory", root, own):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(_text(folder / name))
            if limit:
                total = min(total or limit, limit)
    return total


def _psutil_number(function: str, field: str) -> int:
    import psutil

    try:
        return int(getattr(getattr(psutil, function)(), field))
    except (OSError, psutil.Error):
        return 0


def disk_free_bytes(folder: str = ".") -> int:
    """Free space where work is done; 0 when it is not known."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def gpus(dev: Path = Path("/dev")) -> tuple[Gpu, ...]:
    """
    Graphics processors: what NVIDIA's tool tells, else its device files, else the render nodes of others.

    ``CUDA_VISIBLE_DEVICES`` hides NVIDIA's from work, and so does it here.
    """
    found = _nvidia_smi() or tuple(
        Gpu("NVIDIA")
        for path in _listed(dev)
        if path.name[6:].isdigit() and path.name[:6] == "nvidia"
    )
    if found:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            return found
        named = [each for each in visible.split(",") if each.strip() not in ("", "-1")]
        return found[: len(named)]
    return tuple(Gpu(path.name) for path in _listed(dev / "dri") if path.name.startswith("renderD"))


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _nvidia_smi() -> tuple[Gpu, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        told = subprocess.run(  # noqa: S603 - no part of it comes from outside
            [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            timeout=_NVIDIA_SMI_S,
            check=True,
            text=True,
            errors="replace",
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found: list[Gpu] = []
    for line in told.splitlines():
        name, _, mebibytes = line.rpartition(",")
        if name.strip():
            found.append(Gpu(name.strip(), (_number(mebibytes.strip()) or 0) * 1024**2))
    return tuple(found)


def host() -> dict[str, str]:
    """Facts that people look for when a worker behaves strangely."""
    facts = {
        "hostname": socket.gethostname(),
        "os": f"{platform.system()} {platform.release()}".strip(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "pid": str(os.getpid()),
    }
    return {key: value[:200] for key, value in facts.items() if value}


@lru_cache(maxsize=1)
def machine() -> Machine:
    """Everything, found out once for a process."""
    facts = host()
    cards = gpus()
    if cards:
        facts["gpus"] = ", ".join(card.name for card in cards)[:200]
    return Machine(cpus(), memory_bytes(), disk_free_bytes(), cards, facts)


def vitals(folder: str = ".") -> Vitals:
    """How busy the machine is. It may wait for a disk that does not answer: call it from a thread."""
    try:
        load = os.getloadavg()[0] / (machine().cpus / 1_000)
    except OSError:
        load = 0.0
    free = _psutil_number("virtual_memory", "available")
    return Vitals(round(load, 2), free, disk_free_bytes(folder))


def shares(folder: str = ".") -> Shares:
    """How busy the machine is, as people read it. It may wait for a disk that does not answer: call it from a thread."""
    try:
        one, five, fifteen = os.getloadavg()
        disk = shutil.disk_usage(folder)
        disk_percent = 100 * disk.used / max(disk.total, 1)
    except OSError:
        one = five = fifteen = disk_percent = 0.0
    count = max(machine().cpus / 1_000, 0.001)
    memory = max(machine().memory_bytes, 1)
    free = min(_psutil_number("virtual_memory", "available"), memory)
    return Shares(
        (round(one, 2), round(five, 2), round(fifteen, 2)),
        round(min(100 * one / count, 100.0), 1),
        round(disk_percent, 1),
        round(100 * (1 - free / memory), 1),
        platform.machine(),
        math.ceil(count),
    )
