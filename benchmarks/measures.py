"""Which measures there are, who takes part, and what must hold. The bounds are the project's promises."""

from __future__ import annotations

from dataclasses import replace

from frame import Contender, Measure, Target
from wire_measures import BEATS, SUBMITS
from work_measures import GRAPH, GROWTH, PROGRAMS

LIMIT = Contender("SQLite limit (groups of 100)", "sqlite_limit.py")
OURS = "orchestra"
ONE_BY_ONE = "orchestra, one by one"
MAPS = "orchestra, a job each"
HUEYS = ("huey, consumer running", "huey, submit then drain")

THROUGHPUT = Measure(
    id="P1",
    title="Durable no-op tasks on SQLite, synchronous=FULL, end to end",
    contenders=(
        LIMIT,
        Contender(
            "huey, consumer running", "huey_throughput.py", ("--mode", "overlap"), peer="huey"
        ),
        Contender(ONE_BY_ONE, "ours_throughput.py", ("--mode", "clients")),
        Contender(
            "huey, submit then drain", "huey_throughput.py", ("--mode", "drain"), peer="huey"
        ),
        Contender(MAPS, "ours_throughput.py", ("--mode", "maps")),
        Contender(
            "DBOS, queue", "dbos_tasks.py", ("--mode", "queue", "--tasks", "500"), peer="dbos"
        ),
    ),
    columns=(
        ("tasks_per_s", "tasks/s", 0),
        ("p50_us", "p50 µs", 0),
        ("p99_us", "p99 µs", 0),
        ("memory_peak_mib", "peak MiB", 0),
    ),
    targets=(
        Target(
            "a job of 39 tasks from each of 256 submitters: at least 10 times the better huey",
            MAPS,
            "tasks_per_s",
            HUEYS,
            at_least=10,
        ),
        Target(
            "a job for each task, one after the other: at least 10 times the better huey",
            ONE_BY_ONE,
            "tasks_per_s",
            HUEYS,
            at_least=10,
        ),
        Target("15 times the better huey", MAPS, "tasks_per_s", HUEYS, at_least=15, goal=True),
        Target(
            "1/8 of the SQLite limit", MAPS, "tasks_per_s", (LIMIT.name,), at_least=1 / 8, goal=True
        ),
    ),
    remark=(
        "10,000 tasks (DBOS 500) from 256 submitters. huey: 256 threads call the task one by one, which is its only way, and do "
        "not wait. Ours, a job each: every submitter maps its 39 items in one job and waits for the results. Ours, one by one: "
        "every submitter submits a job of one task, waits for its result and goes on. Every submit, lease and end is durable "
        "before anyone hears of it, with its history. A task of the limit is one INSERT and two UPDATEs, nothing else. PgQueuer is "
        "a peer of the store on PostgreSQL, which is to come."
    ),
)

LATENCY = Measure(
    id="P2",
    title="One durable task on an idle system: from submit to result seen",
    contenders=(
        LIMIT,
        Contender("huey, 1 ms polls", "huey_latency.py", peer="huey"),
        Contender(OURS, "ours_latency.py"),
        Contender("DBOS, direct call", "dbos_tasks.py", ("--mode", "direct"), peer="dbos"),
    ),
    columns=(("p50_us", "p50 µs", 0), ("p99_us", "p99 µs", 0)),
    targets=(
        Target("p50 below huey's", OURS, "p50_us", ("huey, 1 ms polls",), at_most=1),
        Target("p50 below DBOS's", OURS, "p50_us", ("DBOS, direct call",), at_most=1),
        Target("0.6 times huey's", OURS, "p50_us", ("huey, 1 ms polls",), at_most=0.6, goal=True),
    ),
    remark="The limit's p50 is one commit of six small rows.",
)

QUEUED = Measure(
    id="P5",
    title="100,000 queued tasks in one job on a file",
    contenders=(Contender(OURS, "ours_queued.py"),),
    columns=(
        ("submit_ms", "submit ms", 0),
        ("unfold_ms", "all queued ms", 0),
        ("page_ms", "page ms", 1),
        ("why_ms", "why ms", 1),
        ("cancel_ms", "cancel answered ms", 1),
        ("closed_ms", "all cancelled ms", 0),
        ("bytes_per_task", "bytes a task", 0),
        ("disk_bytes_per_task", "disk bytes a task", 0),
    ),
    targets=(
        Target("submit answers within 1 s", OURS, "submit_ms", at_most=1_000),
        Target("a page within 500 ms", OURS, "page_ms", at_most=500),
        Target("why within 500 ms", OURS, "why_ms", at_most=500),
        Target("cancel answers within 500 ms", OURS, "cancel_ms", at_most=500),
        Target("≤ 0.6 KiB of memory a queued task", OURS, "bytes_per_task", at_most=614),
    ),
    remark="Page and why are asked both while the tasks unfold and afterwards; the slower one is shown.",
)

START = Measure(
    id="P9",
    title="Start: import, help, hello-world with a file, a server ready",
    contenders=(
        Contender("bare interpreter", "imports.py"),
        Contender("import huey", "imports.py", ("huey",), peer="huey"),
        Contender("import orchestra", "imports.py", ("orchestra",)),
        Contender("hello-world, huey", "huey_hello.py", peer="huey"),
        Contender("hello-world, orchestra", "ours_hello.py"),
        Contender("--help, huey", "commands.py", ("--of", "huey", "--what", "help"), "huey"),
        Contender("--help, orchestra", "commands.py", ("--what", "help")),
        Contender("ready, huey", "commands.py", ("--of", "huey"), "huey"),
        Contender("ready, orchestra", "commands.py"),
    ),
    columns=(
        ("import_cpu_ms", "import CPU ms", 0),
        ("ready_cpu_ms", "CPU ms until shown or ready", 0),
        ("ready_ms", "ms until then", 0),
        ("process_cpu_s", "process CPU s", 2),
        ("process_wall_s", "wall s", 2),
        ("modules", "modules", 0),
    ),
    targets=(
        Target("import ≤ 150 ms of CPU", "import orchestra", "import_cpu_ms", at_most=150),
        Target(
            "hello-world ≤ 0.5 s of CPU, process start to end",
            "hello-world, orchestra",
            "process_cpu_s",
            at_most=0.5,
        ),
        Target(
            "hello-world at most twice huey's CPU",
            "hello-world, orchestra",
            "process_cpu_s",
            ("hello-world, huey",),
            at_most=2,
            goal=True,
        ),
        *(
            Target(
                f"{told} at most twice huey's CPU",
                f"{what}, orchestra",
                "ready_cpu_ms",
                (f"{what}, huey",),
                at_most=2,
                goal=True,
            )
            for what, told in (("--help", "--help"), ("ready", "a server ready"))
        ),
    ),
    remark=(
        "huey is the lightest durable peer. Ready: huey's consumer of a new file with two threads, which serves no network; ours is "
        "`orchestra serve` with a new file, its API over HTTP accepting, and a worker for programs joined. CPU until ready is counted "
        "in steps of 10 ms."
    ),
)

CORE = Measure(
    id="P11",
    title="The core alone: one step",
    contenders=(
        Contender(OURS, "ours_core.py"),
        *(
            Contender(peer, "table_machines.py", ("--of", peer), peer)
            for peer in ("transitions", "python-statemachine")
        ),
    ),
    columns=(
        ("submit_us", "submit µs", 1),
        ("report_us", "report µs", 1),
        ("transition_us", "bare move µs", 2),
        ("claim_few_us", "claim of 1,000 µs", 1),
        ("claim_many_us", "claim of 100,000 µs", 1),
        ("claim_growth", "growth", 2),
    ),
    targets=(
        Target(
            "a claim among 100,000 costs at most twice one among 1,000",
            OURS,
            "claim_growth",
            at_most=2,
        ),
        Target("submit at most 20 µs", OURS, "submit_us", at_most=20, goal=True),
        Target("report at most 20 µs", OURS, "report_us", at_most=20, goal=True),
        Target("bare move at most 2.4 µs", OURS, "transition_us", at_most=2.4, goal=True),
        Target(
            "a bare move at most a third of transitions'",
            OURS,
            "transition_us",
            ("transitions",),
            at_most=1 / 3,
        ),
        Target(
            "a bare move at most 1/30 of python-statemachine's",
            OURS,
            "transition_us",
            ("python-statemachine",),
            at_most=1 / 30,
        ),
    ),
    remark=(
        "Submit: a job of one task, queued and leased in the same step. Report: it ran and completed, which ends the job. "
        "Claim: a report that frees a slot and leases the next task. Bare move: one row through the table, with its story and what "
        "undoes it; the other libraries change an attribute of an object."
    ),
)

POLLS = Measure(
    id="P12",
    title="1,000 workers of Flamenco's pull protocol on one core",
    contenders=(
        Contender("bare Starlette", "flamenco_polls.py", ("--server", "starlette")),
        Contender(OURS, "flamenco_polls.py", ("--server", "ours")),
    ),
    columns=(
        ("requests_per_s", "requests/s", 0),
        ("p50_ms", "poll p50 ms", 1),
        ("p99_ms", "poll p99 ms", 1),
        ("cpu_us", "CPU µs a request", 0),
        ("core_percent", "core used %", 0),
        ("most_requests_per_s", "most requests/s", 0),
    ),
    targets=(
        Target("1,000 workers take at most 90 % of the core", OURS, "core_percent", at_most=90),
        Target(
            "at most 3 times the CPU of a bare application",
            OURS,
            "cpu_us",
            ("bare Starlette",),
            at_most=3,
        ),
    ),
    remark=(
        "Each worker has an address and a connection of its own, and registers and asks for work once a second, all spread over the "
        "second; the server has one core to itself. Ours renews the worker's lease with each question. The bare application runs on "
        "uvicorn with h11 and answers the same bytes. Most: 64 workers ask as fast as they are answered by a client of one core."
    ),
)

SLOW_FLUSH_MS = 2.0
"""What an fsync costs on a plain SSD or a cloud disk, on top of the tenth of a millisecond that it costs here."""

SLOW_THROUGHPUT = replace(
    THROUGHPUT,
    flush_delay_ms=SLOW_FLUSH_MS,
    contenders=(
        LIMIT,
        Contender(HUEYS[0], "huey_throughput.py", ("--mode", "overlap", "--tasks", "1500"), "huey"),
        Contender(ONE_BY_ONE, "ours_throughput.py", ("--mode", "clients")),
        Contender(HUEYS[1], "huey_throughput.py", ("--mode", "drain", "--tasks", "1500"), "huey"),
        Contender(MAPS, "ours_throughput.py", ("--mode", "maps")),
        Contender("DBOS, queue", "dbos_tasks.py", ("--mode", "queue", "--tasks", "200"), "dbos"),
    ),
    targets=(
        Target("at least 10 times the better huey", MAPS, "tasks_per_s", HUEYS, at_least=10),
        Target(
            "a job of 39 tasks from each of 256 submitters: at least 80 times the better huey",
            MAPS,
            "tasks_per_s",
            HUEYS,
            at_least=80,
        ),
    ),
    remark="As without the delay; huey gets 1,500 tasks and DBOS 200, so that they take no minutes.",
)

SLOW_LATENCY = replace(
    LATENCY,
    flush_delay_ms=SLOW_FLUSH_MS,
    targets=(
        Target("p50 below huey's", OURS, "p50_us", ("huey, 1 ms polls",), at_most=1),
        Target("p50 at most 0.6 times huey's", OURS, "p50_us", ("huey, 1 ms polls",), at_most=0.6),
    ),
)

MEASURES = (
    THROUGHPUT,
    SLOW_THROUGHPUT,
    LATENCY,
    SLOW_LATENCY,
    SUBMITS,
    QUEUED,
    GROWTH,
    BEATS,
    GRAPH,
    PROGRAMS,
    START,
    CORE,
    POLLS,
)
"""In the order in which they are taken and shown."""
