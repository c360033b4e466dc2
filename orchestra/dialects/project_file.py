"""
Project files: a job written down in TOML, as docs/project-file.md describes it.

Settings never become code: a stage is a program with its arguments (``argv``, run without a shell
by the process engine) or the name of an app that the workers registered (``app``). Reading is pure:
nothing is opened, looked up or made.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, TypeVar, cast

from orchestra.dialects import units
from orchestra.dialects.fanout import FanOut, unfold
from orchestra.dialects.placeholders import early_filled
from orchestra.dialects.quoting import shown
from orchestra.dialects.toml_fields import (
    Mistakes,
    Table,
    inside,
    integer,
    json_bytes,
    table,
    text,
    texts,
)
from orchestra.errors import Malformed
from orchestra.statemachine import limits
from orchestra.statemachine.commands import StageDraft, SubmitJob
from orchestra.statemachine.records import Amounts, OnFailure
from orchestra.statemachine.values import value

PROCESS_APP = "process"
"""The app of stages that run a program."""

PROJECT_KEYS = ("name", "shared")
JOB_KEYS = ("name", "priority", "on_failure")
STAGE_KEYS = (
    *("argv", "env", "inherit", "stdin", "app", "args", "kwargs"),
    *("over", "after", "pairwise", "needs", "labels", "priority"),
    *("retries", "backoff", "backoff_max", "timeout", "queue_timeout", "grace"),
)
SECTIONS = {"project": PROJECT_KEYS, "job": JOB_KEYS, "stages": STAGE_KEYS}

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_AT = re.compile(r"(?s)(.*?) \(at (?:(line \d+, column \d+)|end of document)\)")
_DEEP_KEY = re.compile(
    r"""(?<![A-Za-z0-9_-])(?:(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){64}"""
)
"""A key of 65 parts: tomllib's memory grows with the square of a key's parts, so none that deep reaches it."""

_NO_AMOUNTS: Amounts = ()
_NO_WORDS: tuple[str, ...] = ()
T = TypeVar("T")


@value
class _Place:
    """What placeholders may name: the early values, and the keys of the items (None without items)."""

    known: dict[str, str]
    keys: frozenset[str] | None


def parse(text: str, *, folder: str) -> SubmitJob:
    """
    The job that a project file describes.

    Args:
        text: The file's content.
        folder: The absolute path of the folder where the file lies: what ``{here}`` means and
            ``shared`` is relative to.

    Returns:
        A command to ask. Circles among stages are left for the core to find.

    Raises:
        Malformed: ``where`` is the first mistake's field as a path (``stages.train.needs.cpu``) or
            its line and column; the message lists up
            to 20 mistakes, one a line.
        ValueError: ``folder`` is not absolute.
    """
    if not PurePath(folder).is_absolute():
        raise ValueError("folder has to be an absolute path")
    content = _toml(text, folder)
    mistakes = Mistakes()
    for key in mistakes.unknown(content, tuple(SECTIONS), ""):
        homes = [section for section in ("project", "job") if key in SECTIONS[section]]
        if homes:
            mistakes.remark(key, f"it belongs under [{homes[0]}]")
    project = mistakes.taken(content, "project", "", table, _no_fields())
    if "project" not in content:
        mistakes.add("project", "is missing", 'begin with [project] and name = "..."')
    job = mistakes.taken(content, "job", "", table, _no_fields())
    mistakes.unknown(project, PROJECT_KEYS, "project")
    mistakes.unknown(job, JOB_KEYS, "job")
    known = {"here": folder}
    if "shared" in project:
        shared = mistakes.taken(project, "shared", "project", _path_in(folder), "")
        known["shared"] = shared
    name = mistakes.taken(project, "name", "project", _name, "")
    if "project" in content and "name" not in project:
        mistakes.add("project.name", "is missing", 'write name = "..." under [project]')
    command = SubmitJob(
        name=mistakes.taken(job, "name", "job", _name, name),
        project=name,
        priority=mistakes.taken(job, "priority", "job", _priority, 0),
        on_failure=mistakes.taken(job, "on_failure", "job", _on_failure, OnFailure.CONTINUE),
        stages=_stages(content, known, mistakes),
    )
    mistakes.done()
    return command


def _toml(text: str, folder: str) -> Table:
    """The file as tables. Everything that the reader of TOML stumbles over is `Malformed`."""
    try:
        bytes_count = len(text.encode())
        folder.encode()
    except UnicodeEncodeError as problem:
        raise Malformed("the text or its folder is not valid Unicode") from problem
    if bytes_count > limits.PROJECT_FILE_BYTES_MAX:
        size = units.bytes_text(limits.PROJECT_FILE_BYTES_MAX)
        remedy = "fan out with over = ... instead of one stage for each task"
        raise Malformed(f"the file is longer than {size}", remedy=remedy)
    deep = _DEEP_KEY.search(text)
    if deep is not None:
        where = f"line {text.count(chr(10), 0, deep.start()) + 1}"
        raise Malformed("a dotted key has more than 64 parts", where=where)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        match = _AT.match(str(problem))
        lines = text.count("\n") + 1
        where = (match[2] or f"line {lines}, at the end") if match else ""
        raise Malformed(match[1] if match else str(problem), where=where) from problem
    except RecursionError as problem:
        raise Malformed("lists or tables are nested too deeply") from problem
    except ValueError as problem:
        raise Malformed(f"a number can not be read: {problem}") from problem


def _stages(content: Table, known: dict[str, str], mistakes: Mistakes) -> tuple[StageDraft, ...]:
    """Every stage in the file's order, with the names in ``after`` and ``pairwise`` looked up."""
    entries = mistakes.taken(content, "stages", "", table, _no_fields())
    if not entries and mistakes.clean_at("stages"):
        mistakes.add(
            "stages", "there is no stage", 'add [stages.NAME] with argv = ["program", "argument"]'
        )
    if len(entries) > limits.STAGES_PER_JOB_MAX:
        mistakes.add("stages", f"more than {limits.STAGES_PER_JOB_MAX:,} stages")
        return ()
    drafts: list[StageDraft] = []
    tasks = 0
    item_bytes = 0
    for name in entries:
        where = inside("stages", name)
        mistakes.tried(_name, name, where, "")
        fields = mistakes.taken(entries, name, "stages", table, None)
        if fields is None:
            continue
        unfolded = mistakes.taken(fields, "over", where, unfold, FanOut(None, 1, None, 0))
        tasks += unfolded.size
        item_bytes += unfolded.bytes_count
        if item_bytes > limits.ITEMS_BYTES_MAX or tasks > limits.TASKS_PER_JOB_MAX:
            mistakes.add(inside(where, "over"), _too_many(tasks))
            break
        drafts.append(_stage(name, fields, unfolded, known, mistakes))
    for draft in drafts:
        for key, names in (("after", draft.after), ("pairwise", draft.pairwise)):
            for position, other in enumerate(names):
                if other not in entries:
                    where = f"{inside(inside('stages', draft.name), key)}[{position}]"
                    mistakes.near(where, f"there is no stage {shown(other)}", other, tuple(entries))
    return tuple(drafts)


def _too_many(tasks: int) -> str:
    if tasks > limits.TASKS_PER_JOB_MAX:
        return f"the job has more than {limits.TASKS_PER_JOB_MAX:,} tasks"
    return f"the job's items take more than {units.bytes_text(limits.ITEMS_BYTES_MAX)}"


def _stage(
    name: str, fields: Table, unfolded: FanOut, known: dict[str, str], mistakes: Mistakes
) -> StageDraft:
    """One stage. Whatever is wrong is noted and left out, so that the other fields are looked at too."""
    where = inside("stages", name)
    mistakes.unknown(fields, STAGE_KEYS, where)

    def take(key: str, read: Callable[[object, str], T], default: T) -> T:
        return mistakes.taken(fields, key, where, read, default)

    needs = take("needs", _needs, _NO_AMOUNTS)
    memory = dict(needs).get("memory", 0) // 1000
    app, template = _work(fields, where, memory, _Place(known, unfolded.keys), mistakes)
    if len(template) > limits.TEMPLATE_BYTES_MAX:
        size = units.bytes_text(limits.TEMPLATE_BYTES_MAX)
        mistakes.add(where, f"program, arguments and environment take more than {size}")
    backoff_ms = take("backoff", _duration, limits.BACKOFF_MS)
    backoff_ms_max = max(limits.BACKOFF_MS_MAX, backoff_ms)
    return StageDraft(
        name=name,
        app=app,
        template=template,
        over=unfolded.over,
        after=take("after", texts(limits.EDGES_PER_STAGE_MAX), ()),
        pairwise=take("pairwise", texts(limits.EDGES_PER_STAGE_MAX), ()),
        needs=needs,
        labels=take("labels", texts(limits.LABELS_MAX, limits.NAME_CHARS_MAX), ()),
        priority=take("priority", _priority, 0),
        retries=take("retries", integer(0, limits.RETRIES_MAX), 0),
        backoff_ms=backoff_ms,
        backoff_ms_max=take("backoff_max", _duration, backoff_ms_max),
        queue_ms_max=take("queue_timeout", _positive_duration, None),
        run_ms_max=take("timeout", _positive_duration, None),
        grace_ms=take("grace", _grace, limits.GRACE_MS),
    )


def _work(
    fields: Table, where: str, memory_bytes: int, place: _Place, mistakes: Mistakes
) -> tuple[str, bytes]:
    """The app and the template: a program for the process engine, or a registered app."""
    if ("argv" in fields) == ("app" in fields):
        problem = "has both argv and app" if "argv" in fields else "has neither argv nor app"
        mistakes.add(
            where, problem, 'a stage is a program (argv = ["..."]) or an app (app = "...")'
        )
        return "", b"{}"
    strangers = ("args", "kwargs") if "argv" in fields else ("env", "inherit", "stdin")
    for key in strangers:
        if key in fields:
            other, own = ("app", "argv") if "argv" in fields else ("argv", "app")
            problem = f"belongs to a stage with {other}, and this one has {own}"
            mistakes.add(inside(where, key), problem)
    if "app" in fields:
        app = mistakes.taken(fields, "app", where, _app, "")
        args = mistakes.taken(fields, "args", where, _args, b"[]")
        kwargs = mistakes.taken(fields, "kwargs", where, _kwargs, b"{}")
        return app, b'{"args":' + args + b',"kwargs":' + kwargs + b"}"
    template: dict[str, Any] = {
        "argv": mistakes.taken(fields, "argv", where, _argv_in(place), _NO_WORDS),
        "env": mistakes.taken(fields, "env", where, _env_in(place), None),
        "inherit": mistakes.taken(fields, "inherit", where, _inherit, None),
        "stdin": mistakes.taken(fields, "stdin", where, _stdin_in(place), None),
        "folder": place.known.get("shared"),
        "memory_bytes": memory_bytes or None,
    }
    given = {key: value for key, value in template.items() if value is not None}
    return PROCESS_APP, json.dumps(given, ensure_ascii=False, separators=(",", ":")).encode()


def _argv_in(place: _Place) -> Callable[[object, str], tuple[str, ...]]:
    def read(value: object, where: str) -> tuple[str, ...]:
        if isinstance(value, str):
            remedy = "there is no shell: write a list of words"
            raise Malformed(f"{shown(value)} is one text", where=where, remedy=remedy)
        words = texts(limits.EDGES_PER_STAGE_MAX, empty=True)(value, where)
        if not words or not words[0]:
            raise Malformed("names no program", where=where, remedy='write ["program", "argument"]')
        return tuple(
            early_filled(_plain(word, f"{where}[{position}]"), place.known, keys=place.keys,
                         where=f"{where}[{position}]")
            for position, word in enumerate(words)
        )  # fmt: skip

    return read


def _env_in(place: _Place) -> Callable[[object, str], dict[str, str]]:
    def read(value: object, where: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, content in table(value, where).items():
            at = inside(where, name)
            _variable(name, at)
            word = _plain(text(content, at), at)
            found[name] = early_filled(word, place.known, keys=place.keys, where=at)
        return found

    return read


def _inherit(value: object, where: str) -> tuple[str, ...]:
    names = texts(limits.LABELS_MAX, limits.NAME_CHARS_MAX)(value, where)
    for position, name in enumerate(names):
        _variable(name, f"{where}[{position}]")
    return names


def _variable(name: str, where: str) -> None:
    if _ENV_NAME.fullmatch(name) is None:
        problem = f"{shown(name)} can not be the name of a variable"
        raise Malformed(problem, where=where, remedy="use letters, digits and _")


def _stdin_in(place: _Place) -> Callable[[object, str], str]:
    def read(value: object, where: str) -> str:
        word = _plain(text(value, where), where)
        return early_filled(word, place.known, keys=place.keys, where=where)

    return read


def _path_in(folder: str) -> Callable[[object, str], str]:
    def read(value: object, where: str) -> str:
        path = _plain(text(value, where), where)
        if not path:
            raise Malformed("is empty", where=where, remedy='write a folder such as "out"')
        return str(PurePath(folder) / path)

    return read


def _plain(word: str, where: str) -> str:
    if "\0" in word:
        raise Malformed("has a zero character, which no program can be given", where=where)
    return word


def _name(value: object, where: str) -> str:
    name = text(value, where)
    if not name.strip() or len(name) > limits.NAME_CHARS_MAX or not name.isprintable():
        problem = f"{shown(name)} can not be a name"
        remedy = f"use 1 to {limits.NAME_CHARS_MAX} printable characters"
        raise Malformed(problem, where=where, remedy=remedy)
    return name


def _app(value: object, where: str) -> str:
    name = _name(value, where)
    if name == PROCESS_APP:
        raise Malformed("programs are run with argv", where=where, remedy='write argv = ["..."]')
    return name


def _on_failure(value: object, where: str) -> OnFailure:
    if isinstance(value, str) and value in tuple(OnFailure):
        return OnFailure(value)
    raise Malformed(f'{shown(value)} is neither "continue" nor "stop"', where=where)


def _needs(value: object, where: str) -> Amounts:
    return units.amounts(value, where=where)


def _no_fields() -> Table:
    return {}


def _priority(value: object, where: str) -> int:
    return integer(-limits.PRIORITY_MAX, limits.PRIORITY_MAX)(value, where)


def _duration(value: object, where: str) -> int:
    return units.duration_ms(value, where=where)


def _positive_duration(value: object, where: str) -> int | None:
    ms = units.duration_ms(value, where=where)
    if not ms:
        raise Malformed("leaves no time at all", where=where, remedy="leave it out for no limit")
    return ms


def _grace(value: object, where: str) -> int:
    ms = units.duration_ms(value, where=where)
    if ms > limits.GRACE_MS_MAX:
        raise Malformed(f"is longer than {units.duration_text(limits.GRACE_MS_MAX)}", where=where)
    return ms


def _args(value: object, where: str) -> bytes:
    if not isinstance(value, list):
        raise Malformed(f"{shown(value)} is not a list", where=where)
    return json_bytes(cast("object", value), where)


def _kwargs(value: object, where: str) -> bytes:
    return json_bytes(table(value, where), where)
