"""
Tasks written in Python: plain functions with a name, options, and calls of them that have not happened yet.

A `Calls` is a stage in the making. Passing one as an argument of another makes the second come after the first: `submit` turns what
hangs together into the stages of one job.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypeGuard,
    TypeVar,
    cast,
    overload,
)

import attrs

from orchestra.errors import Malformed
from orchestra.statemachine import limits
from orchestra.statemachine.commands import StageDraft
from orchestra.statemachine.records import Amounts, Span

if TYPE_CHECKING:
    from orchestra.engines.context import Context

P = ParamSpec("P")
Q = ParamSpec("Q")
A = TypeVar("A")
T = TypeVar("T")
R = TypeVar("R", covariant=True)
S = TypeVar("S", covariant=True)


@attrs.frozen(slots=True, kw_only=True)
class Options:
    """How tasks of one kind are run; see `App.task`. Times in milliseconds."""

    retries: int = 0
    backoff_ms: int = limits.BACKOFF_MS
    backoff_ms_max: int = limits.BACKOFF_MS_MAX
    run_ms_max: int | None = None
    queue_ms_max: int | None = None
    grace_ms: int = limits.GRACE_MS
    priority: int = 0
    needs: Amounts = ()
    labels: tuple[str, ...] = ()


class TaskFunction(Generic[P, R, S]):
    """
    A function that orchestra can run elsewhere. Calling it runs it here and now, as before.

    ``P`` are its parameters, ``R`` is what calling it gives here (of a coroutine function the coroutine), and ``S`` what it returns in the
    end: the type of a result.

    Attributes:
        fn: The function as it was written.
        name: Under which workers know it.
        mode: ``async``, ``thread`` or ``process``.
    """

    def __init__(self, fn: Callable[P, R], name: str, mode: str, options: Options) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.name = name
        self.mode = mode
        self.options = options
        self.stage_options: dict[str, Any] = attrs.asdict(options, recurse=False)

    @functools.cached_property
    def result_type(self) -> Any:
        """What the function says that it returns; None when it does not say, a text when no such type is found at run time."""
        from orchestra.encoding import result_type

        return result_type(self.fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    # Arguments of `call`, and all but the items of `map`, are typed loosely: in place of each may stand `Calls` of another task, and no
    # type says "P, or `Calls` of it" for every parameter of P. The worker holds them against the annotations.

    def call(self, *args: object, **kwargs: object) -> Calls[S]:
        """One call to be made elsewhere; the context argument is left out."""
        return Calls(self, args, kwargs, None)

    # The two are tried in this order, and give the same: a parameter without annotation fits both.

    @overload
    def map(
        self: TaskFunction[Concatenate[Context, A, Q], Any, S],
        items: Iterable[A] | Calls[A],
        **kwargs: object,
    ) -> Calls[S]: ...

    @overload
    def map(
        self: TaskFunction[Concatenate[A, Q], Any, S],
        items: Iterable[A] | Calls[A],
        **kwargs: object,
    ) -> Calls[S]: ...

    def map(self: TaskFunction[Any, Any, S], items: Any, **kwargs: object) -> Calls[S]:
        """
        One call for each item, which becomes the first argument; ``kwargs`` are the same for all.

        A ``range`` is not stored item by item. Items of another `Calls` are its results, one by one: each call waits for its own only.
        """
        return Calls(self, (), kwargs, items)

    def options_with(self, **changes: object) -> TaskFunction[P, R, S]:
        """The same function with other options."""
        options = attrs.evolve(self.options, **cast("dict[str, Any]", changes))
        return TaskFunction(self.fn, self.name, self.mode, options)


@attrs.frozen(eq=False)
class Calls(Generic[S]):
    """Calls of a task that have not happened yet: one, or one for each item."""

    task: TaskFunction[Any, Any, S]
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    items: Iterable[object] | None

    def after(self, *others: Calls[Any]) -> Calls[S]:
        """The same calls, started when all of ``others`` completed, whose results are not needed."""
        return After(self.task, self.args, self.kwargs, self.items, others)

    if not TYPE_CHECKING:  # to type checkers it is nothing to iterate, and no items of any type

        def __iter__(self) -> Any:
            raise TypeError("calls have no results yet: submit them, and await job.results()")


@attrs.frozen(eq=False)
class After(Calls[S]):
    """Calls that also come after others."""

    others: tuple[Calls[Any], ...]


class Register(Protocol):
    """What ``app.task(retries=3)`` gives: it takes the function."""

    @overload
    def __call__(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /
    ) -> TaskFunction[P, Coroutine[Any, Any, T], T]: ...

    @overload
    def __call__(self, fn: Callable[P, T], /) -> TaskFunction[P, T, T]: ...


def _are_calls(value: object) -> TypeGuard[Calls[Any]]:
    return isinstance(value, Calls)


class StageBuilder:
    """
    Turns calls that hang together into stage drafts, upstream first.

    Args:
        encode: Any value as JSON bytes; raises `Malformed`.

    Attributes:
        drafts: The stages so far.
        tasks: What runs in each, by the stage's name.
    """

    def __init__(self, encode: Callable[[object], bytes]) -> None:
        self._encode = encode
        self._names: dict[int, str] = {}
        self._sizes: dict[int, int | None] = {}
        self._kept: list[Calls[Any]] = []
        self.drafts: list[StageDraft] = []
        self.tasks: dict[str, TaskFunction[Any, Any, Any]] = {}

    def add(self, calls: Calls[Any]) -> str:
        """Add the stage of these calls and those it comes after, once each; its name is returned."""
        known = self._names.get(id(calls))
        if known is not None:
            return known
        self._kept.append(calls)  # ids are only unique while the objects live
        after: dict[str, None] = {}
        pairwise: tuple[str, ...] = ()
        over: Span | tuple[bytes, ...] | None = None
        args = [self._refer(value, after) for value in calls.args]
        kwargs = {name: self._refer(value, after) for name, value in calls.kwargs.items()}
        items = calls.items
        if _are_calls(items):
            pairwise = (self.add(items),)
            size = self._sizes[id(items)]
            over = None if size is None else Span(0, size)
            args.insert(0, {"$result": pairwise[0]})
        elif items is not None:
            over = self._items(items)
        if isinstance(calls, After):
            after.update((self.add(other), None) for other in calls.others)
        template: dict[str, object] = {"args": args, "kwargs": kwargs}
        if pairwise:
            template["item"] = False
        name = self._name(calls.task.name)
        self.tasks[name] = calls.task
        self.drafts.append(
            StageDraft(
                name=name,
                app=calls.task.name,
                template=self._encode(template),
                over=over,
                after=tuple(stage for stage in after if stage not in pairwise),
                pairwise=pairwise,
                **calls.task.stage_options,
            )
        )
        self._names[id(calls)] = name
        self._sizes[id(calls)] = None if over is None else len(over)
        return name

    def _items(self, items: Iterable[object]) -> Span | tuple[bytes, ...]:
        if isinstance(items, range):
            return Span(items.start, items.stop, items.step)
        encoded: list[bytes] = []
        for item in items:
            if len(encoded) >= limits.TASKS_PER_JOB_MAX:
                raise Malformed(
                    "there are too many items",
                    where="items",
                    remedy=f"use at most {limits.TASKS_PER_JOB_MAX} in one job",
                )
            encoded.append(self._encode(item))
        return tuple(encoded)

    def _refer(self, value: object, after: dict[str, None]) -> object:
        if _are_calls(value):
            name = self.add(value)
            after[name] = None
            single = self._sizes[id(value)] is None
            return {"$result" if single else "$results": name}
        if isinstance(value, (list, tuple)):
            return [self._refer(inner, after) for inner in cast("list[object]", value)]
        if isinstance(value, dict):
            mapping = cast("dict[object, object]", value)
            return {key: self._refer(inner, after) for key, inner in mapping.items()}
        return value

    def _name(self, wanted: str) -> str:
        name, number = wanted, 2
        while name in self.tasks:
            name, number = f"{wanted}-{number}", number + 1
        return name
