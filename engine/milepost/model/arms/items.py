"""Items and counts of a batch in hand."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from milepost.model.arms.shared import FoldError, active_batch, clear_suspects, note_rows
from milepost.model.state import ItemProgress
from milepost.types import ItemStatus, Key

if TYPE_CHECKING:
    from milepost.model import events as e
    from milepost.model.state import ActiveBatch, SessionState

# An enum's members are slow to reach, and this is done for every item.
_PENDING: Final = ItemStatus.PENDING
_PROCESSING: Final = ItemStatus.PROCESSING
_COMPLETED: Final = ItemStatus.COMPLETED
_FAILED: Final = ItemStatus.FAILED
_SKIPPED: Final = ItemStatus.SKIPPED

TAKEN_MAX: Final = 1 << 16
"""No chunk is larger."""


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


def items_added(state: SessionState, event: e.ItemsAdded) -> SessionState:
    batch = active_batch(state, event.batch)
    if batch.is_positional:
        raise FoldError(f"the items of batch {event.batch} are known by their position")
    payloads = event.payloads if event.payloads is not None else [None] * len(event.keys)
    if len(payloads) != len(event.keys):
        raise FoldError(f"{len(event.keys)} items came with {len(payloads)} payloads")
    for key, payload in zip(event.keys, payloads, strict=True):
        item = batch.open.get(key)
        if item is not None:
            if not item.is_added:  # its source may have it no more
                item.is_added, item.payload = True, payload
                batch.items_added += 1
        elif not batch.is_known(key):
            batch.queued[key] = payload
            batch.items_added += 1
    batch.updated_ns = event.at_ns
    return state


def items_ended(state: SessionState, event: e.ItemsEnded) -> SessionState:
    batch = active_batch(state, event.batch)
    for change in event.changes:
        if change.status is _PENDING:
            _take_run_back(state, batch, change.key)
        _change_item(state, batch, change.key, change.status, event.at_ns, change)
    for key in event.taken:
        _change_item(state, batch, key, _PROCESSING, event.at_ns, None)
    note_rows(state, event.rows)
    batch.updated_ns = event.at_ns
    return state


def positions_advanced(state: SessionState, event: e.PositionsAdvanced) -> SessionState:
    batch = active_batch(state, event.batch)
    if not batch.is_positional:
        if batch.items_finished or batch.open or batch.queued:
            raise FoldError(f"the items of batch {event.batch} are known by keys")
        batch.is_positional = True
    if event.done_through < 0 or not 0 <= event.taken <= TAKEN_MAX:
        raise FoldError(
            f"{event.taken} items cannot be taken at once from position {event.done_through} on"
        )
    # Only what is in hand is gone through, whatever number somebody wrote.
    for position in range(batch.position, event.done_through):
        item = batch.open.get(position)
        if item is None or item.status is not _PROCESSING:
            raise FoldError(f"item {position} of batch {event.batch} is not in hand")
        _change_item(state, batch, position, _COMPLETED, event.at_ns, None)
    for position in range(event.done_through, event.done_through + event.taken):
        _change_item(state, batch, position, _PROCESSING, event.at_ns, None)
    batch.digested = event.done_through
    batch.digest = event.digest
    note_rows(state, event.rows)
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
        if (
            key in batch.finished
            or key in batch.done
            or (batch.is_positional and batch.is_done(key))
        ):
            return
        item = ItemProgress(key, _PENDING)
        if key in batch.queued:
            item.is_added, item.payload = True, batch.queued.pop(key)
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
        epoch = _epoch(state)
        if item.failed_in != epoch or item.failed_runs == 0:
            item.failed_runs += 1
            item.failed_in = epoch
        batch.items_failed += 1
        sums.total_items_failed += 1
        if batch.is_positional:
            _settle_prefix(batch)
        return
    if status is _SKIPPED:
        batch.items_skipped += 1
        sums.total_items_skipped += 1
    else:
        batch.items_processed += 1
        sums.total_items_processed += 1
    item.payload = None
    # Whoever looks meanwhile finds it in two places rather than in none.
    if batch.is_positional:
        if isinstance(key, int) and key < batch.position:  # it failed before
            del batch.open[key]
            return
        batch.done.add(key)
        del batch.open[key]
        _settle_prefix(batch)
        return
    batch.finished[key] = item
    del batch.open[key]
    if len(batch.finished) + len(batch.open) > state.item_cap:
        forget_details(state, batch)


def _take_run_back(state: SessionState, batch: ActiveBatch, key: Key) -> None:
    """An item that failed in this run is put back: an outage must not cost it one of its runs.

    Only what ends items says so; an update by hand never did, and goes on as it always was.
    """
    item = batch.open.get(key)
    if item is None or item.status is not _FAILED or item.failed_in != _epoch(state):
        return
    item.failed_runs = max(0, item.failed_runs - 1)
    item.failed_in = 0


def _epoch(state: SessionState) -> int:
    """Of the latest run; 0 where there is none."""
    return state.executions[-1].epoch if state.executions else 0


def _settle_prefix(batch: ActiveBatch) -> None:
    """Let the done prefix grow over what stands behind it: a number in place of so many keys."""
    done = batch.done
    while True:
        position = batch.position
        if position in done:
            batch.position += 1
            done.remove(position)
            continue
        item = batch.open.get(position)
        if item is None or item.status is not _FAILED:
            return
        batch.position += 1


def forget_details(state: SessionState, batch: ActiveBatch) -> None:
    """Fold the oldest finished items into their keys, a share of the cap at a time.

    One at a time would walk over the emptied front of the dict again and again.
    """
    excess = len(batch.finished) + len(batch.open) - state.item_cap
    share = max(excess, state.item_cap // 16)
    for key in list(islice(batch.finished, share)):
        batch.done.add(key)
        del batch.finished[key]
