"""``serve``: the orchestrator with its API."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
from cyclopts import Group, Parameter

from orchestra.cli import exits, speech
from orchestra.cli.apps import tasks_of
from orchestra.cli.settings import configured
from orchestra.config import Address, Config
from orchestra.errors import Malformed
from orchestra.statemachine.values import value

if TYPE_CHECKING:
    from orchestra.calls import TaskFunction

PROTECTION = Group("Protection", sort_key=50)


@value
class Readiness:
    """
    What programs are told at the start, as one line of JSON.

    Attributes:
        address: Where it listens, ``HOST:PORT``.
        url: The same for clients.
        start_ms: From the start of the process until connections are accepted.
        token_file: Where clients on this machine find the tokens; empty when none is needed.
        pid: The server's process.
    """

    address: str
    url: str
    data: str
    start_ms: int
    local_slots: int
    token_file: str
    pid: int


def serve(
    *,
    data: Annotated[
        str | None, Parameter(help="Keep everything in this file. Without it, in memory.")
    ] = None,
    listen: Annotated[
        str | None,
        Parameter(help="HOST:PORT; port 0 takes any free one. [default: 127.0.0.1:8440]"),
    ] = None,
    config: Annotated[
        str | None, Parameter(help="Settings file. [default: orchestra.toml, if there is one]")
    ] = None,
    local_worker: Annotated[
        str | None, Parameter(help="Slots of the worker inside; 0 for none. [default: cpus]")
    ] = None,
    dialect: Annotated[
        tuple[str, ...], Parameter(help="NAME=HOST:PORT: serve a dialect at the root of a port.")
    ] = (),
    app: Annotated[
        tuple[str, ...],
        Parameter(help="MODULE:APP: the worker inside runs the tasks of an orchestra.App too."),
    ] = (),
    folder: Annotated[
        str | None, Parameter(help="Where tasks get their working directories.")
    ] = None,
    tls_cert: Annotated[
        str | None, Parameter(group=PROTECTION, help="Certificate chain in PEM.")
    ] = None,
    tls_key: Annotated[
        str | None, Parameter(group=PROTECTION, help="Its private key in PEM.")
    ] = None,
    behind_proxy: Annotated[
        bool, Parameter(group=PROTECTION, help="A proxy on this machine ends TLS.")
    ] = False,
    allowed_host: Annotated[
        tuple[str, ...], Parameter(group=PROTECTION, help="A further name of this server.")
    ] = (),
    require_token: Annotated[
        bool, Parameter(group=PROTECTION, help="Ask for a token on loopback too.")
    ] = False,
    token_file: Annotated[
        str | None,
        Parameter(group=PROTECTION, help="Where tokens are kept. [default: beside the data]"),
    ] = None,
    ready_fd: Annotated[
        int | None, Parameter(help="Write the address as a line of JSON to this descriptor.")
    ] = None,
    json: Annotated[bool, Parameter(help="The same to stdout.")] = False,
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], help="Log every detail.")] = False,
) -> int:
    """
    Serve an orchestrator, its API, and a worker for the programs of jobs.

    Others join with `orchestra worker URL`. SIGTERM or Ctrl-C stop it in good order; a second one at once. Each setting may also stand in \
the environment (ORCHESTRA_LISTEN) or in orchestra.toml; the command line comes first.
    """
    from orchestra.cli.records import log_to_stderr

    flags: dict[str, object] = {
        "data": data,
        "listen": listen,
        "local_worker": local_worker,
        "dialects": dialect or None,
        "folder": folder,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "behind_proxy": behind_proxy or None,
        "allowed_hosts": allowed_host or None,
        "require_token": require_token or None,
        "token_file": token_file,
        "log_level": "debug" if verbose else None,
    }
    settings = configured(flags, config)
    log_to_stderr(settings.log_level)
    _serve(settings, tasks_of(app), ready_fd, json=json)
    speech.say("stopped")
    return exits.OK


def _serve(
    config: Config,
    tasks: dict[str, TaskFunction[Any, Any, Any]],
    ready_fd: int | None,
    *,
    json: bool,
) -> None:
    from orchestra import compose
    from orchestra.worker.detect import cpus

    slots = max(1, cpus() // 1_000) if config.local_worker is None else config.local_worker
    is_new = bool(config.data) and not Path(config.data).exists()

    def ready(address: Address) -> None:
        readiness = _readiness(config, address, slots)
        _tell(readiness, config, is_new=is_new)
        if json:
            speech.put_plain_json(readiness)
        if ready_fd is not None:
            _tell_descriptor(ready_fd, readiness)

    def dialect_ready(name: str, address: Address) -> None:
        scheme = "https" if config.tls else "http"
        speech.say(speech.clean(f"dialect {name}  {scheme}://{address}"))

    async def go() -> None:
        await compose.serve(
            config, tasks=tasks, slots=slots, ready=ready, signals=True, dialect_ready=dialect_ready
        )

    anyio.run(go, backend_options={"use_uvloop": _has_uvloop()})


def _has_uvloop() -> bool:
    from importlib.util import find_spec

    return find_spec("uvloop") is not None


def _readiness(config: Config, address: Address, slots: int) -> Readiness:
    import psutil

    from orchestra.transports.auth import token_needed

    start_ms = round((time.time() - psutil.Process().create_time()) * 1_000)
    shown = address
    if address.host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not listened on
        import socket

        shown = Address(socket.gethostname(), address.port)
    return Readiness(
        address=str(address),
        url=f"{'https' if config.tls else 'http'}://{shown}",
        data=config.data,
        start_ms=start_ms,
        local_slots=slots,
        token_file=config.token_path if token_needed(config) else "",
        pid=os.getpid(),
    )


def _tell(readiness: Readiness, config: Config, *, is_new: bool) -> None:
    kept = (
        f"{config.data}{' (new)' if is_new else ''}"
        if config.data
        else "in memory, nothing is kept"
    )
    worker = "no local worker"
    if readiness.local_slots:
        slots = readiness.local_slots
        worker = f"local worker with {slots} {'slot' if slots == 1 else 'slots'}"
    start = f"ready in {readiness.start_ms / 1_000:.2f} s"
    speech.say(speech.clean(f"orchestra  {readiness.url}  {kept}  {worker}  {start}"))
    token = f" --token-file {shlex.quote(readiness.token_file)}" if readiness.token_file else ""
    speech.say(speech.clean(f"workers join with:  orchestra worker {readiness.url}{token}"))
    if token:
        speech.say(
            "on other machines:  put the token from that file into one of your own, of mode 0600"
        )


def _tell_descriptor(descriptor: int, readiness: Any) -> None:
    import msgspec

    try:
        os.write(descriptor, msgspec.json.encode(readiness) + b"\n")
        if descriptor > 2:  # noqa: PLR2004 - the three standard streams stay open
            os.close(descriptor)
    except OSError as error:
        told = f"can not be written to: {error.strerror}"
        raise Malformed(told, where=f"--ready-fd {descriptor}") from None
