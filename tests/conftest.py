"""
What every test shares: both event loops, the profiles of hypothesis, what happens to a test without its service, and who plays aside.

Environment:
    ORCHESTRA_HYPOTHESIS: ``dev``, ``ci`` or ``soak``; without it ``ci`` when CI is set, else ``dev``.
    ORCHESTRA_BESIDE: ``1`` plays tests without a mark beside the prompt ones, ``0`` does not; without it where there are four processors.
    ORCHESTRA_REQUIRE: ``all`` turns every skip for something missing into a failure.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import Phase, settings

from tests.aside import Aside

# A developer's run draws new examples each time, so that together they search widely. CI draws the same ones each time:
# a red build is then caused by its change, not by luck, and goes red again when it is repeated. The long search for rare
# examples is `soak`; `mutation` asks whether anything fails, not for the smallest example. No profile has a deadline: time
# per example says more about the neighbours on a shared machine.
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("soak", deadline=None, max_examples=5_000, print_blob=True)
settings.register_profile(
    "mutation",
    deadline=None,
    max_examples=10,  # thousands of times; the schedules draw many more
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile(
    os.environ.get("ORCHESTRA_HYPOTHESIS") or ("ci" if os.environ.get("CI") else "dev")
)

EXCUSED = ("needs root", "needs Linux")
"""Reasons to skip that no installation mends, so that they are no failure under ``ORCHESTRA_REQUIRE=all``."""


@pytest.fixture(scope="session", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Each async test runs on both; a test of something that needs uvicorn overrides this fixture."""
    return str(request.param)


@pytest.fixture(scope="session")
def require() -> Callable[..., None]:
    """
    Skip unless modules and programs are there: ``require(modules=["sep"], programs=["tc"], hint="pip install ...")``.

    Under ``ORCHESTRA_REQUIRE=all`` the skip is a failure, as every skip is.
    """

    def look(*, modules: tuple[str, ...] = (), programs: tuple[str, ...] = (), hint: str) -> None:
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        missing += [name for name in programs if shutil.which(name) is None]
        if missing:
            pytest.skip(f"{', '.join(missing)} is not here; {hint}")

    return look


def pytest_configure(config: pytest.Config) -> None:
    """A run that is itself beside another has nobody beside it: it is started with ``-p no:aside``."""
    config.pluginmanager.register(Aside(), "aside")


def _is_unexcused(report: pytest.TestReport | pytest.CollectReport) -> bool:
    if os.environ.get("ORCHESTRA_REQUIRE") != "all":
        return False
    if report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return False
    return not any(reason in str(report.longrepr) for reason in EXCUSED)


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    report.outcome = "failed"
    report.longrepr = f"skipped under ORCHESTRA_REQUIRE=all: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if _is_unexcused(report):
        _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if _is_unexcused(report):
        _refuse(report)
    return report


def pytest_report_header(config: pytest.Config) -> list[str]:
    profile: Any = settings.get_current_profile_name()
    required = os.environ.get("ORCHESTRA_REQUIRE") or "nothing"
    return [f"hypothesis profile: {profile}; a skip is a failure for: {required}"]
