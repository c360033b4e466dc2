"""Values compare, hash and tell themselves by their fields, as attrs classes do."""

from __future__ import annotations

import copy
from unittest import mock

import attrs
import pytest

from orchestra.statemachine.values import value


@value
class Empty:
    pass


@value
class One:
    only: int


@value
class Other:
    only: int


@value
class Two:
    first: object
    second: str = "x"


@value
class Secret:
    """Says nothing of itself."""

    token: str

    def __repr__(self) -> str:
        return "Secret"

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return 1


@attrs.frozen(slots=True)
class AsAttrsMakesIt:
    first: object
    second: str = "x"


def test_equal_fields_of_one_class_are_equal() -> None:
    assert Two((1, 2)) == Two((1, 2), "x")
    assert One(1) == One(1)
    assert Empty() == Empty()
    assert len({Two(1), Two(1), Two(1, "y"), One(1), One(1), Empty(), Empty()}) == 4


@pytest.mark.parametrize("other", [Two(2), Two(1, "y"), One(1), (1, "x"), None])
def test_anything_else_is_not_equal(other: object) -> None:
    assert Two(1) != other


def test_another_kind_of_thing_may_say_that_it_is_equal() -> None:
    @value
    class Number:
        number: int

    assert Number(1) == mock.ANY


def test_without_fields_all_are_equal() -> None:
    @value
    class Nothing:
        pass

    assert Nothing() == Nothing()
    assert len({Nothing(), Nothing(), Empty()}) == 2


def test_classes_with_the_same_fields_differ_in_their_hash_too() -> None:
    assert One(1) != Other(1)
    assert hash(One(1)) != hash(Other(1))


def test_what_can_not_be_hashed_is_not() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Two([]))


def test_it_is_told_as_attrs_tells_it() -> None:
    told = repr(AsAttrsMakesIt("a", "b"))
    assert repr(Two("a", "b")) == told.replace("AsAttrsMakesIt", "Two")
    assert repr(Empty()) == "Empty()"


def test_a_class_inside_a_function_is_told_by_its_own_name() -> None:
    @value
    class Inner:
        number: int

    assert repr(Inner(3)) == "Inner(number=3)"


def test_a_field_may_stay_untold_or_uncompared() -> None:
    @value
    class Door:
        name: str
        secret: str = attrs.field(default="", repr=False)
        opened: int = attrs.field(default=0, eq=False)

    assert repr(Door("d", "s3cret", 1)) == "Door(name='d', opened=1)"
    assert Door("d", "s", 1) == Door("d", "s", 2)
    assert hash(Door("d", "s", 1)) == hash(Door("d", "s", 2))
    assert Door("d", "s") != Door("d", "t")


def test_a_class_keeps_what_it_says_of_itself() -> None:
    assert repr(Secret("t")) == "Secret"
    assert Secret("t") != Secret("t")
    assert hash(Secret("t")) == 1


def test_values_are_copied() -> None:
    made = Two(One(1), "y")
    assert copy.deepcopy(made) == made
