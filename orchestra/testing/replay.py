"""What led to a bug of ours, given to the core again: it is pure, so the same rows and the same stimuli lead to the same place."""

from __future__ import annotations

from pathlib import Path

from orchestra.errors import Malformed
from orchestra.ports import Testimony
from orchestra.runtime.batches import fold
from orchestra.runtime.promises import keep_promises
from orchestra.statemachine import Outcome, load, step
from orchestra.storage.sqlite import SqliteStore


async def replay(data: Path, testimony: Testimony) -> list[Outcome]:
    """
    Decide again what was decided when the server stopped. Nothing is stored.

    Args:
        data: The data file, or a copy of it, as the server left it.
        testimony: What the server wrote beside it.

    Returns:
        The outcomes, when the bug is not there any more.

    Raises:
        Malformed: The file has gone on since.
        StoreTaken: A server has it open.
        Defect: It happens again. Other exceptions of a bug come through as they are.
    """
    store = await SqliteStore.open(str(data))
    try:
        loaded = await store.load()
    finally:
        await store.aclose()
    if loaded.number != testimony.number:
        told = f"has {loaded.number:,} batches, and the bug came after batch {testimony.number:,}"
        raise Malformed(told, where=str(data))
    begun_ms = testimony.stimuli[0].at_ms if testimony.stimuli else 0
    state = load(loaded.rows, max(begun_ms, loaded.at_ms))
    outcomes = [step(state, stimulus) for stimulus in testimony.stimuli]
    batch = fold(outcomes, (), loaded.number + 1, loaded.story_number + 1)
    if batch is not None:
        keep_promises(batch.puts, state, batch.story)
    return outcomes
