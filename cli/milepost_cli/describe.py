"""A session as one plain object: what `show --json` prints, and what plain `show` is made from.

- Everything is computed from a `milepost.View`, so nothing here reads or writes a store.
- It is long because it is one object: each field has a function of its own.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import milepost
from milepost_cli.next_steps import command, next_command
from milepost_cli.output import iso, iso_ns
from milepost_cli.words import HINT

if TYPE_CHECKING:
    from collections.abc import Iterator


def session(
    store: milepost.Store, view: milepost.View, *, store_option: str | None
) -> dict[str, Any]:
    """All that is known of a session.

    Keys: `store`, `name`, `kind`, `status`, `reason`, `version`, `sequence`, `created_at`,
    `updated_at`, `ended_at`, `restarts`, `progress`, `total_batches`, `batches`, `items`,
    `in_flight`, `suspects`, `recovery`, `last_error`, `writer`, `unlock_command`, `backup_error`,
    `eta`, `statistics`, `executions`, `checkpoints`, `data`, `params`, `positions`, `outputs`,
    `damaged`, `findings`, `next_command`. `progress` is the share that is finished, well or not;
    while `items.growing`, it is the most that it can be, and `None` where the total is not known.
    """
    state = view.state
    findings = [*view.findings, *milepost.check(state), *store.disagreements(state.session_id)]
    return {
        "store": store.path,
        "name": state.session_id,
        "kind": milepost.label(state.kind),
        "status": view.judgement.status.value,
        "reason": view.judgement.reason,
        "version": view.version,
        "sequence": state.sequence,
        "created_at": iso_ns(state.created_ns),
        "updated_at": iso_ns(state.updated_ns),
        "ended_at": iso_ns(state.ended_ns),
        "restarts": state.restarts,
        **counts(state),
        "in_flight": in_flight(state),
        "suspects": suspects(view),
        "recovery": recovery(state),
        "last_error": last_error(store, state),
        "writer": writer(view.writer),
        "unlock_command": _unlock(view, store_option=store_option),
        "backup_error": view.backup_error or None,
        "eta": _eta(view),
        "statistics": _statistics(state),
        "executions": [_execution(state, each) for each in state.executions],
        "checkpoints": [checkpoint(each) for each in reversed(state.checkpoints)],
        "data": state.data,
        "params": state.params,
        "positions": _positions(state),
        "outputs": _outputs(store, state),
        "damaged": is_damaged(view),
        "findings": [milepost.plain(each) for each in findings],
        "next_command": next_command(store, view, store_option=store_option),
    }


def counts(state: milepost.SessionState) -> dict[str, Any]:
    """How far a session is; the items that are processing are those in `in_flight`.

    Of the pending items, `waiting` were tried and wait to be tried again.
    """
    batches: dict[str, int] = milepost.plain(milepost.batch_counts(state))
    del batches["skipped"]
    items: dict[str, Any] = milepost.plain(milepost.item_counts(state))
    # The recorded end of a run makes what it had in hand pending, its batches stay in processing:
    # here both are told alike until a run takes them up again.
    in_hand = len(in_flight(state))
    items["pending"] = max(0, items["pending"] - (in_hand - items["processing"]))
    items["processing"] = in_hand
    items["waiting"] = milepost.items_waiting(state)
    items["growing"] = milepost.is_growing(state)
    return {
        "progress": milepost.progress(state),
        "total_batches": state.total_batches,
        "batches": batches,
        "items": items,
    }


def damage(name: str, view: milepost.View, *, store_option: str | None) -> milepost.DamagedError:
    """The error with which a command ends that showed what is sure of a damaged session."""
    findings = [*view.findings, *milepost.check(view.state)]
    wrong = [each for each in findings if each.is_error]
    if view.is_lossy:
        what = "is damaged, and acknowledged work is missing"
        accept = command("restore", name, store_option=store_option)
        hint = f"put the file back from another copy, or accept the loss with: {accept}"
    elif any(each.is_error for each in view.findings):
        what = "has damaged files, but nothing that was acknowledged is missing"
        hint = f"see them: {command('show', name, store_option=store_option)}"
    else:
        what = "does not add up"
        words = ("recover", "--session", name, "--strategy", "resume")
        hint = (
            "a version from before is put back with `milepost restore NAME VERSION`; it is carried"
            f" on as it is with: {command(*words, store_option=store_option)}"
        )
    return milepost.DamagedError(
        f"session {name!r} {what}" + (f": {wrong[0].message}" if wrong else ""),
        path=wrong[0].path if wrong else None,
        findings=findings,
        hint=hint,
    )


def is_damaged(view: milepost.View) -> bool:
    """Whether something is wrong with the session's files, be it made good by a second copy."""
    findings = [*view.findings, *milepost.check(view.state)]
    return view.is_lossy or any(each.is_error for each in findings)


def batch_key(state: milepost.SessionState, number: int) -> str:
    """What a batch is known by, as far as the state tells."""
    recorded = (
        state.active_batches.get(number)
        or state.failed_batches.get(number)
        or state.completed_batches.get(number)
        or state.pending_batches.get(number)
    )
    return recorded.batch_id if recorded is not None else str(number)


# What was in hand, and what went wrong.


def in_flight(state: milepost.SessionState) -> list[dict[str, Any]]:
    """The items in hand: now, or when the last run ended, until they are taken up again."""
    found = [
        _in_hand(batch.batch_id, number, item.item_id, iso(item.start_time))
        for number, batch in sorted(state.active_batches.items())
        for item in batch.open.values()
        if item.status is milepost.ItemStatus.PROCESSING
    ]
    latest = state.executions[-1] if state.executions else None
    if found or latest is None or latest.ended_ns is None or state.outcome is not None:
        return found
    return [
        _in_hand(batch.batch_id, number, key, None)
        for number, key in latest.in_flight
        if (batch := state.active_batches.get(number)) is not None
        and (item := batch.open.get(key)) is not None
        and item.status is milepost.ItemStatus.PENDING
    ]


def _in_hand(batch: str, number: int, item: milepost.Key, started_at: str | None) -> dict[str, Any]:
    return {"batch": batch, "batch_number": number, "item": item, "started_at": started_at}


def suspects(view: milepost.View) -> list[dict[str, Any]]:
    """What was in hand at deaths and has not ended since, with the deaths it was alone at.

    `in_hand` says that a living run has it in hand again.
    """
    is_live = view.judgement.status is milepost.SessionStatus.RUNNING
    return [
        {
            "batch": batch_key(view.state, each.batch),
            "batch_number": each.batch,
            "item": each.key,
            "deaths": each.deaths,
            "last_death": each.last_death or None,
            "in_hand": is_live and _has_in_hand(view.state, each),
        }
        for each in view.suspects
    ]


def _has_in_hand(state: milepost.SessionState, suspect: milepost.Suspect) -> bool:
    batch = state.active_batches.get(suspect.batch)
    if batch is None or suspect.key is None:
        return batch is not None and batch.resumed_ns > 0
    item = batch.open.get(suspect.key)
    return item is not None and item.status is milepost.ItemStatus.PROCESSING


def recovery(state: milepost.SessionState) -> dict[str, Any] | None:
    """The latest recovery: when, why, how, and what it came to."""
    mark = state.recovery
    if mark is None:
        return None
    return {
        "at": iso(mark.recovered_at),
        "sequence": mark.sequence,
        "reason": milepost.label(mark.reason),
        "priority": milepost.label(mark.priority),
        "strategy": milepost.label(mark.strategy),
        "result": milepost.plain(mark.result),
    }


def last_error(store: milepost.Store, state: milepost.SessionState) -> dict[str, Any] | None:
    """The latest thing that went wrong and is not mended; `None` for nothing.

    What waits to be run again, or was begun again, is no error any more. `at` is `None` where
    nobody noted when it was.
    """
    if state.outcome is milepost.Outcome.COMPLETED:
        return None
    return max(_errors(store, state), key=lambda error: error["at"] or "", default=None)


def _errors(store: milepost.Store, state: milepost.SessionState) -> Iterator[dict[str, Any]]:
    for run in _runs_of_this_work(store, state):
        if run.error_message:
            yield _error(run.error_message, None, run.ended_ns)
    for failed in state.failed_batches.values():
        items = list(_item_errors(failed.partial_progress))
        yield from items
        # An error that went through an item's body to the batch is one error, with its item.
        cause = next((each for each in items if each["message"] == failed.error_message), None)
        yield _error(
            failed.error_message,
            failed.error_type,
            failed.failed_ns,
            batch=failed.batch_id,
            item=None if cause is None else cause["item"],
        )
    for batch in (*state.active_batches.values(), *state.pending_batches.values()):
        yield from _item_errors(batch)
    for batch in state.active_batches.values():
        # Its failed try is the last thing that happened to it while its run goes on.
        if batch.error_message and isinstance(batch.current_phase, milepost.Retrying):
            at_ns = batch.updated_ns if batch.resumed_ns else None
            yield _error(batch.error_message, batch.error_type, at_ns, batch=batch.batch_id)


def _runs_of_this_work(
    store: milepost.Store, state: milepost.SessionState
) -> list[milepost.Execution]:
    """The runs since the work was last begun anew, or an older version of it restored."""
    runs = state.executions[max(0, state.runs_before - state.executions_forgotten) :]
    if not any(run.error_message for run in runs):
        return []
    restored = (
        each.epoch for each in store.versions(state.session_id) if each.restored_from is not None
    )
    since = max(restored, default=0)
    return [run for run in runs if run.epoch > since]


def _item_errors(batch: milepost.ActiveBatch) -> Iterator[dict[str, Any]]:
    for item in batch.open.values():
        if item.status is milepost.ItemStatus.FAILED and item.error_message:
            yield _error(
                item.error_message,
                item.error_type,
                item.ended_ns,
                batch=batch.batch_id,
                item=item.item_id,
            )


def _error(
    text: str,
    error_type: milepost.BatchErrorType | None,
    at_ns: int | None,
    *,
    batch: str | None = None,
    item: milepost.Key | None = None,
) -> dict[str, Any]:
    message, hint = _parted(text)
    return {
        "message": message,
        "hint": hint,
        "type": None if error_type is None else milepost.label(error_type),
        "at": iso_ns(at_ns),
        "batch": batch,
        "item": item,
    }


def _parted(text: str) -> tuple[str, str | None]:
    """What ended a run, and what to try, which is recorded with it on a line of its own."""
    message, _, hint = text.partition(HINT)
    return message, hint or None


# Who, how fast, until when.


def writer(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """Who wrote it last, or writes it now."""
    return None if found is None else {**found, "since": iso(found["since"])}


def _unlock(view: milepost.View, *, store_option: str | None) -> str | None:
    """The command for somebody who knows that a writer on another host is gone."""
    if view.writer is None or view.writer["presence"] != milepost.Presence.UNKNOWN.value:
        return None
    return command("unlock", view.state.session_id, store_option=store_option)


def _eta(view: milepost.View) -> dict[str, Any] | None:
    """What is left, at the session's own pace; a time of day only while it runs.

    `is_at_least` says that more work may be found on the way.
    """
    state = view.state
    is_live = view.judgement.status is milepost.SessionStatus.RUNNING
    now = datetime.now(UTC)
    left = milepost.remaining_ns(state, int(now.timestamp() * 1e9) if is_live else None)
    if left is None or state.outcome is not None or state.kind is milepost.SessionKind.DATA:
        return None
    seconds = left / 1e9
    return {
        "remaining_seconds": round(seconds, 3),
        "is_at_least": milepost.is_growing(state),
        "at": _later(now, seconds) if is_live else None,
    }


def _positions(state: milepost.SessionState) -> list[dict[str, Any]]:
    """The batches whose items are known by their position, and how many come before the next."""
    return [
        {
            "batch": batch.batch_id,
            "batch_number": number,
            "position": batch.position,
            "failed": sum(
                isinstance(key, int) and 0 <= key < batch.position
                for key, item in batch.open.items()
                if item.status is milepost.ItemStatus.FAILED
            ),
        }
        for number, batch in sorted((state.active_batches | state.pending_batches).items())
        if batch.is_positional
    ]


def _outputs(store: milepost.Store, state: milepost.SessionState) -> list[dict[str, Any]]:
    """The files that rows go to, how many of their bytes are acknowledged, and how many there are.

    `found_bytes` is `None` for a file that is not there.
    """
    return [
        {
            "path": _path_of(store, rows.path),
            "name": rows.path,
            "acknowledged_bytes": rows.length_bytes,
            "found_bytes": _size_of(_path_of(store, rows.path)),
        }
        for rows in state.outputs.values()
    ]


def _path_of(store: milepost.Store, name: str) -> str:
    # From where the store really is, though it was named by a link.
    return os.path.normpath(os.path.join(os.path.realpath(store.path), *name.split("/")))


def _size_of(path: str) -> int | None:
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def left_behind(
    store: milepost.Store, before: milepost.SessionState, after: milepost.SessionState
) -> list[str]:
    """The files with rows from before of which a session knows nothing any more.

    The next run refuses to write to them: to be moved away first.
    """
    known = [each["path"] for each in _outputs(store, after)]
    files = [each["path"] for each in _outputs(store, before) if each["path"] not in known]
    return [path for path in files if os.path.isfile(path) and os.path.getsize(path)]


def _later(now: datetime, seconds: float) -> str | None:
    try:
        return iso(now + timedelta(seconds=seconds))
    except OverflowError:
        return None  # nobody waits that long


def _statistics(state: milepost.SessionState) -> dict[str, Any]:
    sums = state.session_statistics
    seconds = milepost.active_ns(state) / 1e9  # of the open run too
    finished = sums.total_items_processed + sums.total_items_failed + sums.total_items_skipped
    return {
        "batches_completed": sums.total_batches_completed,
        "batches_failed": sums.total_batches_failed,
        "items_processed": sums.total_items_processed,
        "items_failed": sums.total_items_failed,
        "items_skipped": sums.total_items_skipped,
        "success_rate": sums.success_rate,
        "items_per_second": finished / seconds if finished and seconds > 0 else None,
        "average_batch_ms": sums.average_batch_duration_ms,
        "active_seconds": seconds,
        "updated_at": iso(sums.last_updated),
    }


def _execution(state: milepost.SessionState, run: milepost.Execution) -> dict[str, Any]:
    is_open = run.ended_ns is None
    sums = state.session_statistics
    processed, failed = run.items_processed, run.items_failed
    if is_open:
        # While a run is open, its record holds what was there when it began.
        processed = sums.total_items_processed - processed
        failed = max(0, sums.total_items_failed - failed)
    error, hint = _parted(run.error_message or "")
    return {
        "epoch": run.epoch,
        "host": run.host,
        "pid": run.pid,
        "program": run.program or None,
        "release": run.release or None,
        "started_at": iso(run.start_time),
        "ended_at": iso(run.end_time),
        "outcome": None if run.outcome is None else milepost.label(run.outcome),
        "error": error or None,
        "hint": hint,
        "items_processed": processed,
        "items_failed": failed,
        "in_flight": [
            _in_hand(batch_key(state, number), number, key, None) for number, key in run.in_flight
        ],
    }


def checkpoint(mark: milepost.CheckpointInfo) -> dict[str, Any]:
    """A mark that a program set."""
    return {
        "id": mark.id,
        "type": milepost.label(mark.checkpoint_type),
        "name": mark.name,
        "batch_number": mark.batch_number,
        "sequence": mark.sequence,
        "created_at": iso(mark.created_at),
    }


# Batches.


def batches(
    state: milepost.SessionState, plan: list[milepost.PlannedBatch]
) -> list[dict[str, Any]]:
    """Every batch that was ever begun or is planned, by number."""
    found = [_ended(each) for each in state.completed_batches.values()]
    found += [_open(each, "processing") for each in state.active_batches.values()]
    found += [_open(each, "pending") for each in state.pending_batches.values()]
    found += [
        {
            **_open(each.partial_progress, "failed"),
            "error": each.error_message,
            "error_type": milepost.label(each.error_type),
            "updated_at": iso(each.failure_time),
        }
        for each in state.failed_batches.values()
    ]
    begun = {int(each["number"]) for each in found}
    found += [_planned(n, each) for n, each in enumerate(plan) if n not in begun]
    return sorted(found, key=lambda batch: int(batch["number"]))


def _planned(number: int, batch: milepost.PlannedBatch) -> dict[str, Any]:
    return {
        "number": number,
        "key": batch.key,
        "label": batch.label,
        "status": "pending",
        "phase": None,
        "items_total": None,
        "growing": False,
        "position": None,
        "items_processed": 0,
        "items_failed": 0,
        "items_skipped": 0,
        "error": None,
        "error_type": None,
        "updated_at": None,
        "active_seconds": 0.0,
        "metrics": None,
    }


def _ended(batch: milepost.CompletedBatch) -> dict[str, Any]:
    finished = batch.items_processed + batch.items_failed + batch.items_skipped
    return {
        "number": batch.batch_number,
        "key": batch.batch_id,
        "label": batch.label,
        "status": "completed",
        "phase": None,
        "items_total": finished,
        "growing": False,
        "position": None,
        "items_processed": batch.items_processed,
        "items_failed": batch.items_failed,
        "items_skipped": batch.items_skipped,
        "error": None,
        "error_type": None,
        "updated_at": iso(batch.end_time),
        "active_seconds": batch.active_ns / 1e9,
        "metrics": milepost.plain(batch.performance_metrics),
    }


def _open(batch: milepost.ActiveBatch, status: str) -> dict[str, Any]:
    return {
        "number": batch.batch_number,
        "key": batch.batch_id,
        "label": batch.label,
        "status": status,
        "phase": milepost.plain(batch.current_phase),
        "items_total": batch.items_expected,
        "growing": batch.is_growing,
        "position": batch.position if batch.is_positional else None,
        "items_processed": batch.items_processed,
        "items_failed": batch.items_failed,
        "items_skipped": batch.items_skipped,
        "error": batch.error_message,
        "error_type": None if batch.error_type is None else milepost.label(batch.error_type),
        "updated_at": iso(batch.updated_at),
        "active_seconds": milepost.batch_active_ns(batch) / 1e9,
        "metrics": None,
    }


def failures(state: milepost.SessionState) -> list[dict[str, Any]]:
    """Every failed batch and every failed item of a batch that goes on, with why."""
    found: list[dict[str, Any]] = [
        {
            "batch": each.batch_id,
            "batch_number": number,
            "label": each.label,
            "message": each.error_message,
            "type": milepost.label(each.error_type),
            "recoverable": each.is_recoverable,
            "failed_runs": each.retry_count,
            "at": iso(each.failure_time),
            "items": _failed_items(each.partial_progress),
        }
        for number, each in sorted(state.failed_batches.items())
    ]
    for number, batch in sorted((state.active_batches | state.pending_batches).items()):
        items = _failed_items(batch)
        if items:
            found.append(
                {
                    "batch": batch.batch_id,
                    "batch_number": number,
                    "label": batch.label,
                    "message": None,
                    "type": None,
                    "recoverable": True,
                    "failed_runs": batch.retry_count,
                    "at": None,
                    "items": items,
                }
            )
    return found


def _failed_items(batch: milepost.ActiveBatch) -> list[dict[str, Any]]:
    return [
        {
            "item": item.item_id,
            "message": item.error_message,
            "type": None if item.error_type is None else milepost.label(item.error_type),
            "recoverable": item.is_recoverable,
            "attempts": item.attempts,
            "failed_runs": item.failed_runs,
            "at": iso(item.end_time),
        }
        for item in batch.open.values()
        if item.status is milepost.ItemStatus.FAILED
    ]
