"""What commands print: data on stdout, all else on stderr, text that cannot harm a terminal.

- Names, keys and error messages come from users and from foreign servers: control characters and
  marks that reorder text are printed as escapes.
- Colour says nothing that words do not say; it is left out under `NO_COLOR`
  and away from terminals.
- A reader that went away (`milepost log x | head`) ends the command quietly.
- Times in JSON are ISO 8601 in UTC.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sys
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import click

import milepost

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_HARMFUL: Final = re.compile(
    # C0 and C1 controls, separators that end lines, marks that reorder text, halves of characters.
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_GAP: Final = "  "
_COLUMN_WIDTH_MIN: Final = 10
"""A column that yields keeps so much: less would tell nothing."""
_NUMBER: Final = re.compile("0|-?[1-9][0-9]{0,19}")
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

STATUS_COLOURS: Final = {
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "interrupted": "yellow",
    "stopped": "yellow",
    "stale": "yellow",
    "unreadable": "red",
}


class ReaderGoneError(Exception):
    """Whoever read our stdout has closed it."""


# Text.


def safe(text: object, *, keep_tabs: bool = False) -> str:
    """Text with everything escaped that a terminal would act on; it stays on one line."""

    def escape(match: re.Match[str]) -> str:
        character = match.group()
        if keep_tabs and character == "\t":
            return character
        number = ord(character)
        return _SHORT.get(character) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")

    return _HARMFUL.sub(escape, str(text))


def reason(text: object) -> str:
    """Why something failed, in one line: a library's message may have many."""
    return safe(" ".join(str(text).split()))


def key(name: str | int) -> str:
    """The key of an item as people see it: the text `"1"` in quotes, the number `1` without."""
    return f'"{name}"' if isinstance(name, str) and is_number(name) else safe(name)


def is_number(word: str) -> bool:
    """Whether a key that is a number looks just like this text."""
    return _NUMBER.fullmatch(word) is not None


def say(line: str) -> None:
    """One line of data on stdout."""
    try:
        click.echo(_encodable(line, sys.stdout.encoding))
    except BrokenPipeError as error:
        raise ReaderGoneError from error


def tell(line: str) -> None:
    """One line on stderr; a closed stderr is no reason to fail."""
    try:
        click.echo(_encodable(line, sys.stderr.encoding), err=True)
    except OSError:
        return


def flush() -> None:
    """Push out what is buffered, and notice here if nobody reads it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderGoneError from error


def _encodable(text: str, encoding: str | None) -> str:
    encoding = encoding or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)


def style(text: str, colour: str | None) -> str:
    """Text in a colour; click drops it again where stdout is no terminal."""
    if colour is None or os.environ.get("NO_COLOR"):
        return text
    return click.style(text, fg=colour)


def status(word: str) -> str:
    """A status in its colour."""
    return style(word, STATUS_COLOURS.get(word))


def counted(number: int, word: str) -> str:
    """`1 item`, `2 items`, `1,200 batches`."""
    plural = word if number == 1 else word + ("es" if word.endswith("ch") else "s")
    return f"{number:,} {plural}"


def room() -> int | None:
    """How many columns a line of stdout has; `None` where it is no terminal, and nothing is cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def columns(
    rows: Sequence[Sequence[str]], *, room: int | None = None, yielding: Sequence[int] = ()
) -> list[str]:
    """Rows as lines with aligned columns, also where characters are two cells wide.

    Lines that are longer than `room` are shortened in the columns that yield, one after the other.
    """
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    if room is not None:
        for index in yielding:
            excess = max(0, sum(widths) + len(_GAP) * (len(widths) - 1) - room)
            least = min(widths[index], _COLUMN_WIDTH_MIN)
            widths[index] = max(least, widths[index] - excess)
    return [
        _GAP.join(
            _fitted(cell, width, may_cut=index in yielding)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def wrapped(text: str, room: int) -> list[str]:
    """The text in lines of at most `room` columns, broken between words where that can be."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if _width(longer) <= room:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while _width(line) > room:
            kept = milepost.shortened(line, room + 1)[:-1]
            lines.append(kept)
            line = line[len(kept) :]
    return [*lines, line]


def _fitted(cell: str, width: int, *, may_cut: bool) -> str:
    if may_cut:
        cell = milepost.shortened(cell, width)
    return cell + " " * (width - _width(cell))


def _width(text: str) -> int:
    return milepost.text_width(click.unstyle(text))


# Times.


def iso(moment: datetime | None) -> str | None:
    """A time for programs."""
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def iso_ns(ns: int | None) -> str | None:
    """Nanoseconds since 1970 as a time for programs."""
    if ns is None:
        return None
    return iso(
        datetime.fromtimestamp(ns // 1_000_000_000, UTC)
        + timedelta(microseconds=ns % 1_000_000_000 // 1000)
    )


def clock(text: str | None) -> str:
    """A time for people, from one for programs."""
    return "never" if text is None else f"{text[:10]} {text[11:19]} UTC"


def age(text: str | None) -> str:
    """How long ago that was: `3m20s ago`."""
    if text is None:
        return "never"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()
    return f"{duration(max(0.0, seconds))} ago"


def duration(seconds: float) -> str:
    """`45s`, `3m20s`, `2h05m`, `3d4h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, whole = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{whole:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h"


# JSON.


def encode(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON that is safe on a terminal: bytes as base64, times as ISO 8601."""
    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=indent)
    # Inside JSON these stand in strings only, so the escape means the same.
    return re.sub(
        "[\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]",
        lambda match: f"\\u{ord(match.group()):04x}",
        text,
    )


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {_key(key): _plain(each) for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in cast("Iterable[Any]", value)]
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return iso(value) if value.tzinfo else value.isoformat()
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else encode(key)


def document(value: Any) -> None:
    """One JSON object on one line of stdout."""
    say(encode(value))


def error_document(error: Exception, message: str, hint: str, code: int) -> dict[str, Any]:
    """What `--json` prints on stderr for an error.

    Shape: `{"error": {"type", "message", "hint", "exit_code", "facts"}}`; `facts` holds what the
    error carries beside its message: `path`, `holder`, `expected_bytes`, …
    """
    facts = {
        name: _fact(value)
        for name, value in vars(error).items()
        if name != "hint" and not name.startswith("_") and value is not None
    }
    is_click = isinstance(error, click.ClickException)
    return {
        "error": {
            "type": "UsageError" if isinstance(error, click.UsageError) else type(error).__name__,
            "message": message,
            "hint": hint,
            "exit_code": code,
            "facts": {} if is_click else facts,
        }
    }


def _fact(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_fact(each) for each in cast("Iterable[Any]", value)]
    fields = getattr(value, "__struct_fields__", None)
    if fields is not None:
        return {name: getattr(value, name) for name in fields}
    return value
