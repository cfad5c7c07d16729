"""What arms of several kinds do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.types import ItemStatus, Key

if TYPE_CHECKING:
    from milepost.model.state import ActiveBatch, OutputRows, SessionState


class FoldError(ValueError):
    """The event cannot have happened to this state."""


def active_batch(state: SessionState, number: int) -> ActiveBatch:
    """The batch that an event is about; `FoldError` where it is not in hand."""
    batch = state.active_batches.get(number)
    if batch is None:
        raise FoldError(f"batch {number} is not active")
    return batch


def stop_running(batch: ActiveBatch, until_ns: int) -> None:
    """Count the time since it was taken up; a clock that was set back counts nothing."""
    if batch.resumed_ns:
        batch.active_ns += max(0, until_ns - batch.resumed_ns)
        batch.resumed_ns = 0
    batch.updated_ns = until_ns


def put_down(batch: ActiveBatch) -> list[Key]:
    """What was in flight is pending again; returns the keys."""
    if not batch.items_processing:
        return []
    dropped = [item.item_id for item in batch.open.values() if item.status is ItemStatus.PROCESSING]
    for key in dropped:
        batch.open[key].status = ItemStatus.PENDING
    batch.items_processing = 0
    return dropped


def clear_suspects(state: SessionState, number: int, key: Key | None = None) -> None:
    """An item ended, or with no key a batch: it is no suspect any more."""
    if state.suspects:
        state.suspects = [
            each
            for each in state.suspects
            if each.batch != number or (key is not None and each.key != key)
        ]


def note_rows(state: SessionState, rows: list[OutputRows]) -> None:
    """Outputs end here now, as far as they count."""
    for each in rows:
        known = state.outputs.get(each.path)
        if known is None or not known.length_bytes == each.start_bytes <= each.length_bytes:
            raise FoldError(f"rows of {each.path} do not follow the rows before them")
        state.outputs[each.path] = each
