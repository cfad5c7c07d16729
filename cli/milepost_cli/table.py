"""The live table of `recover` on a terminal: what wants something is shown, the rest counted.

- It is redrawn in place, only where something changed: by rich where that is installed, else by
  moving the cursor. Both show the same lines.
- What waits for a person says why and what to type, on lines of its own where it is long.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import click

import milepost
from milepost_cli import output
from milepost_cli.advice import is_stopped
from milepost_cli.shares import is_at_work

if TYPE_CHECKING:
    from collections.abc import Collection

    from milepost_cli.telling import Teller

_ORDER: Final = (
    "running",
    "waiting",
    "ready",
    "given up",
    "unreadable",
    "held",
    "no target",
    "stopped",
    "fine",
)
_COLOURS: Final = {
    "running": "cyan",
    "waiting": "yellow",
    "stopped": "yellow",
    "given up": "red",
    "unreadable": "red",
    "held": "red",
}
_TOLD_IN_FULL: Final = {"given up", "unreadable", "held", "stopped"}
"""What waits for a person says what to do, and that must not be cut."""
_STOPPED_SHOWN: Final = 3
"""More that were stopped on purpose are counted, unless they were named."""
_LINES_A_ROW: Final = 6
_LOUD: Final = {"trouble", "gave_up", "stopping"}


class Beside(NamedTuple):
    """What a table tells beside what the watcher knows.

    Attributes:
        progress: How far a session at work is; empty where that is not known.
        advice: What is told of a session that waits for a person; empty for its own detail.
    """

    progress: Callable[[milepost.Row], str] = lambda _row: ""
    advice: Callable[[milepost.Row], str] = lambda _row: ""


_NOTHING: Final = Beside()


def on_terminal(title: str, named: Collection[str], beside: Beside) -> Teller:
    """The table that this terminal gets; `named` are sessions that the user asked for by name."""
    if importlib.util.find_spec("rich") is not None:
        from milepost_cli.rich_table import RichTable  # noqa: PLC0415  # rich is optional

        return RichTable(title, named, beside)
    return PlainTable(title, named, beside)


def is_loud(notice: milepost.WatchNotice) -> bool:
    """Whether the table does not show it by itself."""
    return notice.event in _LOUD


def lines(
    title: str,
    rows: list[milepost.Row],
    named: Collection[str],
    beside: Beside = _NOTHING,
    *,
    columns: int,
    height: int,
) -> list[str]:
    """The table in at most so many lines of so many columns."""
    shown, stopped = _shown(rows, named)
    shown.sort(key=lambda row: (_ORDER.index(_word(row)), row.pid is None, row.session))
    room = max(1, height - 2)  # the title, and a line for what is left out
    drawn = [milepost.shortened(output.safe(title), columns)]
    left_out = len(shown)
    for block in _blocks(shown[:room], beside, columns):
        if len(drawn) + len(block) > room + 1:
            break
        drawn += block
        left_out -= 1
    rest = _rest(left_out, stopped, len(rows) - len(shown) - stopped)
    return [*drawn, milepost.shortened(rest, columns)] if rest else drawn


def _shown(rows: list[milepost.Row], named: Collection[str]) -> tuple[list[milepost.Row], int]:
    """What stands in the table, and how many that were stopped do not."""
    stopped = [row for row in rows if is_stopped(row) and row.session not in named]
    stopped.sort(key=lambda row: (not row.has_target, row.session))
    shown = [row for row in rows if row.doing != "fine" or row.session in named or is_at_work(row)]
    return shown + stopped[:_STOPPED_SHOWN], len(stopped[_STOPPED_SHOWN:])


def _word(row: milepost.Row) -> str:
    if is_at_work(row):
        return "running"
    return "stopped" if is_stopped(row) else row.doing


def _blocks(rows: list[milepost.Row], beside: Beside, columns: int) -> list[list[str]]:
    """The lines of each row; one that is told in full and does not fit goes on below."""
    told = [_told(row, beside) for row in rows]
    names = [output.safe(row.session) for row in rows]
    words = [_word(row) for row in rows]
    widths = (max(map(milepost.text_width, each), default=0) for each in (names, words))
    beside_room = columns - sum(widths) - 4
    below = [
        word in _TOLD_IN_FULL and milepost.text_width(text) > beside_room
        for word, text in zip(words, told, strict=True)
    ]
    cells = [
        [name, output.style(word, _COLOURS.get(word)), "" if is_below else text]
        for name, word, text, is_below in zip(names, words, told, below, strict=True)
    ]
    heads = output.columns(cells, room=columns, yielding=(2, 0)) if cells else []
    return [
        [head, *(_below(text, columns) if is_below else [])]
        for head, text, is_below in zip(heads, told, below, strict=True)
    ]


def _below(text: str, columns: int) -> list[str]:
    found = output.wrapped(text, columns - 2)
    if len(found) >= _LINES_A_ROW:
        found = [
            *found[: _LINES_A_ROW - 2],
            milepost.shortened(" ".join(found[_LINES_A_ROW - 2 :]), columns - 2),
        ]
    return [f"  {line}" for line in found]


def _told(row: milepost.Row, beside: Beside) -> str:
    if not is_at_work(row):
        return output.safe(beside.advice(row) or row.detail)
    who = f"process {row.pid}" if row.doing == "running" else row.detail
    again = f", run {row.runs:,}" if row.doing == "running" and row.runs > 1 else ""
    progress = beside.progress(row)
    return output.safe(f"{progress}, {who}{again}" if progress else f"{who}{again}")


def _rest(left_out: int, stopped: int, fine: int) -> str:
    parts = [f"and {left_out:,} more"] if left_out else []
    parts += [f"{stopped:,} more stopped on purpose"] if stopped else []
    parts += [f"{output.counted(fine, 'session')} with nothing to do"] if fine else []
    return ", ".join(parts)


class PlainTable:
    """The table, redrawn by moving the cursor."""

    def __init__(self, title: str, named: Collection[str], beside: Beside = _NOTHING) -> None:
        self._title = title
        self._named = named
        self._beside = beside
        self._drawn: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def notice(self, notice: milepost.WatchNotice) -> None:
        """Say above the table what it does not show."""
        if is_loud(notice):
            self._erase()
            output.tell(f"milepost: {output.safe(notice.message)}")
            self._draw(self._drawn)

    def rows(self, rows: list[milepost.Row]) -> None:
        """Draw it anew if it changed."""
        size = shutil.get_terminal_size()
        new = lines(
            self._title,
            rows,
            self._named,
            self._beside,
            columns=size.columns - 1,
            height=size.lines - 1,
        )
        if new != self._drawn:
            self._erase()
            self._draw(new)

    def _draw(self, drawn: list[str]) -> None:
        self._drawn = drawn
        for line in drawn:
            output.tell(line)

    def _erase(self) -> None:
        if self._drawn:
            click.echo(f"\x1b[{len(self._drawn)}A\r\x1b[J", nl=False, err=True, color=True)
        sys.stderr.flush()
