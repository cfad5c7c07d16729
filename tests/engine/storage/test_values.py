"""Users' values: stored as plain data, or refused before anything is written, naming the place."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import math
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import EncodingError, MilepostError, RecordTooLargeError, SchemaError
from milepost.storage.values import (
    DEPTH_MAX,
    convert_value,
    decode_value,
    encode_value,
    plain_value,
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(),
    st.binary(max_size=30),
)
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def same(one: Any, other: Any) -> bool:
    """Equal in type as well; two that are not a number are the same."""
    # The text of plain data tells 1, 1.0 and True apart, and one nan is like another.
    return repr(one) == repr(other)


@given(plain)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    encoded = encode_value(value, "the data")
    assert same(decode_value(encoded, "the data"), value)
    assert same(plain_value(value, "the data"), value)


@given(st.binary(max_size=100))
def test_whatever_the_bytes_are_the_error_is_ours(data: bytes) -> None:
    with contextlib.suppress(MilepostError):
        decode_value(data, "the data")


def test_what_is_read_shares_nothing_with_what_was_given() -> None:
    value = {"list": [1]}
    stored = plain_value(value, "the data")
    value["list"].append(2)
    assert stored == {"list": [1]}


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Place(msgspec.Struct):
    code: str


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ((1, 2), [1, 2]),
        ({3}, [3]),
        (Colour.RED, "red"),
        (Point(1, 2.0), {"x": 1, "y": 2.0}),
        (Place("11110"), {"code": "11110"}),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
        (Decimal("1.50"), "1.50"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({1: "a", "1": "b"}, {1: "a", "1": "b"}),
        (bytearray(b"x"), b"x"),
    ],
)
def test_what_has_a_plain_form_is_stored_in_it(value: Any, stored: Any) -> None:
    assert plain_value(value, "the data") == stored


class Unknown:
    def __repr__(self) -> str:
        return "Unknown()"


@dataclasses.dataclass(frozen=True)
class Corner:
    x: int


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (Unknown(), "the data (Unknown)"),
        ({"a": [1, {"b": Unknown()}]}, "the data['a'][1]['b'] (Unknown)"),
        ([0, (1, Unknown())], "the data[1][1] (Unknown)"),
        ({"when": {Unknown(): 1}}, "the key Unknown() of the data['when'] (Unknown)"),
        ({"n": 2**64}, "the data['n'] (int)"),
        ([-(2**63) - 1], "the data[0] (int)"),
        ({"text": "\ud800"}, "the data['text'] (str)"),
        ({"a": {"\udfff": 1}}, "the key '\\udfff' of the data['a'] (str)"),
        ({"code": len}, "the data['code'] (builtin_function_or_method)"),
        ([1 + 2j], "the data[0] (complex)"),
        ({"lines": (line for line in "ab")}, "the data['lines'] (generator)"),
        (Exception("no"), "the data (Exception)"),
    ],
)
def test_what_cannot_be_stored_is_named(value: Any, place: str) -> None:
    with pytest.raises(EncodingError) as caught:
        encode_value(value, "the data")
    assert str(caught.value).startswith(f"{place} cannot be stored: ")
    assert isinstance(caught.value, TypeError)
    assert "plain data" in caught.value.hint


def test_a_key_that_could_not_be_read_back_is_refused_when_it_is_written() -> None:
    with pytest.raises(EncodingError, match="the data"):
        encode_value({"corners": {Corner(1): "a"}}, "the data")


def nested(depth: int, inner: Any) -> Any:
    for level in range(depth):
        inner = [inner] if level % 2 else {"a": inner}
    return inner


def test_the_deepest_value_that_is_possible() -> None:
    value = nested(DEPTH_MAX, 1)
    assert plain_value(value, "the data") == value
    assert plain_value(nested(DEPTH_MAX, "x"), "the data") == nested(DEPTH_MAX, "x")


@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, DEPTH_MAX + 2, 300, 5_000, 100_000])
def test_one_level_more_is_refused(depth: int) -> None:
    with pytest.raises(RecordTooLargeError, match="64 levels") as caught:
        encode_value(nested(depth, 1), "the data")
    assert "the data" in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_depth_is_bounded_in_keys_too() -> None:
    key: tuple[Any, ...] = ()
    for _ in range(DEPTH_MAX + 1):
        key = (key,)
    with pytest.raises(RecordTooLargeError):
        encode_value({key: 1}, "the data")


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a"])
@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 100_000])
def test_depth_is_bounded_when_reading_too(opening: bytes, depth: int) -> None:
    with pytest.raises(RecordTooLargeError):
        decode_value(opening * depth + b"\xc0", "snapshots/1.1.1.zst")


def test_cyclic_data_is_refused() -> None:
    around: dict[str, Any] = {}
    around["self"] = [around]
    with pytest.raises(RecordTooLargeError):
        encode_value(around, "the data")


def test_a_value_that_is_too_large_says_how_large() -> None:
    with pytest.raises(RecordTooLargeError, match=r"the data takes 1,003 bytes; at most 1,000"):
        encode_value(b"x" * 1_000, "the data", size_bytes_max=1_000)


def test_not_a_number_and_infinity_are_numbers_here() -> None:
    back = plain_value([math.nan, math.inf, -math.inf, -0.0], "the data")
    assert math.isnan(back[0])
    assert back[1:3] == [math.inf, -math.inf]
    assert math.copysign(1, back[3]) == -1


@pytest.mark.parametrize("data", [b"", b"\x91", b"\xc1", b"\xc0\xc0", b"\xa4ab", b"\xa2\xff\xff"])
def test_bytes_that_are_no_value_are_refused(data: bytes) -> None:
    with pytest.raises(SchemaError, match="the data does not decode"):
        decode_value(data, "the data")


def test_converting_to_the_type_asked_for() -> None:
    assert convert_value({"x": 1, "y": 2.0}, Point, "the data") == Point(1, 2.0)
    assert convert_value({"code": "11110"}, Place, "the data") == Place("11110")
    assert convert_value({"anything": [1]}, None, "the data") == {"anything": [1]}


def test_data_of_another_shape_names_the_field() -> None:
    with pytest.raises(SchemaError, match=r"the data does not fit Point: .*\$\.x"):
        convert_value({"x": "one", "y": 2.0}, Point, "the data")
    with pytest.raises(SchemaError, match=r"the data does not fit list"):
        convert_value({"x": 1}, list[int], "the data")
