"""A session as a page of text, from the object that `show --json` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from milepost_cli import output
from milepost_cli.output import age, clock, counted, duration, key, safe

if TYPE_CHECKING:
    from collections.abc import Iterator

_IN_FLIGHT_MAX: Final = 20
_DATA_CHARACTERS_MAX: Final = 200
_MARGIN: Final = 12


def session(told: dict[str, Any], *, with_checkpoints: bool) -> Iterator[str]:
    """The lines of `milepost show`."""
    yield f"{safe(told['name'])}: {output.status(told['status'])}, {safe(told['reason'])}"
    yield ""
    for title, lines in _sections(told):
        for index, line in enumerate(lines):
            yield f"{'' if index else title:<{_MARGIN}}{line}"
    if "batch_list" in told:
        yield from _batches(told)
    if "failures" in told:
        yield from _failures(told)
    if with_checkpoints:
        yield from _checkpoints(told)
    if told["next_command"]:
        yield ""
        yield f"{'next':<{_MARGIN}}{output.style(safe(told['next_command']), 'cyan')}"


def progress_words(counts: dict[str, Any]) -> str:
    """`12 of 250 batches (1 failed), 1,204 items (3 failed)`."""
    batches, items = counts["batches"], counts["items"]
    total = counts["total_batches"]
    parts: list[str] = []
    if total is None or total > 1:
        done = batches["completed"]
        told = f"{done:,} of {total:,} batches" if total else counted(done, "batch")
        parts.append(told + _failed(batches))
    parts.append(counted(items["completed"], "item") + _failed(items))
    return ", ".join(parts)


def _failed(counts: dict[str, int]) -> str:
    return f" ({counts['failed']:,} failed)" if counts["failed"] else ""


def _sections(told: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    if told["kind"] == "work":
        yield "batches", [_batch_line(told)]
        yield "items", [_item_line(told["items"])]
        yield "speed", _speed(told)
    else:
        data = output.encode(told["data"])
        more = "…" if len(data) > _DATA_CHARACTERS_MAX else ""
        yield "data", [data[:_DATA_CHARACTERS_MAX] + more]
    yield "last event", [_last_event(told)]
    yield "writer", _writer(told)
    if told["backup_error"]:
        yield "backup", [f"{output.style('FAILING', 'red')}: {safe(told['backup_error'])}"]
    if told["last_error"]:
        yield "last error", _last_error(told["last_error"])
    if told["in_flight"]:
        yield "in flight", _in_flight(told["in_flight"])
    if told["suspects"]:
        yield "suspects", _suspects(told["suspects"])
    if told["recovery"]:
        yield "recovery", [_recovery(told["recovery"])]
    if told["findings"]:
        yield "found", [_finding(each) for each in told["findings"]]


def _last_event(told: dict[str, Any]) -> str:
    when = told["updated_at"]
    return f"{told['sequence']:,} at {clock(when)} ({age(when)}); saved version {told['version']}"


def _batch_line(told: dict[str, Any]) -> str:
    batches, total = told["batches"], told["total_batches"]
    of = f" of {total:,}" if total is not None else ""
    rest = "".join(
        f", {batches[status]:,} {status}"
        for status in ("failed", "processing", "pending")
        if batches[status]
    )
    # What failed is finished too, so the share alone would look like success.
    share = f" ({told['progress']:.0%} finished)" if told["progress"] is not None else ""
    return f"{batches['completed']:,}{of} completed{rest}{share}"


def _item_line(items: dict[str, int]) -> str:
    rest = [
        f"{items[status]:,} {word}"
        for status, word in (
            ("failed", "failed"),
            ("skipped", "skipped"),
            ("processing", "in flight"),
            ("pending", "pending in batches that were begun"),
        )
        if items[status]
    ]
    return "; ".join([f"{items['completed']:,} completed", *([", ".join(rest)] if rest else [])])


def _speed(told: dict[str, Any]) -> list[str]:
    sums, eta = told["statistics"], told["eta"]
    if sums["items_per_second"] is None:
        return []
    line = (
        f"{sums['items_per_second']:,.1f} items/s over {duration(sums['active_seconds'])} of work"
    )
    if eta is not None and eta["remaining_seconds"] > 0:
        line += f"; about {duration(eta['remaining_seconds'])} left"
    return [line]


_PRESENCE: Final = {
    "alive": "is writing it",
    "gone": "wrote it last",
    "unknown": "writes it, as far as can be seen from here",
    "silent": "wrote it last, and has been silent too long",
}


def _writer(told: dict[str, Any]) -> list[str]:
    writer = told["writer"]
    if writer is None:
        return ["unknown"]
    who = f"process {writer['pid']} on {safe(writer['host'])}"
    lines = [f"{who} {_PRESENCE[writer['presence']]}, since {clock(writer['since'])}"]
    if writer["presence"] == "unknown":
        lines += [f"if it is surely gone: {safe(told['unlock_command'])}"]
    return lines


def _suspects(suspects: list[dict[str, Any]]) -> list[str]:
    """What runs alone first, because one of it may have killed its process."""
    lines = [_suspect(each) for each in suspects]
    more = len(lines) - _IN_FLIGHT_MAX
    lines = [*lines[:_IN_FLIGHT_MAX], *([f"and {more:,} more (see --json)"] if more > 0 else [])]
    return [*lines, "in hand at a death; the next run begins with each of them alone"]


def _suspect(suspect: dict[str, Any]) -> str:
    what = _place(suspect)
    if not suspect["deaths"]:
        return what
    deaths = "death" if suspect["deaths"] == 1 else f"{suspect['deaths']:,} deaths"
    how = f" ({safe(suspect['last_death'])})" if suspect["last_death"] else ""
    return f"{what}, alone at the last {deaths}{how}"


def _place(place: dict[str, Any]) -> str:
    item = "" if place["item"] is None else f": item {key(place['item'])}"
    return f"batch {safe(place['batch'])}{item}"


def _recovery(recovery: dict[str, Any]) -> str:
    why, how = (recovery[each].replace("_", " ") for each in ("reason", "strategy"))
    return f"{clock(recovery['at'])} ({age(recovery['at'])}): {why}, so {how}"


def _last_error(error: dict[str, Any]) -> list[str]:
    where = [f"batch {safe(error['batch'])}"] if error["batch"] is not None else []
    where += [f"item {key(error['item'])}"] if error["item"] is not None else []
    kind = f" ({error['type']})" if error["type"] else ""
    place = f"{', '.join(where)}: " if where else ""
    return [
        f"{place}{safe(error['message'])}{kind}",
        f"at {clock(error['at'])} ({age(error['at'])})",
    ]


def _in_flight(items: list[dict[str, Any]]) -> list[str]:
    lines = [_place(each) for each in items]
    more = len(lines) - _IN_FLIGHT_MAX
    return [*lines[:_IN_FLIGHT_MAX], *([f"and {more:,} more (see --json)"] if more > 0 else [])]


def _finding(finding: dict[str, Any]) -> str:
    word = output.style("DAMAGE", "red") if finding["is_error"] else "note"
    return f"{word}: {safe(finding['message'])}"


def _batches(told: dict[str, Any]) -> Iterator[str]:
    rows = [
        [
            str(each["number"]),
            safe(each["key"]),
            safe(each["label"] or ""),
            output.status(each["status"]),
            _share(each),
            safe(each["error"] or ""),
        ]
        for each in told["batch_list"]
    ]
    yield ""
    yield "batches:"
    yield from (f"  {line}" for line in output.columns(rows))


def _share(batch: dict[str, Any]) -> str:
    of = f"/{batch['items_total']:,}" if batch["items_total"] is not None else ""
    failed = f", {batch['items_failed']:,} failed" if batch["items_failed"] else ""
    return f"{batch['items_processed']:,}{of} items{failed}"


def _failures(told: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "what failed:" if told["failures"] else "nothing failed"
    for batch in told["failures"]:
        reason = f": {safe(batch['message'])} ({batch['type']})" if batch["message"] else ""
        final = "" if batch["recoverable"] else ", only tried again by hand"
        yield f"  batch {safe(batch['batch'])}{reason}{final}"
        for item in batch["items"]:
            kind = f" ({item['type']})" if item["type"] else ""
            why = safe(item["message"] or "no reason given")
            yield f"    item {key(item['item'])}: {why}{kind}"


def _checkpoints(told: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "checkpoints, the newest first:" if told["checkpoints"] else "no checkpoint"
    rows = [
        [each["id"], each["type"], safe(each["name"] or ""), clock(each["created_at"])]
        for each in told["checkpoints"]
    ]
    yield from (f"  {line}" for line in output.columns(rows))
