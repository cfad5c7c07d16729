"""Which failed batches and items are tried again: a decision, carried out elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from milepost.types import BatchErrorType, ItemStatus, Key

if TYPE_CHECKING:
    from milepost.model.state import ActiveBatch, SessionState


class Chosen(NamedTuple):
    """What is to be put back.

    Attributes:
        batches: Numbers of failed batches.
        items: Batch number to keys of its failed items.
        unmet: Keys that were asked for and are of nothing that failed.
    """

    batches: list[int]
    items: dict[int, list[Key]]
    unmet: list[Key]


def recoverable(state: SessionState, limit: int) -> list[int]:
    """Numbers of the failed batches that are tried again without anybody asking for it.

    They failed in fewer than `limit` runs, of something that trying again can help.
    """
    return sorted(
        number
        for number, failed in state.failed_batches.items()
        if failed.is_recoverable and failed.retry_count < limit
    )


def choose_failed(
    state: SessionState, keys: list[Key] | None, error_type: BatchErrorType | None
) -> Chosen:
    """What a retry by hand means: all that failed, or what has these keys and this type.

    Keys are of items or of batches.
    """
    wanted = None if keys is None else set(keys)
    chosen = Chosen([], {}, [])
    met: set[Key] = set()
    for number, failed in sorted(state.failed_batches.items()):
        batch = failed.partial_progress
        items = _failed_items(batch, wanted, error_type)
        is_meant = wanted is None or batch.batch_id in wanted
        if items or (is_meant and error_type in {None, failed.error_type}):
            chosen.batches.append(number)
            chosen.items[number] = items
            met.update([*items, batch.batch_id])
    for number, batch in sorted((state.active_batches | state.pending_batches).items()):
        items = _failed_items(batch, wanted, error_type)
        if items:
            chosen.items[number] = items
            met.update([*items, batch.batch_id])
    chosen.unmet.extend(key for key in keys or [] if key not in met)
    return chosen


def _failed_items(
    batch: ActiveBatch, wanted: set[Key] | None, error_type: BatchErrorType | None
) -> list[Key]:
    whole = wanted is None or batch.batch_id in wanted
    return [
        item.item_id
        for item in batch.open.values()
        if item.status is ItemStatus.FAILED
        and (error_type is None or item.error_type is error_type)
        and (whole or (wanted is not None and item.item_id in wanted))
    ]
