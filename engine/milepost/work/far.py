"""Calling a function far away, so that what it raises comes back as what it was.

- Many errors cannot travel: an HTTP error holds a socket. Such a one is judged where it was raised,
  and comes back as its text and that judgement.
- It comes back as a value, so that no executor makes a fuss about work that is only tried again.
- What a call returns is unpickled by whoever waits for it. An executor that does so itself takes a
  result that fails to load for a dead process.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, Final

from milepost.errors import MilepostError
from milepost.work.classify import classify

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.work.classify import Verdict


_ARRIVES: Final = frozenset({type(None), bool, int, float, str, bytes})
"""Types of values that always load."""


class FarError(MilepostError):
    """An error that could not travel.

    Attributes:
        verdict: What it was judged to be where it was raised.
    """

    _facts = ("verdict",)
    verdict: Verdict | None


class Raised:
    """What a call raised, instead of what it returned."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class Packed:
    """What a call returned, pickled."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call it, where it is; what comes back is for `opened`."""
    try:
        return _packed(function(*args))
    except Exception as error:  # it is for whoever handed the call in
        return Raised(_portable(error))


def opened(value: Any) -> Any:
    """What the call returned. Errors: what it raised, and what loading its result raises."""
    if isinstance(value, Raised):
        raise value.error
    return pickle.loads(value.data) if isinstance(value, Packed) else value  # noqa: S301  # ours


def _packed(value: Any) -> Any:
    if type(value) in _ARRIVES:
        return value
    try:
        return Packed(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    except Exception:  # the executor may know how it travels, as cloudpickle does
        return value


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # what was just made here
    except Exception:  # an error's own pickling may raise what it likes
        return FarError(f"{type(error).__name__}: {error}", verdict=classify(error))
    return error
