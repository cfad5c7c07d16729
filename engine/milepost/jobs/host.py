"""A loop with a session of its own: opened when the loop begins, closed when it is left.

The session has one batch, whose items are the loop's.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from milepost import errors
from milepost.errors import ConfigurationError
from milepost.jobs import notices
from milepost.jobs.progress import display
from milepost.jobs.signals import StopSignals
from milepost.session.host import Host
from milepost.storage.values import plain_value
from milepost.text import counted, say
from milepost.types import BatchStatus, ItemStatus, Outcome

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractContextManager

    from milepost.jobs.place import Place
    from milepost.jobs.progress import ProgressFactory
    from milepost.model.state import ActiveBatch, ItemProgress
    from milepost.session.batch import Batch
    from milepost.session.session import Session
    from milepost.session.workload import Workload
    from milepost.types import Key

WhenComplete = Literal["stop", "restart", "error"]

WHEN_COMPLETE: Final[tuple[WhenComplete, ...]] = ("stop", "restart", "error")
BATCH_KEY: Final = "items"


class LoopHost(Host):
    """The session of one loop.

    Attributes:
        failed_key: The item that raised in the run before; `None` once that was told.
    """

    owns_session = True

    def __init__(
        self,
        place: Place,
        *,
        when_complete: WhenComplete,
        params: Any,
        progress: bool | ProgressFactory | None,
    ) -> None:
        super().__init__()
        self._name = place.name
        self._place = place
        self._when_complete = when_complete
        self._params = None if params is None else plain_value(params, "params")
        self._progress = progress
        self._quiet = progress is False
        self._signals: StopSignals | None = None
        self._display: AbstractContextManager[object] | None = None
        self._session: Session | None = None
        self.failed_key: Key | None = None

    def open(self) -> Batch:
        """Open the session and have its one batch."""
        session = self._place.open()
        self._session = session
        try:
            return self._enter(session)
        except BaseException:
            self._close(session)
            raise

    def _enter(self, session: Session) -> Batch:
        state = session.live
        if state.plan or state.key_of(0) not in {None, BATCH_KEY}:
            raise ConfigurationError(
                f"session {self._name!r} was made by a job or by hand, not by a loop",
                hint="give the loop a name of its own",
            )
        if state.outcome is not None:
            if self._when_complete == "restart":
                session.restart()
            elif self._when_complete == "error":
                raise notices.ended_error(session)
        if self._params is not None:
            session.keep_params(self._params)
        session.settle_death()
        if not (self._quiet or self._place.is_off):
            notices.say_start(session, in_items=True)
        self.failed_key = _raised_on(session)
        batch = session.batch(0) if session.recorded(0) else self._start(session, None)
        self.number = batch.begin_loop()
        return batch

    def attach(self) -> None:
        """Have signals stop the loop, and show its progress."""
        session = self._opened()
        self._signals = StopSignals(session.request_stop).__enter__()
        if self._progress:
            shown = display(session, self._progress)
            shown.__enter__()
            self._display = shown

    def _opened(self) -> Session:
        assert self._session is not None  # noqa: S101  # `open` comes first
        return self._session

    @staticmethod
    def _start(session: Session, total: int | None) -> Batch:
        session.set_total_batches(1)
        return session.start_batch(BATCH_KEY, number=0, items_total=total, keeps_items=True)

    def begin(self, batch: Batch, total: int | None) -> None:
        """Begin the run with the first item that is to be done."""
        session = batch.session
        with batch.lock:  # whoever adds in another thread or task begins it as well
            if not session.executing or 0 not in session.live.active_batches:
                self._start(session, total)

    def finish(self, batch: Batch, work: Workload[Any]) -> None:
        """The work is done: end the session, and say what came of it."""
        session = batch.session
        try:
            self._finish_session(batch, session, work)
        finally:
            self._close(session)

    def _close(self, session: Session) -> None:
        try:
            session.close()
        finally:
            self._place.leave()

    def _finish_session(self, batch: Batch, session: Session, work: Workload[Any]) -> None:
        state = session.live
        if state.outcome is Outcome.COMPLETED:
            self._say(notices.complete_line(session))
        else:
            if batch.status in {BatchStatus.PENDING, BatchStatus.PROCESSING}:
                # Where nothing that was left to do came from the source, it begins only now.
                self.begin(batch, work.expected)
                active = state.active_batches[batch.number]
                if active.items_total is None and not active.is_growing:
                    batch.update_progress(items_total=active.items_finished)
                batch.complete()
            if state.outcome is None:
                session.begin_execution()
                session.complete()
            self._say_end(session, work.waiting, batch.recorded)
        if work.duplicates:
            self._say(
                f"{self._name}: {counted(work.duplicates, 'duplicate key')} passed over;"
                " an item runs once"
            )
        if work.vanished:
            self._say(
                f"{self._name}: {counted(work.vanished, 'key')} of earlier runs"
                " no longer in the source"
            )

    def _say_end(self, session: Session, waiting: int, recorded: ActiveBatch | None) -> None:
        sums = session.live.session_statistics
        if session.live.outcome is Outcome.FAILED:
            left = _found_and_left(recorded)
            failed = counted(sums.total_items_failed, "failed item")
            ending = f"{failed}, " if sums.total_items_failed or not left else ""
            self._say(f"{self._name}: ended with {ending}{sums.total_items_processed:,} completed")
            for item in _failed(recorded)[: notices.FAILURES_TOLD_MAX]:
                reason = item.error_message or "nobody said why"
                self._say(notices.failure_line(session, item.item_id, reason))
            if left:
                self._say(f"{self._name}: {self._left_line(session, left)}")
            if waiting and not self._place.is_off:
                self._say(notices.waiting_line(session, waiting, "item"))
        else:
            done = counted(sums.total_items_processed, "item")
            self._say(f"{self._name}: complete, {done}")

    def _left_line(self, session: Session, left: int) -> str:
        line = f"{counted(left, 'item')} found on the way not done"
        if self._place.is_off:
            return f"{line}; {self._place.again}"
        line += f"; to do {'it' if left == 1 else 'them'}, "
        if self._when_complete != "stop":  # what has ended is not gone on with by itself
            line += f"{notices.command(session, 'retry')}, and "
        return line + "run it again"

    def leave(
        self, error: BaseException | None, in_hand: Collection[Key], *, on_purpose: bool
    ) -> None:
        """The loop was left: end this run, and say as what; with it ends what was in hand."""
        try:
            self._leave(error, in_hand, on_purpose=on_purpose)
        finally:
            self._place.leave()

    def _leave(
        self, error: BaseException | None, in_hand: Collection[Key], *, on_purpose: bool
    ) -> None:
        signals = self._signals
        session = self._session
        if session is None or session.closed:
            return
        interrupted = signals is not None and signals.received is not None
        if isinstance(error, KeyboardInterrupt):
            on_purpose = True
        elif interrupted and signals is not None:
            on_purpose = signals.received == signal.SIGINT
        if on_purpose:
            session.end(Outcome.STOPPED)
            return
        self._say_in_hand(in_hand)
        if isinstance(error, Exception):
            with contextlib.suppress(Exception):  # the error on its way is the one to see
                session.begin_execution()  # what refused the work at its start is its last error
        if error is None and not interrupted:
            session.end(Outcome.INTERRUPTED, "an exception ended the loop")
        else:
            session.end(Outcome.INTERRUPTED, error)

    def raise_stop(self) -> NoReturn:
        """End as the signal that asked for it would have."""
        signals = self._signals
        if signals is not None and signals.received is not None:
            say(f"{self._name}: stopped after the item in hand; {self._place.again}")
            signals.raise_stop()
        raise KeyboardInterrupt

    def hint_at(self, key: Key | None, *, is_guarded: bool) -> None:
        """Tell of an item that raised in the run before, when it comes up again."""
        if self.failed_key is not None and key == self.failed_key and not is_guarded:
            say(
                f"{self._name}: item {key!r} raised in the run before and is tried again; to"
                " record such a failure and go on with the rest, write: with"
                " milepost.resume(...) as items, and in the loop: with items.catching()"
            )
        self.failed_key = None

    def _say_in_hand(self, in_hand: Collection[Key]) -> None:
        """Name the item that was left: `sys.exit` shows no traceback, and none shows the item."""
        if not in_hand:
            return
        first = f"item {next(iter(in_hand))!r}"
        if len(in_hand) == 1:
            self._say(f"{self._name}: left with {first} in hand; it runs again")
        else:
            count = counted(len(in_hand), "item")
            self._say(f"{self._name}: left with {count} in hand, {first} first; they run again")

    def detach(self) -> None:
        """Put the signal handlers back, and end the progress line."""
        shown, self._display = self._display, None
        try:
            if shown is not None:
                shown.__exit__(None, None, None)
        finally:
            if self._signals is not None:
                self._signals.close()

    def _say(self, line: str) -> None:
        if not self._quiet:
            say(line)


def _found_and_left(recorded: ActiveBatch | None) -> int:
    """How many items that were found on the way are not done."""
    if recorded is None:
        return 0
    found = (item.status for item in recorded.open.values() if item.is_added)
    return len(recorded.queued) + sum(status is not ItemStatus.FAILED for status in found)


def _failed(recorded: ActiveBatch | None) -> list[ItemProgress]:
    """The items that failed."""
    items = recorded.open.values() if recorded is not None else ()
    return [item for item in items if item.status is ItemStatus.FAILED]


def _raised_on(session: Session) -> Key | None:
    """The item that was in hand when the run before ended by an exception of its body."""
    state = session.live
    latest = state.executions[-1] if state.executions else None
    if latest is None or latest.outcome is not Outcome.INTERRUPTED or not latest.in_flight:
        return None
    kind = (latest.error_message or "").partition(":")[0]
    if isinstance(getattr(errors, kind, None), type):
        return None  # a full disk, or the like, is no item's
    return latest.in_flight[0][1]
