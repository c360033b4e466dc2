"""The process in which `fuzz_guided` feeds: ``python -m`` this, with the words that `fuzz_guided.fuzz_guided` gives it."""

from __future__ import annotations

import json
import os
import random
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from orchestra import testing

if TYPE_CHECKING:
    from orchestra.testing.fuzz import Surface, World

UNDER_TEST = ("orchestra", "h11", "wsproto")
"""What is instrumented: ours, and the parsers that our bytes go through."""


class Feeder:
    """
    What libFuzzer calls.

    Args:
        surface: Is fed.
        inputs: After so many the process ends well.
        folder: Where the outcome is written.
    """

    def __init__(self, surface: Surface, inputs: int, seed: int, folder: Path) -> None:
        import psutil

        self._surface = surface
        self._inputs = inputs
        self._told = f"a guided search from seed {seed}"
        self._folder = folder
        self._process = psutil.Process()
        self._corpus = tuple(surface.corpus())
        self._world: World = surface.open()
        self._count = self._accepted = self._begun_bytes = 0

    def feed(self, raw: bytes) -> None:
        """One input. Does not return when it was the last one, or broke a law."""
        from orchestra.testing.fuzz import WORLD_INPUTS, fed

        if self._count == self._inputs // 10:
            self._begun_bytes = self._process.memory_info().rss
        if self._count % WORLD_INPUTS == 0:
            self._world = self._surface.open()
        self._count += 1
        try:
            self._accepted += fed(self._surface, self._world, bytes(raw), told=self._told)
        except Exception:  # noqa: BLE001  # whatever an input raises is a finding, and is told by the parent
            self._end("".join(traceback.format_exc()))
        if self._count >= self._inputs:
            self._end(self._grown())

    def mutate(self, raw: bytes, size_max: int, seed: int) -> bytes:
        """Half of the mutations know JSON, lines and frames; the other half is libFuzzer's own."""
        from orchestra.testing.fuzz import mutate

        atheris: Any = import_module("atheris")

        rng = random.Random(seed)
        if rng.getrandbits(1):
            return mutate(rng, self._corpus, self._surface.mutations, bytes(raw))[:size_max]
        drawn: bytes = atheris.Mutate(raw, size_max)
        return drawn

    def _grown(self) -> str:
        from orchestra.testing.fuzz import GROWTH_BYTES_MAX

        growth = self._growth_bytes()
        grown = f"memory grew by {growth:,} bytes over {self._count} inputs"
        return grown if growth > GROWTH_BYTES_MAX else ""

    def _growth_bytes(self) -> int:
        return int(self._process.memory_info().rss) - self._begun_bytes

    def _end(self, finding: str) -> None:
        outcome = {
            "inputs": self._count,
            "accepted": self._accepted,
            "growth_bytes": self._growth_bytes(),
            "finding": finding,
        }
        from orchestra.testing.fuzz_guided import OUTCOME

        (self._folder / OUTCOME).write_text(json.dumps(outcome))
        sys.stderr.flush()
        os._exit(0)  # libFuzzer has no way back


def main(words: Sequence[str]) -> None:
    """Feed until it is over; never returns."""
    atheris: Any = import_module("atheris")  # some of its names are found at run time alone
    module, name, inputs, seed, place, source = words
    under_test = [*UNDER_TEST, *filter(None, [source])]
    # What the worlds themselves reach would draw the search away from what is under test.
    worlds = [f"orchestra.testing.{found.name}" for found in iter_modules(testing.__path__)]
    with atheris.instrument_imports(include=under_test, exclude=worlds):
        surfaces: Any = import_module(module).SURFACES
        from orchestra.testing.fuzz_guided import lay_out
    surface: Surface = surfaces[name]
    folder = Path(place)
    feeder = Feeder(surface, int(inputs), int(seed), folder)
    # One run more than are wanted: the feeder ends the process, and tells what came of it.
    argv = [name, f"-runs={int(inputs) + 1}", f"-seed={seed}", *lay_out(surface, folder)]
    atheris.Setup(argv, feeder.feed, custom_mutator=feeder.mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
