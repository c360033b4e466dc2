"""What the pages of the examples tell to type works, and comes to what they say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.kit import line_with, orchestra, running
from tests.examples.runs import EXAMPLES, copied

LUCKLESS = "failed, exit, exit code 1: exit code 1; its last words: frame 13, attempt"
pytestmark = [pytest.mark.slow, pytest.mark.system]


def commands(page: Path) -> list[list[str]]:
    """What stands after ``python -m orchestra`` in the blocks of a page, in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    prefix = "python -m orchestra "
    return [shlex.split(line.removeprefix(prefix)) for line in lines if line.startswith(prefix)]


def changed(old: str, new: str, file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_the_film_on_a_server_is_explained_as_its_page_says(tmp_path: Path) -> None:
    folder = copied("film", tmp_path / "examples")
    # What the page speaks of, and less of what takes time: the first half of the film, a hundredth of each picture.
    changed('"1-24"', '"1-13"', folder / "project.toml")
    changed("FRAMES = 24", "FRAMES = 13", folder / "film.py")
    changed("WIDTH, HEIGHT = 320, 180", "WIDTH, HEIGHT = 32, 18", folder / "film.py")
    _, serve, submit, why = commands(EXAMPLES / "film" / "README.md")
    with running(*serve, cwd=tmp_path, ORCHESTRA_LISTEN="127.0.0.1:0") as server:
        url = line_with(server, "http://", "stderr").split()[1]
        done = orchestra(*submit, cwd=tmp_path, bound_s=240.0, ORCHESTRA_SERVER=url)
        assert done.code == 0, done.err
        answer = orchestra(*why, cwd=tmp_path, ORCHESTRA_SERVER=url)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines() == [
        "1.13 completed",
        "  1. completed in attempt 3",
        f"  2. attempt 2 on local-1: {LUCKLESS} 2: out of luck",
        f"  3. attempt 1 on local-1: {LUCKLESS} 1: out of luck",
    ]
