"""A function that workers know by a name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import attrs

from orchestra.engines.arguments import Plan, plan
from orchestra.errors import Malformed

MODES = ("async", "thread", "process")


@attrs.frozen(slots=True, eq=False)
class Registered:
    """
    A function, and how it is run.

    Args:
        name: The app, as in `Stage.app`.
        mode: ``async`` in the event loop, ``thread`` in a thread, ``process`` in a process that can be killed.
        wants_context: One of its parameters receives the `Context`.
        param: The parameter that receives the fan-out item; empty for the next positional one.
        plan: What is known of its parameters.
    """

    name: str
    fn: Callable[..., Any]
    mode: str
    wants_context: bool
    param: str
    plan: Plan


def register(
    fn: Callable[..., Any], name: str = "", mode: str = "", *, param: str = ""
) -> Registered:
    """
    ``fn`` under a name (by default its own), run in a mode (by default ``async`` for coroutine functions, else ``thread``).

    Raises:
        Malformed: The mode does not go with the function, or the parameter does not exist.
    """
    name = name or getattr(fn, "__name__", "")
    is_async = inspect.iscoroutinefunction(fn)
    mode = mode or ("async" if is_async else "thread")
    if mode not in MODES:
        raise Malformed(f"{mode!r} is no mode", where="mode", remedy=f"one of {', '.join(MODES)}")
    if mode == "async" and not is_async:
        raise Malformed("only a coroutine function runs in the event loop", where="mode")
    if mode == "thread" and is_async:
        raise Malformed("a coroutine function runs in the event loop or a process", where="mode")
    read = plan(fn)
    if param and param not in read.named:
        raise Malformed(f"{name} has no parameter {param!r}", where="param")
    return Registered(name, fn, mode, bool(read.context), param, read)
