"""Seeing who pulls items, so that a consumer that would lose work is refused.

- The loop's promise is that asking for the next item says that the last one is done. `list()`,
  `tuple()`, `sorted()` and `*` ask for all at once, and another thread asks ahead of the work: they
  would acknowledge everything with nothing done.
- `list`, `tuple` and `sorted` first ask the iterator for a length hint, from the very instruction
  that then pulls; a `for` loop does not. Unpacking is known by its instruction.
- In an event loop a second task that pulls while the first is at work would do the same.
- Where an interpreter does not tell, nothing is refused: `docs/consumers.md` says what cannot be
  seen, and how to write it.
"""

from __future__ import annotations

import dis
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from milepost.errors import ConsumerError

if TYPE_CHECKING:
    from asyncio import Task
    from types import CodeType, FrameType

_UNPACKING: Final = frozenset(
    dis.opmap[name]
    for name in (
        "LIST_EXTEND",
        "SET_UPDATE",
        "DICT_UPDATE",
        "UNPACK_SEQUENCE",
        "UNPACK_EX",
        "CONTAINS_OP",
        "CALL_FUNCTION_EX",
    )
    if name in dis.opmap
)
_LEAVING: Final = frozenset(
    dis.opmap[name] for name in ("POP_TOP", "POP_ITER", "END_FOR") if name in dis.opmap
)
_HINT: Final = (
    "do the work in the body of a for loop; for several at once use milepost.map or a job with"
    " workers=; to have them all at once, read the source itself"
)


class Consumer:
    """Who may pull from one iterator: the thread that made it, one item at a time."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._allowed: tuple[CodeType, int] | None = None
        self._hinted: tuple[FrameType, int] | None = None

    def note_length_hint(self) -> None:
        """Somebody asks how many items there will be; remember from where."""
        frame = _caller()
        if frame is not None:
            self._hinted = (frame, frame.f_lasti)

    def check(self) -> None:
        """Raise `ConsumerError` if the pull in hand would acknowledge work that is not done."""
        frame = _caller()
        if frame is None:
            return
        here = (frame.f_code, frame.f_lasti)
        if here == self._allowed and threading.get_ident() == self._thread:
            return
        if threading.get_ident() != self._thread:
            raise ConsumerError(
                "these items are pulled by another thread than the one that made them; it would"
                " acknowledge items whose work is not done",
                hint=f"make them in the thread that loops; {_HINT}",
            )
        hinted, self._hinted = self._hinted, None
        if hinted is not None and hinted[0] is frame and hinted[1] == frame.f_lasti:
            raise ConsumerError(
                "list(), tuple(), sorted() and the like pull all items at once, which would"
                " acknowledge them with nothing done",
                hint=_HINT,
            )
        if _instruction(frame) in _UNPACKING:
            raise ConsumerError(
                "unpacking pulls all items at once, which would acknowledge them with nothing done",
                hint=_HINT,
            )
        self._allowed = here


class TaskConsumer:
    """Who may pull from one async iterator: one task of the event loop at a time."""

    def __init__(self) -> None:
        self._task: weakref.ref[Task[Any]] | None = None

    def check(self) -> None:
        """Raise `ConsumerError` if the task that pulled before is still at work."""
        from asyncio import current_task  # noqa: PLC0415  # it is loaded where tasks run

        task = current_task()
        before = None if self._task is None else self._task()
        if before is task or task is None:
            return
        if before is not None and not before.done():
            raise ConsumerError(
                "these items are pulled by a second task while the first is still at work; it would"
                " acknowledge items whose work is not done",
                hint="loop in one task; for several at once use milepost.map, or a job with"
                " workers=",
            )
        self._task = weakref.ref(task)


def left_on_purpose() -> bool:
    """Whether the loop whose iterator is being dropped just now was left by `break` or `return`.

    These drop it by an instruction of their own; an exception drops it at the instruction that
    raised. Where the interpreter does not tell, the answer is no: then a watcher revives the work.
    """
    frame = _caller()
    return frame is not None and _instruction(frame) in _LEAVING


def _caller() -> FrameType | None:
    """The nearest frame that is not milepost's own."""
    if sys.implementation.name != "cpython":
        return None
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # no public way
    while frame is not None and frame.f_globals.get("__name__", "").startswith("milepost."):
        frame = frame.f_back
    return frame


def _instruction(frame: FrameType) -> int:
    return frame.f_code.co_code[frame.f_lasti]
