"""``submit``: a project file or one program, to a server."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path, PurePath
from typing import Annotated, Any

from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.cli.fields import amounts, duration_ms, pairs, seconds
from orchestra.cli.project import absolute
from orchestra.cli.reach import USUAL, Reach, with_client
from orchestra.client import Client
from orchestra.errors import Malformed
from orchestra.statemachine.commands import StageDraft, SubmitJob


def submit(
    file: Annotated[
        str | None,
        Parameter(name="PROJECT.toml", help="A project file; or else a program after --."),
    ] = None,
    /,
    *,
    name: Annotated[
        str | None, Parameter(help="What people see; the program's name by default.")
    ] = None,
    array: Annotated[
        str | None,
        Parameter(help="One task for each number, as 1-100 or 0-100:5; {item} is the number."),
    ] = None,
    needs: Annotated[
        tuple[str, ...], Parameter(help="Counted resources: cpu=2, memory=1GiB, gpu=1.")
    ] = (),
    label: Annotated[
        tuple[str, ...], Parameter(help="What the worker must be labelled with.")
    ] = (),
    retries: Annotated[int | None, Parameter(help="How often a failure is tried again.")] = None,
    timeout: Annotated[str | None, Parameter(help="Longest run of one try.")] = None,
    env: Annotated[
        tuple[str, ...], Parameter(help="NAME=VALUE for the program's otherwise clean environment.")
    ] = (),
    shared: Annotated[
        str | None, Parameter(help="A folder for all tasks, as {shared}; made if absent.")
    ] = None,
    key: Annotated[
        str, Parameter(help="Submit once: the same key and content again is the same job.")
    ] = "",
    project: Annotated[str | None, Parameter(name=["--project", "-p"], help="Whose it is.")] = None,
    priority: Annotated[
        int | None, Parameter(help="From -1000 to 1000; higher goes first.")
    ] = None,
    wait: Annotated[
        bool, Parameter(help="Watch it to its end; the exit code tells how it ended.")
    ] = False,
    wait_timeout: Annotated[
        str | None, Parameter(help="Wait at most so long, with code 124.")
    ] = None,
    json: Annotated[
        bool, Parameter(help="What was accepted (with --wait: the finished job) as JSON.")
    ] = False,
    quiet: Annotated[
        bool, Parameter(name=["--quiet", "-q"], help="Only the job's number.")
    ] = False,
    argv: Annotated[tuple[str, ...] | None, Parameter(parse=False)] = None,
    reach: Reach = USUAL,
) -> int:
    """
    Submit a project file, or one program.

    A program: submit [OPTIONS] -- PROGRAM ARGUMENTS.

    The program gets no shell. {item}, {shared}, {attempt}, {python} and {here} (the present folder) are filled in; {{ and }} are braces.
    """
    limit_s = seconds(wait_timeout, "--wait-timeout")
    single = {
        "--array": array, "--needs": needs, "--label": label, "--retries": retries,
        "--timeout": timeout, "--env": env, "--shared": shared,
    }  # fmt: skip
    command = _command(file, argv, single, name)
    command = _evolved(command, name=name, project=project, priority=priority)

    async def go(client: Client) -> int:
        from orchestra.cli.watching import watch_to_end

        accepted = await client.asker.ask(command, key=key)
        for warning in accepted.warnings:
            speech.warn(f"job {accepted.number}: {warning}")
        if not wait:
            if json:
                speech.put_json(accepted)
            elif quiet:
                speech.put(str(accepted.number))
            else:
                again = "  (accepted before under this key)" if accepted.repeated else ""
                tasks = f"{accepted.tasks} {'task' if accepted.tasks == 1 else 'tasks'}"
                speech.put(f"job {accepted.number}  {tasks}{again}")
                speech.say(f"follow it with: orchestra watch {accepted.number}")
            return exits.OK
        job = await client.job(accepted.job_id)
        return await watch_to_end(client, job, limit_s, json=json, quiet=quiet, replay=True)

    return with_client(reach, go)


def _command(
    file: str | None, argv: tuple[str, ...] | None, single: dict[str, Any], name: str | None
) -> SubmitJob:
    if file is not None and argv is not None:
        told = "there is a project file and a program"
        raise Malformed(told, where="submit", remedy="give one of them")
    if file is not None:
        from orchestra.cli.project import read_project

        given = [flag for flag, value in single.items() if value not in (None, ())]
        if given:
            remedy = "write it into the project file"
            raise Malformed("it is for a program after --", where=given[0], remedy=remedy)
        return read_project(file)
    if not argv:
        remedy = "orchestra submit PROJECT.toml, or orchestra submit -- PROGRAM ARGUMENTS"
        raise Malformed("there is nothing to submit", where="submit", remedy=remedy)
    return SubmitJob(name=name or PurePath(argv[0]).name[:200], stages=(_stage(argv, single),))


def _stage(argv: tuple[str, ...], single: dict[str, Any]) -> StageDraft:
    """One program as a stage, by the rules of project files."""
    from orchestra.dialects.fanout import unfold
    from orchestra.dialects.placeholders import early_filled

    unfolded = None if single["--array"] is None else unfold(single["--array"], "--array")
    known = {"here": str(Path.cwd())}
    if single["--shared"] is not None:
        known["shared"] = absolute(single["--shared"])
    keys = None if unfolded is None else unfolded.keys

    def filled(word: str, where: str) -> str:
        return early_filled(word, known, keys=keys, where=where)

    needs = amounts(single["--needs"], "--needs")
    memory = dict(needs).get("memory", 0) // 1_000
    env = pairs(single["--env"], "--env", "SCALE=2")
    template: dict[str, Any] = {
        "argv": [
            filled(_absolute(word) if at == 0 else word, f"argv[{at}]")
            for at, word in enumerate(argv)
        ],
        "env": {key: filled(value, f"--env {key}") for key, value in env.items()} or None,
        "folder": known.get("shared"),
        "memory_bytes": memory or None,
    }
    given = {key: value for key, value in template.items() if value is not None}
    timeout = single["--timeout"]
    return StageDraft(
        name="run",
        app="process",
        template=jsonlib.dumps(given, ensure_ascii=False).encode(),
        over=None if unfolded is None else unfolded.over,
        needs=needs,
        labels=tuple(single["--label"]),
        retries=single["--retries"] or 0,
        run_ms_max=None if timeout is None else duration_ms(timeout, "--timeout"),
    )


def _absolute(program: str) -> str:
    """``./find.sh`` means the one here: tasks have working directories of their own."""
    return absolute(program) if program.startswith(("./", "../")) else program


def _evolved(command: SubmitJob, **changes: Any) -> SubmitJob:
    import attrs

    return attrs.evolve(command, **{k: v for k, v in changes.items() if v is not None})
