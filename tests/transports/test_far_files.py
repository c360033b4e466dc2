"""Archives that a worker of Flamenco fetches: what is unpacked, and what is not."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from orchestra.dialects.far_calls import FarCall
from orchestra.testing.fuzz_answers import FedConnection, answer
from orchestra.transports.far_files import FolderParcels, unpack

CALL = FarCall("127.0.0.1", 1, "GET", "/static/storage/1/jobfile_1.zip")


def archive(method: int, name: str = "a/b.blend", content: bytes = b"x" * 3_000) -> bytes:
    """An archive of one file."""
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", method) as packed:
        packed.writestr(name, content)
    return kept.getvalue()


def fetched(body: bytes, folder: Path) -> int | None:
    """What is said of an archive that came so."""
    return FolderParcels(lambda _: FedConnection(answer(body))).fetch(CALL, str(folder))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_is_unpacked(method: int, tmp_path: Path) -> None:
    assert fetched(archive(method), tmp_path) == 200
    assert (tmp_path / "a" / "b.blend").read_bytes() == b"x" * 3_000


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unfolds_without_a_bound_is_not_unpacked(method: int, tmp_path: Path) -> None:
    """Python reads a whole piece of these at once, whatever it unfolds to."""
    with pytest.raises(zipfile.BadZipFile, match="unknown way"):
        unpack(io.BytesIO(archive(method)), tmp_path)
    assert fetched(archive(method), tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_a_broken_archive_is_none_whatever_is_broken_in_it(tmp_path: Path) -> None:
    """Also one whose broken bytes are not told of by an error of archives, as those of LZMA."""
    raw = archive(zipfile.ZIP_LZMA, "b.blend")
    for at in range(30, 80):
        assert fetched(raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :], tmp_path) is None
