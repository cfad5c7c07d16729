"""A session as a page of text, from the object that `show --json` prints."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import milepost
from milepost_cli import output
from milepost_cli.output import age, clock, counted, duration, key, reason, safe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_IN_FLIGHT_MAX: Final = 20
_ITEMS_MAX: Final = 8
"""More items of one batch are one line."""
_ITEMS_NAMED: Final = 3
_DATA_CHARACTERS_MAX: Final = 200
_MARGIN: Final = 12
_BY_HAND: Final = ", only tried again by hand"


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
        title = (
            "next (when that is mended)  " if _stands_in_the_way(told) else f"{'next':<{_MARGIN}}"
        )
        yield f"{title}{output.style(safe(told['next_command']), 'cyan')}"


def _stands_in_the_way(told: dict[str, Any]) -> bool:
    """Whether the last run ended with an error that the next one would meet as well."""
    runs = told["executions"]
    return told["last_error"] is not None and bool(runs) and runs[-1]["hint"] is not None


def progress_words(counts: dict[str, Any]) -> str:
    """`12 of 250 batches (1 failed), 1,204 items (3 failed)`.

    While work is found on the way: `1,204 of at least 5,000 items`. Where nobody knows how many
    there are: `1,204 items done (3 failed), total unknown`.
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
    if _is_endless(counts):
        parts += [told + " done" + _failed(items), "total unknown"]
    else:
        parts.append(told + _failed(items))
    return ", ".join(parts)


def _is_endless(counts: dict[str, Any]) -> bool:
    """Whether it is one batch of nobody knows how many items."""
    return counts["total_batches"] == 1 and counts["progress"] is None


def next_lines(command: str | None, left_behind: Sequence[str] = ()) -> Iterator[str]:
    """What to type next, and which files of before are to be moved away first."""
    for path in left_behind:
        yield f"move away first, it has the rows of before: {safe(path)}"
    told = output.style(safe(command), "cyan") if command else "run the program again"
    yield f"next: {told}"


def share_words(counts: dict[str, Any]) -> str:
    """`42%`, `at most 42%` where more work may be found on the way, nothing where it is unknown.

    What failed was done, too: where there is nothing else left, it is `all tried`. Of one batch
    that failed, items may be left that were not.
    """
    share = counts["progress"]
    if share is None:
        return ""
    if share == 1.0 and counts["batches"]["failed"]:
        is_left = counts["total_batches"] == 1 and counts["items"]["pending"]
        return "not all tried" if is_left else "all tried"
    return f"{'at most ' if counts['items']['growing'] else ''}{milepost.percent(share)}"


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
    if told["in_flight"] and not _are_the_suspects(told):
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
    known, found = rows["acknowledged_bytes"], rows["found_bytes"]
    line = f"{safe(rows['path'])}: {counted(known, 'byte')} acknowledged"
    if known and found is None:
        return f"{line}; {output.style('GONE', 'red')}: put it back"
    if known and found < known:
        is_there = "only " + counted(found, "byte") + (" is" if found == 1 else " are") + " there"
        return f"{line}; {output.style('DAMAGED', 'red')}: {is_there}: put it back"
    return line


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
    share = share_words(told)
    # What failed is finished too, so the share alone would look like success.
    share += " finished" if share.endswith("%") else ""
    return f"{batches['completed']:,}{of} completed{rest}" + (f" ({share})" if share else "")


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
    if items["waiting"]:
        verb = "waits" if items["waiting"] == 1 else "wait"
        rest.append(f"{items['waiting']:,} of them {verb} to be tried again")
    if _is_endless(told):
        rest.append("total unknown")
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
    if eta is None and told["items"]["waiting"]:
        line += "; no estimate while items wait to be tried again"
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
    lines = _shortened(_places([(each, _deaths(each, runs=runs)) for each in suspects]))
    how = "the others wait until each has run" if runs else "the next run begins with each of them"
    return [*lines, f"in hand at a death; {how} alone"]


def _deaths(suspect: dict[str, Any], *, runs: bool) -> str:
    what = ""
    if runs:
        what = " runs alone now" if suspect["in_hand"] else " will run alone next"
    if not suspect["deaths"]:
        return what
    deaths = "death" if suspect["deaths"] == 1 else f"{suspect['deaths']:,} deaths"
    how = f" ({safe(suspect['last_death'])})" if suspect["last_death"] else ""
    return f"{what}, {'was ' if runs else ''}alone at the last {deaths}{how}"


def _are_the_suspects(told: dict[str, Any]) -> bool:
    """Whether what was in hand is told as what is suspect."""
    if _runs(told):
        return False
    in_hand, suspects = (
        {(each["batch_number"], each["item"]) for each in told[name]}
        for name in ("in_flight", "suspects")
    )
    return in_hand == suspects


def _places(told: Sequence[tuple[dict[str, Any], str]]) -> list[str]:
    """Places, each with what is said of it; many of one batch, of which the same is said, once."""
    lines: list[str] = []
    groups = groupby(told, key=lambda each: (each[0]["batch_number"], each[1]))
    for (_, about), group in groups:
        places = [place for place, _ in group]
        keys = [place["item"] for place in places]
        if len(places) > _ITEMS_MAX and None not in keys:
            lines.append(_items(f"batch {safe(places[0]['batch'])}", keys) + about)
        else:
            lines += [f"{_place(place)}{about}" for place in places]
    return lines


def _items(batch: str, keys: Sequence[milepost.Key]) -> str:
    numbers = sorted(each for each in keys if isinstance(each, int))
    if len(numbers) == len(keys) and numbers[-1] - numbers[0] + 1 == len(keys):
        return f"{batch}: items {numbers[0]} to {numbers[-1]}"
    named = ", ".join(key(each) for each in keys[:_ITEMS_NAMED])
    return f"{len(keys):,} items of {batch}: {named} and {len(keys) - _ITEMS_NAMED:,} more"


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
    lines = [f"{place}{reason(error['message'])}{kind}"]
    if error["at"] is not None:
        lines.append(f"at {clock(error['at'])} ({age(error['at'])})")
    if error["hint"] is not None:
        lines.append(f"hint: {reason(error['hint'])}")
    return lines


def _in_hand(items: list[dict[str, Any]]) -> list[str]:
    return _shortened(_places([(each, "") for each in items]))


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
            reason(each["error"] or ""),
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
        why = f": {reason(batch['message'])} ({batch['type']})" if batch["message"] else ""
        final = "" if batch["recoverable"] else _BY_HAND
        yield f"  batch {safe(batch['batch'])}{why}{final}"
        for item in batch["items"]:
            kind = f" ({item['type']})" if item["type"] else ""
            why = reason(item["message"] or "no reason given")
            by_hand = "" if item["recoverable"] or final else _BY_HAND
            yield f"    item {key(item['item'])}: {why}{kind}{by_hand}"


def _checkpoints(told: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "checkpoints, the newest first:" if told["checkpoints"] else "no checkpoint"
    rows = [
        [each["id"], each["type"], safe(each["name"] or ""), clock(each["created_at"])]
        for each in told["checkpoints"]
    ]
    yield from (f"  {line}" for line in output.columns(rows))
