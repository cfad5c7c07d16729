"""What `recover` found and did, session by session, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import milepost
from milepost_cli import output, page, words
from milepost_cli.output import counted, safe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_HELD_COLOUR: Final = "red"


def report(
    found: milepost.RecoveryReport,
    next_commands: Mapping[str, str | None],
    left_behind: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    """The lines of `milepost recover`, the most urgent session first."""
    details = {each.session_id: each for each in found.recovery_details}
    for name, status in found.statuses.items():
        yield f"{safe(name)}: {_found(status)}"
        lines = _about(status)
        if name in details:
            lines += _done(details[name])
        elif name in found.proposals:
            lines += [f"would make it ready: {result(found.proposals[name])}"]
        if name in found.failures:
            lines += [f"{output.style('FAILED', _HELD_COLOUR)}: {safe(found.failures[name])}"]
        is_held = isinstance(status, milepost.RequiresRecovery) and status.is_held
        if next_commands.get(name) and not is_held:  # there the hint says more
            lines += page.next_lines(next_commands[name], left_behind.get(name, ()))
        yield from (f"  {line}" for line in lines)
    for name, why in found.failures.items():
        if name not in found.statuses:
            yield f"{safe(name)}: {output.style('FAILED', _HELD_COLOUR)}, {safe(why)}"


def summary(found: milepost.RecoveryReport, *, is_acting: bool) -> str:
    """All of it in one line."""
    statuses = found.statuses.values()
    held = sum(isinstance(each, milepost.RequiresRecovery) and each.is_held for each in statuses)
    ready = found.successful_recoveries if is_acting else len(found.proposals)
    parts = [
        f"{number:,} {words}"
        for number, words in (
            (ready, "made ready" if is_acting else "would be made ready"),
            (held, "left alone"),
            (found.unrecoverable_sessions, "unrecoverable"),
            (len(found.failures), "failed"),
            (found.healthy_sessions, "with nothing to do"),
        )
        if number
    ]
    count = len(found.statuses.keys() | found.failures.keys())
    return f"{counted(count, 'session')}" + (f": {', '.join(parts)}" if parts else "")


def _found(status: milepost.RecoveryStatus) -> str:
    if isinstance(status, milepost.NoRecoveryNeeded):
        return f"nothing to do, {safe(status.detail)}"
    if isinstance(status, milepost.Unrecoverable):
        return f"{output.style('UNRECOVERABLE', _HELD_COLOUR)}, {safe(status.reason)}"
    reason = milepost.label(status.reason).replace("_", " ")
    told = f"{reason}, {milepost.label(status.priority)} priority"
    return f"{output.style('LEFT ALONE', _HELD_COLOUR)}, {told}" if status.is_held else told


def _about(status: milepost.RecoveryStatus) -> list[str]:
    if isinstance(status, milepost.NoRecoveryNeeded):
        return []
    if isinstance(status, milepost.RequiresRecovery):
        lines = [safe(status.detail)]
    else:
        lines = [f"tried {safe(what)}: {safe(why)}" for what, why in status.tried]
    return [*lines, *([f"hint: {safe(status.hint)}"] if status.hint else [])]


def _done(detail: milepost.RecoveryDetail) -> list[str]:
    poisoned = [safe(each) for each in detail.poisoned]
    word = "was made ready before" if detail.was_ready else "made ready"
    return [*poisoned, f"{word}: {result(detail.recovery_result)}"]


def result(what: milepost.BatchRecoveryResult) -> str:
    """What a recovery comes to, in words."""
    return safe(words.result(milepost.plain(what)))
