"""Items and counts of a batch in hand."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from milepost.model.arms.shared import active_batch, clear_suspects
from milepost.model.state import ItemProgress
from milepost.types import ItemStatus, Key

if TYPE_CHECKING:
    from milepost.model import events as e
    from milepost.model.state import ActiveBatch, SessionState

# An enum's members are slow to reach, and this is done for every item.
_PENDING: Final = ItemStatus.PENDING
_PROCESSING: Final = ItemStatus.PROCESSING
_FAILED: Final = ItemStatus.FAILED
_SKIPPED: Final = ItemStatus.SKIPPED


def item_updated(state: SessionState, event: e.ItemUpdated) -> SessionState:
    batch = active_batch(state, event.batch)
    at_ns = event.at_ns
    if event.key is not None:
        _change_item(state, batch, event.key, event.status, at_ns, event)
    if event.taken is not None:
        _change_item(state, batch, event.taken, _PROCESSING, at_ns, None)
    batch.updated_ns = at_ns
    return state


def items_updated(state: SessionState, event: e.ItemsUpdated) -> SessionState:
    batch = active_batch(state, event.batch)
    for change in event.changes:
        _change_item(state, batch, change.key, change.status, event.at_ns, change)
    batch.updated_ns = event.at_ns
    return state


def progress_updated(state: SessionState, event: e.ProgressUpdated) -> SessionState:
    batch = active_batch(state, event.batch)
    sums = state.session_statistics
    if event.items_processed is not None or event.items_failed is not None:
        batch.is_counted = True
    if event.items_processed is not None:
        sums.total_items_processed += event.items_processed - batch.items_processed
        batch.items_processed = event.items_processed
        sums.updated_ns = event.at_ns
    if event.items_failed is not None:
        sums.total_items_failed += event.items_failed - batch.items_failed
        batch.items_failed = event.items_failed
        sums.updated_ns = event.at_ns
    if event.phase is not None:
        batch.current_phase = event.phase
    if event.items_total is not None:
        batch.items_total = event.items_total
    batch.updated_ns = event.at_ns
    return state


def counters_added(state: SessionState, event: e.CountersAdded) -> SessionState:
    batch = active_batch(state, event.batch)
    for name, amount in event.counters.items():
        batch.counters[name] = batch.counters.get(name, 0) + amount
    batch.updated_ns = event.at_ns
    return state


def _change_item(
    state: SessionState,
    batch: ActiveBatch,
    key: Key,
    status: ItemStatus,
    at_ns: int,
    details: e.ItemUpdated | e.ItemChange | None,
) -> None:
    item = batch.open.get(key)
    if item is None:
        if key in batch.finished or key in batch.done:
            return
        item = ItemProgress(key, _PENDING)
        batch.open[key] = item
    before = item.status
    sums = state.session_statistics
    if status is _PROCESSING or (status is not _PENDING and before is not _PROCESSING):
        item.attempts += 1
    if before is _PROCESSING:
        batch.items_processing -= 1
    elif before is _FAILED:
        batch.items_failed -= 1
        sums.total_items_failed -= 1
    item.status = status
    if status is _PROCESSING:
        batch.items_processing += 1
        if item.started_ns is None:
            item.started_ns = at_ns
        return
    if details is not None:
        item.error_message = details.error_message
        item.error_type = details.error_type
        item.is_recoverable = details.is_recoverable
    if status is _PENDING:
        return
    item.ended_ns = at_ns
    sums.updated_ns = at_ns
    if state.suspects:
        clear_suspects(state, batch.batch_number, key)
    if status is _FAILED:
        epoch = state.executions[-1].epoch if state.executions else 0
        if item.failed_in != epoch or item.failed_runs == 0:
            item.failed_runs += 1
            item.failed_in = epoch
        batch.items_failed += 1
        sums.total_items_failed += 1
        return
    if status is _SKIPPED:
        batch.items_skipped += 1
        sums.total_items_skipped += 1
    else:
        batch.items_processed += 1
        sums.total_items_processed += 1
    del batch.open[key]
    batch.finished[key] = item
    if len(batch.finished) + len(batch.open) > state.item_cap:
        forget_details(state, batch)


def forget_details(state: SessionState, batch: ActiveBatch) -> None:
    """Fold the oldest finished items into their keys, a share of the cap at a time.

    One at a time would walk over the emptied front of the dict again and again.
    """
    excess = len(batch.finished) + len(batch.open) - state.item_cap
    share = max(excess, state.item_cap // 16)
    for key in list(islice(batch.finished, share)):
        del batch.finished[key]
        batch.done.add(key)
