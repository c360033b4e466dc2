"""The pages say what is so: links lead somewhere, commands and examples work as they are printed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.tidy import ROOT

FOLDERS = ("*.md", "docs/**/*.md", "changelog.d/*.md", "examples/*/README.md")
PAGES = sorted(page for folder in FOLDERS for page in ROOT.glob(folder))
KINDS = ("added", "changed", "fixed", "removed", "security")


def links(text: str) -> list[str]:
    """Targets of links that stay inside the repository."""
    found = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    return [target for target in found if "://" not in target]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    missing = [
        target
        for target in links(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert missing == []


def reached(start: Path) -> set[Path]:
    """The pages that links lead to from one, and from there on."""
    found, new = {start}, [start]
    while new:
        page = new.pop()
        for target in links(page.read_text(encoding="utf-8")):
            other = (page.parent / target).resolve()
            if other.suffix == ".md" and other.exists() and other not in found:
                found.add(other)
                new.append(other)
    return found


def test_every_page_is_found_from_the_readme() -> None:
    pages = {page for page in PAGES if "docs" in page.relative_to(ROOT).parts}
    assert len(pages) > 20
    assert pages - reached(ROOT / "README.md") == set()
    direct = {(ROOT / target).resolve() for target in links(README)}
    assert {page for page in pages if page.parent == ROOT / "docs"} - direct == set()


def test_a_page_that_nothing_leads_to_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("[b](b.md) [gone](gone.md)")
    (tmp_path / "b.md").write_text("[a](a.md) [c](sub/c.md#part)")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.md").write_text("[a](../a.md)")
    (tmp_path / "lost.md").write_text("[a](a.md)")
    assert {page.name for page in reached(tmp_path / "a.md")} == {"a.md", "b.md", "c.md"}


def commands(page: Path) -> list[list[str]]:
    """The words of each command of ours in the blocks of a page that are to be typed."""
    typed = [line for block in blocks(page.read_text("utf-8"), "sh") for line in block.splitlines()]
    found = (re.search(r"-m orchestra ([^#&]+)", line) for line in typed)
    return [shlex.split(one[1]) for one in found if one]


TYPED = [page for page in PAGES if "docs" not in page.parts and commands(page)]
"""Pages that lead a newcomer by the hand. What docs/proof.md tells to type was typed by those who wrote it there."""


@pytest.mark.parametrize("page", TYPED, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_tells_to_type_is_a_command(page: Path) -> None:
    """Every word of it is known, and every file is there; what it does is tried elsewhere."""
    from orchestra.cli.entry import command_line

    for words in commands(page):
        command_line(*words[:2]).parse_args(words)
        assert [
            word
            for word in words
            if "/" in word and "://" not in word and not (ROOT / word).exists()
        ] == []


def test_commands_are_found_on_pages() -> None:
    assert {page.parent.name for page in TYPED} >= {"digits", "film", "sky"}
    assert ["why", "last.13"] in commands(ROOT / "examples" / "film" / "README.md")


def test_a_dead_link_would_be_seen() -> None:
    text = "[a](gone.md) [b](https://example.org/gone) [c](gone.md#part) [d](#part)"
    assert links(text) == ["gone.md", "gone.md"]


def test_the_first_commands_are_the_promised_ones() -> None:
    """`.ci/run` runs these two blocks, as they are printed, on a machine that has nothing."""
    first, second = blocks(README, "sh")[:2]
    assert "pip install '.[examples]'" in first
    assert "orchestra run examples/digits/project.toml" in first
    assert "-m pytest" in second


def test_the_example_in_the_readme_runs(tmp_path: Path) -> None:
    example = tmp_path / "example.py"
    example.write_text(blocks(README, "python")[0], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(example)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    expected = [f"{frame:04}.png" for frame in range(1, 11)]
    assert (done.stdout.strip(), done.returncode) == (str(expected), 0), done.stderr


def missing_tests(table: str, folder: Path) -> list[str]:
    """Rows of the table of threats that name no test, and tests that they name and that are not there."""
    missing: list[str] = []
    for row in re.findall(r"^\|(?! threat \||---)(.*)\|$", table, flags=re.MULTILINE):
        threat, _, told = row.strip().rsplit(" | ", 2)
        named = re.findall(r"\[(\w+\.py)(?:::(\w+))?\]\(([^)]+)\)", told)
        missing += [] if named else [threat]
        for file, function, target in named:
            path = folder / target
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            known = re.search(rf"^(async )?def {function or 'test_'}", text, flags=re.MULTILINE)
            missing += [] if known and path.name == file else [f"{threat}: {file}::{function}"]
    return missing


def test_each_threat_names_a_test_that_is_there() -> None:
    page = ROOT / "docs" / "security.md"
    assert missing_tests(page.read_text(encoding="utf-8"), page.parent) == []
    assert page.read_text(encoding="utf-8").count("\n| ") >= 15  # the table itself was not lost


def test_a_threat_whose_test_is_gone_is_seen(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_one() -> None: ...\n")
    good = (
        "| threat | default | test |\n|---|---|---|\n| a | b | [test_a.py::test_one](test_a.py) |\n"
    )
    assert missing_tests(good, tmp_path) == []
    assert missing_tests(good.replace("::test_one", "::test_two"), tmp_path) == [
        "a: test_a.py::test_two"
    ]
    assert missing_tests(good.replace("(test_a", "(test_b"), tmp_path) == ["a: test_a.py::test_one"]
    assert missing_tests("| a | b | by hand |\n", tmp_path) == ["a"]


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = {page.name for page in folder.glob("[0-9]*.md")}
    assert set(links((folder / "README.md").read_text(encoding="utf-8"))) == pages


def test_fragments_have_a_kind() -> None:
    for fragment in (ROOT / "changelog.d").glob("*"):
        _, kind, suffix = fragment.name.rsplit(".", 2)
        assert (kind in KINDS, suffix) == (True, "md"), fragment.name


def test_the_glossary_is_sorted() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^\| ([^|]+?) \|", text, flags=re.MULTILINE)[1:]
    assert words == sorted(words, key=str.lower)
    assert len(words) == len(set(words))


def test_the_licence_is_the_declared_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith(f"{project['license']} License")
