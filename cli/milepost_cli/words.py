"""Events in plain words, for `log`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from milepost_cli.output import counted, key, reason

Fields = Mapping[str, Any]

HINT: Final = "\nhint: "
"""Begins what to try, behind what ended a run."""
_KEYS_MAX: Final = 3


def describe(event: Fields, batch: str) -> str:
    """What happened, in one sentence; `batch` is what the event's batch is called."""
    told = _WORDS.get(event["event"])
    if told is None:
        return f"{event['event']} {dict(event)}"  # of a newer milepost than these words
    sentence = told(event)
    return f"{batch}: {sentence}" if batch else sentence


def _because(event: Fields) -> str:
    kind = event.get("error_type")
    suffix = f" ({kind})" if kind else ""
    why: str = event.get("error_message") or ""
    return f": {reason(why.replace(HINT, '; hint: '))}{suffix}" if why else ""


def _item(event: Fields) -> str:
    parts: list[str] = []
    if event["key"] is not None:
        parts.append(f"item {key(event['key'])} {event['status']}{_because(event)}")
    if event["taken"] is not None:
        parts.append(f"item {key(event['taken'])} taken")
    return ", ".join(parts) or "nothing in hand"


def _items(event: Fields) -> str:
    return f"{counted(len(event['changes']), 'item')} at once: {_sums(event['changes'])}"


def _sums(changes: Sequence[Fields]) -> str:
    sums: dict[str, int] = {}
    for change in changes:
        sums[change["status"]] = sums.get(change["status"], 0) + 1
    return ", ".join(f"{number:,} {status}" for status, number in sums.items())


def _added(event: Fields) -> str:
    return f"{counted(len(event['keys']), 'item')} found on the way: {_some(event['keys'])}"


def _ended(event: Fields) -> str:
    changes, taken = event["changes"], event["taken"]
    parts: list[str] = []
    if len(changes) == 1:
        (change,) = changes
        parts.append(f"item {key(change['key'])} {change['status']}{_because(change)}")
    elif changes:
        parts.append(f"{counted(len(changes), 'item')}: {_sums(changes)}")
    if taken:
        parts.append(f"{'item' if len(taken) == 1 else 'items'} {_some(taken)} taken")
    return ", ".join([*parts, *_rows(event)]) or "nothing in hand"


def _advanced(event: Fields) -> str:
    through, taken = event["done_through"], event["taken"]
    parts: list[str] = []
    if through:
        parts.append(f"the first {'item' if through == 1 else f'{through:,} items'} done")
    if taken == 1:
        parts.append(f"item {through} taken")
    elif taken:
        parts.append(f"items {through} to {through + taken - 1} taken")
    return ", ".join([*parts, *_rows(event)]) or "items are known by their position"


def _rows(event: Fields) -> list[str]:
    return [
        f"{counted(each['length_bytes'] - each['start_bytes'], 'byte')} to {each['path']}"
        for each in event["rows"]
    ]


def _some(keys: Sequence[str | int]) -> str:
    more = len(keys) - _KEYS_MAX
    told = ", ".join(map(key, keys[:_KEYS_MAX]))
    return f"{told} and {more:,} more" if more > 0 else told


def _output(event: Fields) -> str:
    before = event["length_bytes"]
    behind = f", behind the {counted(before, 'byte')} in it" if before else ""
    return f"output {event['path']} opened{behind}"


def _progress(event: Fields) -> str:
    parts = [
        text
        for text, value in (
            (f"phase {event['phase']}", event["phase"]),
            (f"{event['items_processed']} items processed", event["items_processed"]),
            (f"{event['items_failed']} items failed", event["items_failed"]),
            (f"{event['items_total']} items in all", event["items_total"]),
        )
        if value is not None
    ]
    return "progress: " + (", ".join(parts) or "none told")


def _batch_started(event: Fields) -> str:
    total = event["items_total"]
    return "batch begun" + (f", {counted(total, 'item')}" if total is not None else "")


def _batch_completed(event: Fields) -> str:
    metrics: Fields = event["metrics"] or {}
    speed: float | None = metrics.get("items_per_second")
    return "batch completed" + (f", {speed:,.1f} items/s" if speed else "")


def _batch_failed(event: Fields) -> str:
    later = "" if event["is_recoverable"] else "; trying again will not help"
    return f"batch failed{_because(event)}{later}"


def _attempt_failed(event: Fields) -> str:
    return f"attempt failed{_because(event)}; next try in {event['delay_ms'] / 1000:g}s"


def _started(event: Fields) -> str:
    program = f" by {event['program']}" if event["program"] else ""
    return f"run begun{program}, process {event['pid']} on {event['host']}"


def _retried(event: Fields) -> str:
    items = sum(len(keys) for keys in event["items"].values())
    return f"put back: {counted(len(event['batches']), 'batch')}, {counted(items, 'item')}"


def _checkpoint(event: Fields) -> str:
    name = f" {event['name']!r}" if event["name"] else ""
    return f"checkpoint{name} set ({event['checkpoint_type']}), {event['id']}"


def _total(event: Fields) -> str:
    total = event["total_batches"]
    if total is None:
        return "number of batches unknown"
    return f"{counted(total, 'batch')} in all"


def _died(event: Fields) -> str:
    cause = f": {event['cause']}" if event["cause"] else " without a word"
    blame = "" if event["is_blamed"] else "; nothing it had in hand is to blame"
    return f"run {event['epoch']} died{cause}{blame}"


def _recovered(event: Fields) -> str:
    parts = [f"recovered ({_spaced(event['reason'])}): {_spaced(event['strategy'])}"]
    if event["result"] is not None:
        return f"{parts[0]}, {result(event['result'])}{_scan(event['report'])}"
    if event["from_batch"] is not None:
        parts.append(f"from batch {event['from_batch']}")
    if event["batches"]:
        parts.append(f"{counted(len(event['batches']), 'failed batch')} to be tried again")
    if event["reset"]:
        parts.append(f"{counted(len(event['reset']), 'batch')} to begin anew")
    return ", ".join(parts)


def result(found: Fields) -> str:
    """What a recovery came to."""
    if found["kind"] == "resumed":
        return _resumed(found["batches"])
    if found["kind"] == "restarted_failed":
        return f"{counted(len(found['batch_numbers']), 'failed batch')} to be tried again"
    if found["kind"] == "partial":
        left = found["remaining_batches"]
        rest = "" if left is None else f", {left:,} to be done"
        return (
            f"what was begun from batch {found['restart_from_batch']:,} on begins anew;"
            f" {counted(found['completed_batches'], 'batch')} completed{rest}"
        )
    return "everything begins anew"


def _resumed(batches: Mapping[str, int]) -> str:
    if not batches:
        return "goes on with what is left"
    if len(batches) == 1:
        ((name, done),) = batches.items()
        return f"batch {name} goes on after {counted(done, 'item')}"
    return f"{counted(len(batches), 'batch')} go on after {counted(sum(batches.values()), 'item')}"


def _scan(report: Fields | None) -> str:
    """The scan that a recovery was part of, as it stood then."""
    if report is None:
        return ""
    wanted = counted(report["sessions_requiring_recovery"], "session")
    parts = [f"{report['successful_recoveries']:,} of {wanted} made ready"]
    parts += [
        f"{report[field]:,} {told}"
        for field, told in (
            ("failed_recoveries", "failed"),
            ("unrecoverable_sessions", "unrecoverable"),
            ("healthy_sessions", "with nothing to do"),
        )
        if report[field]
    ]
    return f"; the scan so far: {', '.join(parts)}"


def _spaced(label: str) -> str:
    return label.replace("_", " ")


_WORDS: Final[dict[str, Callable[[Fields], str]]] = {
    "SessionCreated": lambda event: f"session {event['name']!r} created",
    "ItemCapChanged": lambda event: f"details kept of {counted(event['item_cap'], 'item')} a batch",
    "TotalBatchesSet": _total,
    "PlanSealed": lambda event: f"plan sealed: {counted(event['count'], 'batch')}",
    "ExecutionStarted": _started,
    "ExecutionEnded": lambda event: f"run ended: {event['outcome']}{_because(event)}",
    "SessionCompleted": lambda _event: "session ended",
    "DataSet": lambda _event: "data set",
    "CheckpointSaved": _checkpoint,
    "CheckpointsRemoved": lambda event: f"{counted(len(event['ids']), 'old checkpoint')} removed",
    "BatchStarted": _batch_started,
    "ProgressUpdated": _progress,
    "ItemUpdated": _item,
    "ItemsUpdated": _items,
    "CountersAdded": lambda event: (
        "counted " + ", ".join(f"{name} +{amount}" for name, amount in event["counters"].items())
    ),
    "BatchAttemptFailed": _attempt_failed,
    "BatchCompleted": _batch_completed,
    "BatchFailed": _batch_failed,
    "Retried": _retried,
    "Restarted": lambda _event: "begun anew",
    "Restored": lambda event: f"version {event['version']} restored",
    "ExecutionDied": _died,
    "Recovered": _recovered,
    "ItemsAdded": _added,
    "ItemsEnded": _ended,
    "PositionsAdvanced": _advanced,
    "OutputOpened": _output,
    "ParamsSet": lambda _event: "params set",
}
