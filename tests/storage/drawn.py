"""Hypothesis strategies for what goes into a store."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs
from hypothesis import strategies as st

from orchestra.ports import Batch, LogChunk, Moved
from orchestra.statemachine.lifecycles import JobStatus, TaskStatus
from orchestra.statemachine.records import KIND_OF, KINDS, Job, Record, Task
from orchestra.testing import store_samples as samples

INTEGERS = st.integers(-(2**63), 2**63 - 1)
"""What a store has to take; the core's own limits are far inside."""


def of_type(hint: Any) -> st.SearchStrategy[Any]:
    """Values of an annotated type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is int:
        return INTEGERS
    if origin in (Union, UnionType):
        return st.one_of([of_type(each) for each in arguments])
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(of_type(arguments[0]), max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(*[of_type(each) for each in arguments])
    if origin in (dict, Mapping):
        return st.dictionaries(of_type(arguments[0]), of_type(arguments[1]), max_size=3)
    if attrs.has(hint):
        return built(hint)
    return st.from_type(hint)


def built(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Instances of an attrs class with every field drawn."""
    return st.builds(cls, **{name: of_type(hint) for name, hint in get_type_hints(cls).items()})


def records() -> st.SearchStrategy[Record]:
    """Any record with anything in it."""
    return st.one_of([built(cls) for cls in KINDS.values()])


JOBS = [samples.job(number) for number in (7, 8, 31, 32)]
ROWS = [*samples.loose(), *JOBS, *(part for job in JOBS for part in samples.parts(job.id))]


@st.composite
def rows(draw: st.DrawFn) -> Record:
    """A row of a small world, so that rows are replaced, dropped and put again, and jobs end and come alive."""
    row = draw(st.sampled_from(ROWS))
    if isinstance(row, Job):
        return attrs.evolve(row, status=draw(st.sampled_from(JobStatus)))
    if isinstance(row, Task):
        return attrs.evolve(row, status=draw(st.sampled_from(TaskStatus)))
    return row


def chunks() -> st.SearchStrategy[LogChunk]:
    return st.builds(
        LogChunk,
        st.sampled_from([samples.ATTEMPT, "another"]),
        st.sampled_from(["stdout", "stderr"]),
        st.integers(0, 60),
        st.binary(max_size=30),
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Batch]:
    """Batches that follow one another, as an orchestrator would make them, and some whose number is wrong."""
    batches: list[Batch] = []
    number, story_number = 1, 1
    for _ in range(draw(st.integers(1, 8))):
        puts = draw(st.lists(rows(), max_size=8, unique_by=lambda row: (type(row), row.id)))
        there = {(KIND_OF[type(row)], row.id) for row in puts}
        others = sorted({(KIND_OF[type(row)], row.id) for row in ROWS} - there)
        drops = draw(st.lists(st.sampled_from(others), max_size=3, unique=True))
        told = draw(st.lists(st.tuples(st.sampled_from(ROWS), st.text()), max_size=6))
        story = tuple(
            Moved(
                story_number + n,
                draw(st.integers(0, 2**40)),
                KIND_OF[type(row)],
                row.id,
                *"abc",
                text,
            )
            for n, (row, text) in enumerate(told)
        )
        logs = tuple(draw(st.lists(chunks(), max_size=4)))
        wrong = draw(st.integers(-2, 2)) if draw(st.integers(0, 5)) == 5 else 0
        batches.append(Batch(number + wrong, tuple(puts), tuple(drops), story, logs))
        if not wrong:
            number += 1
            story_number += len(story)
    return batches
