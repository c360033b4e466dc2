"""Measures of large graphs, of large queues, and of programs."""

from __future__ import annotations

from frame import Contender, Measure, Target

OURS = "orchestra, the core"
DASK = "dask.distributed, in process"
OURS_DURABLE = "orchestra, durable"
HYPERQUEUE = "HyperQueue"

GRAPH = Measure(
    id="P7",
    title="A graph of 100,000 tasks: CPU time for each",
    contenders=(
        Contender(OURS, "ours_dag.py"),
        Contender(DASK, "dask_dag.py", peer="dask"),
        Contender("dask, one thread, no scheduler", "dask_dag.py", ("--mode", "local"), "dask"),
    ),
    columns=(
        ("task_us", "CPU µs a task", 1),
        ("tasks", "tasks", 0),
        ("memory_peak_mib", "peak MiB", 0),
    ),
    targets=(
        Target("at most 1/50 of dask.distributed", OURS, "task_us", (DASK,), at_most=1 / 50),
        Target("at most 10 µs a task", OURS, "task_us", at_most=10),
    ),
    remark=(
        "Chains: each task waits for the one before. Ours is the pure core: the job accepted, its tasks made, given out and ended, with "
        "the story of every move; 256 ends come in one message. dask's time is that of its whole process, worker and client included, "
        "because its scheduler does not run without them; it gets 5,000 tasks."
    ),
)

PROGRAMS = Measure(
    id="P8",
    title="One process for each task: /bin/true on two slots",
    contenders=(
        Contender(HYPERQUEUE, "hyperqueue_true.py", peer="hyperqueue"),
        Contender(OURS_DURABLE, "ours_true.py"),
        Contender("orchestra, in memory", "ours_true.py", ("--mode", "memory")),
    ),
    columns=(("tasks_per_s", "tasks/s", 0), ("process_cpu_s", "CPU s, all processes", 1)),
    targets=(
        Target(
            "at least HyperQueue's rate", OURS_DURABLE, "tasks_per_s", (HYPERQUEUE,), at_least=1
        ),
        Target(
            "twice HyperQueue's rate",
            OURS_DURABLE,
            "tasks_per_s",
            (HYPERQUEUE,),
            at_least=2,
            goal=True,
        ),
    ),
    remark=(
        "3,000 tasks. HyperQueue keeps nothing and its programs' output goes nowhere. Ours reads both outputs of each program, gives it a "
        "directory and a clean environment, and tells its end when its last descendant is gone; durable means that each submit, lease and "
        "end is flushed before anyone hears of it."
    ),
)

GROWTH = Measure(
    id="P5-1M",
    title="The core with 1,000,000 queued tasks beside 1,000",
    contenders=(Contender(OURS, "ours_growth.py"),),
    columns=(
        ("claim_us", "claim µs", 1),
        ("claim_growth", "times that of 1,000", 2),
        ("submit_us", "submit µs", 1),
        ("submit_growth", "times that of 1,000", 2),
        ("bytes_per_task", "bytes a task", 0),
    ),
    targets=(
        Target("a claim costs at most twice as much", OURS, "claim_growth", at_most=2),
        Target("a submit costs at most twice as much", OURS, "submit_growth", at_most=2),
        Target("≤ 0.6 KiB of memory a queued task", OURS, "bytes_per_task", at_most=614),
    ),
)
