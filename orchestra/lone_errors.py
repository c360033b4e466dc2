"""One error that leaves a context comes out as itself, however many task groups are in between."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast


@asynccontextmanager
async def ungrouped() -> AsyncGenerator[None]:
    """What is raised inside comes out as itself: task groups between would wrap a lone exception in groups of one."""
    try:
        yield
    except BaseExceptionGroup as group:
        lone = _unwrapped(group)
        if lone is group:
            raise
        raise lone from lone.__cause__


def _unwrapped(raised: BaseException) -> BaseException:
    if not isinstance(raised, BaseExceptionGroup):
        return raised
    group = cast("BaseExceptionGroup[BaseException]", raised)
    return _unwrapped(group.exceptions[0]) if len(group.exceptions) == 1 else group
