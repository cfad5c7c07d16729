"""Batches: begun, tried again, ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.model.arms.shared import (
    FoldError,
    active_batch,
    clear_suspects,
    put_down,
    stop_running,
)
from milepost.model.state import ActiveBatch, CompletedBatch, FailedBatch, Retrying
from milepost.types import BatchPhase

if TYPE_CHECKING:
    from milepost.model import events as e
    from milepost.model.state import SessionState


def batch_started(state: SessionState, event: e.BatchStarted) -> SessionState:
    number = event.batch
    batch = state.active_batches.get(number) or state.pending_batches.pop(number, None)
    failed = state.failed_batches.pop(number, None)
    completed = state.completed_batches.get(number)
    if batch is None and failed is not None:
        batch = failed.partial_progress
        batch.retry_count = failed.retry_count
        state.session_statistics.total_batches_failed -= 1
    elif batch is None and completed is not None:
        if completed.progress is None:
            raise FoldError(f"batch {number} is completed and kept no items")
        batch = completed.progress
        del state.completed_batches[number]
        state.session_statistics.total_batches_completed -= 1
        state.session_statistics.total_batch_ns -= completed.active_ns
    if batch is None:
        batch = ActiveBatch(event.key, number, event.at_ns, event.at_ns)
    if event.payload is not None:
        batch.payload = event.payload
    if event.label is not None:
        batch.label = event.label
    if event.items_total is not None:
        batch.items_total = event.items_total
    batch.keeps_items = batch.keeps_items or event.keeps_items
    if not batch.resumed_ns:
        batch.attempts = 0
    batch.attempts += 1
    batch.resumed_ns = batch.resumed_ns or event.at_ns
    batch.updated_ns = event.at_ns
    if isinstance(batch.current_phase, Retrying):
        batch.current_phase = batch.current_phase.phase
    state.active_batches[number] = batch
    if state.total_batches is not None and number >= state.total_batches:
        state.total_batches = number + 1
    # New work in an ended session: it is unfinished again.
    state.outcome = None
    state.ended_ns = None
    return state


def batch_attempt_failed(state: SessionState, event: e.BatchAttemptFailed) -> SessionState:
    batch = active_batch(state, event.batch)
    batch.error_message = event.error_message
    batch.error_type = event.error_type
    batch.current_phase = Retrying(_inner_phase(batch))
    put_down(batch)
    batch.updated_ns = event.at_ns
    return state


def batch_completed(state: SessionState, event: e.BatchCompleted) -> SessionState:
    batch = active_batch(state, event.batch)
    del state.active_batches[event.batch]
    clear_suspects(state, event.batch)
    stop_running(batch, event.at_ns)
    put_down(batch)
    batch.retry_count = 0
    batch.error_message = None
    batch.error_type = None
    batch.current_phase = BatchPhase.FINALIZING
    state.completed_batches[event.batch] = CompletedBatch(
        batch_id=batch.batch_id,
        batch_number=event.batch,
        started_ns=batch.started_ns,
        ended_ns=event.at_ns,
        active_ns=batch.active_ns,
        label=batch.label,
        items_processed=batch.items_processed,
        items_failed=batch.items_failed,
        items_skipped=batch.items_skipped,
        performance_metrics=event.metrics,
        progress=batch if batch.keeps_items else None,
    )
    sums = state.session_statistics
    sums.total_batches_completed += 1
    sums.total_batch_ns += batch.active_ns
    sums.updated_ns = event.at_ns
    return state


def batch_failed(state: SessionState, event: e.BatchFailed) -> SessionState:
    batch = active_batch(state, event.batch)
    del state.active_batches[event.batch]
    clear_suspects(state, event.batch)
    stop_running(batch, event.at_ns)
    put_down(batch)
    batch.error_message = event.error_message
    batch.error_type = event.error_type
    batch.retry_count += 1
    state.failed_batches[event.batch] = FailedBatch(
        batch_id=batch.batch_id,
        batch_number=event.batch,
        failed_ns=event.at_ns,
        error_message=event.error_message,
        error_type=event.error_type,
        retry_count=batch.retry_count,
        is_recoverable=event.is_recoverable,
        partial_progress=batch,
    )
    state.session_statistics.total_batches_failed += 1
    state.session_statistics.updated_ns = event.at_ns
    return state


def _inner_phase(batch: ActiveBatch) -> BatchPhase | str:
    phase = batch.current_phase
    while isinstance(phase, Retrying):
        phase = phase.phase
    return phase
