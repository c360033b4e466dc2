"""How a value that someone sent is shown in a message: short, and on one line."""

from __future__ import annotations

import json

SHOWN_CHARS_MAX = 60
"""So much tells which value is meant."""


def shown(value: object) -> str:
    """A text in double quotes, anything else in ASCII; cut when long."""
    form = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else ascii(value)
    return form if len(form) <= SHOWN_CHARS_MAX else form[: SHOWN_CHARS_MAX - 3] + "..."
