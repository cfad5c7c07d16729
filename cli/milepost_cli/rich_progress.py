"""The progress line drawn by rich; imported on a terminal only, and where rich is installed."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Self

from rich.console import Console, ConsoleRenderable
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

import milepost

if TYPE_CHECKING:
    from collections.abc import Callable

REFRESH_PER_SECOND = 5


class RichProgress:
    """A bar and the numbers of `milepost.progress_line`, redrawn in place."""

    def __init__(self, session: milepost.Session, console: Console | None = None) -> None:
        self._session = session
        self._line: Callable[[], str] = lambda: milepost.progress_line(session)
        self._last: ConsoleRenderable = Text(session.name)
        self._live = Live(
            get_renderable=self.draw,
            console=console or Console(stderr=True),
            refresh_per_second=REFRESH_PER_SECOND,
            # What the job prints stands above the line; data in a pipe is left alone.
            redirect_stdout=sys.stdout.isatty(),
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.__exit__(None, None, None)

    def draw(self) -> ConsoleRenderable:
        """The line as it is now; the one before where the state changed while it was read."""
        with contextlib.suppress(RuntimeError, KeyError):
            share = milepost.progress(self._session.live)
            row = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=1.0, completed=share or 0.0, width=24, pulse=share is None)
            row.add_row(bar, Text(self._line(), no_wrap=True, overflow="ellipsis"))
            self._last = row
        return self._last
