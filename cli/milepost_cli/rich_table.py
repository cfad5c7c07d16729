"""The live table drawn by rich; imported on a terminal only, and where rich is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from milepost_cli import output, table

if TYPE_CHECKING:
    from collections.abc import Collection

    import milepost


class RichTable:
    """The lines of `table.lines`, redrawn in place."""

    def __init__(
        self,
        title: str,
        named: Collection[str],
        beside: table.Beside,
        console: Console | None = None,
    ) -> None:
        self._title = title
        self._named = named
        self._beside = beside
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False)
        self._drawn: list[str] = []

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.__exit__(None, None, None)

    def notice(self, notice: milepost.WatchNotice) -> None:
        """Say above the table what it does not show."""
        if table.is_loud(notice):
            self._console.print(Text(f"milepost: {output.safe(notice.message)}"))

    def rows(self, rows: list[milepost.Row]) -> None:
        """Draw it anew if it changed."""
        size = self._console.size
        new = table.lines(
            self._title,
            rows,
            self._named,
            self._beside,
            columns=size.width - 1,
            height=size.height - 1,
        )
        if new != self._drawn:
            self._drawn = new
            text = Text.from_ansi("\n".join(new))
            text.no_wrap, text.overflow = True, "ellipsis"
            self._live.update(text, refresh=True)
