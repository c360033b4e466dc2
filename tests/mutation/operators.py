"""
Small changes of a function: another comparison, connective or sign, a condition turned round, a number one higher, a statement left out.

Words for people are not changed, but for taking all of them away: not docstrings, what stands in a ``raise``, and pieces of f-strings.
Nor are type hints, defaults and decorators, which count once when a module is loaded, and the tables at the top of modules, whose rows
are taken out by tests of their own.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import attrs

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}

WORDS_MAX = 100
"""How much of a statement's first line an id holds: enough to find it, and little enough to read."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@attrs.frozen(slots=True)
class Mutant:
    """
    One change.

    Args:
        module: Dotted name of the module.
        function: Qualified name of the function that is changed.
        id: Says which change it is for as long as its statement stays as it is, wherever that stands: module, function, the first
            line of the statement, the change, and a number when the same change can be made twice there.
        what: What is there, and what stands there instead.
        lines: Lines of the file of which one is run by whatever runs the changed place.
        code: The changed function.
    """

    module: str
    function: str
    id: str
    what: str
    lines: frozenset[int]
    code: CodeType

    @property
    def stem(self) -> str:
        """The last part of the module's name."""
        return self.module.rpartition(".")[2]


@attrs.frozen(slots=True)
class _Place:
    """Where a node hangs: a field of its parent, and the index when the field is a list."""

    parent: ast.AST
    field: str
    index: int | None

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def mutants_of(module: str, path: Path) -> Iterator[Mutant]:
    """All mutants of a module's functions and methods, function by function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    made: Counter[str] = Counter()
    for qualified, function in _functions(tree):
        alone = _alone(qualified, function)
        for place, node, statement in list(_nodes(function)):
            for other in _instead(node):
                ast.copy_location(other, node)
                ast.fix_missing_locations(other)
                place.put(other)
                code = _code_of(compile(alone, str(path), "exec"), qualified)
                place.put(node)
                what = f"{_told(node)} -> {_told(other)}"
                where = "" if node is statement else f"{_told(statement)[:WORDS_MAX]}: "
                id = f"{module.rpartition('.')[2]}.{qualified}: {where}{what}"
                made[id] += 1
                if made[id] > 1:
                    id += f" #{made[id]}"
                lines = _lines(statement) | _lines(node)
                yield Mutant(module, qualified, id, what, lines, code)


def _alone(qualified: str, function: Function) -> ast.Module:
    """A module with nothing but the function, in a class of the same name if it is in one: compiled in a hundredth of the time."""
    body: list[ast.stmt] = [function]
    if "." in qualified:
        name = qualified.partition(".")[0]
        body = [ast.ClassDef(name=name, bases=[], keywords=[], body=body, decorator_list=[])]
    hints = ast.ImportFrom(module="__future__", names=[ast.alias("annotations")], level=0)
    return ast.fix_missing_locations(ast.Module([hints, *body], type_ignores=[]))


def _lines(node: ast.AST) -> frozenset[int]:
    """The lines of a node; of a statement with others in it those before the first of them."""
    match node:
        case ast.Match(subject=ast.expr(end_lineno=int(last)), lineno=first):
            return frozenset(range(first, last + 1))
        case (
            ast.If(body=[inner, *_])
            | ast.For(body=[inner, *_])
            | ast.While(body=[inner, *_])
            | ast.With(body=[inner, *_])
            | ast.Try(body=[inner, *_])
            | ast.FunctionDef(body=[inner, *_])
        ):
            return frozenset(range(node.lineno, max(node.lineno + 1, inner.lineno)))
        case ast.stmt() | ast.expr():
            return frozenset(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        case _:
            return frozenset()


def _functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    for node in tree.body:
        if isinstance(node, Function):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, Function):
                    yield f"{node.name}.{inner.name}", inner


def _nodes(function: Function) -> Iterator[tuple[_Place, ast.AST, ast.stmt]]:
    """Every node of a function's body with its place and the innermost statement that it is in or is, but for words."""
    first = function.body[0]
    spoken = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    waiting: list[tuple[_Place, ast.AST, ast.stmt]] = [
        (_Place(function, "body", index), node, node)
        for index, node in enumerate(function.body)
        if not (spoken and index == 0)
    ]
    while waiting:
        place, node, within = waiting.pop(0)
        statement = node if isinstance(node, ast.stmt) else within
        yield place, node, statement
        if isinstance(node, ast.Raise | ast.JoinedStr) or _is_words(node):
            continue
        passed = {"annotation", "returns", "decorator_list", "args"}
        if isinstance(node, ast.Call):
            passed = set()
        for field, value in ast.iter_fields(node):
            if field in passed:
                continue
            if isinstance(value, ast.AST):
                waiting.append((_Place(node, field, None), value, statement))
            elif isinstance(value, list):
                waiting.extend(
                    (_Place(node, field, index), each, statement)
                    for index, each in enumerate(value)
                    if isinstance(each, ast.AST) and not (index == 0 and _is_cast(node))
                )


def _is_words(node: ast.AST) -> bool:
    """Whether it is a string that stands alone, such as below an attribute that it describes."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_cast(node: ast.AST) -> bool:
    """Whether the first argument is a type hint."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "cast"


def _instead(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in a node's place."""
    match node:
        case ast.Compare(left, [sign], right):
            for other in COMPARISONS[type(sign)]:
                yield ast.Compare(left, [other()], right)
        case ast.BoolOp(sign, values):
            yield ast.BoolOp(ast.Or() if isinstance(sign, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.BinOp(left, sign, right) if type(sign) in ARITHMETIC:
            yield ast.BinOp(left, ARITHMETIC[type(sign)](), right)
        case ast.AugAssign(target, sign, value) if type(sign) in ARITHMETIC:
            yield ast.AugAssign(target, ARITHMETIC[type(sign)](), value)
            yield ast.Pass()
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(str(value)):
            # Of words for people it counts that there are some.
            yield ast.Constant("" if " " in value else f"{value}?")
        case _:
            yield from _of_statements(node)


def _of_statements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.If(test, body, orelse):
            if not isinstance(test, ast.Compare) or len(test.ops) > 1:
                yield ast.If(_denied(test), body, orelse)
        case ast.IfExp(test, body, orelse):
            if not isinstance(test, ast.Compare) or len(test.ops) > 1:
                yield ast.IfExp(_denied(test), body, orelse)
        case ast.comprehension(target, iterable, ifs, is_async) if ifs:
            yield ast.comprehension(target, iterable, [], is_async)
        case ast.Return(value) if value is not None and not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(ast.Call() | ast.Yield() | ast.YieldFrom()) | ast.Raise() | ast.Delete():
            yield ast.Pass()
        case ast.Assign([ast.Attribute() | ast.Subscript()], _):
            yield ast.Pass()
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case _:
            return


def _denied(test: ast.expr) -> ast.expr:
    return test.operand if isinstance(test, ast.UnaryOp) else ast.UnaryOp(ast.Not(), test)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _told(node: ast.AST) -> str:
    """The first line of a node."""
    if isinstance(node, ast.comprehension):
        return " ".join(["for .."] + [f"if {ast.unparse(test)}" for test in node.ifs])
    return ast.unparse(node).partition("\n")[0]


def _code_of(module: CodeType, qualified: str) -> CodeType:
    code = module
    for name in qualified.split("."):
        code = next(
            each for each in code.co_consts if isinstance(each, CodeType) and each.co_name == name
        )
    return code
