"""How far the sessions at work are, for a table: read from the store, now and then.

A big session takes a while to read, so it is read again after a multiple of that.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

import milepost
from milepost_cli import describe, page

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE_SECONDS: Final = 2.0
"""At least so long between two readings of a session."""
_PAUSE_SHARE: Final = 20.0
"""And at least so many times what the last one took."""


class _Read(NamedTuple):
    words: str
    again_at: float


class Shares:
    """What is known of how far each session at work is."""

    def __init__(
        self, store: milepost.Store, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._monotonic = monotonic
        self._known: dict[str, _Read] = {}

    def of(self, row: milepost.Row) -> str:
        """`42%, 12 of 250 batches, 1,204 items` for one at work; empty for any other."""
        if not is_at_work(row):
            self._known.pop(row.session, None)
            return ""
        began = self._monotonic()
        known = self._known.get(row.session)
        if known is None or began >= known.again_at:
            words = self._read(row.session) or (known.words if known is not None else "")
            took = self._monotonic() - began
            pause = max(PAUSE_SECONDS, _PAUSE_SHARE * took)
            known = self._known[row.session] = _Read(words, began + took + pause)
        return known.words

    def _read(self, session: str) -> str:
        try:
            counts = describe.counts(self._store.load_progress(session))
        except milepost.MilepostError:
            return ""  # the watcher tells of it
        return ", ".join(filter(None, (page.share_words(counts), page.progress_words(counts))))


def is_at_work(row: milepost.Row) -> bool:
    """Whether a process writes it, one of the watcher's or any other."""
    is_anothers = row.session_status is milepost.SessionStatus.RUNNING and row.doing == "fine"
    return row.doing == "running" or is_anothers
