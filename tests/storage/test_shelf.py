"""The shelf keeps whole files under plain names, and nothing outside its folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from orchestra.config import DialectPort
from orchestra.dialect_ports import dialects_for
from orchestra.errors import Malformed, Unavailable
from orchestra.storage.shelf import DRAFT_S_MAX, FolderShelf


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path / "new" / "shelf")
    assert shelf.read("a.zip") is None
    shelf.save("a.zip", b"one")
    shelf.save("a.zip", b"two")
    assert shelf.read("a.zip") == b"two"
    assert [path.name for path in shelf.folder.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "a/b", "/etc/passwd", ".a", "a\0", "a" * 201]
)
def test_a_name_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    shelf = FolderShelf(tmp_path)
    with pytest.raises(Malformed):
        shelf.save(name, b"x")
    with pytest.raises(Malformed):
        shelf.read(name)


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(Unavailable, match=r"a\.zip can not be kept"):
        FolderShelf(tmp_path / "file").save("a.zip", b"x")
    (tmp_path / "a.zip").mkdir()
    with pytest.raises(Unavailable, match=r"a\.zip can not be read"):
        FolderShelf(tmp_path).read("a.zip")
    with pytest.raises(Unavailable):
        FolderShelf(tmp_path).save("a.zip", b"x")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".new-")] == []


def test_what_a_cut_of_the_power_left_half_written_goes_at_the_next_start(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path / "shelf")
    shelf.clear()  # there is none yet
    shelf.save("a.zip", b"whole")
    for name, age_s in ((".new-old", DRAFT_S_MAX + 60), (".new-now", 0.0), (".kept", 1e6)):
        path = shelf.folder / name
        path.write_bytes(b"half")
        written_s = time.time() - age_s
        os.utime(path, (written_s, written_s))
    os.utime(shelf.folder / "a.zip", (0, 0))
    dialects_for({})["flamenco"](DialectPort("flamenco", None, {"storage": str(shelf.folder)}))
    assert sorted(path.name for path in shelf.folder.iterdir()) == [".kept", ".new-now", "a.zip"]
