"""Reading a project file from disk, with the line of a mistake."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from orchestra.cli.fields import row_of
from orchestra.errors import Malformed
from orchestra.statemachine import limits
from orchestra.statemachine.commands import SubmitJob


def read_project(path: str) -> SubmitJob:
    """
    The job that a project file describes.

    Raises:
        Malformed: The file can not be read, or is wrong; ``where`` has the file, the field and its line.
    """
    from orchestra.dialects.project_file import parse

    place = Path(path)
    if place.is_dir():
        place = place / "project.toml"
    try:
        with place.open("rb") as file:
            # One more than allowed, so that the reader sees that it is too long.
            content = file.read(limits.PROJECT_FILE_BYTES_MAX + 1)
    except OSError as error:
        remedy = "name a project file; a program is submitted with `submit -- PROGRAM ARGUMENTS`"
        told = f"can not be read: {error.strerror}"
        raise Malformed(told, where=path, remedy=remedy) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Malformed("is not UTF-8 text", where=f"{path}, line {line}") from None
    try:
        return parse(text, folder=str(place.absolute().parent))
    except Malformed as error:
        raise _placed(error, str(place), text) from None


def _placed(error: Malformed, path: str, text: str) -> Malformed:
    if not error.where:
        return Malformed(error.message, where=path, remedy=error.remedy)
    line = None if error.where.startswith("line ") else row_of(text, error.where)
    at = f", line {line}" if line else ""
    return Malformed(error.message, where=f"{error.where}, in {path}{at}", remedy=error.remedy)


def shared_folder(command: SubmitJob) -> str:
    """The folder that a project's programs share, where results are; empty when there is none."""
    for stage in command.stages:
        template: dict[str, Any] = json.loads(stage.template)
        if "folder" in template:
            return str(template["folder"])
    return ""


def absolute(path: str) -> str:
    """``path`` from the root on; links in it stay as they are named."""
    return os.path.normpath(Path.cwd() / path)
