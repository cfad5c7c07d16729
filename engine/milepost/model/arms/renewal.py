"""Work that waits again: put back by hand, made ready by a recovery, begun anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.model.arms.runs import end_execution
from milepost.model.arms.shared import FoldError, active_batch, clear_suspects
from milepost.model.state import (
    ActiveBatch,
    ItemProgress,
    RecoveryMark,
    SessionState,
    SessionStatistics,
)
from milepost.types import ItemStatus, RecoveryStrategy

if TYPE_CHECKING:
    from milepost.model import events as e


def retried(state: SessionState, event: e.Retried) -> SessionState:
    for number, keys in event.items.items():
        failed = state.failed_batches.get(number)
        batch = failed.partial_progress if failed else state.pending_batches.get(number)
        batch = batch or active_batch(state, number)
        for key in keys:
            item = batch.open.get(key)
            if item is None or item.status is not ItemStatus.FAILED:
                raise FoldError(f"item {key!r} of batch {number} is not failed")
            batch.open[key] = ItemProgress(
                key,
                ItemStatus.PENDING,
                error_message=item.error_message,
                error_type=item.error_type,
                is_added=item.is_added,
                payload=item.payload,
            )
            batch.items_failed -= 1
            state.session_statistics.total_items_failed -= 1
        batch.updated_ns = event.at_ns
    for number in event.batches:
        failed = state.failed_batches.pop(number, None)
        if failed is None:
            raise FoldError(f"batch {number} is not failed")
        failed.partial_progress.retry_count = 0
        state.pending_batches[number] = failed.partial_progress
        state.session_statistics.total_batches_failed -= 1
    state.outcome = None
    state.ended_ns = None
    return state


def restarted(state: SessionState, event: e.Restarted) -> SessionState:
    return _anew(state, event.at_ns, event.runs_before)


def recovered(state: SessionState, event: e.Recovered) -> SessionState:
    if event.strategy is RecoveryStrategy.FULL_RESTART:
        state = _anew(state, event.at_ns, event.runs_before)
    for number in event.batches:
        failed = state.failed_batches.pop(number, None)
        if failed is None:
            raise FoldError(f"batch {number} is not failed")
        state.pending_batches[number] = failed.partial_progress
        state.session_statistics.total_batches_failed -= 1
    for number in event.reset:
        _reset(state, number, event.at_ns)
    if event.batches or event.reset:
        state.outcome = None
        state.ended_ns = None
    sums = state.session_statistics
    state.recovery = RecoveryMark(
        at_ns=event.at_ns,
        sequence=event.sequence,
        reason=event.reason,
        priority=event.priority,
        strategy=event.strategy,
        batches_completed=len(state.completed_batches),
        items_done=sums.total_items_processed + sums.total_items_skipped,
        items_failed=sums.total_items_failed,
        result=event.result,
    )
    return state


def _anew(state: SessionState, at_ns: int, runs_before: int) -> SessionState:
    """The same session with nothing begun; runs and checkpoints stay listed."""
    end_execution(state, state.updated_ns, None, None)
    return SessionState(
        session_id=state.session_id,
        uid=state.uid,
        sequence=state.sequence,
        created_ns=state.created_ns,
        updated_ns=at_ns,
        kind=state.kind,
        item_cap=state.item_cap,
        executions=state.executions,
        executions_forgotten=state.executions_forgotten,
        checkpoints=state.checkpoints,
        session_statistics=SessionStatistics(updated_ns=at_ns),
        restarts=state.restarts + 1,
        last_snapshot_ns=state.last_snapshot_ns,
        runs_before=runs_before,
    )


def _reset(state: SessionState, number: int, at_ns: int) -> None:
    """A batch that was begun is pending, as if it had never been begun."""
    sums = state.session_statistics
    completed = state.completed_batches.pop(number, None)
    failed = state.failed_batches.pop(number, None)
    if completed is not None:
        sums.total_batches_completed -= 1
        sums.total_batch_ns -= completed.active_ns
    if failed is not None:
        sums.total_batches_failed -= 1
    active = (
        state.active_batches.pop(number, None)
        or state.pending_batches.pop(number, None)
        or (failed.partial_progress if failed is not None else None)
    )
    old = completed or active
    if old is None:
        raise FoldError(f"batch {number} was never begun")
    clear_suspects(state, number)
    sums.total_items_processed -= old.items_processed
    sums.total_items_failed -= old.items_failed
    sums.total_items_skipped -= old.items_skipped
    kept = active or (completed.progress if completed is not None else None)
    state.pending_batches[number] = ActiveBatch(
        old.batch_id,
        number,
        at_ns,
        at_ns,
        label=old.label,
        payload=kept.payload if kept is not None else None,
        items_total=kept.items_total if kept is not None else None,
        keeps_items=kept.keeps_items if kept is not None else False,
    )
