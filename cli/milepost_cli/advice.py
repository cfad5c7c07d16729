"""What to type about a session that a watcher leaves alone, so that it goes on by hand."""

from __future__ import annotations

import contextlib
import os
import shlex
from typing import TYPE_CHECKING, Final

import milepost
from milepost_cli import next_steps
from milepost_cli.asking import typed
from milepost_cli.targets import target_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


_TOLD_MAX: Final = 5
"""More sessions of one kind are counted, not told one by one."""


class Advice:
    """Knows what was named to carry sessions on, and what carried them on before."""

    def __init__(
        self,
        store: milepost.Store,
        targets: Sequence[milepost.Target],
        *,
        store_option: str | None,
    ) -> None:
        self._store = store
        self._targets = targets
        self._store_option = store_option
        self._known: dict[str, str] = {}

    @property
    def seeing_them(self) -> str:
        """Where those stand that are not told one by one."""
        return f"see them: {next_steps.command('list', store_option=self._store_option)}"

    def is_named(self, session: str | None) -> bool:
        """Whether anything was named that carries it on."""
        return session is not None and target_of(session, self._targets) is not None

    def about(self, row: milepost.Row) -> str:
        """Why it is left alone, and what to type; empty for a row that tells it all by itself."""
        if row.doing == "given up":
            return f"{row.detail}; {self.trying_again(row.session)}"
        if is_stopped(row):
            return f"left alone; {self.going_on(row.session)}"
        self._known.pop(row.session, None)
        return ""

    def trying_again(self, session: str) -> str:
        """What to do about one that was given up, once what was wrong is mended."""
        target = target_of(session, self._targets)
        again = ("recover", "--session", session)
        if target is None or target.folder is None:
            return f"to try again: {self._by_hand(session)}"
        store = self._store_option
        if _is_found_here(target.folder):
            return f"to try again: {next_steps.command(*again, store_option=store)}"
        words = next_steps.command(*again, store_option=store and os.path.abspath(store))
        return f"to try again: cd {shlex.quote(target.folder)} && {words}"

    def going_on(self, session: str) -> str:
        """What to do about one that was stopped on purpose."""
        return f"to carry it on: {self._by_hand(session)}"

    def _by_hand(self, session: str) -> str:
        """What runs it; what was found in the store is kept until it is of no interest."""
        if session not in self._known:
            self._known[session] = self._found(session)
        return self._known[session]

    def _found(self, session: str) -> str:
        target = target_of(session, self._targets)
        if target is None:
            return self._noted(session) or "run its program again"
        if target.folder is None:
            return next_steps.resuming(typed(target.command), session)
        # A table's command learns of its store and its session from the environment.
        facts = {"MILEPOST_STORE": self._store_option, "MILEPOST_SESSION": session}
        given = [f"{name}={shlex.quote(fact)}" for name, fact in facts.items() if fact]
        words = next_steps.resuming(" ".join([*given, shlex.join(target.command)]), session)
        is_here = os.path.realpath(target.folder) == os.path.realpath(os.getcwd())
        return words if is_here else f"cd {shlex.quote(target.folder)} && {words}"

    def _noted(self, session: str) -> str | None:
        try:
            state = self._store.load_progress(session)
        except milepost.MilepostError:
            return None
        return next_steps.run_again(state, store_option=self._store_option)


def _is_found_here(folder: str) -> bool:
    """Whether the tables of this folder are those that are found from the current one.

    They are not where they were found beside a target that lies elsewhere.
    """
    used, here = milepost.configuration().file, None
    if used is None or used.folder != folder:
        return True
    with contextlib.suppress(milepost.ConfigurationError, OSError):
        here = milepost.configuration(os.getcwd()).file
    return here is not None and here.path == used.path


def last_words(rows: Iterable[milepost.Row], advice: Advice) -> Iterator[str]:
    """What is said at the end of sessions that were stopped while they were watched."""
    stopped = [row for row in rows if is_stopped(row) and row.runs]
    for row in stopped[:_TOLD_MAX]:
        yield f"{row.session}: stopped, also for the next watcher; {advice.going_on(row.session)}"
    if len(stopped) > _TOLD_MAX:
        yield f"{len(stopped) - _TOLD_MAX:,} more were stopped; {advice.seeing_them}"


def is_stopped(row: milepost.Row) -> bool:
    """Whether it was stopped on purpose, so that nobody but a person carries it on."""
    return row.doing == "fine" and row.session_status is milepost.SessionStatus.STOPPED
