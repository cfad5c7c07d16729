"""The watcher: sessions that are found dead are made ready and carried on, each in a process.

- What to execute comes from the targets that a caller hands in, never from the store.
- Own children are waited for; the ends of other writers are found by a timer; file events are hints
  that bring a look forward. Where they cannot be had, the timer does all.
- A session that lives, was stopped on purpose, is held back or given up is left alone.
- The store may vanish and come back: what still can, goes on.
- A signal is passed on to the children, and their ends are awaited.
"""

from __future__ import annotations

import fnmatch
import os
import queue
import signal
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import filelock

from milepost.clock import utc
from milepost.errors import AlreadyLockedError, MilepostError, StorageError
from milepost.model.status import SessionStatus
from milepost.recovery.analysis import (
    NoRecoveryNeeded,
    RecoveryStatus,
    RequiresRecovery,
    Unrecoverable,
)
from milepost.recovery.child import Child, Ending
from milepost.recovery.hints import FileHints
from milepost.recovery.notice import WatchNotice
from milepost.recovery.pace import Mark, Pace
from milepost.recovery.scanner import SCAN_SECONDS, Scanner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

    from milepost.recovery.service import RecoveryService
    from milepost.session.view import View

LOCK_NAME: Final = "watcher.lock"
TICK_SECONDS: Final = 0.5
"""How often living sessions are asked for their writer."""


class Target(NamedTuple):
    """What carries on which sessions.

    Attributes:
        pattern: Names of the sessions, as a shell pattern (`crawl-*`).
        command: The program and its arguments.
    """

    pattern: str
    command: tuple[str, ...]


class Row(NamedTuple):
    """One session, as a table shows it.

    Attributes:
        session: Its name.
        doing: `running`, `waiting`, `given up`, `ready`, `held`, `fine`, `no target`, `unreadable`.
        detail: Why, for people.
        pid: Of our child.
        runs: How often we started it.
    """

    session: str
    doing: str
    detail: str
    pid: int | None
    runs: int


class _Work:
    """One session of the store, and what we do about it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status: RecoveryStatus | None = None
        self.detail = ""
        self.mark = Mark()
        self.pace: Pace | None = None
        self.child: Child | None = None
        self.runs = 0
        self.ending: Ending | None = None
        self.start_at: float | None = None
        self.has_given_up = False

    @property
    def wants_to_run(self) -> bool:
        status = self.status
        return (
            isinstance(status, RequiresRecovery)
            and not status.is_held
            and not self.has_given_up
            and self.child is None
        )


class Watcher:
    """Carries on the dead sessions of one store."""

    def __init__(
        self,
        service: RecoveryService,
        targets: Sequence[Target],
        *,
        jobs: int,
        report: Callable[[WatchNotice], None],
        keeps_watching: bool = True,
        uses_file_events: bool = True,
        open_output: Callable[[str], IO[bytes] | None] = lambda _name: None,
        on_tick: Callable[[list[Row]], None] = lambda _rows: None,
    ) -> None:
        """Prepare; `run` watches.

        Args:
            service: Judges the sessions and makes them ready.
            targets: What to execute; the first whose pattern fits a session's name counts.
            jobs: How many children at once.
            report: Is told of everything that happens.
            keeps_watching: Off: ends once nothing is left to be done.
            uses_file_events: Off: the timer does all.
            open_output: Gives the file for a child's output; `None` for our own.
            on_tick: Is shown all sessions again and again.
        """
        self._service = service
        self._store = service.store
        self._targets = list(targets)
        self._jobs = jobs
        self._report = report
        self._keeps_watching = keeps_watching
        self._uses_file_events = uses_file_events
        self._open_output = open_output
        self._on_tick = on_tick
        self._scanner = Scanner(self._store)
        self._works: dict[str, _Work] = {}
        self._news: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._scan_at = 0.0
        self._stall_at = 0.0
        self._has_looked = False
        self._stopping: int | None = None
        self._signals = 0
        self._store_is_gone = False

    # What others call.

    def stop(self, number: int) -> None:
        """Pass a signal on and end once the children have; safe in a signal handler."""
        self._news.put(lambda: self._stop(number))

    def rows(self) -> list[Row]:
        """All sessions, as a table shows them."""
        return [self._row(work) for _, work in sorted(self._works.items())]

    def run(self) -> int | None:
        """Watch until stopped, or until nothing is left; return the signal that ended it.

        Errors: `AlreadyLockedError` where another watcher watches this store.
        """
        with self._sole_watcher():
            hints = FileHints(self._store.path, self._news_of_files, self._trouble)
            self._say("watching", f"watching {self._store.path}")
            try:
                while not self._is_over():
                    self._step()
                    if self._uses_file_events:
                        hints.follow(self._scanner.folders)
                    self._on_tick(self.rows())
                    self._wait()
            finally:
                hints.close()
        return self._stopping

    # One round.

    def _step(self) -> None:
        now = time.monotonic()
        try:
            found = self._scanner.ended()
            if now >= self._scan_at:
                found |= self._scanner.changed()
                self._scan_at = now + SCAN_SECONDS
                self._has_looked = True
            self._store_is_back()
        except MilepostError as error:
            self._store_vanished(error)
            return
        for name in sorted(found):
            work = self._works.setdefault(name, _Work(name))
            if work.child is None:
                self._judge(work, tell=True)
        self._look_for_stalled(now)
        self._start_what_is_due(now)

    def _look_for_stalled(self, now: float) -> None:
        """Read the living sessions now and then; what is stalled is told, never touched."""
        if now < self._stall_at:
            return
        self._stall_at = now + max(1.0, self._service.config.stalled_after_seconds / 10)
        for work in self._works.values():
            if work.child is not None or work.name in self._scanner.living:
                self._judge(work, tell=True)

    def _wait(self) -> None:
        """Sleep until something happens or the next look is due; take in what happened."""
        due = [work.start_at for work in self._works.values() if work.start_at is not None]
        until = min([time.monotonic() + TICK_SECONDS, *due])
        try:
            self._news.get(timeout=max(0.0, until - time.monotonic()))()
            while True:
                self._news.get_nowait()()
        except queue.Empty:
            return

    def _is_over(self) -> bool:
        if any(work.child is not None for work in self._works.values()):
            return False
        if self._stopping is not None:
            return True
        if self._keeps_watching or not self._has_looked:
            return False
        return not any(
            work.wants_to_run and self._target_of(work.name) for work in self._works.values()
        )

    def _news_of_files(self) -> None:
        self._news.put(self._look_soon)

    def _look_soon(self) -> None:
        self._scan_at = 0.0

    def _trouble(self, message: str) -> None:
        self._news.put(lambda: self._say("trouble", message))

    # Judging.

    def _judge(self, work: _Work, *, tell: bool) -> View | None:
        """Look at a session anew; returns what was read."""
        before = work.status
        view: View | None = None
        try:
            work.status, view = self._service.judge(work.name)
        except MilepostError as error:
            work.status, work.detail = None, error.message
            self._say("trouble", f"{work.name}: {error.message}", work)
        else:
            work.detail = _detail_of(work.status)
        if view is not None:
            lives = view.judgement.status is SessionStatus.RUNNING
            self._scanner.note_living(work.name, lives=lives)
            mark = Mark.of([view.state])
            if lives or mark.done > work.mark.done:
                work.has_given_up = False  # somebody else got on with it
            work.mark = mark
        if tell and work.status is not None and work.status != before:
            self._say("found", f"{work.name}: {work.detail}", work)
        return view

    def _target_of(self, name: str) -> Target | None:
        fits = (each for each in self._targets if fnmatch.fnmatchcase(name, each.pattern))
        return next(fits, None)

    # Starting and ending.

    def _start_what_is_due(self, now: float) -> None:
        if self._stopping is not None:
            return
        running = sum(work.child is not None for work in self._works.values())
        due = [
            work
            for work in self._works.values()
            if work.wants_to_run
            and (work.start_at is None or work.start_at <= now)
            and self._target_of(work.name) is not None
        ]
        for work in sorted(due, key=_urgency)[: max(0, self._jobs - running)]:
            self._start(work)

    def _start(self, work: _Work) -> None:
        target = self._target_of(work.name)
        if target is None:
            return
        work.start_at = None
        if work.pace is None:
            work.pace = Pace(self._service.config, work.mark)
        try:
            self._make_ready(work)
            output = self._open_output(work.name)
            try:
                work.child = Child(
                    target.command,
                    lambda ending: self._news.put(lambda: self._ended(work, ending)),
                    environment={**os.environ, "MILEPOST_STORE": self._store.path},
                    output=output,
                )
            finally:
                if output is not None:
                    output.close()
        except AlreadyLockedError:
            self._judge(work, tell=True)  # somebody else was quicker
            return
        except (MilepostError, OSError) as error:
            self._give_up(work, f"{error}")
            return
        work.runs += 1
        self._say("started", f"{work.name}: started process {work.child.pid}", work)

    def _make_ready(self, work: _Work) -> None:
        cause = str(work.ending) if work.ending is not None else ""
        detail = self._service.recover(work.name, cause=cause)
        for each in detail.poisoned:
            self._say("found", f"{work.name}: {each}", work)

    def _ended(self, work: _Work, ending: Ending) -> None:
        pid = work.child.pid if work.child is not None else None
        work.child, work.ending = None, ending
        self._say("ended", f"{work.name}: process {pid} ended: {ending}", work, ending, pid)
        view = self._judge(work, tell=True)
        if view is None or not work.wants_to_run or work.pace is None:
            return
        wait_seconds = work.pace.after_run(work.mark)
        if wait_seconds is None:
            runs = work.pace.unexplained
            self._give_up(work, f"{runs} runs in a row got on with nothing; the last: {ending}")
            return
        work.start_at = time.monotonic() + wait_seconds
        if wait_seconds:
            message = f"{work.name}: started again in {wait_seconds:g} s"
            self._say("waiting", message, work, wait_seconds=wait_seconds)

    def _give_up(self, work: _Work, message: str) -> None:
        work.has_given_up = True
        work.detail = message
        work.pace = None
        self._say("gave_up", f"{work.name}: given up: {message}", work)

    def _stop(self, number: int) -> None:
        """The first two signals are passed on; from the third on, children are killed."""
        self._stopping = self._stopping or number
        self._signals += 1
        passed_on = number if self._signals <= 2 else getattr(signal, "SIGKILL", number)
        children = [work for work in self._works.values() if work.child is not None]
        if children:
            self._say("stopping", f"waiting for {len(children)} to save and end")
        for work in children:
            if work.child is not None:
                work.child.send(passed_on)

    # The store itself.

    def _sole_watcher(self) -> Any:
        self._store.check()
        lock = filelock.FileLock(os.path.join(self._store.path, LOCK_NAME), thread_local=False)
        try:
            return lock.acquire(timeout=0.25, poll_interval=0.02)
        except filelock.Timeout:
            raise AlreadyLockedError(
                f"another process watches {self._store.path} already",
                operation="lock",
                path=LOCK_NAME,
                hint="one watcher a store is enough; stop that one first",
            ) from None
        except OSError as error:
            raise StorageError(
                f"cannot lock {LOCK_NAME}: {error.strerror or error}",
                operation="lock",
                path=LOCK_NAME,
                hint="a watcher needs a store that it may write",
            ) from error

    def _store_vanished(self, error: MilepostError) -> None:
        if not self._store_is_gone:
            self._store_is_gone = True
            self._scanner = Scanner(self._store)
            self._say("trouble", f"{error.message}; waiting for it to come back")

    def _store_is_back(self) -> None:
        if self._store_is_gone:
            self._store_is_gone = False
            self._say("trouble", f"{self._store.path} is back")

    # Telling.

    def _say(
        self,
        event: str,
        message: str,
        work: _Work | None = None,
        ending: Ending | None = None,
        pid: int | None = None,
        *,
        wait_seconds: float | None = None,
    ) -> None:
        child = work.child if work is not None else None
        self._report(
            WatchNotice(
                at=utc(time.time_ns()),
                event=event,
                message=message,
                session=work.name if work is not None else None,
                pid=child.pid if child is not None else pid,
                exit_code=ending.exit_code if ending is not None else None,
                wait_seconds=wait_seconds,
                status=work.status if work is not None and event == "found" else None,
            )
        )

    def _row(self, work: _Work) -> Row:
        return Row(
            work.name,
            self._doing(work),
            work.detail,
            work.child.pid if work.child is not None else None,
            work.runs,
        )

    def _doing(self, work: _Work) -> str:
        status = work.status
        if work.child is not None:
            return "running"
        if work.has_given_up:
            return "given up"
        if status is None or isinstance(status, Unrecoverable):
            return "unreadable"
        if isinstance(status, NoRecoveryNeeded):
            return "fine"
        if status.is_held:
            return "held"
        if self._target_of(work.name) is None:
            return "no target"
        return "waiting" if work.start_at is not None else "ready"


def _detail_of(status: RecoveryStatus) -> str:
    return status.reason if isinstance(status, Unrecoverable) else status.detail


def _urgency(work: _Work) -> tuple[int, str]:
    status = work.status
    return (-status.priority if isinstance(status, RequiresRecovery) else 1, work.name)
