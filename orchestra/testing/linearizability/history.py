"""What clients did and were told, and when: the only thing that linearizability is asked of."""

from __future__ import annotations

import math

import attrs


@attrs.frozen(slots=True)
class Operation:
    """
    One question of one client.

    Args:
        client: Who asked.
        verb: What was asked.
        argument: Of what; empty when the verb says it all.
        outcome: What was answered; None when no answer came, so that nobody knows whether it was done.
        began_s: When it was asked, by one clock for all clients, in seconds.
        ended_s: When it was answered; infinity when no answer came, for it may be done at any later time.
    """

    client: int
    verb: str
    argument: str
    outcome: str | None
    began_s: float
    ended_s: float = math.inf

    def __str__(self) -> str:
        told = "no answer" if self.outcome is None else self.outcome
        asked = f"{self.verb} {self.argument}".strip()
        return (
            f"[{self.began_s:9.4f} {self.ended_s:9.4f}] client {self.client:>2}: {asked} -> {told}"
        )


History = tuple[Operation, ...]
