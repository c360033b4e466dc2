"""A server's settings, as `serve` and whoever has to find the same files read them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from orchestra.config import Config, configure
from orchestra.errors import Malformed


def configured(flags: Mapping[str, object], path: str | None) -> Config:
    """
    From the command line, the environment and orchestra.toml (or the file at ``path``), the earlier before the later.

    Raises:
        Malformed: A file can not be read, or a setting is unfit.
    """
    source = path or "orchestra.toml"
    try:
        toml = Path(source).read_text(encoding="utf-8")
    except FileNotFoundError:
        if path is not None:
            raise Malformed("there is no such file", where=f"--config {path}") from None
        toml = ""
    except (OSError, UnicodeDecodeError) as error:
        raise Malformed(f"can not be read: {error}", where=f"file {source}") from None
    return configure(flags=flags, environment=os.environ, toml=toml, source=source).config
