"""Flag, environment, file, default: where each setting comes from, and which of them counts."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs

from orchestra.config.readers import join_dialects, suggest
from orchestra.config.values import Config, Limits
from orchestra.errors import Malformed

PREFIX = "ORCHESTRA_"


@attrs.frozen(slots=True)
class Configured:
    """A `Config`, and for each setting where it came from, such as ``environment ORCHESTRA_LISTEN``."""

    config: Config
    origins: Mapping[str, str]


def _readers() -> dict[str, Callable[[object], object]]:
    fields = {
        field.name: field.metadata["read"]
        for field in attrs.fields(Config)
        if "read" in field.metadata
    }
    for field in attrs.fields(Limits):
        fields[f"limits.{field.name}"] = field.metadata["read"]
    return fields


_READERS = _readers()

SETTINGS = tuple(_READERS)
"""Names of all settings; those of the table ``limits`` begin with ``limits.``."""


def variable(setting: str) -> str:
    """The environment variable of a setting: ``limits.idle_ms`` is ``ORCHESTRA_LIMITS_IDLE_MS``."""
    return PREFIX + setting.upper().replace(".", "_")


def parse_toml(text: str, source: str = "orchestra.toml") -> dict[str, object]:
    """
    Read the text of a configuration file into settings by name.

    Raises:
        Malformed: It is not TOML, or has a key that is not a setting.
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Malformed(f"not valid TOML: {error}", where=source) from None
    found: dict[str, object] = {}
    for key, value in document.items():
        if key == "limits" and isinstance(value, dict):
            table = cast("dict[str, object]", value)
            found.update({f"limits.{name}": limit for name, limit in table.items()})
        else:
            found[key] = value
    for name in found:
        if name not in _READERS:
            raise Malformed(
                "there is no such setting",
                where=f"{name} (file {source})",
                remedy=suggest(name, SETTINGS),
            )
    return found


def parse_environment(environment: Mapping[str, str]) -> dict[str, object]:
    """
    Pick the settings out of the environment.

    Other programs' and orchestra's own other variables (``ORCHESTRA_SERVER`` and such) are passed over, but one that
    differs from a setting by a slip of the finger is refused.

    Raises:
        Malformed: A variable is nearly the name of a setting.
    """
    names = {variable(name): name for name in SETTINGS}
    found: dict[str, object] = {}
    for key, text in environment.items():
        if key in names:
            found[names[key]] = text
        elif key.startswith(PREFIX):
            close = difflib.get_close_matches(key, list(names), n=1, cutoff=0.93)
            if close:
                raise Malformed(
                    "there is no such setting",
                    where=f"environment {key}",
                    remedy=f"did you mean {close[0]!r}?",
                )
    return found


def configure(
    *,
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    toml: str = "",
    source: str = "orchestra.toml",
) -> Configured:
    """
    Merge the origins: flag, environment, file, default.

    Args:
        flags: Settings of the command line by name; one that is None was not given.
        environment: All environment variables.
        toml: Contents of the configuration file; empty when there is none.
        source: What to call that file in errors.

    Raises:
        Malformed: A value is wrong; ``where`` names the field and its origin.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    for name in given:
        if name not in _READERS:
            told = "there is no such setting"
            raise Malformed(told, where=f"flag {name}", remedy=suggest(name, SETTINGS))
    layers: tuple[tuple[dict[str, object], Callable[[str], str]], ...] = (
        (given, lambda name: f"flag --{name.replace('_', '-')}"),
        (parse_environment(environment or {}), lambda name: f"environment {variable(name)}"),
        (parse_toml(toml, source), lambda _: f"file {source}"),
    )
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for name, read in _READERS.items():
        origins[name] = "default"
        for layer, tell in layers:
            if name not in layer:
                continue
            try:
                found = read(layer[name])
            except ValueError as error:
                raise Malformed(str(error), where=f"{name} ({tell(name)})") from None
            if name in values:
                found = join_dialects(cast("Any", values[name]), cast("Any", found))
            else:
                origins[name] = tell(name)
            values[name] = found
            # A port on the command line must not switch off the table of options in the file.
            if name != "dialects":
                break
    return Configured(_build(values, origins), origins)


def _build(values: Mapping[str, object], origins: Mapping[str, str]) -> Config:
    limits = {name[7:]: value for name, value in values.items() if name.startswith("limits.")}
    rest = {name: value for name, value in values.items() if not name.startswith("limits.")}
    try:
        made = Limits(**cast("dict[str, Any]", limits))
    except Malformed as error:
        raise _with_origin(error, f"limits.{error.where}", origins) from None
    try:
        return Config(limits=made, **cast("dict[str, Any]", rest))
    except Malformed as error:
        raise _with_origin(error, error.where, origins) from None


def _with_origin(error: Malformed, name: str, origins: Mapping[str, str]) -> Malformed:
    where = f"{name} ({origins.get(name, 'default')})"
    return Malformed(error.message, where=where, remedy=error.remedy)
