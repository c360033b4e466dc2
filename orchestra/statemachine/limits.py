"""Every bound of the core and of what is allowed in, each with its reason. Times in milliseconds, sizes in bytes."""

from __future__ import annotations

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

HEARTBEAT_MS = 2 * SECOND_MS
"""How often a worker speaks: the TANGO guide's default."""

LEASE_MS = 6 * SECOND_MS
"""Three missed heartbeats: one may be lost and one late before work moves elsewhere."""

FENCE_MARGIN_MS = HEARTBEAT_MS
"""A worker ends its own attempts this long before an unrenewed lease ends, so that old and new never overlap."""

GRACE_MS = 5 * SECOND_MS
"""Each rung of the stop ladder (asked, TERM, KILL) gets this long unless the caller says otherwise."""

GRACE_MS_MAX = HOUR_MS
"""A rung longer than an hour would be a stop that nobody is waiting for."""

BACKOFF_MS = SECOND_MS
BACKOFF_MS_MAX = 5 * MINUTE_MS
"""Retries wait 1 s, 2 s, 4 s ... up to 5 min: long enough for an outage to pass, short enough to be waited for."""

LOSSES_MAX = 3
"""A task that was lost with its worker three times is taken to be what kills them, and fails (poison task)."""

RETRIES_MAX = 1_000
"""More tries than this are a loop, not a retry."""

TASKS_PER_JOB_MAX = 1_000_000
"""Positions in task ids are four characters of base 32 (1,048,576)."""

STAGES_PER_JOB_MAX = 100_000
"""Memory: one record each; a DAG of distinct tasks has one stage a task."""

UNFOLD_SLICE = 1_000
"""Tasks made, cancelled, skipped or lost in one step, and deadlines looked at: about 10 ms, so that others are answered in between."""

EDGES_PER_STAGE_MAX = 10_000
"""Stages that one stage may name in ``after``."""

NAME_CHARS_MAX = 200
"""Names are shown in one line of a table."""

REASON_CHARS_MAX = 2_000
"""A reason is a sentence or a traceback's last lines, not a log."""

TEMPLATE_BYTES_MAX = 256 * 1024
"""Options of one stage. Bigger inputs belong in a file or a dataset."""

RESULT_BYTES_MAX = 1024 * 1024
"""A result travels in a report and is kept in a row. Bigger outputs belong in a file or a dataset."""

PRIORITY_MAX = 1_000
"""Priorities reach from -1,000 to 1,000."""

AGING_MS = 10 * MINUTE_MS
"""
One level of priority is worth this much waiting: a job of priority 0 overtakes newer ones of priority 5 after 50 min.

It makes the order of two queued tasks independent of the present time, so the queue needs no re-sorting, and bounds
starvation: nothing waits behind newer work for longer than the difference in priority times this.
"""

RESERVE_AFTER_MS = MINUTE_MS
"""After waiting so long for room on busy workers, a task gets one reserved: smaller tasks can not starve a big one."""

LABELS_MAX = 64
RESOURCES_MAX = 32
"""Labels and counted resources a worker or stage may name; each is compared at every match."""

WORKERS_MAX = 100_000
SLOTS_MAX = 10_000
"""Attempts that one worker may hold; each is listed in its heartbeat."""

REPORTS_MAX = 1_000
"""Reports in one message from a worker."""

LOG_CHUNK_BYTES_MAX = 256 * 1024
LOG_BYTES_MAX = 16 * 1024 * 1024
"""Kept output of one stream of one attempt; what comes after is counted and dropped, and the log says so."""

PAGE_MAX = 500
"""Rows in one page of a list."""

BATCH_MAX = 512
"""Stimuli in one group commit: beyond some hundred the cost of a flush is already shared by all."""

ASKS_MAX = 10_000
"""Questions waiting for the orchestrator; beyond it callers wait (back-pressure), at the edge they get 429."""

RULES_MAX = 100_000
"""Follow-up moves in one step; more is a circle of rules and a defect."""

RECEIPT_MS = DAY_MS
"""How long a repeated key finds its first answer."""

RETENTION_MS = 10 * MINUTE_MS
"""A finished job stays in memory for so long; afterwards it is answered from the store."""

FINISHED_TASKS_MAX = 200_000
"""Finished tasks kept in memory; beyond it the oldest finished jobs leave before their retention ends."""

PROGRESS_MAX = 100_000
"""Attempts whose soft progress is remembered."""

FEED_BUFFER = 4_096
"""Story entries that a slow subscriber may lag before it is told to read on from the store."""

TIME_MS_MAX = 100 * 365 * DAY_MS
"""Longest accepted time limit: a hundred years, far from what overflows 63 bits."""

PROJECT_FILE_BYTES_MAX = 1024 * 1024
"""A project file is written by a person or a small program: 1 MiB holds some 5,000 stages. A longer one is an accident."""

ITEMS_BYTES_MAX = 64 * 1024 * 1024
"""All items of one job, unfolded: a small grid over long texts must not become gigabytes."""
