"""The live table of `recover` on a terminal: what wants something is shown, the rest counted.

It is redrawn in place, only where something changed: by rich where that is installed, else by
moving the cursor. Both show the same lines.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from typing import TYPE_CHECKING, Final, Self

import click

import milepost
from milepost_cli import output

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
    "fine",
)
_COLOURS: Final = {
    "running": "cyan",
    "waiting": "yellow",
    "given up": "red",
    "unreadable": "red",
    "held": "red",
}
_LOUD: Final = {"trouble", "gave_up", "stopping"}


def on_terminal(title: str, named: Collection[str]) -> Teller:
    """The table that this terminal gets; `named` are sessions that the user asked for by name."""
    if importlib.util.find_spec("rich") is not None:
        from milepost_cli.rich_table import RichTable  # noqa: PLC0415  # rich is optional

        return RichTable(title, named)
    return PlainTable(title, named)


def is_loud(notice: milepost.WatchNotice) -> bool:
    """Whether the table does not show it by itself."""
    return notice.event in _LOUD


def lines(
    title: str, rows: list[milepost.Row], named: Collection[str], *, columns: int, height: int
) -> list[str]:
    """The table in at most so many lines of so many columns."""
    shown = [row for row in rows if row.doing != "fine" or row.session in named]
    shown.sort(key=lambda row: (_ORDER.index(row.doing), row.session))
    room = max(1, height - 2)  # the title, and a line for what is left out
    cells = [_cells(row) for row in shown[:room]]
    drawn = [milepost.shortened(output.safe(title), columns)]
    if cells:
        drawn += output.columns(cells, room=columns, yielding=(2, 0))
    rest = _rest(len(shown) - len(cells), len(rows) - len(shown))
    return [*drawn, milepost.shortened(rest, columns)] if rest else drawn


def _cells(row: milepost.Row) -> list[str]:
    detail = row.detail
    if row.doing == "running":
        again = f", run {row.runs:,}" if row.runs > 1 else ""
        detail = f"process {row.pid}{again}"
    colour = _COLOURS.get(row.doing)
    return [output.safe(row.session), output.style(row.doing, colour), output.safe(detail)]


def _rest(left_out: int, fine: int) -> str:
    parts = [f"and {left_out:,} more"] if left_out else []
    parts += [f"{output.counted(fine, 'session')} with nothing to do"] if fine else []
    return ", ".join(parts)


class PlainTable:
    """The table, redrawn by moving the cursor."""

    def __init__(self, title: str, named: Collection[str]) -> None:
        self._title = title
        self._named = named
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
        new = lines(self._title, rows, self._named, columns=size.columns - 1, height=size.lines - 1)
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
