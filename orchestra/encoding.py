"""
Values of users' programs as JSON and back, for arguments on their way to a function and results on their way from it alike.

Beyond what JSON has there travel: dates, times and durations, UUIDs, decimals, enums, bytes (base64), sets, tuples, attrs classes,
dataclasses, paths (as text), and arrays and their scalars (as lists and numbers). They come back as what the annotation says,
`numpy.ndarray` included, and as plain values where it says nothing. NaN and infinite numbers travel as null.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any, cast

import msgspec

from orchestra.errors import Malformed

CAN_NOT = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
"""What msgspec raises for a value that it can not write."""

_UNIONS = (typing.Union, types.UnionType)
_BEYOND_JSON = "attrs classes, dataclasses, dates, bytes, paths or arrays"


def _written(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    # Arrays and their scalars, without importing their library.
    as_list: Any = getattr(value, "tolist", None)
    if callable(as_list):
        return cast("Callable[[], Any]", as_list)()
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} is not known")


_ENCODER = msgspec.json.Encoder(enc_hook=_written)
_ORDERED = msgspec.json.Encoder(enc_hook=_written, order="deterministic")


def written(value: object) -> bytes:
    """A value as JSON, its dicts in their own order. Raises one of `CAN_NOT`."""
    return _ENCODER.encode(value)


def encode(value: object) -> bytes:
    """
    An argument as JSON, the same bytes for equal values: the orchestrator compares them when a key is used again.

    Raises:
        Malformed: It has a part of another type.
    """
    try:
        try:
            return _ORDERED.encode(value)
        except TypeError:
            # Of dicts it orders only those whose keys are texts already.
            texts = msgspec.to_builtins(
                value, str_keys=True, enc_hook=_written, order="deterministic"
            )
            return _ORDERED.encode(texts)
    except CAN_NOT as problem:
        raise Malformed(
            f"it can not travel as JSON: {problem}",
            where="arguments",
            remedy=f"pass numbers, text, lists, dicts, {_BEYOND_JSON}",
        ) from problem


def converted(value: Any, wanted: Any) -> Any:
    """What JSON was read to, as a value of the wanted type. Raises one of `CAN_NOT`."""
    # The keys of a JSON object are texts, whatever they were before.
    return msgspec.convert(value, wanted, dec_hook=_made, str_keys=True)


def decode_all(encoded: Sequence[bytes], wanted: Any, where: Callable[[int], str]) -> list[object]:
    """
    JSON as values of the wanted type, strictly: a text is no number, though a whole number is a float where one is wanted.

    What a program's type checker believes of a result is true, or it is told. Nothing is lost by that: the JSON stays where it is.

    Args:
        wanted: A type; None or ``Any`` for plain values; an annotation that `hints` could not resolve is a text.
        where: What to call the value at a position, for the message.

    Raises:
        Malformed: A value can not be read as the type, or no JSON can. ``where`` names the first.
    """
    try:
        # One decoder reads them all, which is half of the cost of a short one.
        read = msgspec.json.Decoder(Any if wanted is None else wanted, dec_hook=_made).decode
    except TypeError as problem:
        raise _unreadable(wanted, problem, where(0)) from None
    try:
        return [read(each) for each in encoded]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        for position, each in enumerate(encoded):
            try:
                read(each)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
                raise _unreadable(wanted, problem, where(position), each) from None
        raise


def _unreadable(wanted: Any, problem: Exception, where: str, encoded: bytes = b"") -> Malformed:
    if isinstance(wanted, str):
        message = f"its type {wanted!r} is not known at run time"
        remedy = "import or define it at the module's level, and not for type checkers alone"
    else:
        name = wanted.__name__ if isinstance(wanted, type) else str(wanted)
        message = f"can not be read as {name}: {problem}"
        remedy = "annotate the function with what it returns"
        if b"null" in encoded:
            remedy += " (NaN and infinite numbers travel as null)"
    return Malformed(message, where=where, remedy=f"{remedy}, or take the JSON from `Job.ends`")


def _made(wanted: Any, value: Any) -> Any:
    """A value of a type that msgspec does not know. Raises ValueError."""
    origin: Any = typing.get_origin(wanted) or wanted
    if isinstance(origin, type):
        kind = cast("type[Any]", origin)
        if issubclass(kind, PurePath) and isinstance(value, str):
            return kind(value)
        if kind.__module__ == "numpy":
            return _of_numpy(kind, wanted, value)
        if isinstance(value, kind):
            return value
    name = getattr(wanted, "__name__", wanted)
    raise ValueError(f"{name} can not be made from JSON; take a plain type, or no annotation")


def _of_numpy(kind: type, wanted: Any, value: Any) -> Any:
    """
    An array out of lists, of the scalars that ``NDArray[...]`` names, or a scalar out of a number; null in an array of floats is NaN.

    Raises ValueError for what the scalar type does not hold exactly, floats of any length aside.
    """
    numpy: Any = sys.modules["numpy"]  # whoever wants its types has it
    plain = numpy.asarray(value)
    found: type = plain.dtype.type
    of_scalar = issubclass(kind, numpy.generic)
    said = [arg for each in typing.get_args(wanted)[1:] for arg in typing.get_args(each)]
    scalar = kind if of_scalar else next((arg for arg in said if isinstance(arg, type)), found)
    if not issubclass(scalar, numpy.generic):  # NDArray[Any]
        scalar = found
    fits = plain.dtype.kind in "biuf" or scalar is found
    if plain.dtype.kind == "O":  # null among numbers
        fits = value is not None and scalar is not found
    if not fits or (of_scalar and plain.ndim):
        raise ValueError(f"{value!r:.60} is no {kind.__name__} of {scalar.__name__}")
    made = plain if issubclass(found, scalar) else plain.astype(scalar)
    if made.dtype.kind != "f" and not numpy.array_equal(made, plain):
        raise ValueError(f"{value!r:.60} does not fit into {scalar.__name__}")
    return made[()] if of_scalar else made


def hints(fn: Callable[..., object]) -> dict[str, Any]:
    """
    What a function's annotations say. One that can not be resolved stays a text, and keeps no other from it.

    Found are names of the module, and those around a nested function that it uses itself.
    """
    inner = inspect.unwrap(fn)
    try:
        return {name: _readable(hint) for name, hint in typing.get_type_hints(inner).items()}
    except (NameError, TypeError, AttributeError):
        pass
    try:
        said: dict[str, Any] = dict(getattr(inner, "__annotations__", {}))
    except (NameError, AttributeError):  # they are first evaluated here since Python 3.14
        return {}
    around = _around(inner)
    return {name: _resolved(annotation, inner, around) for name, annotation in said.items()}


def _around(fn: Callable[..., object]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = getattr(getattr(fn, "__code__", None), "co_freevars", ())
    for name, cell in zip(names, getattr(fn, "__closure__", None) or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # it gets its value later
            continue
    return found


def _resolved(annotation: Any, fn: Callable[..., object], around: dict[str, Any]) -> Any:
    def alone() -> None: ...

    alone.__annotations__ = {"it": annotation}
    module: dict[str, Any] = getattr(fn, "__globals__", {})
    try:
        return _readable(typing.get_type_hints(alone, globalns=module, localns=around)["it"])
    except (NameError, TypeError, AttributeError):
        return annotation if isinstance(annotation, str) else Any


def _readable(hint: Any) -> Any:
    """``str | Path`` as ``str``: the text that came is one of the two, and no JSON tells them apart."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else ()
    if str not in parts:
        return hint
    return typing.Union[tuple(part for part in parts if not _is_path(part))]  # noqa: UP007 it is made of what is there


def _is_path(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, PurePath)


def result_type(fn: Callable[..., object]) -> Any:
    """What a function says that it returns; None when it does not say, a text when that can not be resolved."""
    return hints(fn).get("return")
