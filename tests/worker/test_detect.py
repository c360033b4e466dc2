"""What a machine has: read from made-up system files, and from this machine, where nothing may raise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestra.worker import detect


def written(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def grouped(tmp_path: Path, line: str) -> Path:
    own = tmp_path / "own"
    own.write_text(line + "\n")
    return own


def test_a_quota_of_the_control_group_counts_and_the_innermost_is_not_alone(tmp_path: Path) -> None:
    root = written(tmp_path / "cg", cpu__max="50000 100000", memory__max="max")
    written(root / "box", cpu__max="max 100000", memory__max="1048576")
    own = grouped(tmp_path, "0::/box")
    assert detect.cpus(root, own) == 500
    assert detect.memory_bytes(root, own) == 1_048_576


def test_the_older_kind_of_control_groups_is_read_too(tmp_path: Path) -> None:
    root = tmp_path / "cg"
    written(root / "cpu" / "box", cpu__cfs_quota_us="25000", cpu__cfs_period_us="100000")
    written(root / "memory" / "box", memory__limit_in_bytes="2097152")
    own = grouped(tmp_path, "4:cpu,cpuacct:/box\n5:memory:/box\n6:pids:/box")
    assert detect.cpus(root, own) == 250
    assert detect.memory_bytes(root, own) == 2_097_152


@pytest.mark.parametrize("text", ["", "max", "max 100000", "junk 1 2", "-1 100000", "0 0"])
def test_without_a_quota_the_affinity_counts(tmp_path: Path, text: str) -> None:
    root = written(tmp_path / "cg", cpu__max=text)
    expected = len(os.sched_getaffinity(0)) * 1_000
    assert detect.cpus(root, grouped(tmp_path, "0::/")) == expected
    assert detect.cpus(tmp_path / "nowhere", tmp_path / "nothing") == expected


def program(folder: Path, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / "nvidia-smi"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without graphics and without NVIDIA's tool."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return written(tmp_path / "dev")


def test_nvidia_tells_names_and_memory(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(bare.parent / "bin", "echo 'NVIDIA A100, 40960'; echo 'NVIDIA T4, [N/A]'\n")
    first, second = detect.gpus(bare)
    assert (first.name, first.memory_bytes) == ("NVIDIA A100", 40_960 * 1024**2)
    assert (second.name, second.memory_bytes) == ("NVIDIA T4", 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert detect.gpus(bare) == (first,)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert detect.gpus(bare) == ()


def test_a_driver_that_fails_leaves_the_device_files(bare: Path) -> None:
    program(bare.parent / "bin", "echo 'NVIDIA-SMI has failed'; exit 9\n")
    written(bare, nvidia0="", nvidia1="", nvidiactl="", null="")
    written(bare / "dri", renderD128="", card0="")
    assert len(detect.gpus(bare)) == 2, "their render nodes are not counted again"


def test_render_nodes_of_others_count(bare: Path) -> None:
    assert detect.gpus(bare) == ()
    written(bare / "dri", renderD128="", card0="")
    assert [gpu.name for gpu in detect.gpus(bare)] == ["renderD128"]


def test_a_driver_that_hangs_does_not_hold_up_the_start(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(bare.parent / "bin", "while :; do :; done\n")
    monkeypatch.setattr(detect, "_NVIDIA_SMI_S", 0.2)
    assert detect.gpus(bare) == ()


def test_this_machine_is_found_out() -> None:
    machine = detect.machine()
    amounts = dict(machine.capacity())
    assert list(amounts) == sorted(amounts)
    assert amounts["cpu"] >= 100
    assert amounts["memory"] > 1_000 * 1024**2
    assert machine.host["python"].startswith("3.")
    vitals = detect.vitals()
    assert vitals.load >= 0
    assert 0 < vitals.memory_free_bytes * 1_000 <= amounts["memory"] * 2
    assert vitals.disk_free_bytes > 0


def test_what_can_not_be_found_out_is_left_out() -> None:
    machine = detect.Machine(1_000, 0, 0, (), {})
    assert machine.capacity() == (("cpu", 1_000),)
    assert detect.disk_free_bytes("/no/such/folder") == 0
