"""The watcher: sessions that are found dead are made ready and carried on, each in a process.

- What to execute comes from the targets that a caller hands in, never from the store.
- Own children are waited for; the ends of other writers are found by a timer; file events are hints
  that bring a look forward. Where they cannot be had, the timer does all.
- A session that lives, was stopped on purpose, is held back or given up is left alone. So is for a
  moment one that never ran: it belongs to whoever is just making it.
- All decisions are taken in the thread that runs; a session's own thread makes it ready, or starts
  its child and waits for it, and what comes of that is handed back as news.
- The store may vanish and come back: what still can, goes on.
- A signal is passed on to the children, and their ends are awaited. A watcher that is killed leaves
  its children at work; the next one finds them alive, and leaves them alone until they end.
"""

from __future__ import annotations

import contextlib
import fnmatch
import queue
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from milepost.errors import AlreadyLockedError, ConfigurationError, MilepostError
from milepost.model.status import SessionStatus
from milepost.recovery.analysis import NoRecoveryNeeded, Unrecoverable
from milepost.recovery.child import SIGNALS_PASSED_ON, Child, Ending, environment
from milepost.recovery.hints import FileHints
from milepost.recovery.notice import WatchNotice
from milepost.recovery.pace import Pace, settled
from milepost.recovery.scanner import Scanner
from milepost.recovery.sole import SoleWatcher
from milepost.recovery.watched import Row, Target, Watched
from milepost.storage.location import command
from milepost.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

    from milepost.recovery.service import RecoveryDetail, RecoveryService

SCAN_SECONDS: Final = 2.0
"""How often all sessions are looked at where no file event asks for it earlier."""
TICK_SECONDS: Final = 0.5
"""How often living sessions are asked for their writer."""
SHOW_SECONDS: Final = 1.0
"""How often all sessions are shown where nothing changed: the work goes on."""
MAKING_SECONDS: Final = 2.0
"""How long a session that never ran is left to whoever made it."""


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
            jobs: How many sessions are at work at once.
            report: Is told of everything that happens.
            keeps_watching: Off: ends once nothing is left to be done.
            uses_file_events: Off: the timer does all.
            open_output: Gives the file for a child's output; `None` for our own.
            on_tick: Is shown all sessions whenever something changed, and every second.
        """
        self._service = service
        self._store = service.store
        self._targets = list(targets)
        self._jobs = jobs
        self._report = report
        self._keeps_watching = keeps_watching
        self._open_output = open_output
        self._on_tick = on_tick
        self._scanner = Scanner(self._store)
        self._hints = FileHints(
            self._store.path,
            on_change=lambda: self._hand_back(self._scan_now),
            on_trouble=lambda message: self._hand_back(self._say, "trouble", message),
        )
        self._follows_files = uses_file_events
        self._sole = SoleWatcher(self._store)
        self._watched: dict[str, Watched] = {}
        self._news: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._scan_at = 0.0
        self._stall_at = time.monotonic() + self._stall_seconds
        self._has_looked = False
        self._has_changed = True
        self._show_at = 0.0
        self._signals: list[int] = []
        self._store_is_gone = False
        self._replaced: AlreadyLockedError | None = None

    # What others call.

    def stop(self, number: int) -> None:
        """Pass a signal on and end once the children have; safe in a signal handler."""
        self._hand_back(self._stop, number)

    def rows(self) -> list[Row]:
        """All sessions, as a table shows them."""
        return [each.row() for _, each in sorted(self._watched.items())]

    def run(self) -> int | None:
        """Watch until stopped, or until nothing is left; return the signal that ended it.

        Errors: `AlreadyLockedError` where another watcher watches this store, also one that came
            while the store was away; `StoreNotFoundError`.
        """
        self._sole.acquire()
        try:
            self._say("watching", f"watching {self._store.path}")
            while not self._is_over():
                self._step()
                self._show()
                self._wait()
        finally:
            self._hints.close()
            self._sole.release()
        if self._replaced is not None:
            raise self._replaced
        return self._signals[0] if self._signals else None

    # One round.

    def _step(self) -> None:
        now = time.monotonic()
        try:
            found = self._scanner.ended()
            if now >= self._scan_at:
                found |= self._scanner.changed()
                self._scan_at = now + SCAN_SECONDS
                self._has_looked = True
                self._forget_the_deleted()
        except MilepostError as error:
            self._store_vanished(error)
            return
        if self._store_is_gone:
            self._store_is_back()
        if self._follows_files:
            self._hints.follow(self._scanner.folders)
        for name in sorted(found):
            self._look_at(name, now)
        self._look_for_stalled(now)
        self._begin_what_is_due(now)

    def _wait(self) -> None:
        """Sleep until something happens or the next look is due; take in what happened."""
        now = time.monotonic()
        due = [each.start_at for each in self._watched.values() if each.start_at is not None]
        until = min([now + TICK_SECONDS, *(each for each in due if each > now)])
        with contextlib.suppress(queue.Empty):
            self._news.get(timeout=until - now)()
            while True:
                self._news.get_nowait()()

    def _show(self) -> None:
        now = time.monotonic()
        if self._has_changed or now >= self._show_at:
            self._has_changed = False
            self._show_at = now + SHOW_SECONDS
            self._on_tick(self.rows())

    def _is_over(self) -> bool:
        if any(each.is_busy for each in self._watched.values()):
            return False
        if self._signals or self._replaced is not None:
            return True
        if self._keeps_watching:
            return False
        if self._store_is_gone:
            return True
        return self._has_looked and not any(map(self._is_to_run, self._watched.values()))

    def _hand_back(self, what: Callable[..., None], *facts: Any) -> None:
        """Have something done in the thread that runs; from any other one."""
        self._news.put(lambda: what(*facts))

    def _scan_now(self) -> None:
        self._scan_at = 0.0

    # Looking.

    def _look_at(self, name: str, now: float) -> None:
        """Judge a session of which the scan says that something happened."""
        each = self._watched.get(name)
        if each is None:
            each = self._watched[name] = Watched(name, self._target_of(name))
        if each.is_busy:
            return  # it is judged when its thread is through
        turn = each.turn
        self._judge(each)
        if each.turn == turn:
            return
        each.is_ready = each.is_our_death = False
        if each.gave_up:
            each.forget()  # somebody took it in hand
        is_in_the_making = each.is_new and not each.lives
        each.start_at = now + MAKING_SECONDS if is_in_the_making else None

    def _look_for_stalled(self, now: float) -> None:
        """Read the living sessions now and then; what is stalled is told, never touched."""
        if now < self._stall_at:
            return
        self._stall_at = now + self._stall_seconds
        for each in self._watched.values():
            if each.child is not None or each.lives:
                self._judge(each)

    @property
    def _stall_seconds(self) -> float:
        return max(1.0, self._service.config.stalled_after_seconds / 10)

    def _forget_the_deleted(self) -> None:
        for name in self._watched.keys() - self._scanner.names:
            if not self._watched[name].is_busy:
                del self._watched[name]
                self._has_changed = True

    def _judge(self, each: Watched) -> None:
        """Look at a session anew, and tell of it where that is news."""
        before = each.standing
        self._has_changed = True
        try:
            each.status, view = self._service.judge(each.name)
        except Exception as error:  # one session must not stop the others
            each.status, each.session_status, each.detail = None, None, f"{error}"
            if self._is_store_there():  # else that is what is told, once
                self._say("trouble", f"{each.name}: {error}", each)
            return
        status = each.status
        each.detail = status.reason if isinstance(status, Unrecoverable) else status.detail
        each.session_status = None
        if view is not None:
            each.session_status = view.judgement.status
            each.lives = each.session_status is SessionStatus.RUNNING
            each.is_new = not view.state.has_run
            each.mark = settled(view.state)
            each.turn = view.writer["epoch"] if view.writer else 0
        if each.lives and not each.is_busy:
            self._scanner.living.add(each.name)
        if isinstance(status, NoRecoveryNeeded) and not each.lives:
            each.forget()
        if each.standing != before:
            message, standing = f"{each.name}: {each.detail}", each.session_status
            self._say("found", message, each, status=status, session_status=standing)

    def _target_of(self, name: str) -> Target | None:
        fits = (each for each in self._targets if fnmatch.fnmatchcase(name, each.pattern))
        return next(fits, None)

    # Making ready, starting, ending.

    def _is_to_run(self, each: Watched) -> bool:
        return self._service.config.auto_recovery_enabled and each.wants_to_run

    def _begin_what_is_due(self, now: float) -> None:
        if self._signals or self._replaced is not None:
            return
        due = [
            each
            for each in self._watched.values()
            if self._is_to_run(each)
            and not each.is_busy
            and (each.start_at is None or each.start_at <= now)
        ]
        if not due:
            return
        busy = sum(each.is_busy for each in self._watched.values())
        due.sort(key=lambda each: each.urgency)
        for each in due[: max(0, self._jobs - busy)]:
            each.is_busy = True
            each.start_at = None
            self._has_changed = True
            threading.Thread(
                target=self._carry_out if each.is_ready else self._make_ready,
                args=(each,),
                name=f"milepost-watched-{each.name}",
                daemon=True,
            ).start()

    def _make_ready(self, each: Watched) -> None:
        """In a thread of its own: it may have to wait for signs of life of another writer."""
        cause = str(each.ending) if each.is_our_death else ""
        try:
            detail = self._service.recover(each.name, cause=cause)
        except Exception as error:  # one session must not stop the others
            self._hand_back(self._was_refused, each, error)
        else:
            self._hand_back(self._was_made_ready, each, detail)

    def _was_made_ready(self, each: Watched, detail: RecoveryDetail) -> None:
        each.is_busy, each.is_our_death = False, False
        for poison in detail.poisoned:
            self._say("found", f"{each.name}: {poison}", each)
        self._judge(each)
        each.is_ready = not each.lives
        self._decide(each, f"{each.ending or 'its process died'}")

    def _carry_out(self, each: Watched) -> None:
        """In a thread of its own: start the child, and wait for it."""
        try:
            child = self._start(each)
        except Exception as error:  # one session must not stop the others
            self._hand_back(self._was_refused, each, error)
            return
        self._hand_back(self._has_started, each, child)
        self._hand_back(self._has_ended, each, child, child.wait())

    def _start(self, each: Watched) -> Child:
        if each.target is None:
            raise ConfigurationError(f"nothing was named that carries {each.name!r} on")
        output = self._open_output(each.name)
        with output or contextlib.nullcontext():
            return Child(
                each.target.command,
                environment=environment(self._service.config, self._store.path, each.name),
                output=output,
                folder=each.target.folder,
            )

    def _has_started(self, each: Watched, child: Child) -> None:
        each.child = child
        each.runs += 1
        self._say("started", f"{each.name}: started process {child.pid}", each, pid=child.pid)
        for number in self._signals:  # they came while it was being started
            child.send(number)

    def _has_ended(self, each: Watched, child: Child, ending: Ending) -> None:
        each.child, each.ending = None, ending
        each.is_busy, each.is_ready, each.is_our_death = False, False, True
        message = f"{each.name}: process {child.pid} ended: {ending}"
        self._say("ended", message, each, pid=child.pid, exit_code=ending.exit_code)
        self._judge(each)

    def _was_refused(self, each: Watched, error: Exception) -> None:
        """It could not be made ready, or not be started: where it still wants to, it waits."""
        each.is_busy, each.is_ready = False, False
        if isinstance(error, ConfigurationError):
            self._give_up(each, f"{error}")
            return
        self._judge(each)
        if each.wants_to_run:  # else somebody was quicker, or it was told of already
            self._decide(each, f"{error}")

    def _decide(self, each: Watched, latest: str) -> None:
        """When it is started next, if ever: it was just made ready, or it was refused."""
        if self._signals or not each.wants_to_run:
            return
        if each.pace is None:
            each.pace = Pace(self._service.config)
        wait_seconds = each.pace.after_run({each.name: each.mark})
        if wait_seconds is None:
            starts = counted(each.pace.restarts - 1, "start")
            self._give_up(each, f"{starts} in a row without progress; the last: {latest}")
            return
        each.start_at = time.monotonic() + wait_seconds
        if wait_seconds:
            message = f"{each.name}: started again in {wait_seconds:g} s"
            self._say("waiting", message, each, wait_seconds=wait_seconds)

    def _give_up(self, each: Watched, why: str) -> None:
        each.gave_up = f"{why}; look at it: {command(self._store.path, 'show', each.name)}"
        self._say("gave_up", f"{each.name}: given up: {each.gave_up}", each)

    def _stop(self, number: int) -> None:
        """The first two signals are passed on; from the third on, children are killed."""
        if len(self._signals) >= SIGNALS_PASSED_ON:
            number = getattr(signal, "SIGKILL", number)
        self._signals.append(number)
        busy = [each for each in self._watched.values() if each.is_busy]
        for each in busy:
            if each.child is not None:
                each.child.send(number)
        if busy:
            self._say("stopping", f"waiting for {counted(len(busy), 'session')} to save and end")

    # The store itself.

    def _is_store_there(self) -> bool:
        try:
            self._store.check()
        except MilepostError as error:
            self._store_vanished(error)
            return False
        return True

    def _store_vanished(self, error: MilepostError) -> None:
        if not self._store_is_gone:
            self._store_is_gone = True
            self._scanner = Scanner(self._store)
            self._scan_now()
            self._say("trouble", f"{error.message}; waiting for it to come back")

    def _store_is_back(self) -> None:
        """It may be another folder by now, with a watcher of its own: then ours is over."""
        self._store_is_gone = False
        try:
            self._sole.acquire()
        except AlreadyLockedError as error:
            self._replaced = self._replaced or error
        else:
            self._say("trouble", f"{self._store.path} is back")

    # Telling.

    def _say(self, event: str, message: str, each: Watched | None = None, **facts: Any) -> None:
        self._has_changed = True
        name = each.name if each is not None else None
        self._report(WatchNotice.now(event, message, session=name, **facts))
