"""The shelf keeps whole files under plain names, and nothing outside its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.errors import Malformed, Unavailable
from orchestra.storage.shelf import FolderShelf


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
