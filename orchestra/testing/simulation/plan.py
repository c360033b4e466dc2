"""What goes wrong in one simulation: a plan that can be written down, read again, and made smaller."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import Literal, get_args

import attrs

from orchestra.errors import Malformed

TROUBLES_MAX = 12
TROUBLE_MS_MAX = 60_000
LASTS_MS = (10, 300, 1_500, 4_000, 9_000, 20_000)
LATENCIES_MS = (1, 10, 200)
SQLITE_SHARE = 0.25
"""Of the plans that may have either store: the real one takes longer."""

Keeping = Literal["memory", "sqlite"]
STORES: tuple[Keeping, ...] = get_args(Keeping)

Backend = Literal["asyncio", "trio"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

_TROUBLE = re.compile(r"([a-z_]+)@(\d+):([a-z0-9]+):(\d+):(\d+)")


@attrs.frozen(slots=True, order=True)
class Trouble:
    """
    One thing that goes wrong.

    Args:
        at_ms: When, from the start.
        kind: A name of `orchestra.testing.faults`.
        place: Whom it meets: ``server``, ``people``, or a worker such as ``w1``.
        lasts_ms: How long it lasts; for a process that was killed, until it starts again.
        number: Which of several ways; each kind says what it means.
    """

    at_ms: int
    kind: str
    place: str
    lasts_ms: int
    number: int = 0

    def __str__(self) -> str:
        return f"{self.kind}@{self.at_ms}:{self.place}:{self.lasts_ms}:{self.number}"


@attrs.frozen(slots=True)
class Plan:
    """
    Everything that is not the program itself: the same plan gives the same story.

    Args:
        seed: Of all chance: latencies, where streams are cut, ids, jitter.
        latency_ms: The longest that bytes are on their way when nothing is wrong.
        troubles: What goes wrong.
        store: Where the server keeps everything: in ``memory``, or with the real store in ``sqlite`` on a simulated drive.
        backend: Whose event loops everything runs on.
    """

    seed: int
    latency_ms: int = 10
    troubles: tuple[Trouble, ...] = ()
    store: Keeping = "memory"
    backend: Backend = "asyncio"

    def __str__(self) -> str:
        words = [f"seed={self.seed}", f"latency={self.latency_ms}"]
        words += [f"store={self.store}"] if self.store != "memory" else []
        words += [f"backend={self.backend}"] if self.backend != "asyncio" else []
        return " ".join([*words, *map(str, self.troubles)])

    @classmethod
    def read(cls, text: str) -> Plan:
        """
        A plan as it was written.

        Raises:
            Malformed: A word of it is none of a plan.
        """
        seed, latency_ms = 0, 10
        store: Keeping = "memory"
        backend: Backend = "asyncio"
        troubles: list[Trouble] = []
        for word in text.split():
            name, _, number = word.partition("=")
            found = _TROUBLE.fullmatch(word)
            if name in ("seed", "latency") and number.isdigit():
                seed, latency_ms = (
                    (int(number), latency_ms) if name == "seed" else (seed, int(number))
                )
            elif name == "store" and number in STORES:
                store = number
            elif name == "backend" and number in BACKENDS:
                backend = number
            elif found is not None:
                kind, at_ms, place, lasts_ms, which = found.groups()
                troubles.append(Trouble(int(at_ms), kind, place, int(lasts_ms), int(which)))
            else:
                remedy = "write it as it was printed: seed=1 latency=10 kill@1200:w1:900:0"
                raise Malformed(f"{word!r} is no part of a plan", where="plan", remedy=remedy)
        return cls(seed, latency_ms, tuple(troubles), store, backend)


_OF_THE_SERVER = frozenset(
    {
        "crash_at_commit",
        "crash_at_operation",
        "fail_commit",
        "fail_operation",
        "flip_bit",
        "full_disk",
        "step_clock",
    }
)


def places_of(kind: str, workers: Sequence[str]) -> tuple[str, ...]:
    """Whom a fault may meet."""
    if kind in ("vanish", "drain", "gone", "skew_clock"):
        return tuple(workers)
    if kind in _OF_THE_SERVER:
        return ("server",)
    if kind in ("cut", "reset", "slow"):
        return (*workers, "people")
    return ("server", *workers)


def draw(
    seed: int,
    faults: frozenset[str],
    workers: Sequence[str],
    store: Keeping | None = None,
    backend: Backend = "asyncio",
) -> Plan:
    """
    The plan of a seed: some of the faults, so that those that hide one another are also met alone (swarm testing).

    ``store`` is drawn too, unless it is given.
    """
    rng = Random(f"plan {seed}")
    kinds = [kind for kind in sorted(faults) if rng.choice((True, False))]
    troubles = [
        Trouble(
            rng.randrange(TROUBLE_MS_MAX if rng.choice((True, False)) else TROUBLE_MS_MAX // 6),
            kind,
            rng.choice(places_of(kind, workers)),
            rng.choice(LASTS_MS),
            rng.randrange(8),
        )
        for kind in (rng.choice(kinds) for _ in range(rng.randint(0, TROUBLES_MAX) if kinds else 0))
    ]
    latency_ms = rng.choice(LATENCIES_MS)
    drawn: Keeping = "sqlite" if rng.random() < SQLITE_SHARE else "memory"
    return Plan(seed, latency_ms, tuple(sorted(troubles)), store or drawn, backend)
