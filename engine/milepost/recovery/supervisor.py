"""The supervisor: one command, started again after each death until its work is done.

- Which sessions the command works on is seen from the store: those in which a turn was taken while
  it ran. So any program will do, also a plain script with a loop in it.
- What its end means is read from these sessions, not from its exit code: a session that wants to be
  carried on is made ready, and the command is started again, as the pace allows.
- A signal is passed on, and the command's own end is awaited.
"""

from __future__ import annotations

import os
import queue
import signal
import time
from typing import TYPE_CHECKING, Final

from milepost.clock import utc
from milepost.errors import AlreadyLockedError, MilepostError, RecoveryError, StoreNotFoundError
from milepost.recovery.analysis import RequiresRecovery
from milepost.recovery.child import Child, Ending
from milepost.recovery.notice import WatchNotice
from milepost.recovery.pace import Mark, Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from milepost.model.state import SessionState
    from milepost.recovery.service import RecoveryService

EXIT_FAILED: Final = 1


class Supervisor:
    """Runs one command to the end of its work."""

    def __init__(
        self,
        service: RecoveryService,
        command: Sequence[str],
        *,
        report: Callable[[WatchNotice], None],
    ) -> None:
        self._service = service
        self._store = service.store
        self._command = list(command)
        self._report = report
        self._mine: set[str] = set()
        self._news: queue.SimpleQueue[Ending | int] = queue.SimpleQueue()
        self._signals: list[int] = []

    def stop(self, number: int) -> None:
        """Pass a signal on and end with the command; safe in a signal handler."""
        self._news.put(number)

    def run(self) -> int:
        """Run the command until its work is done or given up; return its last exit code.

        Errors: `ConfigurationError` for a command that cannot be started.
        """
        pace: Pace | None = None
        while True:
            if pace is None:
                pace = Pace(self._service.config, self._mark())
            before = self._turns()
            ending = self._run_once()
            self._mine |= {
                name for name, turn in self._turns().items() if turn > before.get(name, 0)
            }
            if self._signals or not self._is_to_go_on(ending):
                return ending.exit_code
            wait_seconds = pace.after_run(self._mark())
            if wait_seconds is None:
                count = pace.unexplained
                self._say("gave_up", f"given up: {count} runs in a row got on with nothing")
                return ending.exit_code or EXIT_FAILED
            if wait_seconds:
                self._say("waiting", f"started again in {wait_seconds:g} s", wait=wait_seconds)
                if not self._sleep(wait_seconds):
                    return 128 + self._signals[0]
            self._make_ready(str(ending))

    def _run_once(self) -> Ending:
        child = Child(
            self._command,
            self._news.put,
            environment={**os.environ, "MILEPOST_STORE": self._store.path},
        )
        self._say("started", f"started process {child.pid}", pid=child.pid)
        while True:
            news = self._news.get()
            if isinstance(news, Ending):
                self._say(
                    "ended",
                    f"process {child.pid} ended: {news}",
                    pid=child.pid,
                    exit_code=news.exit_code,
                )
                return news
            self._signals.append(news)
            # The first two are passed on; who sends a third means it.
            killing = getattr(signal, "SIGKILL", news)
            child.send(news if len(self._signals) <= 2 else killing)

    def _sleep(self, seconds: float) -> bool:
        """Wait; returns whether no signal came in between."""
        try:
            news = self._news.get(timeout=seconds)
        except queue.Empty:
            return True
        if isinstance(news, int):
            self._signals.append(news)
        return False

    def _is_to_go_on(self, ending: Ending) -> bool:
        if self._mine:
            return bool(self._wanting())
        # It never came so far as to open a session: a killed one may next time, an error stays.
        return ending.was_killed

    def _wanting(self) -> list[str]:
        """The sessions of this command that want to be carried on."""
        found: list[str] = []
        for name in sorted(self._mine):
            try:
                status = self._service.analyze(name)
            except MilepostError as error:
                self._say("trouble", f"{name}: {error.message}", session=name)
                continue
            if isinstance(status, RequiresRecovery) and not status.is_held:
                found.append(name)
        return found

    def _make_ready(self, cause: str) -> None:
        for name in self._wanting():
            try:
                detail = self._service.recover(name, cause=cause)
            except (AlreadyLockedError, RecoveryError):
                continue  # somebody else has it, or has done it
            for each in detail.poisoned:
                self._say("found", f"{name}: {each}", session=name)

    def _mark(self) -> Mark:
        states: list[SessionState] = []
        for name in self._mine:
            try:
                states.append(self._store.load_progress(name))
            except MilepostError:
                continue  # told where it is judged
        return Mark.of(states)

    def _turns(self) -> dict[str, int]:
        try:
            return self._store.turns()
        except StoreNotFoundError:
            return {}  # the command will make it

    def _say(
        self,
        event: str,
        message: str,
        *,
        session: str | None = None,
        pid: int | None = None,
        exit_code: int | None = None,
        wait: float | None = None,
    ) -> None:
        self._report(
            WatchNotice(
                at=utc(time.time_ns()),
                event=event,
                message=message,
                session=session,
                pid=pid,
                exit_code=exit_code,
                wait_seconds=wait,
            )
        )
