"""
Flamenco's manager of 2015 over the one core: its tasks, workers and settings, and the jobs and projects of its server.

Workers of the pull protocol (2015-03) work against it as they are. Source: Flamenco's Manager API document, and the wire of its programs.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestra.config import DialectPort
from orchestra.dialects.asks import Ask, Dialogue, Known
from orchestra.dialects.far_calls import CallAll
from orchestra.dialects.flamenco_board import Board, read_numbers
from orchestra.dialects.flamenco_compilers import Compilers
from orchestra.dialects.flamenco_crew import Crew, Steps
from orchestra.dialects.flamenco_desk import Desk
from orchestra.dialects.flamenco_forms import NUMBER_MAX, path_number, read_form, whole
from orchestra.dialects.flamenco_listing import posted_fields
from orchestra.dialects.flamenco_options import read_options
from orchestra.dialects.flamenco_pull import Pull, Shelf
from orchestra.dialects.flamenco_push import Push
from orchestra.dialects.flamenco_replies import NOTHING, encode, refuse, told
from orchestra.dialects.wire import Chore, Dialect, Role, Route, WireRequest
from orchestra.errors import Forbidden
from orchestra.statemachine.values import value

NAME = "flamenco"
ROUND_MS = 1_000
"""As often as a worker asks for work; a lease has to outlast three rounds."""

FILE_BYTES_MAX = 1 << 30
"""What a job brings along, and what a worker sends back; ``limits.body_bytes_max`` of the server is the usual bound."""

TEXT_BYTES_MAX = 1024 * 1024


@value
class Surroundings:
    """
    What the manager needs of its machine.

    Args:
        now_ms: A clock that never goes back.
        weekday_and_minute: The local day of the week, from Monday as 0, and the minute of the day.
        shelf_at: The shelf in a folder.
        call_all: Calls workers of the push protocol.
    """

    now_ms: Callable[[], int]
    weekday_and_minute: Callable[[], tuple[int, int]]
    shelf_at: Callable[[str], Shelf]
    call_all: CallAll


def flamenco(
    port: DialectPort,
    surroundings: Surroundings,
    compilers: Compilers | None = None,
) -> Dialect:
    """
    The dialect with the options of `flamenco_options.Options`.

    Args:
        compilers: Kinds of tasks in place of the usual ones. Whoever runs the manager registers them; no request can.

    Raises:
        Malformed: An option is unknown or of another kind.
    """
    options = read_options(port)
    compilers = options.compilers() if compilers is None else compilers
    shelf = surroundings.shelf_at(options.storage) if options.storage else None
    desk = Desk(surroundings.now_ms)
    crew = Crew(desk, options, compilers, surroundings.weekday_and_minute)
    pull = Pull(crew, options, compilers, shelf)
    board = Board(crew, options, compilers, shelf, surroundings.call_all)
    routes = (
        *_worker_routes(pull, board),
        *_file_routes(pull, board),
        *_task_routes(board),
        *_people_routes(board),
    )
    push = Push(crew, compilers, surroundings.call_all)
    rounds = (crew.round, push.round)
    chores = tuple(Chore(lambda begin=begin: Dialogue(begin), ROUND_MS) for begin in rounds)
    return Dialect(NAME, routes, refuse, chores=chores)


def _route(
    name: str,
    call: str,
    ask: Callable[[WireRequest], Ask],
    role: Role,
    summary: str,
    *,
    files: bool = False,
) -> Route:
    method, _, path = call.partition(" ")
    return Route(
        name=name,
        method=method,
        path=path,
        decode=ask,
        encode=encode,
        role=role,
        body_bytes_max=FILE_BYTES_MAX if files else TEXT_BYTES_MAX,
        summary=summary,
        media_types=(),
    )


def _steps(begin: Callable[[WireRequest], Steps]) -> Callable[[WireRequest], Ask]:
    return lambda request: Dialogue(lambda: begin(request))


def _worker_routes(pull: Pull, board: Board) -> tuple[Route, ...]:
    def register(request: WireRequest) -> Ask:
        form = read_form(request)
        return Dialogue(lambda: pull.register(form, request.client))

    def report(request: WireRequest) -> Ask:
        ticket, form = path_number(request, "task"), read_form(request)
        return Dialogue(lambda: pull.report(ticket, form, request.client))

    def thumbnail(request: WireRequest) -> Ask:
        form = read_form(request)
        return Dialogue(lambda: pull.thumbnail(form, request.client))

    def poll(request: WireRequest) -> Ask:
        # Who asks is given work: a GET that a page must not make a browser send. No worker is one.
        if "sec-fetch-site" in request.headers:
            raise Forbidden("a browser is no worker", where="Sec-Fetch-Site")
        hostname = request.query.get("worker", "")
        return Dialogue(lambda: pull.poll(request.client, hostname))

    def rest(request: WireRequest) -> Ask:
        number, form = path_number(request, "worker"), read_form(request)
        return Dialogue(lambda: board.rest(number, form))

    def here(_: WireRequest) -> Ask:
        return Known(told(200, {"status": "online"}))

    worker = Role.WORKER
    return (
        _route("Info", "GET /info", here, worker, "Whether the manager is there"),
        _route("RegisterWorker", "POST /workers", register, worker, "A worker is there"),
        _route("CompiledTask", "GET /tasks/compiled/{any}", poll, worker, "A worker wants work"),
        _route("ReportTask", "PATCH /tasks/{task}", report, worker, "How a task is", files=True),
        _route(
            "Thumbnail",
            "POST /tasks/thumbnails",
            thumbnail,
            worker,
            "The last picture of a task",
            files=True,
        ),
        _route("EditWorker", "PATCH /workers/{worker}", rest, worker, "How a worker is"),
    )


def _file_routes(pull: Pull, board: Board) -> tuple[Route, ...]:
    def file(request: WireRequest) -> Ask:
        number, name = path_number(request, "job"), request.path["name"]
        ticket = name.removeprefix("dependencies_").removesuffix(".zip")
        if name == f"dependencies_{ticket}.zip" and ticket.isdecimal():
            known = whole(ticket, "name", 0, NUMBER_MAX)
            return Dialogue(lambda: pull.dependencies(number, known, request.client))
        return Dialogue(lambda: board.file(number, name))

    def zipped(name: str) -> Callable[[WireRequest], Ask]:
        def ask(request: WireRequest) -> Ask:
            number = path_number(request, "job")
            return Dialogue(lambda: board.file(number, f"{name}_{number}.zip"))

        return ask

    def dependencies(request: WireRequest) -> Ask:
        number = path_number(request, "job")
        return Dialogue(lambda: pull.dependencies(number, None, request.client))

    def setting(request: WireRequest) -> Ask:
        return Known(board.setting(request.path["name"]))

    worker, later = Role.WORKER, "As later workers ask"
    return (
        _route("File", "GET /static/storage/{job}/{name}", file, worker, "Files of a job"),
        _route("JobZip", "GET /tasks/zip/{job}", zipped("jobfile"), worker, later),
        _route(
            "SupportZip",
            "GET /tasks/zip/sup/{job}",
            zipped("jobsupportfile"),
            worker,
            later,
        ),
        _route(
            "DependencyZip",
            "GET /tasks/zip/dep/{job}",
            dependencies,
            worker,
            later,
        ),
        _route("Setting", "GET /settings/{name}", setting, worker, "Programs of a type, a setting"),
        _route("JobType", "GET /job-types/{name}", setting, worker, "As later workers ask for it"),
    )


def _task_routes(board: Board) -> tuple[Route, ...]:
    def post(request: WireRequest) -> Ask:
        form = read_form(request)
        return Dialogue(lambda: board.post(form))

    def delete(request: WireRequest) -> Ask:
        number = path_number(request, "task")

        def steps() -> Steps:
            yield from board.delete([number])
            return told(202, posted_fields())

        return Dialogue(steps)

    def delete_several(request: WireRequest) -> Ask:
        numbers = read_numbers(read_form(request).text("tasks", chars_max=4_096))

        def steps() -> Steps:
            yield from board.delete(numbers)
            return told(202, str(numbers[-1]))

        return Dialogue(steps)

    def has_file(request: WireRequest) -> Ask:
        number = path_number(request, "job")
        return Dialogue(lambda: board.has_file(number))

    operator, viewer = Role.OPERATOR, Role.VIEWER
    return (
        _route("PostTask", "POST /tasks", post, operator, "Take a task", files=True),
        _route(
            "ListTasks",
            "GET /tasks",
            _steps(lambda request: board.tasks(request.query.get("job_id", ""))),
            viewer,
            "Tasks of one job, or of the newest",
        ),
        _route("DeleteTask", "DELETE /tasks/{task}", delete, operator, "Stop a task"),
        _route("DeleteTasks", "DELETE /tasks", delete_several, operator, "Stop tasks"),
        _route("HasFile", "GET /tasks/file/{job}", has_file, viewer, "Whether a job has files"),
    )


def _people_routes(board: Board) -> tuple[Route, ...]:
    def enable(request: WireRequest) -> Ask:
        number, form = path_number(request, "worker"), read_form(request)
        return Dialogue(lambda: board.enable(number, form))

    def command(request: WireRequest) -> Ask:
        form = read_form(request)
        return Dialogue(lambda: board.command(form))

    def set_all(request: WireRequest) -> Ask:
        board.set(dict(read_form(request).fields))
        return Known(NOTHING)

    def set_one(request: WireRequest) -> Ask:
        value = read_form(request).text("value")
        board.set({request.path["name"]: value})
        return Known(told(200, {"value": value}))

    def numbered(name: str, begin: Callable[[int], Steps]) -> Callable[[WireRequest], Ask]:
        def ask(request: WireRequest) -> Ask:
            number = path_number(request, name)
            return Dialogue(lambda: begin(number))

        return ask

    operator, viewer = Role.OPERATOR, Role.VIEWER
    return (
        _route("ListWorkers", "GET /workers", _steps(lambda _: board.workers()), viewer, "All"),
        _route("Worker", "GET /workers/{worker}", numbered("worker", board.worker), viewer, "One"),
        _route(
            "EnableWorker",
            "PATCH /workers/status/{worker}",
            enable,
            operator,
            "Disable a worker",
        ),
        _route("ListJobs", "GET /jobs", _steps(lambda _: board.jobs()), viewer, "Newest jobs"),
        _route("Job", "GET /jobs/{job}", numbered("job", board.job), viewer, "One job"),
        _route("CommandJobs", "PUT /jobs", command, operator, "Start, stop, pause, requeue"),
        _route(
            "Picture",
            "GET /jobs/{job}/thumbnail",
            numbered("job", board.picture),
            viewer,
            "The last picture of a job",
        ),
        _route("Projects", "GET /projects", _steps(lambda _: board.projects()), viewer, "All"),
        _route(
            "Settings",
            "GET /settings",
            _steps(lambda request: board.settings(request.query.get("group", ""))),
            viewer,
            "Settings",
        ),
        _route("SetAll", "POST /settings", set_all, operator, "Keep settings"),
        _route("SetOne", "PATCH /settings/{name}", set_one, operator, "Keep one setting"),
    )
