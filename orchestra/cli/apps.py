"""Apps that the command line is told of, as MODULE:APP, and their tasks."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra.dialects.quoting import nearest
from orchestra.errors import Malformed

if TYPE_CHECKING:
    from orchestra.calls import TaskFunction


def tasks_of(words: tuple[str, ...]) -> dict[str, TaskFunction[Any, Any, Any]]:
    """
    The tasks of all the apps that are named as MODULE:APP.

    Raises:
        Malformed: There is no such app, or two of them have a task of one name.
    """
    found: dict[str, TaskFunction[Any, Any, Any]] = {}
    for word in words:
        for name, task in _app(word).tasks.items():
            if name in found:
                raise Malformed(f"two apps have a task {name!r}", where=f"--app {word}")
            found[name] = task
    return found


def _app(word: str) -> Any:
    from orchestra.app import App

    where = f"--app {word}"
    module_name, colon, attribute = word.partition(":")
    if not module_name:
        raise Malformed("is not MODULE:APP", where=where, remedy="write it like farm.tasks:app")
    # As `python -m` does: what lies here can be imported.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        told = f"there is no module {error.name!r}"
        raise Malformed(
            told, where=where, remedy=f"it is looked for here ({Path.cwd()!s})"
        ) from None
    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    if not colon and len(apps) == 1:
        return next(iter(apps.values()))
    if attribute not in apps:
        near = nearest(attribute, apps)
        remedy = (
            f"did you mean {module_name}:{near}?"
            if near
            else f"it has: {', '.join(apps) or 'no App'}"
        )
        raise Malformed(f"{module_name} has no App {attribute!r}", where=where, remedy=remedy)
    return apps[attribute]
