"""``prove replay``: what led to a bug of ours, given to the core again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import anyio
from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.errors import Malformed, OrchestraError, Rejected, Unavailable
from orchestra.statemachine import Stimulus


def replay(
    testimony: Annotated[Path, Parameter(help="What the server wrote when it stopped.")],
    *,
    data: Annotated[Path, Parameter(help="The data file, or a copy of it, as the server left it.")],
) -> int:
    """
    Give the core again what led to a bug of orchestra, and see whether it still leads there.

    A server that comes upon a bug stores nothing of what it was about to, writes what it had been given into a file beside its data file,
    and ends. Nothing is stored here either.
    """
    from orchestra.storage.testimony import read_testimony
    from orchestra.testing.replay import replay as play

    try:
        read = read_testimony(testimony)
    except OSError as error:
        raise Malformed(f"can not be read: {error.strerror}", where=str(testimony)) from None
    for stimulus in read.stimuli:
        speech.put(speech.clean(_told(stimulus)))
    try:
        outcomes = anyio.run(play, data, read)
    except (Rejected, Unavailable):
        raise
    except Exception as error:  # noqa: BLE001 - whatever the bug raises is what is looked for
        message = str(error) if isinstance(error, OrchestraError) else repr(error)
        speech.warn(f"it happens again: {message}")
        return exits.FAILED
    moves = [move for outcome in outcomes for move in outcome.story]
    speech.put(f"It does not happen any more: {len(moves):,} moves would be stored.")
    return exits.OK


def _told(stimulus: Stimulus) -> str:
    asked = type(stimulus.command).__name__
    return f"{stimulus.at_ms} {asked} of {stimulus.principal or 'the clock'}"
