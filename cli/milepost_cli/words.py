"""Events in plain words, for `log`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from milepost_cli.output import counted, key

Fields = Mapping[str, Any]


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
    return f": {event['error_message']}{suffix}" if event.get("error_message") else ""


def _item(event: Fields) -> str:
    parts: list[str] = []
    if event["key"] is not None:
        parts.append(f"item {key(event['key'])} {event['status']}{_because(event)}")
    if event["taken"] is not None:
        parts.append(f"item {key(event['taken'])} taken")
    return ", ".join(parts) or "nothing in hand"


def _items(event: Fields) -> str:
    sums: dict[str, int] = {}
    for change in event["changes"]:
        sums[change["status"]] = sums.get(change["status"], 0) + 1
    told = ", ".join(f"{number:,} {status}" for status, number in sums.items())
    return f"{counted(len(event['changes']), 'item')} at once: {told}"


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
    if event["from_batch"] is not None:
        parts.append(f"from batch {event['from_batch']}")
    if event["batches"]:
        parts.append(f"{counted(len(event['batches']), 'failed batch')} to be tried again")
    if event["reset"]:
        parts.append(f"{counted(len(event['reset']), 'batch')} to begin anew")
    return ", ".join(parts)


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
}
