"""
What a manager of Flamenco may have a worker of ours run: programs by name, with arguments that name no code and lead nowhere else.

A manager says which program and which arguments. The program is looked up among those that the operator of the worker named; Blender's
ways to run code that comes as an argument are refused, and files of code only run from folders that the operator named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import attrs
import msgspec

from orchestra.dialects.flamenco_compilers import check_path
from orchestra.errors import Forbidden, Malformed
from orchestra.statemachine.values import value

WORDS_MAX = 1_000
WORD_CHARS_MAX = 16_384
COMMAND_CHARS_MAX = 256 * 1024
"""A command is a program, some twenty options, and paths."""

CODE_WORDS = frozenset(
    {"--python-expr", "--python-text", "--python-console", "--addons", "--app-template"}
    | {"--command", "-c"}
)
"""Arguments by which Blender runs code that no folder of the operator holds. They are refused to every program: what stands behind a
name may be a script around Blender."""

SCRIPT_WORDS = frozenset({"--python", "-P"})
"""The next argument is a file of code."""

AUTOEXEC_WORDS = frozenset({"--enable-autoexec", "-y"})
"""Files may run the scripts in them."""

_PATHLIKE = re.compile(r"/|\\|[A-Za-z]:[/\\]")

_command = msgspec.json.Decoder(list[str])


@value
class Programs:
    """
    What may run.

    Args:
        by_name: What a manager calls a program, or a kind of task, and what is run here for it. Empty: nothing runs.
        roots: Folders below which all paths in arguments must lie, besides the task's own; empty for anywhere.
        scripts: Folders below which files of code must lie. Empty: none runs.
        autoexec: Files may run the scripts in them.
    """

    by_name: Mapping[str, str] = attrs.field(factory=dict[str, str])
    roots: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()
    autoexec: bool = False

    def find(self, *names: str) -> str:
        """
        The program under the first of some names that is known; the path of a program that may run is a name for it.

        Raises:
            Forbidden: None is.
        """
        for name in names:
            found = self.by_name.get(name, name if name in self.by_name.values() else "")
            if name and found:
                return found
        told = " or ".join(repr(name[:200]) for name in names if name) or "a program without a name"
        remedy = "name it in [dialects.flamenco-worker.programs]"
        raise Forbidden(f"this worker may not run {told}", where="task_command", remedy=remedy)

    def check(self, words: Sequence[str], folder: str = "") -> None:
        """
        Look through the arguments of a program.

        Args:
            folder: The task's own, whose paths are no stranger's; empty for none.

        Raises:
            Forbidden: One of them may not be given.
        """
        for before, word in zip(("", *words), words, strict=False):
            if word in CODE_WORDS:
                raise Forbidden(f"{word} is code from afar", where="task_command")
            if word in AUTOEXEC_WORDS and not self.autoexec:
                remedy = "autoexec = true in [dialects.flamenco-worker]"
                raise Forbidden(f"{word} lets files run code", where="task_command", remedy=remedy)
            roots = self.roots
            if before in SCRIPT_WORDS:
                roots = self.scripts
                if not roots:
                    remedy = "scripts = [...] in [dialects.flamenco-worker]"
                    raise Forbidden(f"{before} runs code", where="task_command", remedy=remedy)
                _check_path(word, roots)
            elif _PATHLIKE.match(word) is not None:
                _check_path(word, (*roots, folder) if roots and folder else roots)
            elif ".." in re.split(r"[/\\=]", word):
                raise Forbidden(f"{word[:200]!r} leads out of its folder", where="task_command")


def _check_path(word: str, roots: tuple[str, ...]) -> None:
    try:
        check_path(word, "task_command", roots)
    except Malformed as error:
        raise Forbidden(f"{word[:200]!r} {error.message}", where="task_command") from None


def read_command(text: str) -> tuple[str, ...]:
    """The program and its arguments as they travel, a list of texts in JSON. Raises `Malformed`."""
    if len(text) > COMMAND_CHARS_MAX:
        raise Malformed(f"is longer than {COMMAND_CHARS_MAX} characters", where="task_command")
    try:
        words = _command.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Malformed("is no list of texts", where="task_command") from None
    if not 1 <= len(words) <= WORDS_MAX or not words[0]:
        raise Malformed(f"it is a program and at most {WORDS_MAX} words", where="task_command")
    if any(len(word) > WORD_CHARS_MAX or "\0" in word for word in words):
        raise Malformed("a word is too long, or holds a NUL", where="task_command")
    return tuple(words)
