from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.dialects import units
from orchestra.errors import Malformed
from orchestra.statemachine.limits import TIME_MS_MAX


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("10m", 600_000),
        ("1h30m", 5_400_000),
        ("500ms", 500),
        ("1.5s", 1_500),
        ("2d", 172_800_000),
        ("1d2h3m4s5ms", 93_784_005),
        ("0s", 0),
        (90, 90_000),
        (0.25, 250),
        (0.1, 100),
    ],
)
def test_durations_are_read(written: object, ms: int) -> None:
    assert units.duration_ms(written) == ms


@pytest.mark.parametrize(
    "written",
    [
        *["", "10", "m", "10 m", "-1s", "1m1h", "1s1s", "1min", "\u0661s", "1e3s", "9" * 70 + "s"],
        *["101y", -1, True, None, float("nan"), float("inf"), [], 10**400, "40000d", 0.0001],
        "0.0001s",
    ],
)
def test_what_is_no_duration_is_refused_with_its_field(written: object) -> None:
    with pytest.raises(Malformed) as caught:
        units.duration_ms(written, where="stages.a.timeout")
    assert caught.value.where == "stages.a.timeout"


@given(st.integers(0, TIME_MS_MAX))
def test_a_duration_comes_back_from_its_text(ms: int) -> None:
    assert units.duration_ms(units.duration_text(ms)) == ms


def test_durations_are_written_with_the_longest_units_first() -> None:
    assert units.duration_text(5_400_000) == "1h30m"
    assert units.duration_text(0) == "0s"
    with pytest.raises(ValueError, match="negative"):
        units.duration_text(-1)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("2GiB", 2 * 1024**3),
        ("500MB", 500_000_000),
        ("0.5KiB", 512),
        ("1.1GiB", 1_181_116_006),
        ("3 MiB", 3 * 1024**2),
        ("7B", 7),
        (4096, 4096),
    ],
)
def test_sizes_are_read(written: object, size: int) -> None:
    assert units.size_bytes(written) == size


@pytest.mark.parametrize(
    "written", ["", "2", "GiB", "-1GiB", "2 giga", 1.5, -1, True, None, "9999PiB"]
)
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(Malformed) as caught:
        units.size_bytes(written, where="needs.memory")
    assert caught.value.where == "needs.memory"


def test_a_size_with_a_near_unit_is_answered_with_the_right_one() -> None:
    with pytest.raises(Malformed, match=r'did you mean "500MiB"\?'):
        units.size_bytes("500M")


@given(st.integers(0, units.AMOUNT_MAX))
def test_a_size_comes_back_from_its_text(size: int) -> None:
    assert units.size_bytes(units.bytes_text(size)) == size


def test_a_rounded_size_is_short() -> None:
    assert units.bytes_text(1_234_567) == "1234567B"
    assert units.bytes_text(1_234_567, rounded=True) == "1.2MiB"
    assert units.bytes_text(2 * 1024**3, rounded=True) == "2GiB"


@pytest.mark.parametrize(
    ("name", "written", "thousandths"),
    [
        ("cpu", 1, 1_000),
        ("cpu", 0.5, 500),
        ("cpu", "0.5", 500),
        ("gpu", 0.1, 100),
        ("memory", "1KiB", 1_024_000),
        ("memory", 2**30, 2**30 * 1000),
        ("licence", 3, 3_000),
    ],
)
def test_amounts_are_thousandths(name: str, written: object, thousandths: int) -> None:
    assert units.amount(name, written) == thousandths


@given(st.sampled_from(["cpu", "memory", "slots"]), st.integers(0, 10**12))
def test_an_amount_comes_back_from_its_text(name: str, count: int) -> None:
    thousandths = count * 1000 if name == "memory" else count
    assert units.amount(name, units.amount_text(name, thousandths)) == thousandths


@pytest.mark.parametrize("written", ["x", -1, 0.0001, "1e3", None, True, [], 1e300, float("nan")])
def test_what_is_no_amount_is_refused(written: object) -> None:
    with pytest.raises(Malformed) as caught:
        units.amounts({"cpu": written})
    assert caught.value.where == "needs.cpu"


def test_a_forgotten_unit_is_told() -> None:
    with pytest.raises(Malformed, match=r'did you mean "2GiB"\?') as caught:
        units.amounts({"memory": 2}, where="stages.a.needs")
    assert caught.value.where == "stages.a.needs.memory"


def test_amounts_are_sorted_and_zeros_left_out() -> None:
    assert units.amounts({"gpu": 1, "cpu": 0.5, "disk": 0}) == (("cpu", 500), ("gpu", 1_000))


@pytest.mark.parametrize(
    "needs", [[], "cpu", {1: 2}, {"": 1}, {"a b": 1}, {f"r{i}": 1 for i in range(40)}]
)
def test_what_is_no_table_of_amounts_is_refused(needs: object) -> None:
    with pytest.raises(Malformed):
        units.amounts(needs)


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=5),
    st.from_regex(r"[0-9.]{0,8}(ms|[smhd]|[kKMGT]i?B)?", fullmatch=True),
    st.lists(st.integers(), max_size=2),
)  # fmt: skip


@given(JUNK, st.dictionaries(st.one_of(st.text(max_size=8), st.integers()), JUNK, max_size=3))
def test_nothing_but_malformed_is_raised(value: object, needs: dict[object, object]) -> None:
    for read in (units.duration_ms, units.size_bytes, units.amounts):
        with contextlib.suppress(Malformed):
            read(value)
    with contextlib.suppress(Malformed):
        units.amounts(needs)
