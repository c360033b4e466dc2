"""The table ``[dialects.flamenco]``: everything about programs, folders and limits comes from here, nothing of it from a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import attrs

from orchestra.config import DialectPort
from orchestra.dialects.flamenco_compilers import (
    BlenderRender,
    Compilers,
    PrintString,
    TiledBlenderRender,
)
from orchestra.dialects.flamenco_rules import WorkerRule, read_rules
from orchestra.errors import Malformed
from orchestra.statemachine.values import value

WHERE = "dialects.flamenco"
SYSTEM_WORDS: Mapping[str, str] = {"Linux": "linux", "Darwin": "osx", "Windows": "win"}
SECONDS_MAX = 365 * 24 * 3600
_USUAL: Mapping[str, str] = {"simple_blender_render": "blender", "print_string": "echo"}


@value
class Options:
    """
    How the manager behaves.

    Args:
        exact: Answer a posted task with the zeros of the running program instead of the document's values.
        storage: Folder of what jobs bring along and workers send back, on the manager's machine; empty for none.
        worker_timeout_s: A worker without a task that is silent for so long is given up.
        task_timeout_s: A task of which nothing was heard for so long has failed.
        failures_max: A task has failed for good after so many failures; before, it is tried again.
        block_after: A worker is given no more tasks of a kind after so many failures at it, one after the other.
        workers: Tags and sleep of workers, by patterns of their host names.
        tiler: Crops a scene to one tile; with ``merger``, which joins tiles, it makes tiled renders a type of task. Empty for none.
        commands: By type of task, the program on each system (``Linux``, ``Darwin``, ``Windows``).
    """

    exact: bool = False
    storage: str = ""
    worker_timeout_s: int = 60
    task_timeout_s: int = 600
    failures_max: int = 3
    block_after: int = 3
    commands: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict[str, Mapping[str, str]])
    roots: tuple[str, ...] = ()
    autoexec: bool = False
    render_settings: Mapping[str, str] = attrs.field(factory=dict[str, str])
    workers: tuple[WorkerRule, ...] = ()
    tiler: str = ""
    merger: str = ""

    def compilers(self) -> Compilers:
        """The usual compilers with these programs, folders and files."""
        blender = self.commands["simple_blender_render"]
        render = BlenderRender(
            {SYSTEM_WORDS[system]: program for system, program in blender.items()},
            render_settings=self.render_settings,
            roots=self.roots,
            autoexec=self.autoexec,
        )
        prints = PrintString(self.commands["print_string"]["Linux"])
        if not self.tiler:
            return Compilers((render, prints))
        return Compilers((render, prints, TiledBlenderRender(render, self.tiler, self.merger)))


def read_options(port: DialectPort) -> Options:
    """The options of a dialect. Raises `Malformed` with the option's name."""
    table = dict(port.options)
    fields: dict[str, object] = {}
    for name in ("exact", "autoexec"):
        if name in table:
            fields[name] = _switch(table.pop(name), name)
    for name in ("worker_timeout_s", "task_timeout_s", "failures_max", "block_after"):
        if name in table:
            fields[name] = _whole(table.pop(name), name)
    if "storage" in table:
        fields["storage"] = storage = _text(table.pop("storage"), "storage")
        if not storage.startswith("/"):
            raise Malformed("it is an absolute folder", where=f"{WHERE}.storage")
    if "roots" in table:
        fields["roots"] = _texts(table.pop("roots"), "roots")
    fields["render_settings"] = _words(table.pop("render_settings", {}), "render_settings")
    fields["workers"] = read_rules(_table(table.pop("workers", {}), "workers"), f"{WHERE}.workers")
    fields["commands"] = commands = _commands(table.pop("commands", {}))
    if "tiled" in table:
        tiled = _words(table.pop("tiled"), "tiled")
        if set(tiled) != {"tiler", "merger"}:
            raise Malformed("it has a tiler and a merger", where=f"{WHERE}.tiled")
        fields |= tiled
        render, mix = TiledBlenderRender.kinds
        commands.setdefault(render, commands["simple_blender_render"])
        commands.setdefault(mix, dict.fromkeys(SYSTEM_WORDS, tiled["merger"]))
    if table:
        where = f"{WHERE}.{min(table)}"
        raise Malformed("there is no such option", where=where, remedy="leave it out")
    return attrs.evolve(Options(), **fields)


def _whole(found: object, name: str) -> int:
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= SECONDS_MAX:
        raise Malformed(f"it is a whole number from 1 to {SECONDS_MAX}", where=f"{WHERE}.{name}")
    return found


def _switch(found: object, name: str) -> bool:
    if not isinstance(found, bool):
        raise Malformed("it is true or false", where=f"{WHERE}.{name}")
    return found


def _text(found: object, name: str) -> str:
    if not isinstance(found, str) or not found.isprintable() or not found:
        raise Malformed("it is a text", where=f"{WHERE}.{name}")
    return found


def _texts(found: object, name: str) -> tuple[str, ...]:
    if not isinstance(found, (list, tuple)):
        raise Malformed("it is a list of texts", where=f"{WHERE}.{name}")
    return tuple(_text(each, name) for each in cast("list[object]", found))


def _table(found: object, name: str) -> Mapping[str, object]:
    if not isinstance(found, Mapping):
        raise Malformed("it is a table", where=f"{WHERE}.{name}")
    return cast("Mapping[str, object]", found)


def _words(found: object, name: str) -> dict[str, str]:
    return {key: _text(each, f"{name}.{key}") for key, each in _table(found, name).items()}


def _commands(found: object) -> dict[str, Mapping[str, str]]:
    read = {kind: dict.fromkeys(SYSTEM_WORDS, program) for kind, program in _USUAL.items()}
    for kind, programs in _table(found, "commands").items():
        named = _words(programs, f"commands.{kind}")
        if unknown := sorted(set(named) - set(SYSTEM_WORDS)):
            known = ", ".join(SYSTEM_WORDS)
            where = f"{WHERE}.commands.{kind}.{unknown[0]}"
            raise Malformed("there is no such system", where=where, remedy=f"it is {known}")
        read[kind] = {**read.get(kind, {}), **named}
    return dict(read)
