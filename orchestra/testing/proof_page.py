"""
The page of proofs: what was tried, with which seeds, on which commit, and what came of it.

Written by the commands of ``python -m orchestra prove`` alone, so that no figure stands there that nobody saw.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

PAGE = Path("docs/proof.md")

ORDER = (
    "explore",
    "core",
    "rules",
    "simulate",
    "determinism",
    "power-loss",
    "chaos",
    "soak",
    "fuzz",
    "fuzz-some",
    "fuzz-guided",
    "sockets",
    "museum",
    "mutants",
    "linearizability",
)
"""The order of the sections; one of another name stands behind these, by its name."""

HEAD = """# Proof

What was tried, with what it takes to try it again. Each section was written by the command that it names (`--write docs/proof.md`), and is
replaced when that command is run again.
"""

_SECTION = re.compile(r"^<!-- proof: (\S+) -->$", re.MULTILINE)
_NAME = re.compile(r"[a-z][a-z0-9-]*")

GIT_S_MAX = 10.0
"""Git answers at once, or the page does without the commit."""


@attrs.frozen(slots=True)
class Evidence:
    """
    What one command tried.

    Args:
        name: The section's name: lower case letters, digits and hyphens.
        title: The section's title.
        command: The line that does it again, as it is typed.
        figures: Rows of (what, figure), as they are to be read.
        seeds: The seeds that were used; empty where none are.
        result: What came of it, in one sentence.
    """

    name: str
    title: str
    command: str
    figures: tuple[tuple[str, str], ...]
    seeds: str
    result: str


def write(evidence: Evidence, path: str | Path = PAGE) -> None:
    """
    Replace the section of this name on the page; the others stay as they are. The page is made when it is missing.

    Raises:
        ValueError: The name is none.
        OSError: The page can not be written.
    """
    if not _NAME.fullmatch(evidence.name):
        raise ValueError(f"{evidence.name!r} is no name of a section")
    page = Path(path)
    sections = read(page)
    sections[evidence.name] = section_of(evidence, commit=commit_of(page.parent))
    ordered = sorted(sections, key=_place)
    page.parent.mkdir(parents=True, exist_ok=True)
    text = HEAD + "".join(f"\n<!-- proof: {name} -->\n{sections[name]}" for name in ordered)
    partial = page.with_name(f".{page.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(page)  # whoever reads meanwhile sees the old page or the new one


def read(path: str | Path) -> dict[str, str]:
    """The sections of a page by name, each as it stands there; empty when there is no page."""
    page = Path(path)
    if not page.exists():
        return {}
    parts = _SECTION.split(page.read_text(encoding="utf-8"))
    names, bodies = parts[1::2], parts[2::2]
    return {
        name: body.strip("\n") + "\n"
        for name, body in sorted(zip(names, bodies, strict=True), key=lambda each: _place(each[0]))
    }


def section_of(evidence: Evidence, *, commit: str) -> str:
    """The section in Markdown."""
    date = time.strftime("%Y-%m-%d", time.gmtime())
    facts = [f"on {date} (UTC)", f"Python {platform.python_version()}"]
    if commit:
        facts.append(f"commit {commit}")
    lines = [f"## {evidence.title}", "", evidence.result, "", "```sh", evidence.command, "```", ""]
    lines += _table((("what", "figure"), *evidence.figures))
    seeds = f"Seeds: {evidence.seeds}. " if evidence.seeds else ""
    lines += ["", f"{seeds}Seen {', '.join(facts)}."]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    cells = [tuple(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|---|---|", *lines[1:]]


def commit_of(folder: Path) -> str:
    """The commit that is checked out there, with a ``+`` when files differ from it; empty when that is not known."""
    git = shutil.which("git")
    if git is None:
        return ""
    asked = [git, "-C", str(folder if folder.is_dir() else Path.cwd())]
    said: list[str] = []
    for words in (
        ["rev-parse", "--short=12", "HEAD"],
        ["status", "--porcelain", "--", "orchestra"],
    ):
        try:
            done = subprocess.run(  # noqa: S603 - git itself, and words of ours
                [*asked, *words], capture_output=True, text=True, timeout=GIT_S_MAX, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        if done.returncode:
            return ""
        said.append(done.stdout.strip())
    return said[0] + ("+" if said[1] else "")


def _place(name: str) -> tuple[int, str]:
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)
