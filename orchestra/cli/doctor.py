"""``doctor``: looks at everything that work depends on, and says what to do."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import anyio
import attrs
from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.cli.reach import USUAL, Reach, reached
from orchestra.dialects import units
from orchestra.errors import OrchestraError, Unavailable
from orchestra.statemachine.counting import counted
from orchestra.statemachine.queries import GetOverview
from orchestra.statemachine.replies import Overview
from orchestra.statemachine.values import value

PYTHON_MIN = (3, 11)
CORRUPTING = ((3, 7, 0), (3, 51, 2))
"""SQLite from the first to the last of these can corrupt a WAL file that is reset while it is read."""

DISK_FREE_MIN = 1 << 30
"""Below 1 GiB a busy day's output fills the disk."""

DISK_FREE_NEEDED = 64 << 20
"""The WAL alone may need so much."""

SKEW_MS_MAX = 2_000
"""Times of tasks and workers would contradict each other visibly."""

YEAR_MIN = 2025
OPEN_FILES_MIN = 2_200
"""Connections (`limits.connections_max`) and some for the store and workers."""

ANSWER_S = 3.0
OK, LOOK, BROKEN = "ok", "look", "broken"


@value
class Finding:
    """What one check found: ``ok``, ``look`` (works, and could be better) or ``broken``."""

    check: str
    status: str
    told: str
    remedy: str = ""


def doctor(
    *,
    data: Annotated[
        str | None, Parameter(help="A data file to read from end to end, in use or not.")
    ] = None,
    json: Annotated[bool, Parameter(help="The findings as JSON.")] = False,
    reach: Reach = USUAL,
) -> int:
    """
    Look at all that work depends on, and say what to do.

    Python, SQLite, disk, clock, the data file and the server.

    The code is 1 when something is broken.
    """
    findings = [
        check_python(),
        check_sqlite(),
        *check_disk(data),
        check_clock(),
        check_open_files(),
    ]
    if data is not None:
        findings += examine_file(data)
    findings += anyio.run(check_server, reach)
    if json:
        speech.put_plain_json(findings)
    else:
        speech.put_table(("CHECK", "FOUND", ""), [(f.check, f.status, f.told) for f in findings])
        for finding in findings:
            if finding.remedy:
                speech.say(speech.clean(f"{finding.check}: {finding.remedy}"))
    return exits.FAILED if any(f.status == BROKEN for f in findings) else exits.OK


def check_python(found: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """The interpreter is one that we run on."""
    told = f"{platform.python_implementation()} {'.'.join(map(str, found))}"
    if found < PYTHON_MIN:
        return Finding("python", BROKEN, told, "install Python 3.11 or newer")
    return Finding("python", OK, told)


def check_sqlite(version: str | None = None) -> Finding:
    """The SQLite that the store uses is not one that loses writes."""
    if version is None:
        import apsw

        version = apsw.sqlite_lib_version()
    numbers = tuple(int(part) for part in version.split(".")[:3])
    if CORRUPTING[0] <= numbers <= CORRUPTING[1]:
        told = f"{version} can corrupt a database in WAL mode"
        return Finding("sqlite", BROKEN, told, "pip install --upgrade apsw")
    return Finding("sqlite", OK, f"{version}, brought by APSW")


def check_disk(path: str | None) -> Iterator[Finding]:
    """There is room where the data file lies (or here), and for working directories."""
    places = {"disk": Path(path).absolute().parent if path else Path.cwd()}
    places["temporary"] = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - looked at, nothing is made there
    for name, place in places.items():
        try:
            free = shutil.disk_usage(place).free
        except OSError as error:
            yield Finding(name, BROKEN, f"{place}: {error.strerror}", f"make {place}")
            continue
        told = f"{units.bytes_text(free, rounded=True)} free in {place}"
        if free < DISK_FREE_NEEDED:
            yield Finding(name, BROKEN, told, f"make room in {place}: a full disk stops the server")
        elif free < DISK_FREE_MIN:
            yield Finding(name, LOOK, told, f"make room in {place}")
        else:
            yield Finding(name, OK, told)


def check_clock(now_s: float | None = None) -> Finding:
    """The wall clock is set."""
    now = time.gmtime(time.time() if now_s is None else now_s)
    told = time.strftime("%Y-%m-%d %H:%M:%S UTC", now)
    if now.tm_year < YEAR_MIN:
        return Finding("clock", BROKEN, told, "set the clock (timedatectl set-ntp true)")
    return Finding("clock", OK, told)


def check_open_files(limit: int | None = None) -> Finding:
    """A server may open enough files at a time."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
    told = "any number" if soft == resource.RLIM_INFINITY else f"{soft} at a time"
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES_MIN:
        remedy = f"for more than {max(soft - 200, 0)} connections: ulimit -n {OPEN_FILES_MIN}"
        return Finding("open files", LOOK, told, remedy)
    return Finding("open files", OK, told)


def examine_file(path: str) -> list[Finding]:
    """The data file and its token file can be read from end to end."""
    from orchestra.storage.sqlite_files import check_file

    problems = check_file(path)
    findings = [Finding("data", BROKEN, problem) for problem in problems[:20]]
    if findings:
        remedy = f"keep a copy of {path} as it is, then put back the newest good backup"
        findings[-1] = attrs.evolve(findings[-1], remedy=remedy)
    else:
        parts = [part for part in (Path(path), Path(f"{path}-wal")) if part.exists()]
        size = units.bytes_text(sum(part.stat().st_size for part in parts), rounded=True)
        findings.append(Finding("data", OK, f"{path}, {size}, every row can be read"))
    tokens = Path(f"{path}.token")
    if tokens.exists() and tokens.stat().st_mode & 0o077:
        told = f"others can read {tokens}"
        findings.append(Finding("tokens", BROKEN, told, f"chmod 600 {tokens}, and make new tokens"))
    return findings


async def check_server(reach: Reach) -> list[Finding]:
    """The server answers, its clock agrees with ours, and it could read all of its rows."""
    try:
        with anyio.fail_after(ANSWER_S):
            async with reached(reach) as client:
                overview = await client.asker.answer(GetOverview())
    except Unavailable as error:
        return [Finding("server", LOOK, f"{reach.server}: {error}", "start one: orchestra serve")]
    except TimeoutError:
        told = f"{reach.server} did not answer within {ANSWER_S:.0f} s"
        return [Finding("server", BROKEN, told, "look at its log; is it frozen?")]
    except OrchestraError as error:
        return [
            Finding("server", BROKEN, f"{reach.server}: {error}", "give it a token: --token-file")
        ]
    return judge_overview(reach.server, overview, int(time.time() * 1_000))


def judge_overview(server: str, overview: Overview, now_ms: int) -> list[Finding]:
    """What a server's answer tells about it."""
    online = overview.workers.get("online", 0)
    told = f"{server}: {counted(online, 'worker')}, {overview.slots_held} of {counted(overview.slots, 'slot')} taken"
    found = [Finding("server", OK, told)]
    if not online:
        remedy = f"no worker is online: orchestra worker {server}"
        found = [Finding("server", LOOK, told, remedy)]
    skew_ms = overview.at_ms - now_ms
    if abs(skew_ms) > SKEW_MS_MAX:
        told = (
            f"the server's is {abs(skew_ms) / 1_000:.1f} s {'ahead' if skew_ms > 0 else 'behind'}"
        )
        found.append(Finding("clocks", LOOK, told, "synchronise both clocks (NTP)"))
    if overview.quarantined:
        told = f"{counted(len(overview.quarantined), 'row')} set aside: {', '.join(overview.quarantined[:3])}"
        remedy = (
            "orchestra doctor --data FILE on the server's machine names what is wrong with each"
        )
        found.append(Finding("rows", BROKEN, told, remedy))
    return found
