"""Pages of answers: what they hold, where they end, and from where the next one goes on."""

from __future__ import annotations

import pytest

from orchestra.errors import Malformed, NotFound
from orchestra.statemachine import ids, limits
from orchestra.statemachine.answers import resolve_job
from orchestra.statemachine.commands import OpenProject, StageDraft, SubmitJob
from orchestra.statemachine.queries import (
    GetJob,
    GetTask,
    ListJobs,
    ListProjects,
    ListResults,
    ListTasks,
    ListWorkers,
    Query,
    Why,
)
from orchestra.statemachine.records import Span
from orchestra.statemachine.reports import Happening
from orchestra.testing.core import Core

PAGED = (ListJobs, ListProjects, ListWorkers)
OF_A_JOB = (ListTasks, ListResults)
MANY = 2 * limits.UNFOLD_SLICE + 500


def pages(*, limit: int = 100, after: str = "") -> list[Query[object]]:
    """Every query that is answered in pages."""
    return [
        *(kind(limit=limit, after=after) for kind in PAGED),
        *(kind("1", limit=limit, after=after) for kind in OF_A_JOB),
    ]


@pytest.mark.parametrize("number", range(5))
def test_a_page_has_from_one_to_a_bounded_number_of_items(number: int) -> None:
    core = Core()
    core.submit()
    for limit in (1, limits.PAGE_MAX):
        core.ask(pages(limit=limit)[number])
    for limit in (0, limits.PAGE_MAX + 1):
        with pytest.raises(Malformed) as caught:
            core.ask(pages(limit=limit)[number])
        assert caught.value.where == "limit"


@pytest.mark.parametrize("number", range(5))
def test_a_cursor_of_63_bits_is_taken_and_what_is_none_is_named(number: int) -> None:
    core = Core()
    core.submit()
    core.ask(pages(after="9" * 18)[number])
    with pytest.raises(Malformed) as caught:
        core.ask(pages(after="two")[number])
    assert caught.value.where == "after"


def test_a_job_is_named_by_its_number_or_id_and_a_number_without_a_job_is_not_found() -> None:
    core = Core()
    id = core.submit().job_id
    assert [resolve_job(core.state, name) for name in ("1", "last", id)] == [id, id, id]
    digits = "0" * (ids.ROOT_CHARS - 1) + "1"
    assert resolve_job(core.state, digits) == digits, "an id may happen to have digits only"
    with pytest.raises(NotFound, match="no job 2"):
        resolve_job(core.state, "2")


def test_the_id_of_a_job_names_its_only_task_and_nothing_else_of_that_length_does() -> None:
    core = Core()
    job = core.submit()
    assert core.ask(GetTask(job.job_id)).job_id == job.job_id
    with pytest.raises(Malformed, match="names no job"):
        core.ask(GetTask("!" * (ids.ROOT_CHARS + 6)))


def test_the_first_task_of_a_job_may_be_still_to_come() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=Span(0, MANY)))
    core.submit()
    with pytest.raises(NotFound, match="not unfolded yet"):
        core.ask(GetTask("2.1"))


def test_why_of_the_id_of_a_job_of_several_tasks_is_about_the_job() -> None:
    core = Core()
    job = core.submit(StageDraft("a", "app", over=Span(0, 2)))
    assert core.ask(Why(job.job_id)) == core.ask(Why("1"))


def test_a_job_alone_is_told_with_its_stages_and_a_task_with_its_attempts() -> None:
    core = Core()
    core.join()
    core.submit()
    assert [stage.name for stage in core.ask(GetJob("1")).stages] == ["only"]
    assert core.ask(ListJobs()).items[0].stages == ()
    assert len(core.ask(GetTask("1")).attempts) == 1
    assert core.ask(ListTasks("1")).items[0].attempts == ()


def test_jobs_that_are_not_asked_for_do_not_end_the_page() -> None:
    core = Core()
    core.join()
    core.submit()
    core.submit()
    core.submit()
    page = core.ask(ListJobs(status="running"))
    assert ([job.number for job in page.items], page.next) == ([1], "")
    assert core.ask(ListJobs("nowhere")).next == ""
    page = core.ask(ListJobs(limit=2))
    assert ([job.number for job in page.items], page.next) == ([3, 2], "2")


def test_tasks_that_are_still_to_come_are_on_the_next_page() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=Span(0, MANY)))
    unfolded = core.state.unfolded(core.ask(GetJob("1")).id)
    page = core.ask(ListTasks("1", after=str(unfolded - 1)))
    assert ([task.position for task in page.items], page.next) == ([unfolded], str(unfolded))


def test_the_last_page_of_tasks_has_no_next() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=Span(0, 3)))
    page = core.ask(ListTasks("1", limit=3))
    assert ([task.position for task in page.items], page.next) == ([1, 2, 3], "")


def two_ends(core: Core) -> None:
    """A job of five tasks, of which the results are those of the stages b (2, 3) and c (4, 5)."""
    core.submit(
        StageDraft("a", "app"),
        StageDraft("b", "app", over=Span(0, 2), after=("a",)),
        StageDraft("c", "app", over=Span(0, 2), after=("a",)),
    )


def test_results_of_several_stages_come_one_after_the_other() -> None:
    core = Core()
    core.join()
    two_ends(core)
    core.run_all()
    page = core.ask(ListResults("1"))
    assert ([item.position for item in page.items], page.next) == ([2, 3, 4, 5], "")
    for limit in (1, 2, 3):
        found: list[int] = []
        after = ""
        for _ in range(5):
            page = core.ask(ListResults("1", limit=limit, after=after))
            assert len(page.items) <= limit
            found += [item.position for item in page.items]
            after = page.next
            if not after:
                break
        assert found == [2, 3, 4, 5]


def test_results_of_a_stage_end_at_its_own_last_task() -> None:
    core = Core()
    core.join()
    two_ends(core)
    core.run_all()
    page = core.ask(ListResults("1", "b"))
    assert ([item.position for item in page.items], page.next, page.done) == ([2, 3], "", True)


def test_a_job_without_tasks_has_no_results_and_no_next_page() -> None:
    core = Core()
    core.submit(StageDraft("a", "app", over=()))
    page = core.ask(ListResults("1"))
    assert (page.items, page.next, page.done, page.ended) == ((), "", True, True)


def test_a_page_of_results_goes_on_until_it_has_more_bytes_than_one_result_may_have() -> None:
    core = Core()
    core.join()
    core.submit(StageDraft("a", "app", over=Span(0, 4)))
    half = b'"' + b"x" * (limits.RESULT_BYTES_MAX // 2 - 2) + b'"'
    for _ in range(4):
        core.report(core.held()[0].attempt_id, result=half)
    page = core.ask(ListResults("1"))
    assert ([item.position for item in page.items], page.next) == ([1, 2, 3], "3")


def test_results_are_all_there_when_the_rest_of_the_stage_failed() -> None:
    core = Core()
    core.join(slots=2)
    core.submit(StageDraft("a", "app", over=Span(0, 2)), StageDraft("b", "other"))
    first, second = core.held()
    core.report(first.attempt_id)
    assert not core.ask(ListResults("1", "a")).done
    core.report(second.attempt_id, Happening.FAILED, message="no")
    page = core.ask(ListResults("1", "a"))
    assert (page.done, page.ended) == (True, False)


def test_of_many_stages_the_first_ten_are_named() -> None:
    core = Core()
    core.submit(*(StageDraft(f"s{number}", "app") for number in range(11)))
    with pytest.raises(NotFound) as caught:
        core.ask(ListResults("1", "x"))
    assert caught.value.remedy == "one of: " + ", ".join(f"s{number}" for number in range(10))


def test_pages_of_projects_and_workers_tell_where_to_go_on() -> None:
    core = Core()
    for name in "abcd":
        core.apply(OpenProject(name))
        core.join(name)
    projects, workers = core.ask(ListProjects(limit=3)), core.ask(ListWorkers(limit=3))
    assert (projects.next, workers.next) == (
        str(projects.items[2].number),
        str(workers.items[2].number),
    )
    assert [item.name for item in core.ask(ListProjects(after=projects.next)).items] == ["d"]
    assert [item.name for item in core.ask(ListWorkers(after=workers.next)).items] == ["d"]
    assert core.ask(ListProjects(limit=4)).next == core.ask(ListWorkers(limit=4)).next == ""


def test_a_project_that_nothing_was_submitted_to_has_no_jobs() -> None:
    core = Core()
    core.apply(OpenProject("empty"))
    core.apply(SubmitJob("j", (StageDraft("a", "app"),), project="full"))
    assert core.ask(ListJobs("empty")).items == ()
    assert [job.number for job in core.ask(ListJobs("full")).items] == [1]
