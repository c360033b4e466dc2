"""
The house rules that no linter knows, each as a function from one source file to what is wrong in it.

`tests/test_tidy.py` applies them to every file, and shows for each that it finds what it is for. Exceptions are rows of
`EXCEPTIONS`, by file and function, with their reason.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60

CORE_IMPORTS = frozenset(
    {
        "__future__", "abc", "array", "attrs", "bisect", "collections", "collections.abc", "copy", "enum", "fractions",
        "functools", "hashlib", "heapq", "itertools", "json", "math", "operator", "random", "re", "string", "types",
        "typing", "unicodedata",
    }
)  # fmt: skip
"""All that `orchestra.statemachine` may import: pure, and there on every Python. A list of what is allowed has no gaps."""

EMPTY_WORDS = frozenset(
    {"base", "bases", "common", "data", "helper", "helpers", "info", "infos", "manager"}
    | {"managers", "misc", "util", "utils"}
)
EMPTY_VERBS = ("process_", "handle_")
UNSAFE_MODULES = frozenset({"dill", "marshal", "pickle", "shelve", "yaml"})
UNSAFE_CALLS = frozenset({"__import__", "eval", "exec"})
PURE_PATHS = frozenset({"PurePath", "PurePosixPath", "PureWindowsPath"})
READERS = frozenset({"json.loads", "msgspec.json.decode", "msgspec.msgpack.decode"})
UNREADABLE = frozenset({"DecodeError", "MsgspecError", "JSONDecodeError", "TOMLDecodeError"})
ANYTHING_DEEP = frozenset({"RecursionError", "RuntimeError", "Exception", "CAN_NOT"})

SLEEPS = frozenset({"time.sleep"})
_SQL = re.compile(
    r"\s*(SELECT\s|INSERT\s|UPDATE\s|DELETE\s+FROM|CREATE\s+(TABLE|INDEX)|DROP\s|ALTER\s|PRAGMA\s|VACUUM\s)"
)
_SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore|pyright:\s*ignore)(.*)")
_REASONED_CATCH = re.compile(r"#\s*noqa: BLE001\s+\S+\s+\S+")
_REASONED = re.compile(r"(:\s*[A-Z]+[0-9]+(,\s*[A-Z]+[0-9]+)*|\[[\w-]+(,\s*[\w-]+)*\])\s+\S+\s+\S+")


class Source(NamedTuple):
    """One Python file: its path from the root with slashes, its text, and its tree."""

    path: str
    text: str
    tree: ast.Module


class Finding(NamedTuple):
    """What is wrong, on which line, and in which function (dotted; empty at module level)."""

    line: int
    function: str
    problem: str


Rule = Callable[[Source], Iterator[Finding]]


def parse(path: str, text: str) -> Source:
    return Source(path, text, ast.parse(text, filename=path))


@cache
def walk(tree: ast.AST) -> tuple[tuple[ast.AST, str], ...]:
    """Every node below ``tree`` with the dotted name of the function or class that it stands in."""
    return tuple(_walk(tree, ""))


def _walk(tree: ast.AST, function: str) -> Iterator[tuple[ast.AST, str]]:
    for child in ast.iter_child_nodes(tree):
        yield child, function
        inside = function
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{function}.{child.name}" if function else child.name
        yield from _walk(child, inside)


def dotted(node: ast.AST) -> str:
    """``time.sleep`` for the expression that reads so; empty for anything that is not names and dots."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def _calls(source: Source) -> Iterator[tuple[ast.Call, str]]:
    for node, function in walk(source.tree):
        if isinstance(node, ast.Call):
            yield node, function


def file_is_short(source: Source) -> Iterator[Finding]:
    lines = source.text.count("\n")
    if lines > FILE_LINES_MAX:
        yield Finding(lines, "", f"{lines} lines; a file has at most {FILE_LINES_MAX}")


def functions_are_short(source: Source) -> Iterator[Finding]:
    for node, function in walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield Finding(node.lineno, function, f"{node.name} has {lines} lines")


def names_say_something(source: Source) -> Iterator[Finding]:
    """Modules, and public classes, functions, methods and constants."""
    stem = source.path.rpartition("/")[2].removesuffix(".py")
    if EMPTY_WORDS & set(_words(stem)):
        yield Finding(1, "", f"the module name {stem} says nothing")
    for node, function in walk(source.tree):
        names: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign) and not function:
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and not function and isinstance(node.target, ast.Name):
            names = [node.target.id]
        for name in names:
            empty = EMPTY_WORDS & set(_words(name)) or name.startswith(EMPTY_VERBS)
            if empty and not name.startswith("_"):
                yield Finding(node.lineno, function, f"the name {name} says nothing")


def no_shell(source: Source) -> Iterator[Finding]:
    for call, function in _calls(source):
        if any(word.arg == "shell" and _is_true(word.value) for word in call.keywords):
            yield Finding(call.lineno, function, "shell=True")
        if dotted(call.func) in {"os.system", "os.popen", "asyncio.create_subprocess_shell"}:
            yield Finding(call.lineno, function, "starts a shell")


def _is_true(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and bool(node.value)


def no_unsafe_loading(source: Source) -> Iterator[Finding]:
    for node, function in walk(source.tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.partition(".")[0] in UNSAFE_MODULES:
                yield Finding(node.lineno, function, f"{name} can run what it reads")
        if isinstance(node, ast.Call) and dotted(node.func) in UNSAFE_CALLS:
            yield Finding(node.lineno, function, f"{dotted(node.func)}() runs what it reads")


def no_built_sql(source: Source) -> Iterator[Finding]:
    """Values are bound, never written into a statement; only constants of the module may be."""
    for node, function in walk(source.tree):
        built = (
            (isinstance(node, ast.JoinedStr) and _has_value(node))
            or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add))
            or (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "format"
            )
        )
        if built and isinstance(node, ast.expr) and _SQL.match(_first_text(node)):
            yield Finding(node.lineno, function, "a statement is put together from text")


def _has_value(node: ast.JoinedStr) -> bool:
    return any(
        isinstance(each, ast.Name)
        and not each.id.isupper()
        and each.id not in {"len", "max", "min"}
        for part in node.values
        if isinstance(part, ast.FormattedValue)
        for each in ast.walk(part.value)
    )


def _first_text(node: ast.AST) -> str:
    """The text with which an expression of texts begins."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr) and node.values:
        return _first_text(node.values[0])
    if isinstance(node, ast.BinOp):
        return _first_text(node.left)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _first_text(node.func.value)
    return ""


def no_catch_all(source: Source) -> Iterator[Finding]:
    """A handler of everything hides bugs, unless it ends in ``raise`` or says on its line why it does not."""
    lines = source.text.splitlines()
    for node, function in walk(source.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        everything = any(
            kind is None or dotted(kind).rpartition(".")[2] in {"Exception", "BaseException"}
            for kind in caught
        )
        last = node.body[-1]
        reasoned = _REASONED_CATCH.search(lines[node.lineno - 1])
        if everything and not reasoned and not (isinstance(last, ast.Raise) and last.exc is None):
            yield Finding(node.lineno, function, "catches everything")


def nesting_is_refused(source: Source) -> Iterator[Finding]:
    """Text that nests deeper than Python's stack is one more way to be unreadable: whoever catches the others catches it."""
    for node, function in walk(source.tree):
        if not isinstance(node, ast.Try):
            continue
        caught = {
            dotted(kind).rpartition(".")[2]
            for handler in node.handlers
            for kind in (
                handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
            )
            if kind is not None
        }
        reads = any(
            isinstance(call, ast.Call) and dotted(call.func) in READERS
            for statement in node.body
            for call in ast.walk(statement)
        )
        if (reads or caught & UNREADABLE) and caught and not caught & ANYTHING_DEEP:
            yield Finding(node.lineno, function, "RecursionError comes through")


def no_sleep(source: Source) -> Iterator[Finding]:
    for call, function in _calls(source):
        if dotted(call.func) in SLEEPS:
            yield Finding(call.lineno, function, "a test waits for a condition, not for a time")


def certificates_are_verified(source: Source) -> Iterator[Finding]:
    for node, function in walk(source.tree):
        if isinstance(node, ast.keyword) and node.arg == "verify":
            if isinstance(node.value, ast.Constant) and not node.value.value:
                yield Finding(node.value.lineno, function, "verify=False")
        elif isinstance(node, ast.Attribute) and node.attr in {
            "CERT_NONE",
            "_create_unverified_context",
        }:
            yield Finding(node.lineno, function, "certificates are not verified")


def loops_end(source: Source) -> Iterator[Finding]:
    """An endless loop that awaits is paced from outside and ends by cancellation; one that does not needs its bound told."""
    for node, function in walk(source.tree):
        if isinstance(node, ast.While) and _is_true(node.test) and not _awaits(node):
            yield Finding(node.lineno, function, "while True")


def _awaits(node: ast.AST) -> bool:
    return any(
        isinstance(each, ast.Await | ast.AsyncFor | ast.AsyncWith) for each in ast.walk(node)
    )


def streams_are_bounded(source: Source) -> Iterator[Finding]:
    for call, function in _calls(source):
        name = dotted(call.func).rpartition(".")[2]
        if name == "create_memory_object_stream" and any(
            dotted(value) in {"math.inf", "inf"}
            for value in [*call.args, *(word.value for word in call.keywords)]
        ):
            yield Finding(call.lineno, function, "a stream without a bound")
        if name in {"Queue", "SimpleQueue", "LifoQueue"} and not call.args and not call.keywords:
            yield Finding(call.lineno, function, "a queue without a bound")


def core_imports_are_listed(source: Source) -> Iterator[Finding]:
    for node, function in walk(source.tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
            if node.module == "random" and {alias.name for alias in node.names} != {"Random"}:
                yield Finding(node.lineno, function, "only random.Random, with the stimulus' seed")
        for module in modules:
            if module not in CORE_IMPORTS and module.partition(".")[0] != "orchestra":
                yield Finding(node.lineno, function, f"{module} is not on the core's list")


def dialects_touch_no_files(source: Source) -> Iterator[Finding]:
    """Of `pathlib` only what computes with names."""
    for node, function in walk(source.tree):
        if isinstance(node, ast.Import) and any(alias.name == "pathlib" for alias in node.names):
            yield Finding(node.lineno, function, "import the pure names from pathlib")
        if isinstance(node, ast.ImportFrom) and node.module == "pathlib":
            for name in {alias.name for alias in node.names} - PURE_PATHS:
                yield Finding(node.lineno, function, f"pathlib.{name} touches files")


def suppressions_have_reasons(source: Source) -> Iterator[Finding]:
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        found = _SUPPRESSION.search(token.string) if token.type == tokenize.COMMENT else None
        if found and not _REASONED.match(found[2]):
            yield Finding(token.start[0], "", "a suppressed check names its code and the reason")


EVERYWHERE = ("orchestra/", "tests/", "benchmarks/", "examples/")
RULES: Mapping[Rule, tuple[str, ...]] = {
    file_is_short: EVERYWHERE,
    functions_are_short: EVERYWHERE,
    names_say_something: ("orchestra/",),
    no_shell: EVERYWHERE,
    no_unsafe_loading: ("orchestra/", "examples/", "tests/"),
    no_built_sql: ("orchestra/",),
    no_catch_all: ("orchestra/",),
    nesting_is_refused: ("orchestra/",),
    no_sleep: ("tests/",),
    certificates_are_verified: EVERYWHERE,
    loops_end: ("orchestra/",),
    streams_are_bounded: ("orchestra/",),
    core_imports_are_listed: ("orchestra/statemachine/",),
    dialects_touch_no_files: ("orchestra/dialects/",),
    suppressions_have_reasons: ("orchestra/", "examples/", "benchmarks/"),
}
"""Each rule and where it holds."""
