"""How many of something, as people say it."""

from __future__ import annotations


def counted(count: int, one: str) -> str:
    """``1 task``, ``2 tasks``: a number and a word that takes an s."""
    return f"{count} {one}" if count == 1 else f"{count} {one}s"
