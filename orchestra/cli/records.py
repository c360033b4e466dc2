"""Logging of the long-running commands: stderr, one line a record."""

from __future__ import annotations

import logging

from orchestra.cli.speech import clean

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class OneLine(logging.Formatter):
    """Time, level, where, what. Line breaks and control characters of a message are escaped, tracebacks included."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the record holds."""
        return clean(super().format(record))


def log_to_stderr(level: str) -> None:
    """Send our records to stderr; those of libraries from warnings on."""
    clean(
        "\n"
    )  # loads what escapes: a process without a free descriptor could not, and has to tell so
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("orchestra").setLevel(LEVELS[level])
    if level != "debug":
        # Each heartbeat is a request: what matters would drown.
        logging.getLogger("orchestra.access").setLevel(logging.WARNING)
