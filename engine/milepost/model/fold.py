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

from typing import TYPE_CHECKING, Any, Final

import msgspec

from milepost.model import events as e
from milepost.model.arms import batches, deaths, items, renewal, runs, session
from milepost.model.arms.runs import EXECUTIONS_LISTED, end_execution
from milepost.model.arms.shared import FoldError
from milepost.model.state import ActiveBatch, SessionState

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EXECUTIONS_LISTED", "FoldError", "apply", "copy", "copy_batch", "new_state", "restored"]

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


def restored(state: SessionState, old: SessionState, event: e.Restored) -> SessionState:
    """The state after a restore: the work of the old version, the runs and marks of the present.

    This is no arm of the fold, because the old version is not in the event: a snapshot of the same
    sequence number holds the result.
    """
    if event.sequence != state.sequence + 1:
        raise FoldError(f"event {event.sequence} cannot follow event {state.sequence}")
    result = copy(old)
    end_execution(result, old.updated_ns, None, None)
    end_execution(state, state.updated_ns, None, None)
    result.sequence = event.sequence
    result.updated_ns = event.at_ns
    result.executions = state.executions
    result.executions_forgotten = state.executions_forgotten
    result.checkpoints = state.checkpoints
    return result


_ARMS: Final[dict[type[Any], Callable[[SessionState, Any], SessionState]]] = {
    e.SessionCreated: session.session_created,
    e.ItemCapChanged: session.item_cap_changed,
    e.TotalBatchesSet: session.total_batches_set,
    e.PlanSealed: session.plan_sealed,
    e.SessionCompleted: session.session_completed,
    e.DataSet: session.data_set,
    e.ParamsSet: session.params_set,
    e.OutputOpened: session.output_opened,
    e.CheckpointSaved: session.checkpoint_saved,
    e.CheckpointsRemoved: session.checkpoints_removed,
    e.ExecutionStarted: runs.execution_started,
    e.ExecutionEnded: runs.execution_ended,
    e.ExecutionDied: deaths.execution_died,
    e.BatchStarted: batches.batch_started,
    e.BatchAttemptFailed: batches.batch_attempt_failed,
    e.BatchCompleted: batches.batch_completed,
    e.BatchFailed: batches.batch_failed,
    e.ItemUpdated: items.item_updated,
    e.ItemsUpdated: items.items_updated,
    e.ItemsAdded: items.items_added,
    e.ItemsEnded: items.items_ended,
    e.PositionsAdvanced: items.positions_advanced,
    e.ProgressUpdated: items.progress_updated,
    e.CountersAdded: items.counters_added,
    e.Retried: renewal.retried,
    e.Recovered: renewal.recovered,
    e.Restarted: renewal.restarted,
}
