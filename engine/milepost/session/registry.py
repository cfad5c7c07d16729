"""The writers of this process: one for each session, closed at exit, refused after a fork."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING

from milepost.session.aside import forget_left, is_held_here
from milepost.types import Outcome

if TYPE_CHECKING:
    from milepost.session.session import Session
    from milepost.session.writer import Writer

_writers: weakref.WeakSet[Writer] = weakref.WeakSet()
_open: weakref.WeakValueDictionary[str, Session] = weakref.WeakValueDictionary()
_lock = threading.RLock()  # what is collected while it is held may want it, too


def note_writer(writer: Writer) -> None:
    """Note that it may have files open; a child that is forked must not keep them, and locks."""
    with _lock:
        _writers.add(writer)


def register(root: str, session: Session) -> None:
    """Note that this session writes the folder."""
    with _lock:
        _open[root] = session


def unregister(root: str, session: Session) -> None:
    """Note that it no longer does."""
    with _lock:
        if _open.get(root) is session:
            del _open[root]


def find(root: str) -> Session | None:
    """The session of this process that writes the folder, if there is one."""
    session = _open.get(root)
    return None if session is None or session.closed else session


def holds_a_lock() -> bool:
    """Whether this thread is within a call of any session, and holds what others may wait for."""
    with _lock:
        writers = list(_writers)
    return any(is_held_here(lock) for each in writers for lock in (each.lock, each.outputs.lock))


@atexit.register
def _close_all() -> None:
    # What ended the program, if an exception did: then the work wants to be carried on.
    error: BaseException | None = getattr(sys, "last_value", None)
    died = error is not None and not isinstance(error, KeyboardInterrupt)
    for session in list(_open.values()):
        with contextlib.suppress(Exception):
            session.end(Outcome.INTERRUPTED if died else Outcome.STOPPED, error)


def _refuse_in_child() -> None:
    global _lock  # noqa: PLW0603  # the parent's may be held by a thread that is not here
    _lock = threading.RLock()
    for writer in list(_writers):
        writer.abandon_after_fork()
    _open.clear()
    forget_left()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_refuse_in_child)
