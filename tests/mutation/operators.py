"""
Small changes of a function: another comparison, connective or sign, a condition turned round, a number one higher, a statement left out.

Words for people are not changed: docstrings, what stands in a ``raise``, and pieces of f-strings. Nor are type hints, defaults and
decorators, which count once when a module is loaded, and the tables at the top of modules, whose rows are taken out by tests of their own.
"""

from __future__ import annotations

import ast
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

Function = ast.FunctionDef | ast.AsyncFunctionDef


@attrs.frozen(slots=True)
class Mutant:
    """
    One change.

    Args:
        module: Dotted name of the module.
        function: Qualified name of the function that is changed.
        line: Where.
        what: What is there, and what stands there instead.
        code: The changed function.
    """

    module: str
    function: str
    line: int
    what: str
    code: CodeType


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
    for qualified, function in _functions(tree):
        for place, node in list(_nodes(function)):
            for other in _instead(node):
                ast.copy_location(other, node)
                ast.fix_missing_locations(other)
                place.put(other)
                code = _code_of(compile(tree, str(path), "exec"), qualified)
                place.put(node)
                line = getattr(node, "lineno", function.lineno)
                yield Mutant(module, qualified, line, f"{_told(node)} -> {_told(other)}", code)


def _functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    for node in tree.body:
        if isinstance(node, Function):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, Function):
                    yield f"{node.name}.{inner.name}", inner


def _nodes(function: Function) -> Iterator[tuple[_Place, ast.AST]]:
    """Every node of a function's body with its place, but for words."""
    first = function.body[0]
    spoken = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    waiting: list[tuple[_Place, ast.AST]] = [
        (_Place(function, "body", index), node)
        for index, node in enumerate(function.body)
        if not (spoken and index == 0)
    ]
    while waiting:
        place, node = waiting.pop(0)
        yield place, node
        if isinstance(node, ast.Raise | ast.JoinedStr):
            continue
        passed = {"annotation", "returns", "decorator_list", "args"}
        if isinstance(node, ast.Call):
            passed = set()
        for field, value in ast.iter_fields(node):
            if field in passed:
                continue
            if isinstance(value, ast.AST):
                waiting.append((_Place(node, field, None), value))
            elif isinstance(value, list):
                waiting.extend(
                    (_Place(node, field, index), each)
                    for index, each in enumerate(value)
                    if isinstance(each, ast.AST)
                )


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
            yield ast.Constant(f"{value}?")
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
