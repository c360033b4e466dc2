"""
The contract of a transport as a suite: whatever is asked through it is answered as if it had been asked directly.

::

    @asynccontextmanager
    async def serve(far_end):
        async with my_server(far_end) as server, my_client(server.address) as asker:
            yield Link(asker, "local", server.kill)

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_my_transport(check):
        await check(serve)

or all at once: ``await check_transport(serve)``. `WIRE_CHECKS` are for transports with a wire in them.
"""

from __future__ import annotations

from typing import Any, cast

import anyio
import attrs

from orchestra.dialects.asks import AppendLog, Backup
from orchestra.dialects.native_table import BY_CLASS, WATCH_BY_CLASS
from orchestra.errors import (
    Conflict,
    Defect,
    EngineFailed,
    Forbidden,
    LimitReached,
    Malformed,
    NotFound,
    OrchestraError,
    PeerClosed,
    Rejected,
    StoreFailed,
    StoreTaken,
    Unauthenticated,
    Unavailable,
)
from orchestra.ports import (
    Lagged,
    Log,
    LogChunk,
    LogRead,
    Moved,
    OrderSeen,
    ProgressSeen,
    Push,
    Story,
    WatchStory,
)
from orchestra.statemachine.commands import CancelJob, Command, StageDraft, SubmitJob, Tick
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.queries import GetJob, GetOverview
from orchestra.statemachine.records import Cause
from orchestra.statemachine.replies import JobAccepted, JobChanged, Order, Overview, ReportsAnswered
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening
from orchestra.testing.transport_bench import (
    PATIENCE_S,
    Arrived,
    Check,
    FarEnd,
    Link,
    Serve,
    TransportBroken,
    expect,
)
from orchestra.testing.transport_samples import Samples, variants

__all__ = ["CHECKS", "WIRE_CHECKS", "FarEnd", "Link", "TransportBroken", "check_transport"]

AT_ONCE = 300
"""Questions that are asked together: more than a connection's buffers take in one go."""

ERRORS: tuple[OrchestraError, ...] = (
    Malformed("is no colour", where="stages[0].needs.cpu", remedy="use a number"),
    Unauthenticated("no token", where="Authorization"),
    Forbidden("not yours"),
    NotFound("there is no job 7", where="job_id"),
    Conflict("it is over", remedy="submit it again"),
    LimitReached("too many", where="limit", remedy="wait", retry_after_ms=2_500),
    Rejected("no"),
    Unavailable("not now"),
    StoreFailed("the disk did not answer"),
    StoreFailed("no space left on device", full=True),
    StoreTaken("somebody else writes"),
    EngineFailed("the cluster did not answer"),
    PeerClosed("gone"),
)
"""One of each kind, with the words that must arrive."""


async def check_transport(serve: Serve, *, wire: bool = True) -> None:
    """
    Run every check of `CHECKS`, and with ``wire`` of `WIRE_CHECKS`.

    Raises:
        TransportBroken: At the first law that does not hold.
    """
    for check in (*CHECKS, *(WIRE_CHECKS if wire else ())):
        await check(serve)


def _answers_of(asked: type[Any]) -> list[Any]:
    if asked is Story:
        return [(Samples(full=True).of(Moved),) * 3, ()]
    if asked is Log:
        return variants(LogRead)
    output = BY_CLASS[asked].output
    return [None] if output.cls is None else variants(output.cls)


async def _put(link: Link, asked: Any) -> Any:
    asker = link.asker
    match asked:
        case Story():
            return await asker.story(asked)
        case Log():
            return await asker.log(asked)
        case AppendLog(worker_id, incarnation, chunks):
            return await asker.append_log(worker_id, incarnation, chunks)
        case Backup(target):
            return await asker.backup(target)
        case Command():
            ask: Any = asker.ask
            return await ask(asked)
        case _:
            return await asker.answer(asked)


async def check_everything_goes_through(serve: Serve) -> None:
    """Each thing that can be asked arrives as it was sent, and each answer comes back as it was given."""
    far = FarEnd()
    async with serve(far) as link:
        for cls in BY_CLASS:
            for answer in _answers_of(cls):
                for asked in variants(cls):
                    far.arrived.clear()
                    far.answers[cls] = answer
                    heard = await _put(link, asked)
                    came = [arrived.asked for arrived in far.arrived]
                    expect(came == [asked] or _rejoined(came, asked), f"{asked} arrives as {came}")
                    names = {arrived.principal for arrived in far.arrived}
                    expect(names <= {link.principal}, "it is asked in the caller's name")
                    expect(heard == answer, f"{cls.__name__}: {answer} is answered as {heard}")


def _rejoined(came: list[Any], asked: Any) -> bool:
    return isinstance(asked, AppendLog) and not asked.chunks and came == []


async def check_errors_keep_their_words(serve: Serve) -> None:
    """A refusal is raised as the same class with the same words, for commands, queries and watches."""
    far = FarEnd()
    async with serve(far) as link:
        for error in ERRORS:
            for asked in (CancelJob("17"), GetJob("17"), Story(3)):
                far.answers[type(asked)] = error
                try:
                    heard = await _put(link, asked)
                except OrchestraError as raised:
                    _expect_same(raised, error)
                else:
                    raise TransportBroken(f"{error!r} is raised, not answered as {heard!r}")
            far.answers[WatchStory] = error
            try:
                async with link.asker.watch(WatchStory(3)):
                    raise TransportBroken(f"{error!r} is raised when a watch is opened")
            except OrchestraError as raised:
                _expect_same(raised, error)


def _expect_same(raised: OrchestraError, error: OrchestraError) -> None:
    expect(type(raised) is type(error), f"{error!r} is raised as {raised!r}")
    expect(str(raised) == str(error), f"the words {str(error)!r} come as {str(raised)!r}")
    for name in ("where", "remedy", "retry_after_ms", "full"):
        told, heard = getattr(error, name, None), getattr(raised, name, None)
        expect(told == heard, f"{error!r}.{name} is {told!r} and comes as {heard!r}")


async def check_keys_arrive(serve: Serve) -> None:
    """The idempotency key goes with its command and with no other."""
    far = FarEnd()
    far.answers[SubmitJob] = accepted = JobAccepted("id", 1, 1)
    job = SubmitJob("a job", (StageDraft("a stage", "app"),))
    async with serve(far) as link:
        for key in ("k", "!" * 200, "a/b?c=%20#;,"):
            expect(await link.asker.ask(job, key=key) == accepted, "the answer comes back")
            expect(far.arrived[-1] == Arrived(link.principal, job, key), f"the key {key} arrives")
        await link.asker.ask(job)
        expect(not far.arrived[-1].key, "without a key there is none")


def _cancelling(asked: CancelJob) -> JobChanged:
    return JobChanged(asked.job_id, JobStatus.CANCELLING)


def _each_by_name(asked: AttemptsReported) -> ReportsAnswered:
    return ReportsAnswered(tuple(report.attempt_id for report in asked.reports))


async def check_answers_find_their_questions(serve: Serve) -> None:
    """Many questions at once: each gets its own answer."""
    far = FarEnd()
    far.answers[CancelJob] = _cancelling
    heard: dict[str, str] = {}
    async with serve(far) as link:

        async def cancel(job_id: str) -> None:
            heard[job_id] = (await link.asker.ask(CancelJob(job_id))).job_id

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                for number in range(AT_ONCE):
                    group.start_soon(cancel, f"job-{number}")
    expect(len(heard) == AT_ONCE, "each question is answered")
    expect(all(mine == its for mine, its in heard.items()), "each gets its own answer")


def _pushes() -> list[Push]:
    draw = Samples(full=True)
    order = draw.of(Order)
    lined = attrs.evolve(order, template=b'{\n "a": [1,\n 2]\n}', item=b"", reason="")
    return [
        *(
            Moved(number, 5, "task", "id", "", "create", "queued", "\u00e4\n")
            for number in range(1, 400)
        ),
        OrderSeen(order),
        OrderSeen(lined),
        ProgressSeen("attempt", 0.25, "a quarter\r\nof it"),
        Lagged(399),
    ]


async def check_watch_is_complete(serve: Serve) -> None:
    """A watch tells everything, once, in order and unchanged, and ends when the far side ends it."""
    far = FarEnd()
    far.pushes = _pushes()
    async with serve(far) as link:
        for cls in WATCH_BY_CLASS:
            for watch in variants(cls):
                with anyio.fail_after(PATIENCE_S):
                    async with link.asker.watch(watch) as pushes:
                        expect(far.arrived[-1].asked == watch, f"{watch} arrives")
                        heard = [push async for push in pushes]
                expect(heard == far.pushes, f"{cls.__name__} tells everything in order")


async def check_watch_ends_at_both_ends(serve: Serve) -> None:
    """Entering returns when the watch stands, with nothing pushed yet; leaving it ends it at the far end too."""
    far = FarEnd()
    far.hold = True
    far.answers[GetOverview] = overview = Samples(full=True).of(Overview)
    async with serve(far) as link:
        with anyio.fail_after(PATIENCE_S):
            async with link.asker.watch(WatchStory()):
                expect(far.watching == 1, "the watch stands when it is entered")
                heard = await link.asker.answer(GetOverview())
                expect(heard == overview, "beside a watch questions are answered")
        await far.until(lambda end: end.watching == 0, "leaving a watch ends it at the far end")


async def check_cancelled_question_harms_nobody(serve: Serve) -> None:
    """A caller that gives up leaves the transport usable for others."""
    far = FarEnd()
    far.stalled.add(GetJob)
    far.answers[CancelJob] = _cancelling
    async with serve(far) as link:
        with anyio.move_on_after(PATIENCE_S) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(link.asker.answer, GetJob("17"))
                await far.until(lambda end: len(end.arrived) == 1, "the question arrives")
                group.cancel_scope.cancel()
        expect(not scope.cancelled_caught, "giving up does not wait for the answer")
        with anyio.fail_after(PATIENCE_S):
            heard = await link.asker.ask(CancelJob("17"))
        expect(heard == _cancelling(CancelJob("17")), "others go on")


async def check_output_arrives_whole(serve: Serve) -> None:
    """Output of any bytes and any length arrives complete and in order, in one message or several."""
    far = FarEnd()
    piece = bytes(range(256)) * 1_024
    chunks = [LogChunk("attempt", "stdout", n * len(piece), piece) for n in range(8)]
    async with serve(far) as link:
        await link.asker.append_log("worker", 3, chunks)
        came = [c for arrived in far.arrived for c in cast("AppendLog", arrived.asked).chunks]
        expect(came == chunks, "output arrives whole and in order")
        far.answers[Log] = LogRead(piece, 2**40)
        heard = await link.asker.log(Log("attempt", "stdout", 2**39))
        expect(heard == LogRead(piece, 2**40), "output comes back byte by byte")


async def check_long_messages_arrive(serve: Serve) -> None:
    """A job with a long list, and many large results, arrive complete."""
    far = FarEnd()
    items = tuple(b'{"tile": %d}' % number for number in range(150_000))
    job = SubmitJob("a long job", (StageDraft("a stage", "app", over=items),))
    far.answers[SubmitJob] = JobAccepted("id", 1, len(items))
    largest = b'"' + b"x" * (1024 * 1024 - 2) + b'"'
    reports = tuple(
        AttemptReport(f"attempt-{n}", Happening.COMPLETED, largest, Cause.NONE) for n in range(3)
    )
    far.answers[AttemptsReported] = _each_by_name
    async with serve(far) as link:
        await link.asker.ask(job, key="long")
        expect(far.arrived == [Arrived(link.principal, job, "long")], "a long job arrives whole")
        far.arrived.clear()
        heard = await link.asker.ask(AttemptsReported("worker", 1, reports))
        came = [r for a in far.arrived for r in cast("AttemptsReported", a.asked).reports]
        expect(tuple(came) == reports, "all results arrive, in order")
        expect(heard.ignored == tuple(r.attempt_id for r in reports), "and so do the answers")


async def check_lost_connection_is_told(serve: Serve) -> None:
    """When the far end is cut off, whatever waits for it raises `Unavailable`, and so does whatever is asked next."""
    far = FarEnd()
    far.hold = True
    far.stalled.add(CancelJob)
    ended: list[str] = []
    async with serve(far) as link:

        async def ask() -> None:
            try:
                await link.asker.ask(CancelJob("17"))
            except Unavailable:
                ended.append("ask")

        async def watch() -> None:
            try:
                async with link.asker.watch(WatchStory()) as pushes:
                    async for _ in pushes:
                        raise TransportBroken("nothing was pushed")
            except Unavailable:
                pass
            ended.append("watch")

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                group.start_soon(watch)
                await far.until(lambda end: len(end.arrived) == 2, "both arrive")  # noqa: PLR2004  # as started above
                await link.cut()
        expect(sorted(ended) == ["ask", "watch"], "a lost connection ends whatever waits for it")
        try:
            with anyio.fail_after(PATIENCE_S):
                await link.asker.answer(GetOverview())
        except Unavailable:
            return
        raise TransportBroken("after a loss nothing is answered")


async def check_bugs_are_not_told(serve: Serve) -> None:
    """A bug at the far end is `Unavailable` here, and its inside stays there."""
    far = FarEnd()
    async with serve(far) as link:
        far.answers[GetJob] = Defect("the inside of it")
        try:
            await link.asker.answer(GetJob("17"))
        except Unavailable as error:
            expect("inside" not in str(error), "the inside of a bug stays where it is")
        else:
            raise TransportBroken("a bug is no answer")


async def check_nobody_sends_time(serve: Serve) -> None:
    """`Tick` is the orchestrator's own: it does not travel. Neither does a key that is none."""
    far = FarEnd()
    async with serve(far) as link:
        attempts: list[tuple[Command[Any], str]] = [(Tick(), ""), (CancelJob("17"), "\u00e4")]
        attempts += [(CancelJob("17"), "!" * 201), (CancelJob("17"), "a b")]
        for command, key in attempts:
            try:
                await link.asker.ask(command, key=key)
            except Malformed:
                continue
            raise TransportBroken(f"{command} with the key {key!r} is refused")
        expect(not far.arrived, "what is refused does not arrive")


CHECKS: tuple[Check, ...] = (
    check_everything_goes_through,
    check_errors_keep_their_words,
    check_keys_arrive,
    check_answers_find_their_questions,
    check_watch_is_complete,
    check_watch_ends_at_both_ends,
    check_cancelled_question_harms_nobody,
    check_output_arrives_whole,
    check_long_messages_arrive,
    check_lost_connection_is_told,
)
"""What every transport keeps."""

WIRE_CHECKS: tuple[Check, ...] = (check_bugs_are_not_told, check_nobody_sends_time)
"""What every transport with a wire in it keeps beside them."""
