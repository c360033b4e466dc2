"""The table ``[dialects.tango]``: the member containers and the workflows of a Project Manager. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from orchestra.config import DialectPort, parse_address
from orchestra.dialects.quoting import nearest
from orchestra.dialects.tango_places import Place, by_any_name, find_place
from orchestra.dialects.tango_secrets import read_secret
from orchestra.dialects.units import duration_ms
from orchestra.errors import Malformed
from orchestra.statemachine.values import value

WHERE = "dialects.tango"
ID_CHARS_MAX = 100
MEMBERS_MAX = 200
STAGES_MAX = 100
COUNT_MAX = 1_000

Workflow = Mapping[str, tuple[str, ...]]
"""Containers in their order, each with those that have to be done before."""


@value
class Options:
    """
    A Project Manager.

    Args:
        places: Its member containers by their own ids.
        names: The same by every id that stands for one.
        workflow: Of every project that has none of its own.
        projects: Workflows of projects, by user and project; an empty user is any.
        auto: A container starts when those before it are done. Without it, each is started by hand.
    """

    places: Mapping[str, Place]
    names: Mapping[str, Place]
    workflow: Workflow
    projects: Mapping[tuple[str, str], Workflow]
    auto: bool = True


def read_options(port: DialectPort) -> Options:
    """The options of a dialect. Raises `Malformed` with the option's name."""
    table = dict(port.options)
    members = _table(table.pop("members", {}), "members")
    if not members:
        remedy = '[dialects.tango.members.code_gen] with address = "127.0.0.1:8888"'
        raise Malformed("no member container is declared", where=f"{WHERE}.members", remedy=remedy)
    if len(members) > MEMBERS_MAX:
        raise Malformed(f"more than {MEMBERS_MAX} containers", where=f"{WHERE}.members")
    defaults = {key: table.pop(key) for key in _PLACE if key in table and key in _SHARED}
    places = {name: _place(name, given, defaults) for name, given in members.items()}
    names = by_any_name(places.values())
    usual = table.pop("workflow", list(places))
    workflow = read_workflow(usual, names, f"{WHERE}.workflow")
    projects: dict[tuple[str, str], Workflow] = {}
    for key, given in _table(table.pop("projects", {}), "projects").items():
        user_id, _, project_id = key.rpartition("/")
        where = f"{WHERE}.projects.{key}"
        projects[user_id, project_id] = read_workflow(given, names, where)
    mode = table.pop("mode", "auto")
    if mode not in ("auto", "manual"):
        raise Malformed("it is auto or manual", where=f"{WHERE}.mode")
    _nothing_else(table, ("members", "workflow", "projects", "mode", *_SHARED), WHERE)
    return Options(MappingProxyType(places), names, workflow, projects, mode == "auto")


def read_workflow(given: object, names: Mapping[str, Place], where: str) -> Workflow:
    """
    A workflow: a list of containers, one after the other, or a table from each container to those that it waits for.

    Raises:
        Malformed: A container is not declared, is named twice, or waits for itself.
    """
    if isinstance(given, (list, tuple)):
        listed = cast("Sequence[object]", given)
        found = [_known(each, names, where) for each in listed]
        pairs = {name: tuple(found[max(0, n - 1) : n]) for n, name in enumerate(found)}
    elif isinstance(given, Mapping):
        table = cast("Mapping[str, object]", given)
        found = [_known(each, names, where) for each in table]
        pairs = {}
        for name, before in zip(found, table.values(), strict=True):
            if not isinstance(before, (list, tuple)):
                raise Malformed("it is a list of containers", where=f"{where}.{name}")
            known = (
                _known(each, names, f"{where}.{name}") for each in cast("list[object]", before)
            )
            pairs[name] = tuple(dict.fromkeys(known))
    else:
        remedy = 'such as ["autonn", "code_gen"]'
        raise Malformed("it is a list or a table of containers", where=where, remedy=remedy)
    if not pairs or len(found) > STAGES_MAX:
        raise Malformed(f"it has 1 to {STAGES_MAX} containers", where=where)
    if len(pairs) < len(found):
        raise Malformed("a container is named twice", where=where)
    return _in_order(pairs, where)


def _in_order(pairs: Mapping[str, tuple[str, ...]], where: str) -> Workflow:
    """The same, with each container behind those that it waits for. Raises `Malformed` for a circle."""
    left = dict(pairs)
    done: dict[str, tuple[str, ...]] = {}
    while left:
        free = [name for name, before in left.items() if not set(before) & set(left)]
        if not free:
            raise Malformed(f"{', '.join(left)} wait for one another", where=where)
        for name in free:
            before = left.pop(name)
            if missing := [each for each in before if each not in pairs]:
                raise Malformed(f"it waits for {missing[0]}, which is no part of it", where=where)
            done[name] = before
    return MappingProxyType(done)


def _known(found: object, names: Mapping[str, Place], where: str) -> str:
    place = find_place(names, found) if isinstance(found, str) else None
    if place is None:
        there = ", ".join(sorted({each.container_id for each in names.values()}))
        shown = found if isinstance(found, str) and len(found) <= ID_CHARS_MAX else "this"
        raise Malformed(f"{shown} is no member container", where=where, remedy=f"there is: {there}")
    return place.container_id


def _place(name: str, given: object, defaults: Mapping[str, object]) -> Place:
    where = f"{WHERE}.members.{name}"
    if not name.isprintable() or not 1 <= len(name) <= ID_CHARS_MAX or " " in name:
        raise Malformed(f"a container's id has 1 to {ID_CHARS_MAX} visible characters", where=where)
    table = {"address": given} if isinstance(given, str) else dict(_table(given, f"members.{name}"))
    address = table.pop("address", None)
    if not isinstance(address, str):
        raise Malformed("its address is missing", where=where, remedy='address = "127.0.0.1:8888"')
    try:
        found = parse_address(address.removeprefix("http://").rstrip("/"))
    except ValueError as error:
        raise Malformed(str(error), where=f"{where}.address") from None
    fields: dict[str, Any] = {}
    for key, told in {**defaults, **table}.items():
        if key not in _PLACE:
            _nothing_else({key: told}, ("address", *_PLACE), where)
        field, read = _PLACE[key]
        fields[field] = read(told, f"{where}.{key}")
    return Place(name, found.host, found.port, **fields)


def _pause(found: object, where: str) -> int:
    ms = duration_ms(found, where=where)
    if not 10 <= ms <= 24 * 3_600_000:  # noqa: PLR2004 - a hundredth of a second to a day
        raise Malformed("it is 10ms to 24h", where=where)
    return ms


def _count(found: object, where: str) -> int:
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= COUNT_MAX:
        raise Malformed(f"it is a whole number from 0 to {COUNT_MAX}", where=where)
    return found


def _slots(found: object, where: str) -> int:
    if _count(found, where) == 0:
        raise Malformed("it is 1 at least", where=where)
    return cast("int", found)


def _output(found: object, where: str) -> str:
    if not isinstance(found, str) or not found.startswith("/") or not found.isprintable():
        remedy = "such as /tango/common/{user_id}/{project_id}/nn_model"
        raise Malformed("it is an absolute path", where=where, remedy=remedy)
    return found


def _aliases(found: object, where: str) -> tuple[str, ...]:
    if not isinstance(found, (list, tuple)):
        raise Malformed("it is a list of texts", where=where)
    listed = cast("Sequence[object]", found)
    if not all(isinstance(each, str) and 1 <= len(each) <= ID_CHARS_MAX for each in listed):
        raise Malformed("it is a list of texts", where=where)
    return tuple(cast("Sequence[str]", listed))


_PLACE: Mapping[str, tuple[str, Callable[[object, str], object]]] = {
    "heartbeat": ("heartbeat_ms", _pause),
    "call_limit": ("call_ms", _pause),
    "silent_after": ("silent_ms", _pause),
    "confused_after": ("confused_ms", _pause),
    "limit": ("limit_ms", lambda found, where: duration_ms(found, where=where)),
    "resumes": ("resumes", _count),
    "restarts": ("restarts", _count),
    "slots": ("slots", _slots),
    "output": ("output", _output),
    "secret": ("secret", read_secret),
    "aliases": ("aliases", _aliases),
}
_SHARED = (
    "heartbeat",
    "call_limit",
    "silent_after",
    "confused_after",
    "limit",
    "resumes",
    "restarts",
)
"""What may also stand in the table of the manager, for all its members."""


def _table(found: object, name: str) -> Mapping[str, object]:
    if not isinstance(found, Mapping):
        raise Malformed("it is a table", where=f"{WHERE}.{name}")
    return cast("Mapping[str, object]", found)


def _nothing_else(table: Mapping[str, object], known: Sequence[str], where: str) -> None:
    for key in table:
        near = nearest(key, known)
        remedy = f"did you mean {near}?" if near else f"it has {', '.join(known)}"
        raise Malformed("there is no such option", where=f"{where}.{key}", remedy=remedy)
