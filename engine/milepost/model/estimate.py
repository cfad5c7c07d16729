"""Counts and forecasts, computed from a state alone.

- Every number is safe for zero items, zero time and a clock that was set back: what cannot be known
  is `None`, never infinite, never negative.
- How long a failed try waits is not in the state, so where much waits there is no forecast.
- Failed and skipped items are finished: no forecast waits for them. Active batches count with what
  is left of them. Dead time is left out, because only time in which executions ran is divided by.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from milepost.model.state import Retrying
from milepost.types import ItemStatus

if TYPE_CHECKING:
    from milepost.model.state import ActiveBatch, SessionState

_WAITING_SHARE_MAX: Final = 0.1
"""Of what is left; where more of it waits to be tried again, it is the waits that count."""
_ROUNDING: Final = 1e-9
"""`0.29 * 100` is a little less than 29."""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many stand where.

    Attributes:
        pending: Known and not begun.
        processing: Begun and not ended.
        completed: Ended well.
        failed: Given up.
        skipped: Left out on purpose; always 0 for batches.
    """

    pending: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    skipped: int = 0


def batch_counts(state: SessionState) -> Counts:
    """The session's batches by status; those nobody knows of yet are not counted."""
    begun = len(state.completed_batches) + len(state.active_batches) + len(state.failed_batches)
    total = max(state.total_batches or 0, begun + len(state.pending_batches))
    return Counts(
        pending=total - begun,
        processing=len(state.active_batches),
        completed=len(state.completed_batches),
        failed=len(state.failed_batches),
    )


def item_counts(state: SessionState) -> Counts:
    """The items of all batches begun so far, by status."""
    sums = state.session_statistics
    begun = [*state.active_batches.values(), *state.pending_batches.values()]
    begun += [failed.partial_progress for failed in state.failed_batches.values()]
    return Counts(
        pending=sum(batch.items_pending for batch in begun),
        processing=sum(batch.items_processing for batch in begun),
        completed=sums.total_items_processed,
        failed=sums.total_items_failed,
        skipped=sums.total_items_skipped,
    )


def items_waiting(state: SessionState) -> int:
    """The pending items that were tried, and wait to be tried again."""
    waiting = (*state.active_batches.values(), *state.pending_batches.values())
    return sum(map(_waiting, waiting))


def active_ns(state: SessionState, now_ns: int | None = None) -> int:
    """How long executions ran so far, the open one up to `now_ns` (default: its last event)."""
    execution = state.execution
    if execution is None:
        return state.session_statistics.active_ns
    until = state.updated_ns if now_ns is None else now_ns
    return state.session_statistics.active_ns + max(0, until - execution.started_ns)


def batch_active_ns(batch: ActiveBatch, now_ns: int | None = None) -> int:
    """How long a batch ran so far, dead time left out."""
    if not batch.resumed_ns:
        return batch.active_ns
    until = batch.updated_ns if now_ns is None else now_ns
    return batch.active_ns + max(0, until - batch.resumed_ns)


def batch_remaining_ns(batch: ActiveBatch, now_ns: int | None = None) -> int | None:
    """How long the rest of a batch should take at its own pace; `None` if that is unknown."""
    if batch.items_expected is None or not batch.items_finished or _is_held_up(batch):
        return None
    left = max(0, batch.items_expected - batch.items_finished)
    return _forecast(batch_active_ns(batch, now_ns), batch.items_finished, left)


def remaining_ns(state: SessionState, now_ns: int | None = None) -> int | None:
    """How long the rest of the session should take; `None` if that is unknown.

    Counted in batches, where an active one counts as the share of it that is finished. A session of
    one batch, or one whose number of batches is not known, is counted in items. Where more than a
    tenth of what is left waits to be tried again, it is unknown.
    """
    if state.outcome is not None:
        return 0
    elapsed = active_ns(state, now_ns)
    counts = batch_counts(state)
    ended = counts.completed + counts.failed
    batches = [*state.active_batches.values(), *state.pending_batches.values()]
    held_up = sum(map(_is_held_up, batches))
    if state.total_batches is None or state.total_batches <= 1:
        if not batches or held_up or any(batch.items_expected is None for batch in batches):
            return None
        items = item_counts(state)
        finished = items.completed + items.failed + items.skipped
        return _forecast(elapsed, finished, items.pending + items.processing)
    done = ended + sum(_share(batch) for batch in state.active_batches.values())
    left = state.total_batches - done
    return None if held_up > _WAITING_SHARE_MAX * left else _forecast(elapsed, done, left)


def is_growing(state: SessionState) -> bool:
    """Whether work is found on the way, so that a forecast is the least that is left."""
    waiting = (*state.active_batches.values(), *state.pending_batches.values())
    return any(batch.is_growing for batch in waiting)


def progress(state: SessionState) -> float | None:
    """Share of the session that is finished, from 0 to 1; `None` if its size is unknown."""
    if state.outcome is not None:
        return 1.0
    if not state.total_batches:
        return None
    counts = batch_counts(state)
    waiting = [*state.active_batches.values(), *state.pending_batches.values()]
    if state.total_batches == 1 and any(batch.items_expected is None for batch in waiting):
        return None  # of many batches, those that ended are a share; of one, nothing is
    done = counts.completed + counts.failed + sum(_share(batch) for batch in waiting)
    return min(1.0, done / state.total_batches)


def percent(share: float) -> str:
    """A share for people, rounded down: `100%` is all of it."""
    return f"{math.floor(share * 100 + _ROUNDING):.0f}%"


def _waiting(batch: ActiveBatch) -> int:
    # An item in hand, or put down by a death, was tried as well, but nothing went wrong with it.
    if len(batch.open) <= batch.items_failed + batch.items_processing:
        return 0
    return sum(
        item.status is ItemStatus.PENDING and item.attempts > 0 and item.error_message is not None
        for item in list(batch.open.values())
    )


def _is_held_up(batch: ActiveBatch) -> bool:
    """Whether its pace says nothing of how long the rest of it takes."""
    if isinstance(batch.current_phase, Retrying):
        return True
    return _waiting(batch) > _WAITING_SHARE_MAX * (batch.items_pending + batch.items_processing)


def _share(batch: ActiveBatch) -> float:
    if not batch.items_expected:
        return 0.0
    return min(1.0, batch.items_finished / batch.items_expected)


def _forecast(elapsed_ns: int, done: float, left: float) -> int | None:
    if left <= 0:
        return 0
    if done <= 0 or elapsed_ns <= 0:
        return None
    return int(elapsed_ns * (left / done))
