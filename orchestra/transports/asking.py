"""From what a dialect decoded to the orchestrator's answer: the one step between any wire and a `ports.Asker`."""

from __future__ import annotations

from typing import Protocol

import anyio.to_thread

from orchestra.dialects.asks import (
    DIALOGUE_MAX,
    Apart,
    AppendLog,
    Ask,
    Backup,
    Dialogue,
    Keyed,
    Known,
)
from orchestra.errors import Defect, OrchestraError
from orchestra.ports import ActingRule, Asker, Log, Story
from orchestra.statemachine.commands import Command


class AskerSource(Protocol):
    """Something that can be asked in somebody's name, such as a running orchestrator."""

    def for_principal(self, principal: str, acting: ActingRule | None = None) -> Asker:
        """
        The same, asked by ``principal``: its name goes into what is recorded, and its keys are its own.

        What is asked as a worker that ``acting`` refuses is refused so, and changes nothing; None lets everything pass.
        """
        ...


async def put(asker: Asker, ask: Ask) -> object:
    """Put one thing to the orchestrator. Raises what `ports.Asker` raises."""
    match ask:
        case Keyed(command, key):
            return await asker.ask(command, key=key)
        case Command():
            return await asker.ask(ask)
        case Story():
            return await asker.story(ask)
        case Log():
            return await asker.log(ask)
        case AppendLog(worker_id, incarnation, chunks):
            await asker.append_log(worker_id, incarnation, chunks)
            return None
        case Backup(target):
            await asker.backup(target)
            return None
        case Known(answer):
            return answer
        case Apart(call):
            return await anyio.to_thread.run_sync(call)
        case Dialogue():
            return await _hold(asker, ask)
        case _:
            return await asker.answer(ask)


async def _hold(asker: Asker, dialogue: Dialogue) -> object:
    asks = dialogue.begin()
    try:
        ask = next(asks)
        for _ in range(DIALOGUE_MAX):
            try:
                answer = await put(asker, ask)
            except OrchestraError as error:
                ask = asks.throw(error)
            else:
                ask = asks.send(answer)
    except StopIteration as ended:
        return ended.value
    finally:
        asks.close()
    raise Defect(f"a dialogue of more than {DIALOGUE_MAX} asks")
