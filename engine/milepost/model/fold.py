"""`apply(state, event) -> state`: the only way a state ever changes.

- It touches no disk, no clock, no setting: the same events give the same state, on any machine, in
  any year. What shapes it (the item cap) is an event itself. Old arms are never changed.
- It owns the state it is given: it changes it in place and returns it. Who wants the old one kept
  copies it first (`copy`). An apply that is interrupted half way leaves a state to be thrown away.
- Sequence numbers are contiguous; an event that does not fit the state raises `FoldError`.
- An item that is completed or skipped stays so, whatever comes later, until it is put back.

Source: FORMAT.md, "Fold".
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from milepost.model import events as e
from milepost.model.state import (
    ActiveBatch,
    CheckpointInfo,
    CompletedBatch,
    Execution,
    FailedBatch,
    ItemProgress,
    PlanPart,
    RecoveryMark,
    Retrying,
    SessionState,
    SessionStatistics,
    Suspect,
)
from milepost.types import BatchPhase, ItemStatus, Key, Outcome, SessionKind

if TYPE_CHECKING:
    from collections.abc import Callable

EXECUTIONS_LISTED: Final = 100
"""Older runs are counted, not listed, so that a session run every minute does not grow for ever."""

_PENDING: Final = ItemStatus.PENDING
_PROCESSING: Final = ItemStatus.PROCESSING
_COMPLETED: Final = ItemStatus.COMPLETED
_FAILED: Final = ItemStatus.FAILED
_SKIPPED: Final = ItemStatus.SKIPPED


class FoldError(ValueError):
    """The event cannot have happened to this state."""


_encode_state = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(SessionState).decode
_decode_batch = msgspec.msgpack.Decoder(ActiveBatch).decode


def copy(state: SessionState) -> SessionState:
    """A state of its own, sharing nothing with the one given."""
    return _decode_state(_encode_state(state))


def copy_batch(batch: ActiveBatch) -> ActiveBatch:
    """A batch of its own, sharing nothing with the one given."""
    return _decode_batch(_encode_state(batch))


def new_state(event: e.SessionCreated) -> SessionState:
    """The state of a session to which nothing happened yet but its creation."""
    return SessionState(
        session_id=event.name,
        uid=event.uid,
        sequence=event.sequence,
        created_ns=event.at_ns,
        updated_ns=event.at_ns,
        kind=event.kind,
        item_cap=event.item_cap,
    )


def apply(state: SessionState, event: e.BatchEvent) -> SessionState:
    """The state after the event. The given state is used up.

    Errors: `FoldError` for an event out of sequence, or one that does not fit; the state given is
        then to be thrown away.
    """
    if event.sequence != state.sequence + 1:
        raise FoldError(f"event {event.sequence} cannot follow event {state.sequence}")
    arm = _ARMS.get(type(event))
    if arm is None:
        raise FoldError(f"{type(event).__name__} is never folded")
    state = arm(state, event)
    state.sequence = event.sequence
    state.updated_ns = event.at_ns
    return state


# Items.


def _item_updated(state: SessionState, event: e.ItemUpdated) -> SessionState:
    batch = _active(state, event.batch)
    at_ns = event.at_ns
    if event.key is not None:
        _change_item(state, batch, event.key, event.status, at_ns, event)
    if event.taken is not None:
        _change_item(state, batch, event.taken, _PROCESSING, at_ns, None)
    batch.updated_ns = at_ns
    return state


def _items_updated(state: SessionState, event: e.ItemsUpdated) -> SessionState:
    batch = _active(state, event.batch)
    for change in event.changes:
        _change_item(state, batch, change.key, change.status, event.at_ns, change)
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
        _clear(state, batch.batch_number, key)
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
        _forget_details(state, batch)


def _forget_details(state: SessionState, batch: ActiveBatch) -> None:
    """Fold the oldest finished items into their keys, a share of the cap at a time.

    One at a time would walk over the emptied front of the dict again and again.
    """
    excess = len(batch.finished) + len(batch.open) - state.item_cap
    share = max(excess, state.item_cap // 16)
    for key in list(islice(batch.finished, share)):
        del batch.finished[key]
        batch.done.add(key)


def _progress_updated(state: SessionState, event: e.ProgressUpdated) -> SessionState:
    batch = _active(state, event.batch)
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


def _counters_added(state: SessionState, event: e.CountersAdded) -> SessionState:
    batch = _active(state, event.batch)
    for name, amount in event.counters.items():
        batch.counters[name] = batch.counters.get(name, 0) + amount
    batch.updated_ns = event.at_ns
    return state


# Batches.


def _active(state: SessionState, number: int) -> ActiveBatch:
    batch = state.active_batches.get(number)
    if batch is None:
        raise FoldError(f"batch {number} is not active")
    return batch


def _batch_started(state: SessionState, event: e.BatchStarted) -> SessionState:
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


def _batch_attempt_failed(state: SessionState, event: e.BatchAttemptFailed) -> SessionState:
    batch = _active(state, event.batch)
    batch.error_message = event.error_message
    batch.error_type = event.error_type
    batch.current_phase = Retrying(_inner_phase(batch))
    _put_down(batch)
    batch.updated_ns = event.at_ns
    return state


def _batch_completed(state: SessionState, event: e.BatchCompleted) -> SessionState:
    batch = _active(state, event.batch)
    del state.active_batches[event.batch]
    _clear(state, event.batch)
    _stop_running(batch, event.at_ns)
    _put_down(batch)
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


def _batch_failed(state: SessionState, event: e.BatchFailed) -> SessionState:
    batch = _active(state, event.batch)
    del state.active_batches[event.batch]
    _clear(state, event.batch)
    _stop_running(batch, event.at_ns)
    _put_down(batch)
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


def _stop_running(batch: ActiveBatch, until_ns: int) -> None:
    """Count the time since it was taken up; a clock that was set back counts nothing."""
    if batch.resumed_ns:
        batch.active_ns += max(0, until_ns - batch.resumed_ns)
        batch.resumed_ns = 0
    batch.updated_ns = until_ns


def _put_down(batch: ActiveBatch) -> list[Key]:
    """What was in flight is pending again; returns the keys."""
    if not batch.items_processing:
        return []
    dropped = [item.item_id for item in batch.open.values() if item.status is _PROCESSING]
    for key in dropped:
        batch.open[key].status = _PENDING
    batch.items_processing = 0
    return dropped


# The session.


def _session_created(state: SessionState, event: e.SessionCreated) -> SessionState:
    raise FoldError(f"session {state.session_id!r} exists already (event {event.sequence})")


def _item_cap_changed(state: SessionState, event: e.ItemCapChanged) -> SessionState:
    state.item_cap = event.item_cap
    for batch in state.active_batches.values():
        if len(batch.finished) + len(batch.open) > state.item_cap:
            _forget_details(state, batch)
    return state


def _total_batches_set(state: SessionState, event: e.TotalBatchesSet) -> SessionState:
    if event.total_batches is None:
        state.total_batches = None
    else:
        # What is planned or was begun is there, whatever somebody says later.
        state.total_batches = max(event.total_batches, state.planned, _highest_begun(state) + 1)
    return state


def _highest_begun(state: SessionState) -> int:
    groups = (
        state.completed_batches,
        state.active_batches,
        state.failed_batches,
        state.pending_batches,
    )
    return max((max(group, default=-1) for group in groups), default=-1)


def _plan_sealed(state: SessionState, event: e.PlanSealed) -> SessionState:
    if event.first != state.planned:
        raise FoldError(f"plan part {event.first} cannot follow {state.planned} batches")
    state.plan.append(PlanPart(event.path, event.first, event.count))
    state.total_batches = max(state.planned, state.total_batches or 0)
    if event.count:
        state.outcome = None
        state.ended_ns = None
    return state


def _execution_started(state: SessionState, event: e.ExecutionStarted) -> SessionState:
    _end_execution(state, state.updated_ns, None, None)
    state.kind = SessionKind.WORK
    state.executions.append(
        Execution(
            epoch=event.epoch,
            started_ns=event.at_ns,
            host=event.host,
            pid=event.pid,
            boot_id=event.boot_id,
            process_started=event.process_started,
            release=event.release,
            program=event.program,
            # Until its end these hold what was there at its start.
            items_processed=state.session_statistics.total_items_processed,
            items_failed=state.session_statistics.total_items_failed,
        )
    )
    surplus = len(state.executions) - EXECUTIONS_LISTED
    if surplus > 0:
        del state.executions[:surplus]
        state.executions_forgotten += surplus
    return state


def _execution_ended(state: SessionState, event: e.ExecutionEnded) -> SessionState:
    _end_execution(state, event.at_ns, event.outcome, event.error_message)
    return state


def _end_execution(
    state: SessionState, until_ns: int, outcome: Outcome | None, error_message: str | None
) -> None:
    """Close the latest run, if it is open, and put down all that was in hand."""
    in_flight: list[tuple[int, Key]] = []
    for number, batch in state.active_batches.items():
        if batch.resumed_ns:
            _stop_running(batch, until_ns)
        in_flight.extend((number, key) for key in _put_down(batch))
    execution = state.execution
    if execution is None:
        return
    sums = state.session_statistics
    sums.active_ns += max(0, until_ns - execution.started_ns)
    sums.updated_ns = until_ns
    execution.ended_ns = until_ns
    execution.outcome = outcome
    execution.error_message = error_message
    # A batch that reports counts may have begun to count anew.
    execution.items_processed = max(0, sums.total_items_processed - execution.items_processed)
    execution.items_failed = max(0, sums.total_items_failed - execution.items_failed)
    execution.in_flight = in_flight


# Deaths and recoveries.


def _execution_died(state: SessionState, event: e.ExecutionDied) -> SessionState:
    if state.execution is None:
        raise FoldError("no execution is without an end")
    in_hand = _in_hand(state)
    _end_execution(state, state.updated_ns, None, event.cause or None)
    if event.is_blamed:
        _suspect(state, in_hand, event.cause)
    return state


def _in_hand(state: SessionState) -> list[Suspect]:
    """What may have killed the process: items in flight, or a batch that runs without any."""
    found: list[Suspect] = []
    for number, batch in state.active_batches.items():
        keys: list[Key | None] = [
            item.item_id for item in batch.open.values() if item.status is _PROCESSING
        ]
        # A loop's own batch is no suspect: between its items, only the loop's source was at work.
        if not keys and batch.resumed_ns and not batch.keeps_items:
            keys = [None]
        found += [Suspect(number, key, 0, batch.items_finished) for key in keys]
    return found


def _suspect(state: SessionState, in_hand: list[Suspect], cause: str) -> None:
    """Blame what was alone in hand; of several, only know that it may have been one of them."""
    known = {(each.batch, each.key): each for each in state.suspects}
    for each in in_hand:
        suspect = known.get((each.batch, each.key))
        if suspect is None:
            state.suspects.append(suspect := each)
        elif each.key is None and each.items_finished > suspect.items_finished:
            suspect.deaths = 0  # it got on in between, so these deaths are not in a row
        if len(in_hand) == 1:
            suspect.deaths += 1
            suspect.items_finished = each.items_finished
            suspect.last_death = cause


def _clear(state: SessionState, number: int, key: Key | None = None) -> None:
    """An item ended, or with no key a batch: it is no suspect any more."""
    if state.suspects:
        state.suspects = [
            each
            for each in state.suspects
            if each.batch != number or (key is not None and each.key != key)
        ]


def _recovered(state: SessionState, event: e.Recovered) -> SessionState:
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
    state.recovery = RecoveryMark(
        at_ns=event.at_ns,
        sequence=event.sequence,
        reason=event.reason,
        priority=event.priority,
        strategy=event.strategy,
        batches_completed=len(state.completed_batches),
        items_finished=state.items_finished,
    )
    return state


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
    _clear(state, number)
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


def _session_completed(state: SessionState, event: e.SessionCompleted) -> SessionState:
    state.outcome = Outcome.FAILED if state.failed_batches else Outcome.COMPLETED
    state.ended_ns = event.at_ns
    return state


def _data_set(state: SessionState, event: e.DataSet) -> SessionState:
    state.data = event.data
    state.has_data = True
    return state


def _checkpoint_saved(state: SessionState, event: e.CheckpointSaved) -> SessionState:
    state.checkpoints.append(
        CheckpointInfo(
            id=event.id,
            checkpoint_type=event.checkpoint_type,
            created_ns=event.at_ns,
            sequence=event.sequence,
            name=event.name,
            batch_number=None if event.batch == e.NO_BATCH else event.batch,
        )
    )
    return state


def _checkpoints_removed(state: SessionState, event: e.CheckpointsRemoved) -> SessionState:
    gone = set(event.ids)
    state.checkpoints = [each for each in state.checkpoints if each.id not in gone]
    return state


def _retried(state: SessionState, event: e.Retried) -> SessionState:
    for number, keys in event.items.items():
        failed = state.failed_batches.get(number)
        batch = failed.partial_progress if failed else _active(state, number)
        for key in keys:
            item = batch.open.get(key)
            if item is None or item.status is not _FAILED:
                raise FoldError(f"item {key!r} of batch {number} is not failed")
            batch.open[key] = ItemProgress(
                key, _PENDING, error_message=item.error_message, error_type=item.error_type
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


def _restarted(state: SessionState, event: e.Restarted) -> SessionState:
    _end_execution(state, state.updated_ns, None, None)
    return SessionState(
        session_id=state.session_id,
        uid=state.uid,
        sequence=state.sequence,
        created_ns=state.created_ns,
        updated_ns=event.at_ns,
        kind=state.kind,
        item_cap=state.item_cap,
        executions=state.executions,
        executions_forgotten=state.executions_forgotten,
        checkpoints=state.checkpoints,
        session_statistics=SessionStatistics(updated_ns=event.at_ns),
        restarts=state.restarts + 1,
        last_snapshot_ns=state.last_snapshot_ns,
    )


def restored(state: SessionState, old: SessionState, event: e.Restored) -> SessionState:
    """The state after a restore: the work of the old version, the runs and marks of the present.

    This is no arm of the fold, because the old version is not in the event: a snapshot of the same
    sequence number holds the result.
    """
    if event.sequence != state.sequence + 1:
        raise FoldError(f"event {event.sequence} cannot follow event {state.sequence}")
    result = copy(old)
    _end_execution(result, old.updated_ns, None, None)
    _end_execution(state, state.updated_ns, None, None)
    result.sequence = event.sequence
    result.updated_ns = event.at_ns
    result.executions = state.executions
    result.executions_forgotten = state.executions_forgotten
    result.checkpoints = state.checkpoints
    return result


_ARMS: Final[dict[type[Any], Callable[[SessionState, Any], SessionState]]] = {
    e.SessionCreated: _session_created,
    e.ItemCapChanged: _item_cap_changed,
    e.TotalBatchesSet: _total_batches_set,
    e.PlanSealed: _plan_sealed,
    e.ExecutionStarted: _execution_started,
    e.ExecutionEnded: _execution_ended,
    e.SessionCompleted: _session_completed,
    e.DataSet: _data_set,
    e.CheckpointSaved: _checkpoint_saved,
    e.CheckpointsRemoved: _checkpoints_removed,
    e.BatchStarted: _batch_started,
    e.ProgressUpdated: _progress_updated,
    e.ItemUpdated: _item_updated,
    e.ItemsUpdated: _items_updated,
    e.CountersAdded: _counters_added,
    e.BatchAttemptFailed: _batch_attempt_failed,
    e.BatchCompleted: _batch_completed,
    e.BatchFailed: _batch_failed,
    e.Retried: _retried,
    e.Restarted: _restarted,
    e.ExecutionDied: _execution_died,
    e.Recovered: _recovered,
}
