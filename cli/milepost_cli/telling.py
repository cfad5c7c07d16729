"""How `recover` tells of what it watches: a line a notice, JSON lines, or a table on a terminal.

- A table has the terminal for itself: what children print goes to files then.
- Of sessions that need nothing, lines tell only where they were named or spoken of before, or live
  and are carried on by what was named.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from typing import IO, TYPE_CHECKING, Final, Protocol, Self

import milepost
from milepost_cli import output
from milepost_cli.advice import is_stopped
from milepost_cli.failure import WrongUseError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable

    from milepost_cli.advice import Advice
    from milepost_cli.shares import Shares


STOPPED_TOLD_MAX: Final = 3
"""More sessions that were stopped on purpose are counted, not told one by one."""


class Teller(Protocol):
    """Tells people or programs what a watcher does; a context while it does."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def notice(self, notice: milepost.WatchNotice) -> None:
        """One thing that happened."""
        ...

    def rows(self, rows: list[milepost.Row]) -> None:
        """All sessions, as they are now."""
        ...


class Lines(contextlib.AbstractContextManager["Lines"]):
    """One line on stderr for each notice, with the time."""

    def __init__(self, named: Collection[str], advice: Advice) -> None:
        """`named` are the sessions that the user asked for by name."""
        self._known = set(named)
        self._advice = advice
        self._stopped: set[str] = set()

    def __exit__(self, *exc: object) -> None: ...

    def notice(self, notice: milepost.WatchNotice) -> None:
        """Say it, unless it is about a session that needs nothing and nobody asked for."""
        if isinstance(notice.status, milepost.NoRecoveryNeeded):
            lives = notice.session_status is milepost.SessionStatus.RUNNING
            is_to_wait_for = lives and self._advice.is_named(notice.session)
            if notice.session not in self._known and not is_to_wait_for:
                return
        elif notice.session is not None:
            self._known.add(notice.session)
        self._tell(notice)

    def rows(self, rows: list[milepost.Row]) -> None:
        """The first sessions that are left alone because they were stopped; the rest is counted.

        All else that changes comes as a notice.
        """
        stopped = {row.session: row for row in rows if is_stopped(row)}
        new = [name for name in stopped if name not in self._stopped | self._known]
        new.sort(key=lambda name: (not stopped[name].has_target, name))
        room = max(0, STOPPED_TOLD_MAX - len(self._stopped))
        for name in new[:room]:
            message = f"{name}: {stopped[name].detail}; {self._advice.about(stopped[name])}"
            self._tell(milepost.WatchNotice.now("found", message, session=name))
        if new[room:]:
            more = f"{len(new[room:]):,} more"
            message = f"{more} stopped on purpose, and left alone; {self._advice.seeing_them}"
            self._tell(milepost.WatchNotice.now("found", message))
        self._stopped = self._stopped | set(new)

    def _tell(self, notice: milepost.WatchNotice) -> None:
        when = output.clock(output.iso(notice.at))
        output.tell(f"{when}  {output.safe(notice.message)}")


class JsonLines(contextlib.AbstractContextManager["JsonLines"]):
    """One JSON object on stdout for each notice."""

    def __exit__(self, *exc: object) -> None: ...

    def notice(self, notice: milepost.WatchNotice) -> None:
        """Print it."""
        output.document(milepost.plain(notice))

    def rows(self, rows: list[milepost.Row]) -> None:
        """Nothing: what changes comes as a notice."""


def is_terminal() -> bool:
    """Whether a table can be redrawn on stderr."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def teller(
    *, as_json: bool, named: Collection[str], title: str, advice: Advice, shares: Shares
) -> Teller:
    """What tells here."""
    if as_json:
        return JsonLines()
    if not is_terminal():
        return Lines(named, advice)
    from milepost_cli import table  # noqa: PLC0415  # a terminal alone needs it

    return table.on_terminal(title, named, table.Beside(shares.of, advice.about))


def tell_at_the_end(messages: Iterable[str], *, as_json: bool) -> None:
    """The last words, below a table too."""
    for message in messages:
        notice = milepost.WatchNotice.now("stopping", message)
        if as_json:
            output.document(milepost.plain(notice))
        else:
            output.tell(f"milepost: {output.safe(message)}")


# What children print.


@contextlib.contextmanager
def log_folder(named: str | None, *, as_json: bool) -> Generator[str | None]:
    """Where the output of children goes, a file for each session; `None` for our stderr.

    A table needs one, so without a name it is a new temporary folder, which is told; where nothing
    came of it, it is gone again at the end. Errors: `WrongUseError` for one that cannot be made.
    """
    if named is not None:
        try:
            os.makedirs(named, exist_ok=True)
        except OSError as error:
            raise WrongUseError(
                f"--logs {named}: {error.strerror}", "name a folder that can be written"
            ) from error
        yield os.path.abspath(named)
    elif as_json or not is_terminal():
        yield None
    else:
        folder = tempfile.mkdtemp(prefix="milepost-logs-")
        output.tell(f"milepost: what the processes print goes to {folder}")
        yield folder
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def output_of_children(store: milepost.Store, folder: str | None) -> Callable[[str], IO[bytes]]:
    """Opens what a session's child prints to: its file in the folder, or our stderr."""

    def open_output(session: str) -> IO[bytes]:
        if folder is None:
            return os.fdopen(os.dup(sys.stderr.fileno()), "wb")
        # The folder of a session is its name in a form that every file system takes.
        name = os.path.basename(store.folder_of(session))
        return open(os.path.join(folder, f"{name}.log"), "ab")

    return open_output
