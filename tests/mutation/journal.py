"""What became of mutants so far, on disk: an interrupted run goes on where it was, as long as nothing that matters has changed since."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from tests.mutation.trial import NOTICED, Verdict


def fingerprint(paths: Iterable[Path], words: str) -> str:
    """One word for these Python files and all in these folders, and for how they are tried."""
    sum_ = hashlib.sha256(words.encode())
    for folder in paths:
        for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]:
            sum_.update(path.as_posix().encode())
            sum_.update(path.read_bytes())
    return sum_.hexdigest()


class Journal:
    """
    A file with one line for each mutant that was tried.

    Args:
        path: Where.
        state: The `fingerprint` of what is tried. What was found in another state is thrown away.
        again: Keep what was noticed in another state all the same: for whoever writes tests, which only ever notice more.
    """

    def __init__(self, path: Path, state: str, *, again: bool = False) -> None:
        self._path = path
        self.known: dict[str, tuple[str, str]] = {}
        """Outcome and by what, by the id of the mutant."""
        if path.exists():
            first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
            # The last line may be half of one.
            read = [json.loads(line) for line in lines if line.endswith("]")]
            if first == state or again:
                self.known = {
                    id: (outcome, by)
                    for id, outcome, by in read
                    if first == state or outcome == NOTICED
                }
        kept = [json.dumps([id, *told]) for id, told in self.known.items()]
        path.write_text("\n".join([state, *kept, ""]), encoding="utf-8")

    def add(self, verdict: Verdict) -> None:
        """Write one down."""
        self.known[verdict.mutant.id] = (verdict.outcome, verdict.by)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([verdict.mutant.id, verdict.outcome, verdict.by]) + "\n")
