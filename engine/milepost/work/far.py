"""Calling a function far away, so that what it raises comes back as what it was.

- Many errors cannot travel: an HTTP error holds a socket, and the class of another is known only
  where it was raised. Such a one is judged there, and comes back as its text and that judgement.
- It comes back as a value, so that no executor makes a fuss about work that is only tried again.
- What a call returns or raises is unpickled by whoever waits for it, and the call itself inside of
  our own `try`. An executor that does so itself takes what fails to load for a dead process.
"""

from __future__ import annotations

import contextlib
import pickle
from concurrent.futures import BrokenExecutor
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from milepost.errors import MilepostError
from milepost.text import error_text
from milepost.work.classify import classify
from milepost.work.returned import check_returned

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


is_far: Final[ContextVar[bool]] = ContextVar("milepost_is_far", default=False)
"""Whether an executor runs this whose workers nobody here knows; it may be in this process."""


class Raised:
    """What a call in this process raised, instead of what it returned."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class PackedError:
    """What a call raised far away, pickled, and what stands for it where that does not load."""

    def __init__(self, error: Exception) -> None:
        self._stand_in = FarError(error_text(error), verdict=classify(error))
        self._data = b""
        with contextlib.suppress(Exception):  # an error's own pickling may raise what it likes
            self._data = pickle.dumps(error)

    def loaded(self) -> Exception:
        """The error, or what stands for it."""
        with contextlib.suppress(Exception):
            error: object = pickle.loads(self._data)  # noqa: S301  # ours
            if isinstance(error, Exception):
                return error
        return self._stand_in


class Packed:
    """What a call returned, pickled."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call it, where it is; what comes back is for `opened`."""
    token = is_far.set(True)
    try:
        value = function(*args)
        check_returned(value, "the function")
        return _packed(value)
    except Exception as error:  # it is for whoever handed the call in
        return PackedError(error)
    finally:
        is_far.reset(token)


def packed_call(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    """A call for `call_packed`. Errors: what pickling it raises."""
    from multiprocessing.reduction import ForkingPickler  # noqa: PLC0415  # slow, seldom needed

    return bytes(ForkingPickler.dumps((function, args), pickle.HIGHEST_PROTOCOL))


def call_packed(data: bytes) -> Any:
    """The same for a call that `packed_call` made: what loading it raises is the call's, too."""
    try:
        function, args = pickle.loads(data)  # noqa: S301  # ours
    except Exception as error:  # it is for whoever handed the call in
        return PackedError(error)
    return call(function, *args)


def call_here(function: Callable[..., Any], *args: Any) -> Any:
    """Call it in a thread: what it raises is told from what its executor raises when it breaks."""
    try:
        return function(*args)
    except BrokenExecutor as error:
        return Raised(error)


def nothing() -> None:
    """A call that cannot fail."""


def opened(value: Any) -> Any:
    """What the call returned. Errors: what it raised, and what loading its result raises."""
    if isinstance(value, Raised):
        raise value.error
    if isinstance(value, PackedError):
        raise value.loaded()
    return pickle.loads(value.data) if isinstance(value, Packed) else value  # noqa: S301  # ours


def _packed(value: Any) -> Any:
    if type(value) in _ARRIVES:
        return value
    try:
        return Packed(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    except Exception:  # the executor may know how it travels, as cloudpickle does
        return value
