"""The event loops that our contenders run on."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

LOOPS = ("uvloop", "asyncio", "trio")
USUAL_LOOP = "uvloop" if find_spec("uvloop") is not None else "asyncio"
"""What `orchestra serve` runs on: uvloop where it is installed, as with the extra ``fast``."""


def loop_options(loop: str) -> dict[str, Any]:
    """What `anyio.run` takes so that a program runs on this event loop."""
    if loop == "trio":
        return {"backend": "trio"}
    return {"backend": "asyncio", "backend_options": {"use_uvloop": loop == "uvloop"}}
