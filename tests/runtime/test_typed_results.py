"""What a task's annotation says is what its result is, in process and over a network."""

from __future__ import annotations

import datetime
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import orchestra
from orchestra import Malformed, compose
from orchestra.config import Address, Config
from orchestra.encoding import converted, decode_all, encode, hints, result_type, written
from tests.typed import program

if TYPE_CHECKING:
    from elsewhere import Unseen

pytestmark = pytest.mark.anyio

DAY = datetime.date(2026, 2, 28)


@dataclass
class Point:
    x: float
    path: Path


async def test_results_are_what_type_checkers_believe() -> None:
    async with program.app.run(workers=2) as client:
        await program.play(client)
        await program.play_stages(client)


def test_results_are_what_type_checkers_believe_without_an_event_loop() -> None:
    with program.app.run_sync() as client:
        program.play_sync(client)


def test_results_are_what_type_checkers_believe_over_http() -> None:
    played = False

    async def main() -> None:
        stop = anyio.Event()

        async def play(url: str) -> None:
            nonlocal played
            async with orchestra.connect(url) as client:
                await program.play(client)
                await program.play_stages(client)
            played = True
            stop.set()

        async with anyio.create_task_group() as group:
            await compose.serve(
                Config(listen=Address("127.0.0.1", 0)),
                tasks=program.app.tasks,
                slots=2,
                ready=lambda address: group.start_soon(play, f"http://{address}"),
                stop=stop,
            )

    anyio.run(main)
    assert played


async def test_each_stage_has_its_own_type() -> None:
    """Text that is also base64, and whole numbers before fractions."""
    app = orchestra.App()

    @app.task
    async def text(number: int) -> str:
        return "aGVsbG8="

    @app.task
    async def code(text: str) -> bytes:
        return text.encode()

    async with app.run() as client:
        job = await client.submit(code.map(text.map(range(2))))
        assert await job.results() == [b"aGVsbG8="] * 2
        assert await job.results("text") == ["aGVsbG8="] * 2
        twice = await client.submit(code.map(code.map(["a"])))
        assert await twice.results() == await twice.results("code-2") == [b"YQ=="]
        assert await twice.results("code") == await twice.results(code) == [b"a"]


async def test_a_result_that_is_not_of_its_type_is_told_and_kept() -> None:
    app = orchestra.App()

    @app.task
    async def whole(number: int) -> int:
        return number or "none"  # type: ignore[return-value]  # the point of the test

    @app.task
    async def unseen(number: int) -> Unseen:
        return number

    async with app.run() as client:
        job = await client.submit(whole.map([1, 0]))
        with pytest.raises(Malformed) as told:
            await job.results()
        assert told.value.where == f"result of task {job.number}.2"
        assert "can not be read as int: Expected `int`, got `str`" in told.value.message
        assert [end.result async for end in job.ends()] == [b"1", b'"none"']
        job = await client.submit(unseen.map([1]))
        with pytest.raises(Malformed, match="its type 'Unseen' is not known at run time"):
            await job.results()


def there_and_back(value: object, wanted: Any) -> object:
    """As a result; that the same comes of it as an argument is seen on the way."""
    (result,) = decode_all([written(value)], wanted, lambda _: "it")
    import msgspec

    argument = converted(msgspec.json.decode(encode(value)), wanted)
    assert repr(argument) == repr(result)
    return result


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (Path("a/b"), Path),
        ([PurePosixPath("a")], list[PurePosixPath]),
        (None, Path | None),
        (Point(1.5, Path("a")), Point),
        ({Path("a")}, set[Path]),
        (b"\0\xff", bytes),
        ({1: "a", 10: "b", 2: "c"}, dict[int, str]),
        ({uuid.UUID(int=1): DAY}, dict[uuid.UUID, datetime.date]),
        ((1, "a"), tuple[int, str]),
        (datetime.timedelta(seconds=1.5), datetime.timedelta),
        ({"a": [1]}, object),
    ],
    ids=lambda value: str(value) if isinstance(value, type) else None,
)
def test_arguments_and_results_travel_alike(value: object, wanted: Any) -> None:
    found = there_and_back(value, wanted)
    assert (found, type(found)) == (value, type(value))


def test_arrays_come_back_as_arrays(require: Callable[..., None]) -> None:
    require(modules=["numpy"], hint="pip install '.[examples]'")
    import numpy as np
    from numpy.typing import NDArray

    for array, wanted in (
        (np.array([[1, 2], [3, 4]], np.uint8), NDArray[np.uint8]),
        (np.array([0.1, math.nan], np.float32), NDArray[np.float32]),
        (np.array([True, False]), np.ndarray),
        (np.array([1.5]), NDArray[np.floating[Any]]),
    ):
        found = there_and_back(array, wanted)
        assert isinstance(found, np.ndarray)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
    found = there_and_back([np.float64(1.5)], list[np.float64])
    assert [type(each) for each in found] == [np.float64]  # type: ignore[attr-defined]  # a list
    for value, wanted in (
        ([256], NDArray[np.uint8]),
        ([1.5], NDArray[np.int64]),
        (["1.5"], NDArray[np.float64]),
        ([1.5, None], np.ndarray),
        ([[1], [1, 2]], np.ndarray),
        ("5", np.int64),
        (1.5, np.int64),
        ([1], np.int64),
        (None, np.float64),
    ):
        with pytest.raises(Malformed, match="can not be read as"):
            decode_all([written(value)], wanted, lambda _: "it")


def test_equal_arguments_are_the_same_bytes() -> None:
    assert encode({"b": 1, "a": {2: 1, 1: 2}}) == encode({"a": {1: 2, 2: 1}, "b": 1})
    assert encode({2: 1, 1: 2}) == encode({1: 2, 2: 1})


def test_the_order_of_a_result_is_kept() -> None:
    assert written({"b": 1, "a": 2}) == b'{"b":1,"a":2}'


@pytest.mark.parametrize("value", [object(), {"a": 1j}, lambda: 1])
def test_what_can_not_travel_is_told(value: object) -> None:
    with pytest.raises(Malformed, match="it can not travel as JSON"):
        encode(value)


def test_annotations_are_found_one_by_one() -> None:
    class Near:
        pass

    def nested(a: Unseen, b: int, c: str | Path, d: str | Path | None = None) -> Near:
        return Near()

    def astray() -> NotThere:  # type: ignore[name-defined]  # noqa: F821 - the point of the test
        return 1

    assert hints(nested) == {"a": "Unseen", "b": int, "c": str, "d": str | None, "return": Near}
    assert result_type(astray) == "NotThere"
    assert result_type(lambda: 1) is None
