"""Answers about jobs that left memory: their rows are read back from the store and the core's own answers run on them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator

from orchestra.errors import Malformed, NotFound
from orchestra.ports import Moved, Push, Rows, Store, Story, WatchStory
from orchestra.statemachine import answer, ids, limits
from orchestra.statemachine.answers import resolve_job, resolve_task
from orchestra.statemachine.commands import (
    CancelJob,
    CancelTask,
    PauseJob,
    ResumeJob,
    RetryTask,
)
from orchestra.statemachine.queries import (
    GetJob,
    GetTask,
    ListJobs,
    ListResults,
    ListTasks,
    Query,
    Why,
)
from orchestra.statemachine.records import Counters, Job, Project, Record, Worker
from orchestra.statemachine.replies import JobPage, JobView
from orchestra.statemachine.state import State, load
from orchestra.statemachine.views import view_job

ABOUT_JOBS = (CancelJob, PauseJob, ResumeJob, CancelTask, RetryTask)
"""Commands about a job that was accepted before, which may have left memory since."""

_KEPT = 4
_SCANNED_MAX = 20
"""Pages of finished jobs that one filtered list reads at most; the page's cursor lets the reader go on."""


class History:
    """Reads of the store. Finished jobs do not change, so the last few are kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: OrderedDict[str, State] = OrderedDict()

    def forget(self, job_id: str) -> None:
        """The job changed (it was revived)."""
        self._kept.pop(job_id, None)

    async def story_between(self, after: int, until: int) -> list[Moved]:
        """The stored moves with numbers from ``after + 1`` to ``until``."""
        found: list[Moved] = []
        while after < until:
            page = await self._store.story(Story(after, min(limits.PAGE_MAX, until - after)))
            if not page:
                break
            found += page
            after = page[-1].number
        return found

    async def stored_then(
        self, watch: WatchStory, until: int, coming: AsyncIterator[Push]
    ) -> AsyncGenerator[Push]:
        """
        The stored moves that are watched for up to number ``until``, then what comes.

        ``coming`` was opened before ``until`` was read, so that there is no gap and nothing comes twice.
        """
        after = watch.after
        while after < until:
            page = await self._store.story(Story(after, limits.PAGE_MAX, watch.job_id))
            for moved in page:
                if moved.number <= until and (not watch.kinds or moved.kind in watch.kinds):
                    yield moved
            if len(page) < limits.PAGE_MAX:
                break
            after = page[-1].number
        async for push in coming:
            yield push

    async def find_job(self, live: State, selector: str) -> str:
        """As `resolve_job`, for jobs that are not in memory too. Raises `NotFound`, `Malformed`."""
        try:
            return resolve_job(live, selector)
        except NotFound:
            number = live.counters.jobs if selector == "last" else int(selector)
            if number < 1 or number >= 32**8:
                raise
            found = await self._store.rows(Rows("job", prefix=ids.prefix_of(number), limit=1))
            if not found:
                raise
            return found[0].id

    async def recalled(
        self, live: State, command: CancelJob | PauseJob | ResumeJob | CancelTask | RetryTask
    ) -> list[Record]:
        """
        The rows of the finished job that is meant; empty when there is none.

        A job that has ended is not in memory after a restart, and is answered for as it was before: who asks can not know of either.
        """
        by_task = isinstance(command, (CancelTask, RetryTask))
        named = command.task_id if by_task else command.job_id
        try:
            job_id = await self.find_job(live, named[: ids.ROOT_CHARS])
            rows = await self.rows_of(job_id)
        except (NotFound, Malformed):
            return []
        self.forget(job_id)
        return rows

    async def rows_of(self, job_id: str) -> list[Record]:
        """Every stored row of a job. Raises `NotFound`."""
        rows: list[Record] = []
        for kind in ("job", "stage", "task", "attempt"):
            after = ""
            while True:
                page = await self._store.rows(
                    Rows(kind, prefix=job_id, after=after, limit=limits.PAGE_MAX)
                )
                rows.extend(page)
                if len(page) < limits.PAGE_MAX:
                    break
                after = page[-1].id
        if not rows or not isinstance(rows[0], Job):
            raise NotFound(f"there is no job {job_id!r}", where="job_id")
        return rows

    async def answer(self, live: State, query: Query[object], now_ms: int) -> object:
        """Answer a query whose job is not in memory."""
        if isinstance(query, (GetJob, ListTasks, ListResults)):
            job_id = await self.find_job(live, query.job_id)
        elif isinstance(query, GetTask):
            job_id = await self._job_of_task(live, query.task_id)
        elif isinstance(query, Why):
            job_id = await self._job_of_task(live, query.subject)
        else:
            raise NotFound("there is no such thing")
        return answer(await self._state_of(live, job_id), query, now_ms)

    async def _job_of_task(self, live: State, selector: str) -> str:
        job_part = selector.partition(".")[0]
        if len(job_part) > ids.ROOT_CHARS:
            return ids.job_of(resolve_task(live, selector))
        return await self.find_job(live, job_part)

    async def _state_of(self, live: State, job_id: str) -> State:
        state = self._kept.get(job_id)
        if state is None:
            rows = await self.rows_of(job_id)
            number = rows[0].number if isinstance(rows[0], Job) else 0
            others: list[Record] = [*live.each(Project), *live.each(Worker)]
            state = load([*others, *rows, Counters(jobs=number)], 0)
            self._kept[job_id] = state
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(job_id)
        return state

    async def list_jobs(self, live: State, query: ListJobs, page: JobPage) -> JobPage:
        """Merge a page from memory with what the store holds beyond it."""
        newest = live.counters.jobs + 1
        number = min(int(query.after), newest) if query.after else newest
        project_id = live.index.project_names.get(query.project) if query.project else None
        if query.project and project_id is None:
            return page
        views: dict[int, JobView] = {view.number: view for view in page.items}
        found = len(views)
        after, more = ids.prefix_of(number), True
        for _ in range(_SCANNED_MAX):
            rows = await self._store.rows(
                Rows("job", after=after, limit=limits.PAGE_MAX, newest_first=True)
            )
            for row in rows:
                if not isinstance(row, Job) or row.number in views or live.find(Job, row.id):
                    continue
                if query.status and row.status != query.status:
                    continue
                if project_id is None or row.project_id == project_id:
                    views[row.number] = view_job(live, row, stages=False)
                    found += 1
            more = len(rows) == limits.PAGE_MAX
            if rows:
                after = rows[-1].id
            if not more or found >= query.limit:
                break
        items = [views[number] for number in sorted(views, reverse=True)][: query.limit]
        if len(views) > len(items):
            return JobPage(tuple(items), str(items[-1].number))
        return JobPage(tuple(items), str(ids.number_of(after)) if more else "")
