"""The supervisor: one command, started again after each death until its work is done.

- Which sessions the command works on is seen from the store: those in which it took a turn, or
  where it took none, a program that it started. So any program will do, also a plain script with a
  loop in it, or a shell script around one. A token in the environment, which the leases repeat,
  tells them from what others do in the store.
- What its end means is read from these sessions, not from its exit code: a session that wants to be
  carried on is made ready, and the command is started again, as the pace allows. So is a command
  that was killed, whatever it had done; an error before it took any turn is final.
- A signal is passed on, and the command's own end is awaited.
"""

from __future__ import annotations

import queue
import signal
import threading
import uuid
from typing import TYPE_CHECKING, Any, Final

from milepost.errors import MilepostError
from milepost.recovery.analysis import RequiresRecovery
from milepost.recovery.child import SIGNALS_PASSED_ON, Child, Ending, environment
from milepost.recovery.notice import WatchNotice
from milepost.recovery.pace import Pace, settled
from milepost.storage.host import STARTED_BY
from milepost.storage.location import command
from milepost.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        """Prepare; `run` runs. `report` is told of everything that happens."""
        self._service = service
        self._store = service.store
        self._command = list(command)
        self._report = report
        self._token = uuid.uuid4().hex
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
        pace = Pace(self._service.config)
        while True:
            ending = self._run_once()
            wanting = self._wanting()
            if self._signals or not (wanting or ending.was_killed):
                return ending.exit_code
            if not self._service.config.auto_recovery_enabled:
                return ending.exit_code or EXIT_FAILED
            self._make_ready(wanting, str(ending))
            wait_seconds = pace.after_run(self._marks())
            if wait_seconds is None:
                self._say("gave_up", self._giving_up(pace.restarts - 1, ending))
                return ending.exit_code or EXIT_FAILED
            if wait_seconds:
                message = f"started again in {wait_seconds:g} s"
                self._say("waiting", message, wait_seconds=wait_seconds)
            if not self._sleep(wait_seconds):
                return 128 + self._signals[0]

    # The command.

    def _run_once(self) -> Ending:
        child = Child(
            self._command,
            environment={
                **environment(self._service.config, self._store.path),
                STARTED_BY: self._token,
            },
        )
        threading.Thread(
            target=lambda: self._news.put(child.wait()), name="milepost-supervised", daemon=True
        ).start()
        self._say("started", f"started process {child.pid}", pid=child.pid)
        while not isinstance(news := self._news.get(), Ending):
            self._signals.append(news)
            # Who sends more than is passed on means it.
            killing = getattr(signal, "SIGKILL", news)
            child.send(news if len(self._signals) <= SIGNALS_PASSED_ON else killing)
        message = f"process {child.pid} ended: {news}"
        self._say("ended", message, pid=child.pid, exit_code=news.exit_code)
        self._mine |= self._taken(child.pid)
        return news

    def _sleep(self, seconds: float) -> bool:
        """Wait; returns whether no signal came, now or before."""
        try:
            news = self._news.get(timeout=seconds)
        except queue.Empty:
            return True
        if not isinstance(news, Ending):
            self._signals.append(news)
        return False

    # Its sessions.

    def _taken(self, pid: int) -> set[str]:
        """The sessions that the command took a turn in, else those that what it started did."""
        try:
            taken = self._store.taken_by(self._token)
        except MilepostError:
            return set()  # the command has not made the store, or it is told where it is judged
        own = {name for name, pids in taken.items() if pid in pids}
        return own or set(taken)

    def _wanting(self) -> list[str]:
        """Those that want to be carried on."""
        found: list[str] = []
        for name in sorted(self._mine):
            try:
                status = self._service.analyze(name)
            except MilepostError as error:
                self._say("trouble", f"{name}: {error.message}", session=name)
                continue
            if isinstance(status, RequiresRecovery):
                hint = f" ({status.hint})" if status.hint else ""
                message = f"{name}: {status.detail}{hint}"
                self._say("found", message, session=name, status=status)
                if not status.is_held:
                    found.append(name)
        return found

    def _make_ready(self, names: list[str], cause: str) -> None:
        for name in names:
            try:
                detail = self._service.recover(name, cause=cause)
            except MilepostError as error:
                # Somebody else may have it, or have done it; else the command will meet the same.
                self._say("trouble", f"{name}: {error.message}", session=name)
                continue
            for each in detail.poisoned:
                self._say("found", f"{name}: {each}", session=name)

    def _marks(self) -> dict[str, int]:
        marks: dict[str, int] = {}
        for name in self._mine:
            try:
                marks[name] = settled(self._store.load_progress(name))
            except MilepostError:
                continue  # told where it is judged
        return marks

    # Telling.

    def _giving_up(self, starts: int, latest: Ending) -> str:
        """With where to look: at one session, or at all of them."""
        words = ("show", *self._mine) if len(self._mine) == 1 else ("list",)
        return (
            f"given up: {counted(starts, 'start')} in a row without progress; the last: {latest};"
            f" look at it: {command(self._store.path, *words)}"
        )

    def _say(self, event: str, message: str, **facts: Any) -> None:
        self._report(WatchNotice.now(event, message, **facts))
