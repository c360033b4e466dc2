"""The house rules of `tests/tidy.py`, held against every file; and each seen to find what it is for."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache

import pytest

from orchestra.statemachine import limits
from tests import tidy
from tests.tidy import ROOT, RULES, Finding, Rule, Source, dotted, parse, walk

EXCEPTIONS: Mapping[tuple[str, str, str], str] = {
    (
        "nesting_is_refused",
        "orchestra/dialects/strict_json.py",
        "check_json",
    ): "deeper text was refused before",
    (
        "loops_end",
        "orchestra/engines/guard.py",
        "end_cookies",
    ): "each turn kills; ends with the last",
    (
        "loops_end",
        "orchestra/engines/guardian.py",
        "Guardian._reap",
    ): "ends with the last dead child",
    ("loops_end", "orchestra/statemachine/dag.py", "_blocked"): "each turn takes a stage away",
    (
        "loops_end",
        "orchestra/statemachine/dag.py",
        "_circle",
    ): "each turn adds a stage to the circle",
    ("loops_end", "orchestra/statemachine/rules.py", "drain"): "bounded by limits.RULES_MAX",
    ("loops_end", "orchestra/sync.py", "SyncClient.follow"): "a generator: the caller paces it",
    (
        "loops_end",
        "orchestra/engines/short_tasks.py",
        "_Steps.__await__",
    ): "a generator: the event loop paces it",
    **{
        (
            "functions_are_short",
            f"orchestra/cli/{name}.py",
            "",
        ): "a command's options and their help: two lines each"
        for name in ("joining", "serving", "submitting")
    },
    **{
        (
            "file_is_short",
            f"tests/{name}.py",
            "",
        ): "one subject, and fixtures that all of its tests share"
        for name in ("engines/test_callables", "engines/test_process")
    },
    ("names_say_something", "orchestra/transports/guard.py", "GuardedHttp"): "uvicorn's name",
    ("names_say_something", "orchestra/testing/fuzz_sockets.py", "Line"): "asyncio's name",
    (
        "names_say_something",
        "orchestra/transports/guard_websocket.py",
        "GuardedWebsocket",
    ): "uvicorn's names",
    (
        "names_say_something",
        "orchestra/dialects/tango_manager.py",
        "",
    ): "TANGO's own word: its Project Manager",
    (
        "streams_are_bounded",
        "orchestra/engines/pool_worker.py",
        "Server.__init__",
    ): "a process has one call at a time, and is sent the next when it answered",
    (
        "no_built_sql",
        "orchestra/storage/sqlite_files.py",
        "_set_up",
    ): "a PRAGMA's value can not be bound; it is FULL or NORMAL",
}
"""(rule, file, function) and why the rule does not hold there. A row that nothing needs any more fails a test."""

PLANTED: Mapping[Rule, tuple[str, ...]] = {
    tidy.file_is_short: ("x = 1\n" * (tidy.FILE_LINES_MAX + 1),),
    tidy.functions_are_short: (
        "def f():\n" + "    x = 1\n" * tidy.FUNCTION_LINES_MAX,
        "class A:\n    async def f(self):\n" + "        x = 1\n" * tidy.FUNCTION_LINES_MAX,
    ),
    tidy.names_say_something: (
        "class TaskManager: ...",
        "def parse_info(): ...",
        "def process_task(): ...",
        "class A:\n    def handle_it(self): ...",
        "BASE_URL = ''",
        "helpers: list[int] = []",
    ),
    tidy.no_shell: (
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import os\nos.system('ls')",
    ),
    tidy.no_unsafe_loading: (
        "import pickle",
        "from yaml import load",
        "def f(text):\n    return eval(text)",
    ),
    tidy.no_built_sql: (
        "def f(db, kind):\n    db.execute(f'SELECT * FROM t WHERE kind = {kind}')",
        "def f(db, kind):\n    db.execute('DELETE FROM t WHERE kind = ' + kind)",
        "def f(db, kind):\n    db.execute('SELECT * FROM t WHERE kind = %s' % kind)",
        "def f(db, kind):\n    db.execute('INSERT INTO t VALUES ({})'.format(kind))",
    ),
    tidy.no_catch_all: (
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept (ValueError, BaseException) as e:\n    raise ValueError from e",
        "try:\n    f()\nexcept:\n    pass",
        "try:\n    f()\nexcept Exception:  # noqa: BLE001\n    pass",
    ),
    tidy.nesting_is_refused: (
        "import json\ntry:\n    json.loads(text)\nexcept ValueError:\n    pass",
        "import msgspec\ntry:\n    read(text)\nexcept (msgspec.DecodeError, UnicodeError):\n    pass",
    ),
    tidy.no_sleep: ("import time\ntime.sleep(1)",),
    tidy.certificates_are_verified: (
        "import httpx\nhttpx.get('https://h', verify=False)",
        "import ssl\nmode = ssl.CERT_NONE",
    ),
    tidy.loops_end: (
        "while True:\n    f()",
        "def f():\n    while 1:\n        g()",
        "async def f():\n    await g()\n    while True:\n        h()",
    ),
    tidy.streams_are_bounded: (
        "import math, anyio\nanyio.create_memory_object_stream(math.inf)",
        "import queue\nq = queue.Queue()",
    ),
    tidy.core_imports_are_listed: (
        "import time",
        "from os import path",
        "from random import random",
        "def f():\n    import msgspec",
    ),
    tidy.dialects_touch_no_files: ("import pathlib", "from pathlib import Path, PurePath"),
    tidy.suppressions_have_reasons: (
        "x = 1  # noqa",
        "x = 1  # noqa: E501",
        "x = 1  # type: ignore[attr-defined]",
        "x = 1  # pyright: ignore",
    ),
}
INNOCENT: Mapping[Rule, tuple[str, ...]] = {
    tidy.names_say_something: (
        "class Database: ...",
        "_info = 1",
        "def f(data): ...",
        "def processes(): ...",
    ),
    tidy.no_shell: ("import subprocess\nsubprocess.run(['ls'], shell=False)",),
    tidy.no_built_sql: (
        "def f(db, kind):\n    db.execute('SELECT * FROM t WHERE kind = ?', (kind,))",
        "N_MAX = 1\nTEXT = f'SELECT * FROM t LIMIT {N_MAX}'",
        "def f(kind):\n    return f'Select {kind} or nothing'",
    ),
    tidy.no_catch_all: (
        "try:\n    f()\nexcept BaseException:\n    g()\n    raise",
        "try:\n    f()\nexcept Exception:  # noqa: BLE001 - a user's function\n    pass",
    ),
    tidy.nesting_is_refused: (
        "import json\ntry:\n    json.loads(text)\nexcept (ValueError, RecursionError):\n    pass",
        "import json\ntry:\n    json.loads(text)\nfinally:\n    g()",
    ),
    tidy.loops_end: ("while f():\n    g()", "async def f():\n    while True:\n        await g()"),
    tidy.core_imports_are_listed: ("from random import Random", "import orchestra.errors"),
    tidy.suppressions_have_reasons: (
        "x = 1  # type: ignore[attr-defined]  the library has no types",
        "x = 1  # noqa: S603, S607 - argv only, from our own file",
    ),
}


@cache
def sources() -> tuple[Source, ...]:
    found: list[Source] = []
    for folder in tidy.EVERYWHERE:
        for file in sorted((ROOT / folder).rglob("*.py")):
            path = file.relative_to(ROOT).as_posix()
            if not any(part.startswith(".") or part == "out" for part in path.split("/")):
                found.append(parse(path, file.read_text(encoding="utf-8")))
    return tuple(found)


def findings(rule: Rule) -> list[tuple[Source, Finding]]:
    folders = RULES[rule]
    return [
        (source, finding)
        for source in sources()
        if source.path.startswith(folders)
        for finding in rule(source)
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_file_keeps_the_rule(rule: Rule) -> None:
    broken = [
        f"{source.path}:{finding.line} in {finding.function or 'the module'}: {finding.problem}"
        for source, finding in findings(rule)
        if (rule.__name__, source.path, finding.function) not in EXCEPTIONS
    ]
    assert broken == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_finds_what_it_is_for(rule: Rule) -> None:
    path = "orchestra/statemachine/planted.py"
    missed = [text for text in PLANTED[rule] if not list(rule(parse(path, text)))]
    blamed = [text for text in INNOCENT.get(rule, ()) if list(rule(parse(path, text)))]
    assert (missed, blamed) == ([], [])


@pytest.mark.parametrize("stem", ["utils", "task_manager", "common", "base"])
def test_empty_module_names_are_found(stem: str) -> None:
    assert list(tidy.names_say_something(parse(f"orchestra/{stem}.py", "")))


def test_every_exception_is_still_needed() -> None:
    used = {
        (rule.__name__, source.path, finding.function)
        for rule in RULES
        for source, finding in findings(rule)
    }
    assert set(EXCEPTIONS) - used == set()


def _names_used(source: Source) -> set[str]:
    return {
        node.id if isinstance(node, ast.Name) else node.attr
        for node, _ in walk(source.tree)
        if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
        or isinstance(node, ast.Attribute)
    }


def unused_bounds(bounds: set[str], files: tuple[Source, ...]) -> set[str]:
    return bounds - {name for source in files for name in _names_used(source)}


def test_every_bound_is_used() -> None:
    """A bound that nothing reads bounds nothing."""
    library = tuple(source for source in sources() if source.path.startswith("orchestra/"))
    bounds = {name for name in vars(limits) if name.isupper()}
    assert unused_bounds(bounds, library) == set()
    assert unused_bounds(bounds | {"NOWHERE_MAX"}, library) == {"NOWHERE_MAX"}


def bounds_without_reason(source: Source) -> list[str]:
    """Names in a row of assignments that no docstring ends."""
    waiting: list[str] = []
    for node in source.tree.body:
        if isinstance(node, ast.Assign):
            waiting += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            waiting = []
    return waiting


def test_the_last_bounds_have_a_reason() -> None:
    text = (ROOT / "orchestra/statemachine/limits.py").read_text(encoding="utf-8")
    assert bounds_without_reason(parse("limits.py", text)) == []
    assert bounds_without_reason(parse("limits.py", text + "\nLONELY_MAX = 1\n")) == ["LONELY_MAX"]


def commits(files: tuple[Source, ...]) -> list[str]:
    return [
        f"{source.path} in {function}"
        for source in files
        for node, function in walk(source.tree)
        if isinstance(node, ast.Call) and dotted(node.func).endswith("store.commit")
    ]


def test_one_place_commits() -> None:
    """Nothing leaves before it is durable: easy to see when one line makes everything durable."""
    shell = tuple(
        source
        for source in sources()
        if source.path.startswith("orchestra/")
        and not source.path.startswith(("orchestra/storage/", "orchestra/testing/"))
    )
    planted = parse("planted.py", "async def f(self):\n    await self._store.commit(batch)")
    assert len(commits(shell)) == 1, commits(shell)
    assert len(commits((*shell, planted))) == 2
