"""The net between the machines and the server: messages are lost, doubled, late, out of order, or cut off one way."""

from __future__ import annotations

from collections.abc import Callable

from orchestra.statemachine.commands import Command
from orchestra.testing.schedules.server import Asked, Server
from orchestra.testing.schedules.world import World

TIMEOUT_MS = 3_000
"""How long a caller waits for an answer before it takes the connection for broken."""


class Net:
    """
    Carries questions to the server and answers back.

    ``cut_to`` and ``cut_from`` hold, by place, until when nothing gets to the server from there, and nothing from the server to there.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.server: Server | None = None
        self.cut_to: dict[str, int] = {}
        self.cut_from: dict[str, int] = {}

    def ask(
        self,
        place: str,
        command: Command[object],
        answer: Callable[[object], None],
        *,
        key: str = "",
    ) -> None:
        """Ask from a place; ``answer`` is called once: with the reply, or with None when none came in time."""
        open_ = [True]

        def settle(reply: object) -> None:
            if open_[0]:
                open_[0] = False
                answer(reply)

        def arrive() -> None:
            if self.server is not None and not self._is_cut(self.cut_to, place):
                self.server.receive(Asked(command, place, key, answered))

        def answered(reply: object) -> None:
            self.carry(place, lambda: settle(reply))

        copies = 2 if self.world.meets("duplicate") else 1
        for _ in range(copies):
            if not self.world.meets("drop"):
                self.world.after(self.world.delay_ms(), arrive)
        self.world.after(TIMEOUT_MS, lambda: settle(None))

    def carry(self, place: str, deliver: Callable[[], None]) -> None:
        """From the server to a place."""

        def arrive() -> None:
            if not self._is_cut(self.cut_from, place):
                deliver()

        copies = 2 if self.world.meets("duplicate") else 1
        for _ in range(copies):
            if not self.world.meets("drop"):
                self.world.after(self.world.delay_ms(), arrive)

    def _is_cut(self, cuts: dict[str, int], place: str) -> bool:
        return not self.world.healed and cuts.get(place, 0) > self.world.now_ms
