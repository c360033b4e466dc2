"""What a plain install brings, read from the metadata of what is installed."""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Callable, Iterable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.tidy import ROOT

DISTRIBUTIONS_MAX = 28

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
Requires = Callable[[str], Iterable[str]]


def installed(name: str) -> Iterable[str]:
    return importlib.metadata.requires(name) or ()


def closure(roots: Iterable[str], requires: Requires) -> set[str]:
    """The names of all that comes with ``roots``, by the markers of this machine and the extras that are asked for."""
    found: set[str] = set()
    done: set[tuple[str, str]] = set()
    waiting = [(Requirement(root), "") for root in roots]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found.add(name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in done:
                done.add((name, wanted))
                waiting += [(Requirement(text), wanted) for text in requires(name)]
    return found


def test_a_plain_install_is_small() -> None:
    names = closure(PROJECT["dependencies"], installed) | {PROJECT["name"]}
    assert len(names) <= DISTRIBUTIONS_MAX, sorted(names)


def test_the_count_follows_extras_and_markers() -> None:
    world = {
        "a": ['b; extra == "more"', "c", 'd; python_version < "3"'],
        "b": ["e"],
        "c": [],
        "e": [],
    }
    assert closure(["a"], world.__getitem__) == {"a", "c"}
    assert closure(["a[more]"], world.__getitem__) == {"a", "b", "c", "e"}


def test_every_dependency_has_a_floor() -> None:
    extras = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
    for text in [*PROJECT["dependencies"], *extras]:
        assert ">=" in str(Requirement(text).specifier), text


def test_the_database_is_past_the_corruption() -> None:
    """SQLite 3.7.0 to 3.51.2 may corrupt a WAL file; the floor in pyproject.toml keeps them out, and here it is seen."""
    import apsw

    carried = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    assert carried >= (3, 51, 3)
