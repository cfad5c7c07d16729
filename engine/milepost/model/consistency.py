"""Whether a state makes sense: rules that return every finding, not the first.

- Pure: a state in, findings out. What holds a session back and what is only told is the caller's
  decision; `is_error` says which of the two a rule means.
- Batches may end in any order, overlap in time, and be timed by a clock that was set back: none of
  this is a finding.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Final

import msgspec

from milepost.types import ItemStatus, Outcome, label

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from milepost.model.state import ActiveBatch, CompletedBatch, FailedBatch, SessionState
    from milepost.types import Key

    _AnyBatch = ActiveBatch | CompletedBatch | FailedBatch


_LISTED: Final = 5


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be.

    Attributes:
        rule: Short name of the rule, stable for programs.
        message: What was found, for people.
        path: The file it concerns, relative to the store or session; empty for the state itself.
        is_error: Whether acknowledged work may be missing or wrong; else it is a notice.
    """

    rule: str
    message: str
    path: str = ""
    is_error: bool = True


def check(state: SessionState) -> list[Finding]:
    """Everything about the state that cannot be right."""
    return [
        *_numbers(state),
        *_end(state),
        *_sums(state),
        *_times(state),
        *_outputs(state),
        *(finding for batch in _begun(state) for finding in _items(batch)),
    ]


def _begun(state: SessionState) -> list[ActiveBatch]:
    kept = [each.progress for each in state.completed_batches.values()]
    return [
        *state.active_batches.values(),
        *state.pending_batches.values(),
        *(each.partial_progress for each in state.failed_batches.values()),
        *(each for each in kept if each is not None),
    ]


def _numbers(state: SessionState) -> Iterator[Finding]:
    groups: dict[str, Mapping[int, _AnyBatch]] = {
        "completed": state.completed_batches,
        "active": state.active_batches,
        "failed": state.failed_batches,
        "pending": state.pending_batches,
    }
    owner: dict[int, str] = {}
    keys: dict[str, int] = {}
    for group, batches in groups.items():
        for number, batch in batches.items():
            if number in owner:
                yield Finding(
                    rule="batch-twice",
                    message=f"batch {number} is {owner[number]} and {group} at once",
                )
            owner[number] = group
            if batch.batch_number != number:
                yield Finding(
                    rule="batch-number",
                    message=f"batch {number} says that it is number {batch.batch_number}",
                )
            if keys.setdefault(batch.batch_id, number) != number:
                yield Finding(
                    rule="batch-key",
                    message=f"batches {keys[batch.batch_id]} and {number} share the key"
                    f" {batch.batch_id!r}",
                )
    total = state.total_batches
    beyond = [number for number in owner if number < 0 or (total is not None and number >= total)]
    if beyond:
        yield Finding(
            rule="batch-range",
            message=f"not within the {total} batches of the session: {_batches(sorted(beyond))}",
        )
    first = 0
    for part in state.plan:
        if part.first != first or part.count < 0:
            yield Finding(
                rule="plan-gap", message=f"the plan goes on with {part.first} after {first} batches"
            )
        first = part.first + part.count
    if total is not None and first > total:
        yield Finding(
            rule="plan-total", message=f"the plan has {first} batches and the session {total}"
        )


def _end(state: SessionState) -> Iterator[Finding]:
    """An ended session leaves nothing open, and says itself whether something failed."""
    if state.outcome is not None:
        ended = state.completed_batches.keys() | state.failed_batches.keys()
        known = {*range(state.planned), *state.active_batches, *state.pending_batches}
        missing = sorted(known - ended)
        if missing:
            yield Finding(
                rule="batch-missing",
                message=f"the session has ended, and {_batches(missing)} did not",
            )
        total = state.total_batches or 0
        if len(ended | known) < total:
            # Nobody planned the others: the total was said by hand, and may have been a guess.
            yield Finding(
                rule="batch-total",
                message=f"the session has ended with {len(ended):,} of {total:,} batches",
                is_error=False,
            )
        if (state.outcome is Outcome.FAILED) != bool(state.failed_batches):
            yield Finding(
                rule="outcome",
                message=f"the session ended as {label(state.outcome)} with"
                f" {len(state.failed_batches):,} failed batches",
            )
    open_runs = [each.epoch for each in state.executions[:-1] if each.ended_ns is None]
    if open_runs:
        yield Finding(
            rule="run-open",
            message=f"the run of epoch {open_runs[0]} has no end, and others came after it",
        )
    for suspect in state.suspects:
        if suspect.batch not in state.active_batches:
            yield Finding(
                rule="suspect",
                message=f"batch {suspect.batch} is suspected of a death and not in hand",
                is_error=False,
            )


def _batches(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_LISTED]))
    more = len(numbers) - _LISTED
    what = "batch" if len(numbers) == 1 else "batches"
    return f"{what} {shown}" + (f" and {more:,} more" if more > 0 else "")


def _sums(state: SessionState) -> Iterator[Finding]:
    sums = state.session_statistics
    begun: list[ActiveBatch | CompletedBatch] = [
        *state.active_batches.values(),
        *state.pending_batches.values(),
        *(each.partial_progress for each in state.failed_batches.values()),
        *state.completed_batches.values(),
    ]
    expected = {
        "total_batches_completed": len(state.completed_batches),
        "total_batches_failed": len(state.failed_batches),
        "total_items_processed": sum(batch.items_processed for batch in begun),
        "total_items_failed": sum(batch.items_failed for batch in begun),
        "total_items_skipped": sum(batch.items_skipped for batch in begun),
        "total_batch_ns": sum(batch.active_ns for batch in state.completed_batches.values()),
    }
    for name, value in expected.items():
        stated = getattr(sums, name)
        if stated != value:
            yield Finding(rule="sums", message=f"{name} is {stated}; the batches add up to {value}")


def _times(state: SessionState) -> Iterator[Finding]:
    if state.session_statistics.active_ns < 0:
        yield Finding(rule="time", message="the session's active time is negative")
    for batch in state.completed_batches.values():
        if batch.active_ns < 0:
            yield Finding(
                rule="time", message=f"batch {batch.batch_number} has a negative duration"
            )
        if batch.ended_ns < batch.started_ns:
            yield _clock(f"batch {batch.batch_number} ended before it began")
    begun = {batch.batch_number: batch.started_ns for batch in _begun(state)}
    begun |= {each.batch_number: each.started_ns for each in state.completed_batches.values()}
    for number, started_ns in begun.items():
        if started_ns < state.created_ns:
            yield _clock(f"batch {number} was begun before the session was")
    if state.updated_ns < state.created_ns:
        yield _clock("the last event is older than the session")


def _outputs(state: SessionState) -> Iterator[Finding]:
    for path, rows in state.outputs.items():
        if rows.path != path or not 0 <= rows.start_bytes <= rows.length_bytes:
            yield Finding(
                rule="output",
                message=f"the output {path} is said to end with bytes {rows.start_bytes} to"
                f" {rows.length_bytes} of {rows.path}",
            )


def _clock(message: str) -> Finding:
    return Finding(rule="clock", message=f"{message}: the clock was set back", is_error=False)


def _items(batch: ActiveBatch) -> Iterator[Finding]:
    where = f"batch {batch.batch_number}"
    if batch.items_expected is not None and batch.items_finished > batch.items_expected:
        yield Finding(
            rule="items-total",
            message=f"{where} finished {batch.items_finished} of {batch.items_expected} items",
            is_error=False,
        )
    if batch.is_counted:
        return
    yield from _item_sums(batch, where)
    yield from _item_places(batch, where)
    yield from _growth(batch, where)
    yield from _positions(batch, where)


def _item_sums(batch: ActiveBatch, where: str) -> Iterator[Finding]:
    open_items = list(batch.open.values())
    processing = sum(item.status is ItemStatus.PROCESSING for item in open_items)
    failed = sum(item.status is ItemStatus.FAILED for item in open_items)
    prefix = batch.position - sum(_is_before(key, batch.position) for key in batch.open)
    kept = len(batch.finished) + len(batch.done) + prefix
    for what, stated, found in (
        ("in flight", batch.items_processing, processing),
        ("failed", batch.items_failed, failed),
        ("completed or skipped", batch.items_processed + batch.items_skipped, kept),
    ):
        if stated != found:
            yield Finding(
                rule="items",
                message=f"{where} states {stated} items {what} and records {found}",
            )


def _item_places(batch: ActiveBatch, where: str) -> Iterator[Finding]:
    places = (batch.open.keys(), batch.finished.keys(), batch.done, batch.queued.keys())
    both = {key for one, other in combinations(places, 2) for key in one & other}
    if batch.is_positional:
        both |= {key for key in batch.done if _is_before(key, batch.position)}
    if both:
        key = next(iter(both))
        yield Finding(rule="item-twice", message=f"{where} records item {key!r} in two places")


def _growth(batch: ActiveBatch, where: str) -> Iterator[Finding]:
    """What was found on the way is in the queue until it is taken, and counted for good."""
    found = len(batch.queued) + sum(item.is_added for item in batch.open.values())
    if batch.items_added < found:
        yield Finding(
            rule="items-added",
            message=f"{where} states {batch.items_added} items found on the way and records"
            f" {found}",
        )


def _positions(batch: ActiveBatch, where: str) -> Iterator[Finding]:
    if not 0 <= batch.digested <= batch.position:
        yield Finding(
            rule="position",
            message=f"{where} has done the first {batch.position} items and a digest of"
            f" {batch.digested}",
        )
    by_keys = batch.finished or batch.queued
    if (batch.is_positional and by_keys) or (batch.position and not batch.is_positional):
        yield Finding(
            rule="position", message=f"{where} knows items by their position and by their keys"
        )


def _is_before(key: Key, position: int) -> bool:
    return isinstance(key, int) and 0 <= key < position
