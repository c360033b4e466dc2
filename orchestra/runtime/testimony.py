"""A bug of ours, with what led to it."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from orchestra.errors import Defect
from orchestra.ports import Testimony
from orchestra.statemachine import Stimulus


def testimony_of(error: Exception, number: int, stimuli: Sequence[Stimulus]) -> Testimony:
    """
    What is kept of an error that nobody planned.

    Args:
        error: As it was raised.
        number: Of the last batch that is stored.
        stimuli: What the core was given since.
    """
    told = traceback.format_exception(error)
    if isinstance(error, Defect):
        told.extend(f"{move}\n" for move in error.story)
    return Testimony("".join(told), number, tuple(stimuli))
