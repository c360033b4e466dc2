"""
The native dialect's JSON, derived from the core's own classes: one shape a class validates, converts, encodes and documents it.

======================================= ==============================================================================
in the core                             on the wire
======================================= ==============================================================================
bytes that hold JSON (template, item,   the JSON value itself; a missing field is None or, where None can not be, empty
result, items of a fan-out)
`records.Amounts`                       an object: ``{"cpu": 0.5, "memory": "2GiB"}`` in; plain numbers out
`records.Span`                          ``{"start": 1, "stop": 11, "step": 1}``; any other fan-out is an array
bytes of an attempt's output            base64
tuples, mappings                        arrays, objects
enums, text, numbers                    as they are; durations and times are in milliseconds
======================================= ==============================================================================

Classes that come in refuse unknown fields; classes that go out may gain fields, so a client passes over those it does not know.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from operator import attrgetter
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

import attrs
import msgspec

from orchestra.dialects.units import SIZED_BYTES_MIN, SIZED_RESOURCES, amounts
from orchestra.errors import Malformed
from orchestra.ports import LogChunk, LogRead
from orchestra.statemachine.limits import PAGE_MAX
from orchestra.statemachine.records import Amounts, Span
from orchestra.statemachine.values import value

OVER = Span | tuple[bytes, ...] | None
LOG_READ_BYTES_MAX = 1024 * 1024
"""Output in one answer; a reader goes on from where it ends."""

OPAQUE = frozenset({LogChunk, LogRead})
"""Classes whose bytes are any bytes, not JSON."""

FIELD_WORDS: Mapping[str, str] = {
    "StageDraft.after": "Names of stages that must complete as a whole before this one.",
    "StageView.after": "Indices of stages that must complete as a whole before this one.",
    "StageDraft.pairwise": "Names of stages of the same size: each task waits for the one with the same item.",
    "StageDraft.over": "A fan-out: {start, stop, step}, or an array with one item a task; null for one task.",
    "after": "Where the former page ended: its `next`, or the number of the last entry seen.",
    "app": "What runs: the name of an app that a worker offers.",
    "backoff_ms": "The pause before the first retry; it doubles with each. Milliseconds.",
    "capacity": "What the worker has, by resource: numbers, or text such as 2GiB.",
    "grace_ms": "How long each rung of the stop ladder (asked, TERM, KILL) lasts. Milliseconds.",
    "holding": "Attempts that the worker has: running, or ended and not acknowledged.",
    "incarnation": "The number that joining gave; it fences messages of a former process.",
    "item": "The fan-out item. Missing when the stage has none.",
    "job_id": "An id, a job's number, or `last`.",
    "labels": "Words that a worker must carry to run this.",
    "limit": "The longest page wanted.",
    "needs": "Counted resources: numbers, or text such as 2GiB.",
    "next": "The `after` of the next page; empty on the last.",
    "over": "The fan-out: {start, stop, step}, an array of items, or null.",
    "project": "A project's name.",
    "queue_ms_max": "Longest time queued before it fails. Milliseconds.",
    "reason": "Why, in one sentence; it is shown wherever the effect is.",
    "result": "Any JSON value. Missing when there is none.",
    "run_ms_max": "Longest run of one attempt. Milliseconds.",
    "subject": "An id or selector of a job, task or worker.",
    "task_id": "An id, or a selector such as `17.3`.",
    "template": "The app's options: any JSON value.",
}
"""What fields of these names mean wherever they stand, for the published document."""

BOUNDS: Mapping[str, tuple[int | None, int | None]] = {
    "Story.after": (0, None),
    "Story.limit": (1, PAGE_MAX),
    "Log.offset": (0, None),
    "Log.limit": (1, LOG_READ_BYTES_MAX),
    "LogChunk.offset": (0, None),
    "WatchStory.after": (-1, None),
}
"""Least and largest values of fields that go past the core to the store; the core checks its own."""

_TUPLE: Any = tuple
_LIST: Any = list
_DICT: Any = dict
_ANNOTATED: Any = Annotated
"""Types that are made at run time are no types to a checker."""

Convert = Callable[[Any], Any]


@value
class Shape:
    """How one type travels: ``wire`` is what msgspec validates; the conversions are None where nothing has to be done."""

    wire: Any
    to_core: Convert | None = None
    to_wire: Convert | None = None


def relocated(error: Malformed, outer: str) -> Malformed:
    """The same error, seen from one level further out: ``needs.cpu`` inside ``stages[0]`` is ``stages[0].needs.cpu``."""
    joint = "" if not error.where or error.where.startswith("[") else "."
    return Malformed(error.message, where=f"{outer}{joint}{error.where}", remedy=error.remedy)


def _amounts_in(table: dict[str, float | str]) -> Amounts:
    if not table:
        return ()
    try:
        return amounts(table, where="at")
    except Malformed as error:
        where = error.where.removeprefix("at").removeprefix(".")
        raise Malformed(error.message, where=where, remedy=error.remedy) from None


def _amounts_out(found: Amounts) -> dict[str, float | str]:
    table: dict[str, float | str] = {}
    for name, thousandths in found:
        whole, rest = divmod(thousandths, 1000)
        small = name in SIZED_RESOURCES and whole < SIZED_BYTES_MIN
        # A plain number below 1 MiB is refused on the way in as a forgotten unit, so it leaves with one.
        table[name] = f"{whole}B" if small else thousandths / 1000 if rest else whole
    return table


def _over_in(over: Any) -> Any:
    if over is None:
        return None
    if isinstance(over, list):
        return tuple(map(bytes, cast("list[msgspec.Raw]", over)))
    return _span.to_core(over)


def _over_out(over: Span | tuple[bytes, ...] | None) -> Any:
    return list(map(msgspec.Raw, over)) if isinstance(over, tuple) else over


def _json_shape(absent: bytes | None) -> Shape:
    return Shape(
        msgspec.Raw,
        lambda raw: absent if raw is msgspec.UNSET else bytes(raw),
        lambda held: msgspec.Raw(held) if held else msgspec.UNSET,
    )


def _tuple_shape(inner: Shape) -> Shape:
    if inner.to_core is None and inner.to_wire is None:
        return Shape(_TUPLE[inner.wire, ...])
    to_core, to_wire = inner.to_core, inner.to_wire

    def come_in(items: list[Any]) -> tuple[Any, ...]:
        found: list[Any] = []
        for index, item in enumerate(items):
            try:
                found.append(to_core(item) if to_core else item)
            except Malformed as error:
                raise relocated(error, f"[{index}]") from None
        return tuple(found)

    def go_out(items: tuple[Any, ...]) -> list[Any]:
        return [to_wire(item) for item in items] if to_wire else list(items)

    return Shape(_LIST[inner.wire], come_in, go_out)


def shape_of(declared: Any, *, strict: bool) -> Shape:
    """How a declared type travels. ``strict`` for what comes in. Raises TypeError for a type that has no form on the wire."""
    if declared == Amounts:
        return Shape(dict[str, int | float | str], _amounts_in, _amounts_out)
    if declared == OVER:
        return Shape(_span.struct | list[msgspec.Raw] | None, _over_in, _over_out)
    origin, args = get_origin(declared), get_args(declared)
    if origin is tuple and args[1:] == (Ellipsis,):
        return _tuple_shape(shape_of(args[0], strict=strict))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return Shape(_DICT[args[0], args[1]], None, dict)
    if origin in (Union, types.UnionType):
        if any(attrs.has(arg) or arg is bytes or get_origin(arg) for arg in args):
            raise TypeError(f"{declared} has no form on the wire")
        return Shape(declared)
    if isinstance(declared, type) and attrs.has(declared):
        form = form_of(declared, strict=strict)
        return Shape(form.struct, form.to_core, form.to_wire)
    if declared is bytes:
        raise TypeError("bytes need a field that says what they are")
    return Shape(declared)


def _field_shape(cls: type, field: attrs.Attribute[Any], declared: Any, *, strict: bool) -> Shape:
    if declared in (bytes, bytes | None):
        if cls in OPAQUE:
            return Shape(declared)
        if field.default is not attrs.NOTHING:
            return _json_shape(field.default)
        return _json_shape(None if declared == bytes | None else b"")
    return shape_of(declared, strict=strict)


def _member(cls: type, field: attrs.Attribute[Any], shape: Shape) -> tuple[Any, ...]:
    full = f"{cls.__name__}.{field.name}"
    words = FIELD_WORDS.get(full) or FIELD_WORDS.get(field.name)
    low, high = BOUNDS.get(full, (None, None))
    wire = _ANNOTATED[shape.wire, msgspec.Meta(description=words, ge=low, le=high)]
    default: Any = field.default
    if shape.wire is msgspec.Raw:
        return (field.name, wire, msgspec.UNSET)
    if default is attrs.NOTHING:
        return (field.name, wire)
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class at run time, a function to the checker
        return (field.name, wire, msgspec.field(default_factory=default.factory))
    if default == () and shape.to_wire is not None:
        # What is a tuple in the core may be an object or an array here; empty either way.
        plain: Any = shape.to_wire(())
        return (field.name, wire, msgspec.field(default_factory=plain.copy))
    return (field.name, wire, default)


def _taker(names: tuple[str, ...]) -> Callable[[Any], list[Any]]:
    """What takes these attributes of a value, in their order."""
    if len(names) > 1:
        take = attrgetter(*names)
        return lambda held: list(take(held))
    return lambda held: [getattr(held, name) for name in names]


class Form:
    """
    How one attrs class travels.

    Args:
        cls: The class of the core.
        strict: It comes in: unknown fields are refused.
        without: Fields that travel elsewhere (in the path), and are not part of this form.
        name: What it is called in the published document.
    """

    def __init__(
        self, cls: type[Any], *, strict: bool, without: tuple[str, ...] = (), name: str = ""
    ) -> None:
        declared = get_type_hints(cls)
        fields = [field for field in attrs.fields(cls) if field.name not in without]
        shapes = [_field_shape(cls, field, declared[field.name], strict=strict) for field in fields]
        self.cls = cls
        self.names = tuple(field.name for field in fields)
        self.struct: Any = msgspec.defstruct(
            name or cls.__name__,
            [_member(cls, *pair) for pair in zip(fields, shapes, strict=True)],
            namespace={"__doc__": inspect.getdoc(cls) if cls.__doc__ else None},
            kw_only=True,
            forbid_unknown_fields=strict,
        )
        self._in = tuple(
            (index, field.name, shape.to_core)
            for index, (field, shape) in enumerate(zip(fields, shapes, strict=True))
            if shape.to_core is not None
        )
        self._out = tuple((n, s.to_wire) for n, s in zip(self.names, shapes, strict=True))
        self._converts_out = any(convert for _, convert in self._out)
        self._whole = len(fields) == len(attrs.fields(cls))
        self._taken = _taker(self.names)

    def _values(self, struct: Any) -> list[Any]:
        """The fields in their order, in the core's types."""
        values = self._taken(struct)
        for index, name, convert in self._in:
            try:
                values[index] = convert(values[index])
            except Malformed as error:
                raise relocated(error, name) from None
        return values

    def fields(self, struct: Any) -> dict[str, Any]:
        """The validated fields in the core's types. Raises `Malformed` for what only the conversion can see."""
        return dict(zip(self.names, self._values(struct), strict=True))

    def to_core(self, struct: Any) -> Any:
        """The core's value of a whole form. Raises `Malformed` as `fields` does."""
        return self.cls(*self._values(struct))

    def to_wire(self, held: Any) -> Any:
        """What msgspec encodes."""
        if not self._converts_out and self._whole:
            return held
        return self.struct(
            **{
                name: getattr(held, name) if convert is None else convert(getattr(held, name))
                for name, convert in self._out
            }
        )


_forms: dict[tuple[type[Any], bool], Form] = {}


def form_of(cls: type[Any], *, strict: bool) -> Form:
    """The form of a class, made once."""
    form = _forms.get((cls, strict))
    if form is None:
        form = _forms[cls, strict] = Form(cls, strict=strict)
    return form


_span = Form(Span, strict=True)

_TOLD_AT = re.compile(r"(.*?)(?: - at `\$(.*)`)?", re.DOTALL)
_NAMED = re.compile(r"Object (contains unknown|missing required) field `(.*)`", re.DOTALL)


def malformed(error: Exception) -> Malformed:
    """What msgspec says about a value, in our words: ``where`` names the field."""
    told = _TOLD_AT.fullmatch(str(error))
    message, where = (told[1], told[2] or "") if told else (str(error), "")
    where = where.removeprefix(".")
    named = _NAMED.fullmatch(message)
    if named:
        where = f"{where}.{named[2]}" if where else named[2]
        unknown = named[1].startswith("contains")
        return Malformed(
            "no such field" if unknown else "is missing",
            where=where[:200],
            remedy="/api/v1/openapi.json lists the fields" if unknown else "",
        )
    return Malformed(
        message[:1].lower() + message[1:].replace("`", ""), where=where[:200] or "body"
    )


class JsonCodec:
    """
    Whole values of one class as JSON bytes.

    Args:
        make: Makes the form in which the class travels. Called when it is first needed: a process uses few of all forms, and making
            them takes half a millisecond each.
    """

    def __init__(self, make: Callable[[], Form]) -> None:
        self._make = make
        self._encode = msgspec.json.Encoder().encode

    @cached_property
    def form(self) -> Form:
        """How the class travels."""
        return self._make()

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[Any]:
        return msgspec.json.Decoder(self.form.struct)

    def fields(self, body: bytes) -> dict[str, Any]:
        """The fields of a body, in the core's types. Raises `Malformed`; the body has passed `strict_json.check_json` before."""
        return self.form.fields(self._validated(body))

    def decode(self, body: bytes) -> Any:
        """The core's value. Raises `Malformed`."""
        return self.form.to_core(self._validated(body))

    def encode(self, answer: Any) -> bytes:
        """JSON without spaces."""
        return self._encode(self.form.to_wire(answer))

    def _validated(self, body: bytes) -> Any:
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise malformed(error) from None


def codec_of(cls: type[Any], *, strict: bool) -> JsonCodec:
    """Whole values of a class as JSON. ``strict`` for what comes in: unknown fields are refused."""
    return JsonCodec(partial(form_of, cls, strict=strict))
