"""The page of proofs: sections are replaced one by one, and say what they were seen on."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import attrs
import pytest

from orchestra.testing.proof_page import Evidence, commit_of, read, write

CORE = Evidence(
    name="core",
    title="Schedules of the core",
    command="python -m orchestra prove core --schedules 10 --seed 1",
    figures=(("schedules", "10"), ("a | b", "5")),
    seeds="1 to 10",
    result="No invariant was broken.",
)


def git(folder: Path, *words: str) -> str:
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(
        ["git", *name, "-C", str(folder), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_page_is_made_when_it_is_missing(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "proof.md"
    write(CORE, page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Proof\n")
    assert "## Schedules of the core\n\nNo invariant was broken.\n" in text
    assert f"```sh\n{CORE.command}\n```" in text
    assert "| schedules | 10 |\n| a \\| b | 5 |" in text
    assert re.search(
        rf"Seeds: 1 to 10\. Seen on \d{{4}}-\d\d-\d\d \(UTC\), Python {platform.python_version()}",
        text,
    )


def test_a_section_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    page = tmp_path / "proof.md"
    other = attrs.evolve(CORE, name="explore", title="Explorer")
    own = attrs.evolve(CORE, name="aaa", title="A user's own")
    for each in (own, CORE, other):
        write(each, page)
    before = read(page)
    assert list(before) == ["explore", "core", "aaa"]
    write(attrs.evolve(CORE, result="It broke."), page)
    after = read(page)
    assert list(after) == list(before)
    assert "It broke." in after["core"]
    assert "No invariant was broken." not in after["core"]
    assert {name: after[name] for name in ("explore", "aaa")} == {
        name: before[name] for name in ("explore", "aaa")
    }


def test_writing_the_same_again_changes_nothing(tmp_path: Path) -> None:
    page = tmp_path / "proof.md"
    write(CORE, page)
    write(attrs.evolve(CORE, name="explore"), page)
    first = page.read_bytes()
    write(CORE, page)
    assert page.read_bytes() == first


def test_the_commit_is_told_and_whether_files_differ(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "orchestra").mkdir()
    code = tmp_path / "orchestra" / "code.py"
    code.write_text("1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "x")
    head = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    assert commit_of(tmp_path) == head
    code.write_text("2\n")
    assert commit_of(tmp_path) == f"{head}+"
    write(CORE, tmp_path / "proof.md")
    assert f"commit {head}+." in (tmp_path / "proof.md").read_text(encoding="utf-8")


def test_outside_of_a_repository_nothing_is_said_of_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    write(CORE, tmp_path / "proof.md")
    assert "commit" not in (tmp_path / "proof.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["", "A", "a b", "-->"])
def test_a_name_that_would_break_the_page_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        write(attrs.evolve(CORE, name=name), tmp_path / "proof.md")
