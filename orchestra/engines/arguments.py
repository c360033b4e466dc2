"""
From the template of a call to the arguments of the function, and from what it returns or raises to what is told.

Template (JSON): ``{"args": [...], "kwargs": {...}}``. The fan-out item is added as the next positional argument, unless the template
says ``"item": false``. Values are converted to the annotated types, strictly: a text is no number. What may be an argument may be a result;
`orchestra.encoding` has the list.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from orchestra import encoding
from orchestra.encoding import CAN_NOT, converted, written
from orchestra.engines.context import Context
from orchestra.errors import Malformed
from orchestra.statemachine.limits import REASON_CHARS_MAX, RESULT_BYTES_MAX
from orchestra.statemachine.values import value

_FRAMES_SHOWN = 6
"""The innermost calls of a traceback: enough to find the place, few enough for a reason."""


class Template(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call before the item is added."""

    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    item: bool = True


@value
class Plan:
    """
    What is known of a function's parameters without the context's.

    Args:
        positional: Those that may be given by position, in order, with their types.
        rest: The type of ``*args``; None when there are none.
        named: Types of all that may be given by name.
        context: The name of the context's parameter; empty without one.
        context_at: Its position; -1 when it goes by name only.
    """

    positional: tuple[tuple[str, Any], ...]
    rest: tuple[str, Any] | None
    named: dict[str, Any]
    context: str
    context_at: int

    def placed(self, args: list[Any], kwargs: dict[str, Any], context: object) -> None:
        """Add the context to the arguments, at its place."""
        if not self.context:
            return
        if 0 <= self.context_at <= len(args):
            args.insert(self.context_at, context)
        else:
            kwargs[self.context] = context


def plan(fn: Callable[..., Any]) -> Plan:
    """Read a function's signature once. Annotations that can not be resolved are taken as ``Any``."""
    hints = encoding.hints(fn)
    parameters = list(inspect.signature(fn).parameters.values())
    context = next((p.name for p in parameters if _is_context(p, hints)), "")
    if not context and parameters and parameters[0].name == "ctx":
        context = "ctx"
    positional: list[tuple[str, Any]] = []
    named: dict[str, Any] = {}
    rest: tuple[str, Any] | None = None
    context_at = -1
    for index, parameter in enumerate(parameters):
        wanted = hints.get(parameter.name, Any)
        wanted = Any if isinstance(wanted, str) else wanted
        if parameter.name == context:
            context_at = index if parameter.kind is not parameter.KEYWORD_ONLY else -1
        elif parameter.kind is parameter.VAR_POSITIONAL:
            rest = (parameter.name, wanted)
        elif parameter.kind is not parameter.VAR_KEYWORD:
            if parameter.kind is not parameter.KEYWORD_ONLY:
                positional.append((parameter.name, wanted))
            if parameter.kind is not parameter.POSITIONAL_ONLY:
                named[parameter.name] = wanted
    return Plan(tuple(positional), rest, named, context, context_at)


def _is_context(parameter: inspect.Parameter, hints: dict[str, Any]) -> bool:
    hint = hints.get(parameter.name, parameter.annotation)
    if isinstance(hint, str):
        return hint.rpartition(".")[2] == "Context"
    return hint is Context


def arguments(
    plan: Plan, template: bytes, item: bytes, param: str
) -> tuple[list[Any], dict[str, Any]]:
    """
    The arguments of one call, without the context.

    Args:
        item: The fan-out item as JSON; empty without one.
        param: The parameter that receives it; empty for the next positional one.

    Raises:
        Malformed: A value does not fit; ``where`` names the argument.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    wants_item = bool(item)
    if template not in (b"", b"{}"):
        try:
            read = msgspec.json.decode(template, type=Template)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            raise Malformed(str(problem), where="template") from None
        wants_item = wants_item and read.item
        args = [_positional(plan, index, value) for index, value in enumerate(read.args)]
        for name, value in read.kwargs.items():
            kwargs[name] = _converted(value, plan.named.get(name, Any), name)
    if wants_item:
        value = read_item(item)
        if param:
            kwargs[param] = _converted(value, plan.named.get(param, Any), param)
        else:
            args.append(_positional(plan, len(args), value))
    return args, kwargs


def read_item(item: bytes) -> Any:
    """A fan-out item; None without one. Raises Malformed when it is no JSON."""
    if not item:
        return None
    try:
        return msgspec.json.decode(item)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise Malformed(f"is no valid JSON: {problem}", where="item") from None


def _positional(plan: Plan, index: int, value: Any) -> Any:
    if index < len(plan.positional):
        name, wanted = plan.positional[index]
    elif plan.rest is not None:
        name, wanted = plan.rest
    else:
        most = len(plan.positional)
        raise Malformed(f"it takes at most {most} by position", where=f"argument {index + 1}")
    return _converted(value, wanted, name)


_AS_THEY_ARE = frozenset({bool, float, int, str})
"""Of these types nothing is converted, and looking at it costs five times as much as seeing that."""


def _converted(value: Any, wanted: Any, name: str) -> Any:
    if wanted is Any or wanted is inspect.Parameter.empty:
        return value
    if type(value) is wanted and wanted in _AS_THEY_ARE:
        return value
    try:
        return converted(value, wanted)
    except CAN_NOT as problem:
        raise Malformed(str(problem), where=f"argument {name}") from None


def encoded(value: Any) -> bytes:
    """What a function returned, as JSON. Raises Malformed when it can not be, or is too long."""
    if value is None:
        return b"null"
    try:
        result = written(value)
    except CAN_NOT as problem:
        remedy = "return plain values, attrs or dataclasses; write other things to a file and return its path"
        message = f"can not be written as JSON: {problem}"
        raise Malformed(message, where="result", remedy=remedy) from None
    if len(result) > RESULT_BYTES_MAX:
        remedy = "write big results to a file and return its path"
        message = f"is {len(result)} bytes long, at most {RESULT_BYTES_MAX} are kept"
        raise Malformed(message, where="result", remedy=remedy)
    return result


def failure(problem: BaseException) -> str:
    """An exception's last line, then the innermost calls; within what a reason may hold."""
    last = "".join(traceback.format_exception_only(problem)).strip()
    frames = traceback.extract_tb(problem.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_HERE)]
    lines = [
        f"  {frame.filename}:{frame.lineno} in {frame.name}: {frame.line}"
        for frame in (own or frames)[-_FRAMES_SHOWN:]
    ]
    half = REASON_CHARS_MAX // 2
    if len(last) > half:
        last = last[: half - 3] + "..."
    text = "\n".join([last, *lines])
    return text if len(text) <= REASON_CHARS_MAX else text[: REASON_CHARS_MAX - 3] + "..."


_HERE = __file__.rpartition("/")[0]
