"""
What led to a bug of ours, as a file beside the data file: JSON, for whoever owns the data alone, since it has the arguments of tasks.

``python -m orchestra prove replay`` gives the same to the core again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from orchestra.errors import Malformed
from orchestra.ports import Testimony
from orchestra.statemachine import Stimulus
from orchestra.statemachine.step import HANDLERS

LOG = logging.getLogger("orchestra.storage")

COMMANDS: Mapping[str, type[Any]] = MappingProxyType({kind.__name__: kind for kind in HANDLERS})
"""What a stimulus may ask of the core, by name."""


class _Given(msgspec.Struct, forbid_unknown_fields=True):
    """A stimulus; the seed has 128 bits, more than an integer of JSON."""

    command: str
    fields: dict[str, Any]
    at_ms: int
    seed: str
    principal: str
    key: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    problem: str
    number: int
    stimuli: list[_Given]


def testify(data: str | None, testimony: Testimony) -> None:
    """Keep what led to a bug, and say where: without it nobody could tell how it came about. Without a file the log has the bug alone."""
    if data is None:
        LOG.critical("a bug of orchestra stopped it:\n%s", testimony.problem)
        return
    try:
        path = keep_testimony(data, testimony)
    except OSError as error:
        LOG.critical("what led to a bug of orchestra could not be kept: %s", error)
    else:
        LOG.critical("a bug of orchestra stopped it; what led to it is in %s", path)


def keep_testimony(data: str, testimony: Testimony) -> str:
    """
    Write it beside the data file. Returns the path.

    Raises:
        OSError: The disk does not take it.
    """
    path = f"{data}.defect-{testimony.number}"
    written = _File(
        testimony.problem, testimony.number, [_given(each) for each in testimony.stimuli]
    )
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(opened, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(written)))
    return path


def _given(stimulus: Stimulus) -> _Given:
    command = stimulus.command
    fields: dict[str, Any] = msgspec.to_builtins(command)
    return _Given(
        type(command).__name__,
        fields,
        stimulus.at_ms,
        f"{stimulus.seed:x}",
        stimulus.principal,
        stimulus.key,
    )


def read_testimony(path: Path) -> Testimony:
    """
    What `keep_testimony` wrote.

    Raises:
        Malformed: The file is none of these.
        OSError: It can not be read.
    """
    try:
        read = msgspec.json.decode(path.read_bytes(), type=_File)
        stimuli = tuple(_stimulus(given) for given in read.stimuli)
    except (msgspec.MsgspecError, ValueError, KeyError, RecursionError) as error:
        raise Malformed(f"is no testimony of a bug: {error}", where=str(path)) from None
    return Testimony(read.problem, read.number, stimuli)


def _stimulus(given: _Given) -> Stimulus:
    command = msgspec.convert(given.fields, COMMANDS[given.command])
    return Stimulus(command, given.at_ms, int(given.seed, 16), given.principal, given.key)
