"""
A member container of TANGO: a task of ours, or a program, that a Project Manager starts, asks and stops. Pure.

Source: the TANGO REST guide (``start``, ``stop``, ``status_request``; ``status_report`` to the manager), and what its programs were seen
to send. A member has a core of its own. In it each start is a job of one task, whose states are the guide's container diagram.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import attrs

from orchestra.config import DialectPort, parse_address
from orchestra.dialects.asks import Dialogue
from orchestra.dialects.far_calls import CallAll
from orchestra.dialects.quoting import nearest, shown
from orchestra.dialects.tango_calls import ID_NAMES, Calls, Replies, refuse, routes_of
from orchestra.dialects.tango_ends import Reporting
from orchestra.dialects.tango_jobs import Ids
from orchestra.dialects.tango_runs import ROUND_MS, STAGE, Runs
from orchestra.dialects.tango_secrets import read_secret
from orchestra.dialects.tango_words import container_name, host_names
from orchestra.dialects.units import duration_ms
from orchestra.dialects.wire import Chore, Dialect
from orchestra.errors import Malformed
from orchestra.statemachine.commands import StageDraft
from orchestra.statemachine.values import value

NAME = "tango-member"
WHERE = "dialects.tango-member"
CONTAINER_ID_CHARS_MAX = 100
TRAINER = "autonn"
"""The one container that TANGO's Project Manager asks for ``/resume``."""

_OPTIONS = (
    "container_id",
    "manager",
    "replies",
    "task",
    "argv",
    "env",
    "folder",
    "timeout",
    "secret",
    "hosts",
)


class RegisteredTask(Protocol):
    """What is needed of a task; `orchestra.App.task` makes them."""

    @property
    def name(self) -> str: ...
    @property
    def fn(self) -> Callable[..., Any]: ...
    @property
    def stage_options(self) -> Mapping[str, Any]: ...


class Tasks(Protocol):
    """Whatever has tasks, such as an `orchestra.App`."""

    @property
    def tasks(self) -> Mapping[str, RegisteredTask]: ...


@value
class Member:
    """
    A member container.

    Args:
        container_id: By which it reports to its manager.
        draft: The stage of a run, but for its ids.
        given: The ids that the task's function takes by name; None when a program is started, whose placeholders they fill.
        reporting: Where it reports; None for nowhere.
        replies: How it answers.
        secret: Asked of whoever starts or stops; empty for none.
        hosts: Further names by which it is called.
    """

    container_id: str
    draft: StageDraft
    given: tuple[str, ...] | None
    reporting: Reporting | None
    replies: Replies = Replies.GUIDE
    secret: str = attrs.field(default="", repr=False)
    hosts: tuple[str, ...] = ()

    def draft_for(self, ids: Ids) -> StageDraft:
        """The stage of a run of these ids."""
        named: dict[str, str] = dict(zip(ID_NAMES, ids, strict=True))
        if self.given is None:
            return attrs.evolve(self.draft, over=(json.dumps(named).encode(),))
        kwargs = {name: named[name] for name in self.given}
        return attrs.evolve(self.draft, template=json.dumps({"kwargs": kwargs}).encode())

    def dialect(self, now_ms: Callable[[], int], call_all: CallAll) -> Dialect:
        """
        The member as a dialect.

        Args:
            now_ms: A clock that never goes back.
            call_all: Makes the calls to the manager.
        """
        runs = Runs(self.draft_for, self.reporting, now_ms, call_all)
        calls = Calls(runs, self.replies, self.secret)
        chore = Chore(lambda: Dialogue(runs.report), ROUND_MS)
        return Dialect(
            NAME,
            routes_of(calls, self.replies),
            refuse,
            # Containers call themselves so in what they send; their manager calls them by the name of their host.
            hosts=("0.0.0.0", *host_names(self.container_id), *self.hosts),  # noqa: S104 - a value of Host, not an address
            chores=(chore,),
        )


def member(
    app: Tasks,
    *,
    container_id: str,
    task: str | RegisteredTask = "",
    argv: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    folder: str = "",
    timeout: str | float | None = None,
    manager: str = "",
    replies: str = Replies.GUIDE,
    secret: str = "",
    hosts: Sequence[str] = (),
) -> Member:
    """
    A member container that runs a task of an app, or a program.

    Args:
        container_id: By which the manager knows it, such as ``code_gen``.
        task: One of the app's tasks, or its name; the only one when left out. It is called with ``user_id`` and ``project_id``, as far
            as its function takes them.
        argv: A program with its arguments instead of a task; ``{user_id}`` and ``{project_id}`` are filled in, and what programs of a
            project file know, such as ``{python}``.
        env: Variables for the program.
        folder: A folder for the program that all runs share: ``{shared}``.
        timeout: How long the program may run. A task has its own.
        manager: Where ends are reported: ``HOST:PORT`` of the Project Manager, which may stand in ``http://HOST:PORT/PATH``. Empty for
            nowhere.
        replies: One of `Replies`. The container ``autonn`` does not reply as ``programs``: TANGO's own manager asks it for ``/resume``
            after a failure, takes the programs' empty answer for a new beginning, and would wait for ever.
        secret: Agreed upon with the manager: it has to come with each ``start`` and ``stop`` as ``X-Tango-Secret``, and goes along with the
            reports. TANGO's own manager knows no secrets; empty for none.
        hosts: Names by which the manager calls it, in ``Host``, besides those that follow from the container id (``code_gen``: also
            ``codegen``). A call by another name is refused, since a page that a browser shows could make it.

    Raises:
        Malformed: An argument is none of these; the message names it.
    """
    if not container_id.isprintable() or not 1 <= len(container_id) <= CONTAINER_ID_CHARS_MAX:
        told = f"must be 1 to {CONTAINER_ID_CHARS_MAX} visible characters"
        raise Malformed(told, where="container_id")
    way = _read_replies(replies, container_id)
    if secret:
        read_secret(secret, "secret")
    reporting = _read_manager(manager, container_id, secret) if manager else None
    given: tuple[str, ...] | None = None
    if argv:
        if task:
            raise Malformed("a task or a program, not both", where="argv")
        draft = _program(argv, env or {}, folder, timeout)
    elif env or folder or timeout is not None:
        raise Malformed("this is for a program", where="argv", remedy="give argv, or leave it out")
    else:
        found = _task(app.tasks, task)
        draft = StageDraft(STAGE, found.name, **found.stage_options)
        given = _given(found)
    return Member(container_id, draft, given, reporting, way, secret, _read_hosts(hosts))


def _read_replies(replies: str, container_id: str) -> Replies:
    if replies not in set(Replies):
        remedy = f"one of {', '.join(Replies)}"
        raise Malformed(f"{shown(replies)} is no way to reply", where="replies", remedy=remedy)
    if replies == Replies.PROGRAMS and container_name(container_id) == TRAINER:
        told = (
            f"a manager asks container_id = {shown(container_id)} for /resume after a failure,"
            f" and replies = {shown(str(replies))} answers that without doing anything"
        )
        raise Malformed(told, where="replies", remedy=f"replies = {shown(str(Replies.AUTONN))}")
    return Replies(replies)


def _read_hosts(hosts: Sequence[str]) -> tuple[str, ...]:
    for host in hosts:
        if not host or not host.isascii() or any(c.isspace() or c in "/:@,?#" for c in host):
            raise Malformed(
                f"{shown(host)} is no host's name", where="hosts", remedy="a name without a port"
            )
    return tuple(hosts)


def read_member(port: DialectPort, tasks: Mapping[str, RegisteredTask]) -> Member:
    """
    The member of a table ``[dialects.tango-member]``, whose keys are the arguments of `member`.

    Raises:
        Malformed: A key is unknown or of another kind.
    """
    options = dict(port.options)
    for key in options:
        if key not in _OPTIONS:
            near = nearest(key, _OPTIONS)
            remedy = f"did you mean {near}?" if near else f"it has {', '.join(_OPTIONS)}"
            raise Malformed("there is no such option", where=f"{WHERE}.{key}", remedy=remedy)
    if "container_id" not in options:
        remedy = 'such as container_id = "code_gen"'
        raise Malformed("is missing", where=f"{WHERE}.container_id", remedy=remedy)
    texts = {name: _text(options[name], name) for name in _OPTIONS if name in _TEXTS & set(options)}
    argv, env, hosts = options.get("argv", ()), options.get("env", {}), options.get("hosts", ())
    if not _is_texts(hosts):
        raise Malformed("it is a list of texts", where=f"{WHERE}.hosts")
    if not _is_texts(argv):
        raise Malformed("it is a list of texts", where=f"{WHERE}.argv")
    if not isinstance(env, Mapping) or not _is_texts(
        [*cast("Mapping[object, object]", env).values()]
    ):
        raise Malformed("it is a table of texts", where=f"{WHERE}.env")
    timeout = options.get("timeout")
    try:
        return member(
            _Found(tasks),
            **texts,
            argv=tuple(cast("Sequence[str]", argv)),
            env=dict(cast("Mapping[str, str]", env)),
            timeout=cast("str | float | None", timeout),
            hosts=tuple(cast("Sequence[str]", hosts)),
        )
    except Malformed as error:
        raise Malformed(
            error.message, where=f"{WHERE}.{error.where}", remedy=error.remedy
        ) from None


_TEXTS = frozenset({"container_id", "manager", "replies", "task", "folder", "secret"})


@value
class _Found:
    tasks: Mapping[str, RegisteredTask]


def _text(found: object, name: str) -> str:
    if not isinstance(found, str) or not found:
        raise Malformed("it is a text", where=f"{WHERE}.{name}")
    return found


def _is_texts(found: object) -> bool:
    return isinstance(found, (list, tuple)) and all(
        isinstance(each, str) for each in cast("Sequence[object]", found)
    )


def _read_manager(manager: str, container_id: str, secret: str) -> Reporting:
    if manager.startswith("https://"):
        raise Malformed("members report over plain HTTP", where="manager", remedy="http://...")
    authority, slash, path = manager.removeprefix("http://").partition("/")
    try:
        address = parse_address(authority)
    except ValueError as error:
        raise Malformed(str(error), where="manager") from None
    if not path.isascii() or any(c.isspace() or c in "?#%" for c in path):
        raise Malformed("its path is no plain one", where="manager")
    prefix = f"{slash}{path}".rstrip("/")
    return Reporting(container_id, address.host, address.port, prefix, secret)


def _program(
    argv: Sequence[str], env: Mapping[str, str], folder: str, timeout: str | float | None
) -> StageDraft:
    def filled(text: str) -> str:
        for name in ID_NAMES:
            text = text.replace(f"{{{name}}}", f"{{item.{name}}}")
        return text

    template: dict[str, object] = {"argv": [filled(word) for word in argv]}
    if env:
        template["env"] = {name: filled(text) for name, text in env.items()}
    if folder:
        template["folder"] = folder
    run_ms_max = None if timeout is None else duration_ms(timeout, where="timeout")
    content = json.dumps(template, ensure_ascii=False).encode()
    return StageDraft(STAGE, "process", content, run_ms_max=run_ms_max)


def _task(tasks: Mapping[str, RegisteredTask], task: str | RegisteredTask) -> RegisteredTask:
    name = task if isinstance(task, str) else task.name
    if not name and len(tasks) == 1:
        return next(iter(tasks.values()))
    if name in tasks:
        return tasks[name]
    there = ", ".join(tasks) or "none"
    told = f"there is no task {shown(name)}" if name else "it is not said which task"
    remedy = f"there is: {there}"
    if not tasks:
        remedy = "serve --app MODULE:APP makes the tasks of an app known; or give argv"
    raise Malformed(told, where="task", remedy=remedy)


def _given(task: RegisteredTask) -> tuple[str, ...]:
    """The ids that the function takes by name. Raises `Malformed` when it needs what a Project Manager does not give."""
    parameters = inspect.signature(task.fn).parameters.values()
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for number, parameter in enumerate(parameters):
        told = str(getattr(parameter.annotation, "__name__", parameter.annotation))
        is_context = told.rpartition(".")[2] == "Context" or (
            number == 0 and parameter.name == "ctx"
        )
        optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if not is_context and not optional and parameter.name not in names & set(ID_NAMES):
            told = f"{task.name} needs {parameter.name}, and a start brings user_id and project_id"
            raise Malformed(told, where="task", remedy=f"give {parameter.name} a default")
    return tuple(name for name in ID_NAMES if anything or name in names)
