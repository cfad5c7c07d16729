"""Every error is in one tree, carries its facts, and survives a process pool."""

from __future__ import annotations

import copy
import pickle
import traceback
from typing import Any

import pytest

from milepost import errors
from milepost.errors import (
    AlreadyLockedError,
    ChecksumMismatchError,
    ConfigurationError,
    EncodingError,
    MilepostError,
    RecordTooLargeError,
    StorageError,
    StoreNotFoundError,
    UnsupportedVersionError,
)

KINDS: list[type[MilepostError]] = sorted(
    (
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, MilepostError)
    ),
    key=lambda kind: kind.__name__,
)


def facts(kind: type[MilepostError]) -> dict[str, Any]:
    return {name: f"a {name}" for name in kind._facts}


@pytest.mark.parametrize("kind", KINDS)
def test_facts_are_attributes(kind: type[MilepostError]) -> None:
    error = kind("it went wrong", hint="try again", **facts(kind))
    assert error.message == "it went wrong"
    assert error.hint == "try again"
    assert str(error).startswith("it went wrong")
    for name, value in facts(kind).items():
        assert getattr(error, name) == value
    bare = kind("it went wrong")
    assert bare.hint == ""
    assert all(getattr(bare, name) is None for name in kind._facts)
    assert str(bare) == "it went wrong"


@pytest.mark.parametrize("kind", KINDS)
def test_a_traceback_shows_the_hint_and_the_message_does_not(kind: type[MilepostError]) -> None:
    error = kind("it went wrong", hint="try again")
    assert "hint: try again" in "".join(traceback.format_exception(error))
    assert str(error) == error.message == "it went wrong"
    assert "hint" not in "".join(traceback.format_exception(kind("it went wrong")))


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_through_a_process_pool(kind: type[MilepostError]) -> None:
    error = kind("it went wrong", hint="try again", **facts(kind))
    for back in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(back) is kind
        assert vars(back) == vars(error)
        assert (str(back), back.message) == (str(error), error.message)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_when_it_is_raised(kind: type[MilepostError]) -> None:
    assert kind.__doc__
    assert kind.__name__.endswith("Error")


def test_a_fact_nobody_knows_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="StorageError has no fact named nonsense"):
        StorageError("no", nonsense=1)


def test_wrong_calls_can_be_caught_as_what_python_raises() -> None:
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(EncodingError, TypeError)
    assert issubclass(RecordTooLargeError, ValueError)
    assert issubclass(StoreNotFoundError, LookupError)
    assert issubclass(AlreadyLockedError, StorageError)
    assert issubclass(ChecksumMismatchError, errors.FormatError)
    assert issubclass(UnsupportedVersionError, errors.FormatError)
    assert not issubclass(StorageError, OSError)
