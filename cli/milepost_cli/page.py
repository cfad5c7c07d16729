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
    """`12 of 250 batches (1 failed), 1,204 items (3 failed)`.

    While work is found on the way: `1,204 of at least 5,000 items`.
    """
    batches, items = counts["batches"], counts["items"]
    total = counts["total_batches"]
    parts: list[str] = []
    if total is None or total > 1:
        done = batches["completed"]
        told = f"{done:,} of {total:,} batches" if total else counted(done, "batch")
        parts.append(told + _failed(batches))
    told = counted(items["completed"], "item")
    if items["growing"]:
        told = f"{items['completed']:,} of at least {_known(items):,} items"
    parts.append(told + _failed(items))
    return ", ".join(parts)


def share_words(counts: dict[str, Any]) -> str:
    """`42%`, `at most 42%` where more work may be found on the way, nothing where it is unknown."""
    share = counts["progress"]
    if share is None:
        return ""
    return f"{'at most ' if counts['items']['growing'] else ''}{share:.0%}"


def _known(items: dict[str, Any]) -> int:
    statuses = ("pending", "processing", "completed", "failed", "skipped")
    return sum(items[status] for status in statuses)


def _failed(counts: dict[str, Any]) -> str:
    return f" ({counts['failed']:,} failed)" if counts["failed"] else ""


def _sections(told: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    if told["kind"] == "work":
        yield "batches", [_batch_line(told)]
        yield "items", [_item_line(told)]
        yield "position", [_position(each) for each in told["positions"] if each["position"]]
        yield "speed", _speed(told)
        yield "params", [] if told["params"] is None else [_data(told["params"])]
        yield "outputs", [_output(each) for each in told["outputs"]]
    else:
        yield "data", [_data(told["data"])]
    yield "last event", [_last_event(told)]
    yield "writer", _writer(told)
    if told["backup_error"]:
        yield "backup", [f"{output.style('FAILING', 'red')}: {safe(told['backup_error'])}"]
    if told["last_error"]:
        yield "last error", _last_error(told["last_error"])
    if told["in_flight"]:
        yield "in flight" if _runs(told) else "was in hand", _in_hand(told["in_flight"])
    if told["suspects"]:
        yield "suspects", _suspects(told["suspects"], runs=_runs(told))
    if told["recovery"]:
        yield "recovery", [_recovery(told["recovery"])]
    if told["findings"]:
        yield "found", [_finding(each) for each in told["findings"]]


def _runs(told: dict[str, Any]) -> bool:
    """Whether a living process runs it: only then something is in flight."""
    runs = told["executions"]
    return told["status"] == "running" and bool(runs) and runs[-1]["ended_at"] is None


def _data(data: Any) -> str:
    text = output.encode(data)
    return text[:_DATA_CHARACTERS_MAX] + ("…" if len(text) > _DATA_CHARACTERS_MAX else "")


def _position(place: dict[str, Any]) -> str:
    failed = f", {place['failed']:,} of them failed" if place["failed"] else ""
    return f"all before item {place['position']:,} of the source have ended{failed}"


def _output(rows: dict[str, Any]) -> str:
    return f"{safe(rows['path'])}: {counted(rows['acknowledged_bytes'], 'byte')} acknowledged"


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
    share = f" ({share_words(told)} finished)" if told["progress"] is not None else ""
    return f"{batches['completed']:,}{of} completed{rest}{share}"


def _item_line(told: dict[str, Any]) -> str:
    items = told["items"]
    least = "at least " if items["growing"] else ""
    were = "was in hand" if items["processing"] == 1 else "were in hand"
    rest = [
        f"{least if status == 'pending' else ''}{items[status]:,} {word}"
        for status, word in (
            ("failed", "failed"),
            ("skipped", "skipped"),
            ("processing", "in flight" if _runs(told) else were),
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
        least = "at least" if eta["is_at_least"] else "about"
        line += f"; {least} {duration(eta['remaining_seconds'])} left"
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
    how = "wrote the original of this copy" if writer["wrote_original"] else ""
    lines = [f"{who} {how or _PRESENCE[writer['presence']]}, since {clock(writer['since'])}"]
    if writer["presence"] == "unknown":
        lines += [f"if it is surely gone: {safe(told['unlock_command'])}"]
    return lines


def _suspects(suspects: list[dict[str, Any]], *, runs: bool) -> list[str]:
    """What runs alone first, because one of it may have killed its process."""
    lines = _shortened([_suspect(each, runs=runs) for each in suspects])
    how = "the others wait until each has run" if runs else "the next run begins with each of them"
    return [*lines, f"in hand at a death; {how} alone"]


def _suspect(suspect: dict[str, Any], *, runs: bool) -> str:
    what = _place(suspect)
    if runs:
        what += " runs alone now" if suspect["in_hand"] else " will run alone next"
    if not suspect["deaths"]:
        return what
    deaths = "death" if suspect["deaths"] == 1 else f"{suspect['deaths']:,} deaths"
    how = f" ({safe(suspect['last_death'])})" if suspect["last_death"] else ""
    return f"{what}, {'was ' if runs else ''}alone at the last {deaths}{how}"


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


def _in_hand(items: list[dict[str, Any]]) -> list[str]:
    return _shortened([_place(each) for each in items])


def _shortened(lines: list[str]) -> list[str]:
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
    of = ""
    if batch["items_total"] is not None:
        of = f"{' of at least ' if batch['growing'] else '/'}{batch['items_total']:,}"
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
