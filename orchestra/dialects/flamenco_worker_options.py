"""The table ``[dialects.flamenco-worker]``: whose worker this is, and what it may run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from orchestra.config import DialectPort, parse_address
from orchestra.dialects.far_calls import FarCall
from orchestra.dialects.flamenco_worker_programs import Programs
from orchestra.dialects.quoting import nearest
from orchestra.errors import Malformed
from orchestra.statemachine.values import value

WHERE = "dialects.flamenco-worker"
HOSTNAME_CHARS_MAX = 100
PULL_PORT = 7_777
"""What a worker that does not listen says as its port, as those of 2015-03 do."""

_KNOWN = (
    "manager",
    "protocol",
    "hostname",
    "port",
    "folder",
    "roots",
    "scripts",
    "autoexec",
    "callers",
    "programs",
)


@value
class Place:
    """Where the manager is. ``prefix`` is the path in front, such as ``/flamenco``; usually empty."""

    host: str
    port: int
    prefix: str = ""

    def call(self, method: str, path: str, form: tuple[tuple[str, str], ...] = ()) -> FarCall:
        """A call to it."""
        return FarCall(self.host, self.port, method, f"{self.prefix}{path}", form)

    @property
    def shown(self) -> str:
        """The address for people."""
        return f"{self.host}:{self.port}{self.prefix}"


@value
class WorkerOptions:
    """
    How the worker behaves.

    Args:
        place: Its manager.
        pull: It asks for tasks (2015-03); else it is called (2015-02).
        hostname: Its name; empty for the machine's.
        port: What it registers with: where it is called.
        folder: Pull: what jobs bring along, and what is made of it. Absolute.
        programs: What may run.
        callers: Further addresses that the manager may call from, beside its own.
    """

    place: Place
    pull: bool
    hostname: str
    port: int
    folder: str
    programs: Programs
    callers: tuple[str, ...] = ()


def read_options(port: DialectPort) -> WorkerOptions:
    """The options of a dialect. Raises `Malformed` with the option's name."""
    table = dict(port.options)
    for key in table:
        if key not in _KNOWN:
            near = nearest(key, _KNOWN)
            remedy = f"did you mean {near}?" if near else f"it has {', '.join(_KNOWN)}"
            raise Malformed("there is no such option", where=f"{WHERE}.{key}", remedy=remedy)
    if "manager" not in table:
        remedy = 'such as manager = "127.0.0.1:7777"'
        raise Malformed("is missing", where=f"{WHERE}.manager", remedy=remedy)
    protocol = _text(table, "protocol", "pull")
    if protocol not in ("pull", "push"):
        raise Malformed("it is pull or push", where=f"{WHERE}.protocol")
    pull, hostname = protocol == "pull", _text(table, "hostname")
    if len(hostname) > HOSTNAME_CHARS_MAX:
        told = f"it is at most {HOSTNAME_CHARS_MAX} characters"
        raise Malformed(told, where=f"{WHERE}.hostname")
    folders = {name: _folders(table, name) for name in ("roots", "scripts")}
    autoexec = table.get("autoexec", False)
    if not isinstance(autoexec, bool):
        raise Malformed("it is true or false", where=f"{WHERE}.autoexec")
    return WorkerOptions(
        _place(_text(table, "manager")),
        pull,
        hostname,
        _port(table, port, pull=pull),
        _folder(table, pull=pull),
        Programs(_programs(table), folders["roots"], folders["scripts"], autoexec),
        _texts(table, "callers"),
    )


def _place(manager: str) -> Place:
    where = f"{WHERE}.manager"
    if manager.startswith("https://"):
        remedy = "http://..., or a proxy"
        raise Malformed("managers of Flamenco speak plain HTTP", where=where, remedy=remedy)
    authority, slash, path = manager.removeprefix("http://").partition("/")
    try:
        address = parse_address(authority)
    except ValueError as error:
        raise Malformed(str(error), where=where) from None
    if not path.isascii() or any(c.isspace() or c in "?#%" for c in path):
        raise Malformed("its path is no plain one", where=where)
    return Place(address.host, address.port, f"{slash}{path}".rstrip("/"))


def _port(table: Mapping[str, object], port: DialectPort, *, pull: bool) -> int:
    told = table.get("port")
    if told is None and pull:
        return PULL_PORT
    if told is None and (port.address is None or not port.address.port):
        remedy = "--dialect flamenco-worker=HOST:PORT"
        raise Malformed("a worker that is called has a port", where=f"{WHERE}.port", remedy=remedy)
    if told is None and port.address is not None:
        return port.address.port
    if not isinstance(told, int) or isinstance(told, bool) or not 1 <= told <= 65_535:  # noqa: PLR2004 - TCP's bound
        raise Malformed("it is a number from 1 to 65535", where=f"{WHERE}.port")
    return told


def _folder(table: Mapping[str, object], *, pull: bool) -> str:
    folder = _text(table, "folder").rstrip("/")
    if folder and (not folder.startswith("/") or ".." in folder.split("/")):
        raise Malformed("it is an absolute folder", where=f"{WHERE}.folder")
    if pull and not folder:
        remedy = 'such as folder = "/var/lib/flamenco-worker"'
        raise Malformed("is missing", where=f"{WHERE}.folder", remedy=remedy)
    return folder


def _text(table: Mapping[str, object], name: str, default: str = "") -> str:
    found = table.get(name, default)
    if not isinstance(found, str) or not found.isprintable() or (name in table and not found):
        raise Malformed("it is a text", where=f"{WHERE}.{name}")
    return found


def _texts(table: Mapping[str, object], name: str) -> tuple[str, ...]:
    found = table.get(name, ())
    if not isinstance(found, (list, tuple)):
        raise Malformed("it is a list of texts", where=f"{WHERE}.{name}")
    texts = cast("list[object]", found)
    return tuple(_text({name: each}, name) for each in texts)


def _folders(table: Mapping[str, object], name: str) -> tuple[str, ...]:
    found = _texts(table, name)
    if not all(each.startswith("/") for each in found):
        raise Malformed("they are absolute folders", where=f"{WHERE}.{name}")
    return found


def _programs(table: Mapping[str, object]) -> dict[str, str]:
    found = table.get("programs", {})
    if not isinstance(found, Mapping):
        raise Malformed("it is a table of texts", where=f"{WHERE}.programs")
    named = cast("Mapping[str, object]", found)
    return {name: _text({name: each}, name) for name, each in named.items()}
