"""Which programs the job runner may start: an allow-list of commands, and one root folder for the path that each gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import cast

from orchestra.errors import Forbidden, Malformed
from orchestra.statemachine.values import value

PATH_CHARS_MAX = 1_024
_OTHERS = " ._-+@,="
"""Beside letters and digits. What a shell reads as its own is left out: a command of the list may be one, and a script may quote badly."""


class Kind(StrEnum):
    """What stands at a path, itself and not what it points to."""

    MISSING = "missing"
    FILE = "file"
    FOLDER = "folder"
    OTHER = "other"
    """A symbolic link, a pipe, a device, or nothing that can be looked at."""


class CommandMissing(Malformed):
    """The request names no command."""


class CommandRefused(Forbidden):
    """The command is not in the list."""

    def __init__(self, command: str) -> None:
        remedy = "add it to commands of [dialects.job-runner]"
        super().__init__("this command may not be run", where="command", remedy=remedy)
        self.command = command


class PathRefused(Forbidden):
    """The path is not one of a file under the root."""

    def __init__(self, message: str) -> None:
        remedy = "name a file under root by its relative path"
        super().__init__(message, where="path", remedy=remedy)


@value
class Programs:
    """
    What may run.

    Args:
        commands: The words that a request may have as its command, compared as they are. Empty: nothing runs.
        root: The folder of the paths, absolute.
        kind_at: What stands at an absolute path on the orchestrator's machine.
    """

    commands: frozenset[str]
    root: str
    kind_at: Callable[[str], Kind]

    def argv(self, command: str, path: str) -> tuple[str, str]:
        """
        The program and its one argument: the path below the root. A file that is not there is the command's own to miss.

        Raises:
            CommandMissing: There is no command.
            CommandRefused: It is not in the list.
            PathRefused: The path is absolute, goes up, passes a symbolic link, or has signs that no path of ours needs.
        """
        if not command:
            raise CommandMissing("there is no command", where="command")
        if command not in self.commands:
            raise CommandRefused(command)
        return command, self._under_root(path)

    def _under_root(self, path: str) -> str:
        if not path or len(path) > PATH_CHARS_MAX:
            raise PathRefused(f"it has to have 1 to {PATH_CHARS_MAX} characters")
        if path.startswith("/"):
            raise PathRefused("it is absolute")
        parts = path.split("/")
        for part in parts:
            if part in ("", ".", ".."):
                raise PathRefused("a part of it is empty, '.' or '..'")
            if part.startswith("-"):
                raise PathRefused("a part of it begins with '-', as options do")
            if not all(char.isalnum() or char in _OTHERS for char in part):
                raise PathRefused(f"only letters, digits and {_OTHERS!r} may stand in it")
        at = self.root
        for number, part in enumerate(parts, 1):
            at = f"{at}/{part}"
            kind = self.kind_at(at)
            if kind is Kind.MISSING:
                break
            if kind is not (Kind.FILE if number == len(parts) else Kind.FOLDER):
                raise PathRefused("it passes something else than folders, or is no file")
        return f"{self.root}/{path}"


def read_programs(options: Mapping[str, object], kind_at: Callable[[str], Kind]) -> Programs:
    """
    From ``commands`` and ``root`` of the dialect's table.

    Raises:
        Malformed: One of them is of another kind, or there are commands without a root.
    """
    commands, root = options.get("commands", []), options.get("root", "")
    where = "dialects.job-runner"
    if not isinstance(commands, (list, tuple)):
        raise Malformed("it is a list of texts", where=f"{where}.commands")
    words: list[str] = []
    for word in cast("list[object]", commands):
        if not isinstance(word, str) or not word or word.startswith("-") or not word.isprintable():
            told = "each is the name of a program, and none begins with '-'"
            raise Malformed(told, where=f"{where}.commands")
        words.append(word)
    if not isinstance(root, str) or (words and not root.startswith("/")):
        raise Malformed("commands need an absolute folder for their paths", where=f"{where}.root")
    return Programs(frozenset(words), root.rstrip("/"), kind_at)
