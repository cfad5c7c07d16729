"""Calling a function far away, so that what it raises comes back as what it was.

- Many errors cannot travel: an HTTP error holds a socket. Such a one is judged where it was raised,
  and comes back as its text and that judgement.
- It comes back as a value, so that no executor makes a fuss about work that is only tried again.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from milepost.errors import MilepostError
from milepost.work.classify import classify

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.work.classify import Verdict


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


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call it, where it is; what it raises is returned as `Raised`."""
    try:
        return function(*args)
    except Exception as error:  # it is for whoever handed the call in
        return Raised(_portable(error))


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # what was just made here
    except Exception:  # an error's own pickling may raise what it likes
        return FarError(f"{type(error).__name__}: {error}", verdict=classify(error))
    return error
