from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.examples.runs import Run, copied, run

HINT = "pip install '.[examples]'"
MODULES = {
    "digits": ("sklearn", "matplotlib"),
    "sky": ("sep", "astropy", "matplotlib"),
    "film": ("numpy", "PIL"),
}


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, require: Callable[..., None]
) -> Callable[[str], Run]:
    """The run of an example, which is run once for all tests."""
    done: dict[str, Run] = {}

    def get(name: str) -> Run:
        require(modules=MODULES[name], hint=HINT)
        if name not in done:
            done[name] = run(copied(name, Path(tmp_path_factory.mktemp(name))))
        return done[name]

    return get
