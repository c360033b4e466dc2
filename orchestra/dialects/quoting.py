"""How something that someone sent is shown in a message, and what was probably meant by it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable

SHOWN_CHARS_MAX = 60
"""So much tells which value is meant."""

WORD_CHARS_MAX = 80
"""Comparing costs the square of the length, and no name of ours is longer."""


def shown(value: object) -> str:
    """A text in double quotes, anything else in ASCII; cut when long."""
    form = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else ascii(value)
    return form if len(form) <= SHOWN_CHARS_MAX else form[: SHOWN_CHARS_MAX - 3] + "..."


def nearest(word: str, choices: Iterable[str]) -> str:
    """The choice that ``word`` was probably meant to be, in whatever case; empty when none is near."""
    folded = {choice.casefold(): choice for choice in choices}
    near = difflib.get_close_matches(word[:WORD_CHARS_MAX].casefold(), folded, n=1)
    return folded[near[0]] if near else ""
