"""What a power cut left, opened by the real store: is everything there that was acknowledged, is it whole, and does it work?"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import anyio.to_thread

from orchestra.errors import OrchestraError, Unavailable
from orchestra.ports import Batch, Store
from orchestra.storage.disk import THE_DISK
from orchestra.testing import store_samples as samples
from orchestra.testing.power_loss.ledger import Promise, Standing, standing
from orchestra.testing.power_loss.medium import Image
from orchestra.testing.power_loss.play import STORE_NAME, OpenStore

CheckFile = Callable[[str], list[str]]
"""Says what is wrong with a closed store, one sentence each. For a store that has no such check: one that returns an empty list."""

LATER_NUMBER = 9_000_000
"""The number of the job with which a store shows that it goes on to work: none that a scenario gives."""


class Finding(NamedTuple):
    """What became of an image: what it holds, its whole copies, and what is wrong with it whatever was promised."""

    found: Standing | None
    copies: tuple[tuple[str, Standing], ...]
    problems: tuple[str, ...]


def fingerprint(image: Image) -> bytes:
    """The same for equal images."""
    digest = hashlib.blake2b(digest_size=16)
    for name, content in image.items():
        digest.update(b"%d %d " % (len(name), len(content)) + name.encode())
        digest.update(content)
    return digest.digest()


class Inspector:
    """
    Opens images with a store. Equal images are opened once.

    Args:
        folder: An empty folder to lay them out in.
        open_store: Opens the store.
        check_file: The store's own check.
    """

    def __init__(self, folder: Path, open_store: OpenStore, check_file: CheckFile) -> None:
        self._folder = folder
        self._open_store = open_store
        self._check_file = check_file
        self._known: dict[bytes, Finding] = {}

    @property
    def distinct(self) -> int:
        """How many images differed."""
        return len(self._known)

    async def problems(self, image: Image, promise: Promise) -> list[str]:
        """What is wrong with an image after this promise; empty when all is well."""
        key = fingerprint(image)
        finding = self._known.get(key)
        if finding is None:
            finding = self._known[key] = await self._inspected(image)
        problems = list(finding.problems)
        if finding.found is not None:
            lost = promise.lost(finding.found)
            if lost:
                problems.append(lost)
            held = dict(finding.copies)
            for name, allowed in promise.copies.items():
                if held.get(name) not in allowed:
                    problems.append(f"lost: the copy {name} was acknowledged and is not whole")
            for beginning, allowed in promise.needed.items():
                if not any(
                    name.startswith(beginning) and copy in allowed for name, copy in finding.copies
                ):
                    problems.append(f"lost: nothing whole is left from before: {beginning}")
        return problems

    async def _inspected(self, image: Image) -> Finding:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        for name, content in image.items():
            (self._folder / name).write_bytes(content)
        path = str(self._folder / STORE_NAME)
        try:
            store = await self._open_store(path, THE_DISK)
            try:
                found, problems = await self._used(store)
            finally:
                await store.aclose()
            problems += await anyio.to_thread.run_sync(self._check_file, path)
            return Finding(found, await self._copies(), tuple(problems))
        except OrchestraError as error:
            return Finding(None, (), (f"corrupt: the store does not open: {error}",))

    async def _used(self, store: Store) -> tuple[Standing, list[str]]:
        """Read all of it, and commit once more."""
        loaded = await store.load()
        problems = [f"corrupt: {row.kind} {row.id}: {row.problem}" for row in loaded.quarantined]
        found = await standing(store, loaded)
        job = samples.job(LATER_NUMBER)
        later = Batch(loaded.number + 1, (job,), (), (samples.moved(loaded.story_number + 1, job),))
        try:
            await store.commit(later)
        except Unavailable as error:
            problems.append(f"corrupt: the store does not go on: {error}")
        else:
            again = await store.load()
            if again.number != later.number or job not in again.rows:
                problems.append("corrupt: a commit after the cut is not there")
        return found, problems

    async def _copies(self) -> tuple[tuple[str, Standing], ...]:
        """The other stores in the folder that are whole; the names of those that are not are only names."""
        held: list[tuple[str, Standing]] = []
        for each in sorted(self._folder.iterdir()):
            is_copy = not each.name.endswith((".lock", "-wal", "-shm", "-journal", ".part"))
            if each.name == STORE_NAME or not is_copy or not each.stat().st_size:
                continue
            try:
                copy = await self._open_store(str(each), THE_DISK)
            except OrchestraError:
                continue
            try:
                held.append((each.name, await standing(copy)))
            finally:
                await copy.aclose()
            if self._check_file(str(each)):
                held.pop()
        return tuple(held)
