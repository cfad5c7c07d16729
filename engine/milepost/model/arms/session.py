"""The session itself: its plan and size, its data and marks, its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.model.arms.items import forget_details
from milepost.model.arms.shared import FoldError
from milepost.model.events import NO_BATCH
from milepost.model.state import CheckpointInfo, OutputRows, PlanPart
from milepost.types import Outcome

if TYPE_CHECKING:
    from milepost.model import events as e
    from milepost.model.state import SessionState


def session_created(state: SessionState, event: e.SessionCreated) -> SessionState:
    raise FoldError(f"session {state.session_id!r} exists already (event {event.sequence})")


def item_cap_changed(state: SessionState, event: e.ItemCapChanged) -> SessionState:
    state.item_cap = event.item_cap
    for batch in state.active_batches.values():
        if len(batch.finished) + len(batch.open) > state.item_cap:
            forget_details(state, batch)
    return state


def total_batches_set(state: SessionState, event: e.TotalBatchesSet) -> SessionState:
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


def plan_sealed(state: SessionState, event: e.PlanSealed) -> SessionState:
    if event.first != state.planned:
        raise FoldError(f"plan part {event.first} cannot follow {state.planned} batches")
    state.plan.append(PlanPart(event.path, event.first, event.count))
    state.total_batches = max(state.planned, state.total_batches or 0)
    if event.count:
        state.outcome = None
        state.ended_ns = None
    return state


def session_completed(state: SessionState, event: e.SessionCompleted) -> SessionState:
    state.outcome = Outcome.FAILED if state.failed_batches else Outcome.COMPLETED
    state.ended_ns = event.at_ns
    return state


def data_set(state: SessionState, event: e.DataSet) -> SessionState:
    state.data = event.data
    state.has_data = True
    return state


def checkpoint_saved(state: SessionState, event: e.CheckpointSaved) -> SessionState:
    state.checkpoints.append(
        CheckpointInfo(
            id=event.id,
            checkpoint_type=event.checkpoint_type,
            created_ns=event.at_ns,
            sequence=event.sequence,
            name=event.name,
            batch_number=None if event.batch == NO_BATCH else event.batch,
        )
    )
    return state


def checkpoints_removed(state: SessionState, event: e.CheckpointsRemoved) -> SessionState:
    gone = set(event.ids)
    state.checkpoints = [each for each in state.checkpoints if each.id not in gone]
    return state


def output_opened(state: SessionState, event: e.OutputOpened) -> SessionState:
    length = event.length_bytes
    state.outputs[event.path] = OutputRows(event.path, length, length, 0)
    return state


def params_set(state: SessionState, event: e.ParamsSet) -> SessionState:
    state.params = event.params
    state.has_params = True
    return state
