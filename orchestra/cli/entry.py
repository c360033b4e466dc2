"""From the words of the command line to an exit code: parsing, help, and every error's last stop."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError

from orchestra.cli import exits
from orchestra.errors import Defect, Malformed, OrchestraError, Rejected, Unavailable

HELP = """Coordinates work: projects, jobs, tasks and the workers that run them.

Try it: `orchestra run PROJECT.toml`. On several machines: `orchestra serve` on one, `orchestra worker URL` on the others, then \
`orchestra submit PROJECT.toml`, `orchestra watch last`.
"""

COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("serve", "serving", "serve"),
    ("worker", "joining", "worker"),
    ("run", "running", "run"),
    ("submit", "submitting", "submit"),
    ("ls", "listing", "ls"),
    ("show", "listing", "show"),
    ("watch", "watching", "watch"),
    ("logs", "output", "logs"),
    ("why", "explaining", "why"),
    ("stop", "acting", "stop"),
    ("pause", "acting", "pause"),
    ("resume", "acting", "resume"),
    ("retry", "acting", "retry"),
    ("workers", "listing", "workers"),
    ("pause-worker", "acting", "pause_worker"),
    ("resume-worker", "acting", "resume_worker"),
    ("backup", "acting", "backup"),
    ("doctor", "doctor", "doctor"),
    ("diagram", "explaining", "diagram"),
)
"""Each command with its module and function. Only the one that is called for is loaded."""

ALONE = ("--help", "-h", "--version")


def _version() -> str:
    try:
        return version("orchestra-coordinator")
    except PackageNotFoundError:
        return "unknown (not installed)"


def _epilogue() -> str:
    lines = [f"* {code}: {told}" for code, told in exits.MEANING.items()]
    selectors = (
        "Selectors: 17, last, all, 3,5-8, 17.3 (task 3 of job 17), 17.3-9, last.3, or an id."
    )
    durations = "Durations: 90, 500ms, 10m, 1h30m."
    return "\n\n".join([selectors, durations, "Exit codes:", "\n".join(lines)])


def command_line(only: str = "") -> App:
    """The command line; with ``only`` a command's name nothing but that is loaded."""
    from importlib import import_module

    app = App(
        name="orchestra",
        help=HELP,
        help_epilogue=_epilogue(),
        help_format="markdown",
        help_formatter="default" if sys.stdout.isatty() else "plain",
        version=_version,
        version_format="plaintext",
        default_parameter=Parameter(negative=(), show_default=_tell_default),
        print_error=False,
        exit_on_error=False,
        result_action="return_value",
    )
    every = only not in {name for name, _, _ in COMMANDS}
    for order, (name, module, function) in enumerate(COMMANDS):
        if not every and name != only:
            continue
        loaded = import_module(f"orchestra.cli.{module}")
        app.command(getattr(loaded, function), name=name, sort_key=order, help_epilogue="")
    return app


def _tell_default(value: Any) -> str | None:
    # What is empty or off by default needs no words.
    return None if value in (None, "", (), False) else str(value)


def carry_out(words: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit code. Nothing is raised but SystemExit."""
    given = list(sys.argv[1:] if words is None else words)
    try:
        code = _obey(given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except BaseExceptionGroup as group:
        return _report(group)
    except Exception as error:  # noqa: BLE001 - the last stop: what is no error of ours is shown with its traceback
        return _report(error)
    return code


def _obey(words: list[str]) -> int:
    words, argv = _split_argv(words)
    if words and words[0].startswith("-") and words[0] not in ALONE:
        remedy = f"orchestra COMMAND {words[0]} ..."
        raise Malformed("an option stands after its command", where=words[0], remedy=remedy)
    command, bound, ignored = command_line(words[0] if words else "").parse_args(words)
    more: dict[str, Any] = {"argv": argv} if "argv" in ignored else {}
    return command(*bound.args, **bound.kwargs, **more) or exits.OK


def _split_argv(words: list[str]) -> tuple[list[str], tuple[str, ...] | None]:
    """What stands behind ``--`` of ``submit`` is a program's own command line and none of ours."""
    if words[:1] == ["submit"] and "--" in words:
        place = words.index("--")
        return words[:place], tuple(words[place + 1 :])
    return words, None


def _reader_left() -> int:
    # Whatever is still buffered has nowhere to go; without this the interpreter would complain at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exits.BROKEN_PIPE


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _report(error: BaseException) -> int:
    """Say what went wrong; the exit code. Of several errors the first that is told for is told."""
    from orchestra.cli.speech import complain

    leaves = list(_leaves(error))
    if any(isinstance(leaf, BrokenPipeError) for leaf in leaves):
        return _reader_left()
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return exits.INTERRUPTED
    if not all(isinstance(leaf, OrchestraError | TimeoutError | CycloptsError) for leaf in leaves):
        return _tell_defect(error)
    first = leaves[0]
    if any(isinstance(leaf, Defect) for leaf in leaves):
        return _tell_defect(error)
    if isinstance(first, CycloptsError):
        return _tell_usage(first)
    if isinstance(first, TimeoutError):
        complain(str(first) or "the time is over")
        return exits.TIMEOUT
    if isinstance(first, Rejected):
        complain(first.message, where=first.where, remedy=first.remedy)
    elif isinstance(first, Unavailable):
        complain(str(first).partition("; is the server running")[0], remedy=_remedy_of(first))
    else:
        complain(str(first))
    return exits.of_error(first) if isinstance(first, OrchestraError) else exits.USAGE


def _remedy_of(error: Unavailable) -> str:
    from orchestra.errors import PeerClosed, StoreFailed, StoreTaken

    if isinstance(error, StoreTaken):
        return "one process writes to a data file: use that one by --server URL, or stop it"
    if isinstance(error, StoreFailed):
        return "make room" if error.full else "orchestra doctor --data FILE looks at the file"
    if isinstance(error, PeerClosed) or type(error) is Unavailable:
        return "start a server with `orchestra serve`, or name yours by --server URL or ORCHESTRA_SERVER"
    return ""


def _tell_usage(error: CycloptsError) -> int:
    from orchestra.cli.speech import complain

    told, _, guess = str(error).rstrip(".").partition(" Did you mean ")
    remedy = f"did you mean {guess.partition('?')[0]}?" if guess else ""
    if not remedy:
        chain = " ".join(error.command_chain or ())
        remedy = f"orchestra {chain} --help" if chain else "orchestra --help"
    complain(told[:1].lower() + told[1:].rstrip("."), remedy=remedy)
    return exits.USAGE


def _tell_defect(error: BaseException) -> int:
    import traceback

    from orchestra.cli.speech import complain

    traceback.print_exception(error)
    complain("this is a bug of orchestra", remedy="please report it with the lines above")
    return exits.DEFECT
