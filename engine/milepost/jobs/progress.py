"""One line that says how far the work is, from the session's own numbers.

On a terminal it is rewritten in place; elsewhere a line is printed now and then.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Final

from milepost.model.estimate import (
    active_ns,
    batch_counts,
    is_growing,
    item_counts,
    items_waiting,
    percent,
    progress,
    remaining_ns,
)
from milepost.text import plural, shortened, text_width

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Self

    from milepost.session.session import Session

    ProgressFactory = Callable[[Session], AbstractContextManager[object]]

TERMINAL_SECONDS: Final = 0.2
QUIET_SECONDS: Final = 30.0
_COLUMNS_UNKNOWN: Final = 80
"""Of a terminal that does not say how wide it is."""


def progress_line(session: Session) -> str:
    """Counts, speed and what is left, as text of one line.

    While work is found on the way, there is at least so much of it, and so long is left.
    """
    state = session.live
    batches, items = batch_counts(state), item_counts(state)
    grows = is_growing(state)
    share = progress(state)
    words = plural(session.batch_word)
    parts = [session.name]
    if share is not None:
        parts.append(f"at most {percent(share)}" if grows else f"{percent(share):>4}")
    if (state.total_batches or 0) > 1:
        parts.append(f"{batches.completed:,}/{state.total_batches:,} {words}")
    finished = items.completed + items.failed + items.skipped
    known = finished + items.pending + items.processing
    parts.append(f"{finished:,} of at least {known:,} items" if grows else f"{finished:,} items")
    if batches.failed or items.failed:
        parts.append(f"{batches.failed:,} {words} failed, {items.failed:,} items failed")
    elapsed = active_ns(state)
    if elapsed > 0 and finished:
        parts.append(f"{finished / (elapsed / 1e9):,.1f}/s")
    left = remaining_ns(state)
    if left:
        parts.append(f"{'at least ' if grows else ''}{duration(left)} left")
    elif waiting := items_waiting(state):
        parts.append(f"{waiting:,} {'waits' if waiting == 1 else 'wait'} to be tried again")
    return " · ".join(parts)


def duration(ns: int) -> str:
    """`45s`, `3m20s`, `2h05m`, `3d4h`."""
    seconds = max(0, ns) // 1_000_000_000
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m{seconds:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h"


class PlainProgress:
    """The progress line without any library."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._terminal = sys.stderr.isatty()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="milepost-progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        interval = TERMINAL_SECONDS if self._terminal else QUIET_SECONDS
        while not self._stop.wait(interval):
            self._show()
        if self._terminal:
            self._show(end="\n")

    def _show(self, end: str = "") -> None:
        # The state changes while it is read; a line that cannot be made is left out.
        with contextlib.suppress(RuntimeError, KeyError, OSError, ValueError):
            line = progress_line(self._session)
            if self._terminal:
                # A line that wraps could not be rewritten; some terminals wrap a full one.
                columns = os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS_UNKNOWN
                line = shortened(line, columns - 1)
                padding = " " * (columns - 1 - text_width(line))
                print(f"\r{line}{padding}", end=end, file=sys.stderr, flush=True)
            else:
                print(f"milepost: {line}", file=sys.stderr, flush=True)


def display(
    session: Session,
    wanted: bool | ProgressFactory,  # the value of progress=
) -> AbstractContextManager[object]:
    """What shows the progress of a session, if anything does."""
    if callable(wanted):
        return wanted(session)
    return PlainProgress(session) if wanted else contextlib.nullcontext()
