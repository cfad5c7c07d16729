"""`resume`: a plain loop that survives.

The session has one batch, whose items are the loop's. It is opened when the loop begins and closed
when it is left, however that happens.
"""

from __future__ import annotations

import contextlib
import signal
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Literal, NoReturn, TypeVar

from milepost.errors import ConfigurationError, UnfinishedError
from milepost.jobs import notices
from milepost.jobs.progress import display
from milepost.jobs.signals import StopSignals
from milepost.session.arguments import check_choice
from milepost.session.items import Items, StopRequested
from milepost.store import Store
from milepost.types import BatchStatus, ItemStatus, Outcome

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable
    from contextlib import AbstractContextManager

    from milepost.jobs.progress import ProgressFactory
    from milepost.session.batch import Batch
    from milepost.session.session import Session
    from milepost.types import Durability, Key

T = TypeVar("T")

WhenComplete = Literal["stop", "restart", "error"]

WHEN_COMPLETE: Final[tuple[WhenComplete, ...]] = ("stop", "restart", "error")
BATCH_KEY: Final = "items"


_refusal: ContextVar[str] = ContextVar("milepost_refusal", default="")


@contextlib.contextmanager
def refusing_loops(reason: str) -> Generator[None]:
    """In this block `resume` raises `ConfigurationError` with this reason, and begins nothing.

    For who imports a file only to see what is in it: a plain script would run to its end.
    """
    token = _refusal.set(reason)
    try:
        yield
    finally:
        _refusal.reset(token)


def open_store(store: Store | str | os.PathLike[str] | None) -> Store:
    """The store meant by a `store=` argument."""
    return store if isinstance(store, Store) else Store(store)


def resume(
    source: Iterable[T],
    name: str,
    *,
    key: Callable[[T], Key] | None = None,
    total: int | None = None,
    when_complete: WhenComplete = "stop",
    store: Store | str | os.PathLike[str] | None = None,
    durability: Durability = "process",
    progress: bool | ProgressFactory | None = None,
) -> Items[T]:
    """Loop over the items of a source that are not done yet, in this run or any before it.

    The last item is acknowledged when the loop asks for the next one, so a killed loop carries on
    with the item in hand. Items are known by `key(item)`; text and whole numbers are their own key.

    Args:
        source: All items, every time; those that are done are passed over.
        name: The session's name.
        key: What an item is known by: text or a whole number.
        total: How many items there are, where the source does not tell.
        when_complete: What a run after the end does: `"stop"` runs what is new in the source and
            nothing else, `"restart"` begins anew, `"error"` raises `UnfinishedError`.
        store: The store or its folder; default as `resolve_path` says.
        durability: What an acknowledgement survives.
        progress: `True` for a progress line, `False` for no line at all; by default the start and
            the end are told on stderr.

    Use it as a context manager to have an exception recorded on the item in hand.
    """
    if reason := _refusal.get():
        raise ConfigurationError(reason, hint="run it as a program: python FILE.py")
    check_choice("when_complete", when_complete, WHEN_COMPLETE)
    return Loop(
        source,
        name,
        key=key,
        total=total,
        when_complete=when_complete,
        store=open_store(store),
        durability=durability,
        progress=progress,
    )


class Loop(Items[T]):
    """The items of a `resume`."""

    def __init__(
        self,
        source: Iterable[T],
        name: str,
        *,
        key: Callable[[T], Key] | None,
        total: int | None,
        when_complete: WhenComplete,
        store: Store,
        durability: Durability,
        progress: bool | ProgressFactory | None,
    ) -> None:
        super().__init__(None, source, key=key, total=total)
        self._name = name
        self._when_complete = when_complete
        self._store = store
        self._durability: Durability = durability
        self._quiet = progress is False
        self._progress = progress
        self._signals: StopSignals | None = None
        self._display: AbstractContextManager[object] | None = None
        self._failed_key: Key | None = None
        self._session: Session | None = None

    def _open(self) -> Batch:
        session = self._store.session(self._name, durability=self._durability, execute=False)
        self._session = session
        try:
            return self._enter(session)
        except BaseException:
            session.close()
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
                raise UnfinishedError(
                    notices.complete_line(session), hint=notices.command(session, "restart")
                )
        session.settle_death()
        if not self._quiet:
            notices.say_start(session, in_items=True)
        self._failed_key = _raised_on(session)
        self._signals = StopSignals(session.request_stop).__enter__()
        if self._progress:
            self._display = display(session, self._progress)
            self._display.__enter__()
        return session.batch(0) if session.recorded(0) else self._start(session)

    def _start(self, session: Session) -> Batch:
        session.set_total_batches(1)
        return session.start_batch(BATCH_KEY, number=0, items_total=self._total, keeps_items=True)

    def _begin(self, batch: Batch) -> None:
        session = batch.session
        active = session.live.active_batches.get(0)
        if active is None or not session.executing:
            self._start(session)

    def __next__(self) -> T:
        try:
            item = super().__next__()
        except StopRequested:
            pass
        except StopIteration:
            raise
        except BaseException as error:
            self._close(error, on_purpose=False)
            raise
        else:
            self._hint_at_failure()
            return item
        # Outside the handler, so that a traceback shows the signal and nothing of ours.
        return self._stop()

    def _hint_at_failure(self) -> None:
        """Tell of an item that raised in the run before, when it comes up again."""
        if self._failed_key is not None and self.key == self._failed_key and not self._guarded:
            notices.say(
                f"{self._name}: item {self.key!r} raised in the run before and is tried again; to"
                f" record such a failure and go on with the rest next time, write: with"
                f" milepost.resume(...) as items"
            )
        self._failed_key = None

    def _stop(self) -> NoReturn:
        signals = self._signals
        self._close(None, on_purpose=True)
        if signals is not None and signals.received is not None:
            notices.say(f"{self._name}: stopped after the item in hand; run it again to carry on")
            signals.raise_stop()
        raise KeyboardInterrupt

    def _finish(self, batch: Batch) -> None:
        session = batch.session
        try:
            self._finish_session(batch, session)
        finally:
            self._put_down()
            session.close()

    def _finish_session(self, batch: Batch, session: Session) -> None:
        state = session.live
        if state.outcome is Outcome.COMPLETED:
            self._say(notices.complete_line(session))
        else:
            if batch.status in {BatchStatus.PENDING, BatchStatus.PROCESSING}:
                self._begin(batch)  # where nothing that was left to do came from the source
                active = state.active_batches[batch.number]
                if active.items_total is None:
                    batch.update_progress(items_total=active.items_finished)
                batch.complete()
            if state.outcome is None:
                session.begin_execution()
                session.complete()
            self._say_end(session)
        if self.duplicates:
            self._say(
                f"{self._name}: {notices.counted(self.duplicates, 'duplicate key')} passed over;"
                " an item runs once"
            )
        if self.vanished:
            self._say(
                f"{self._name}: {notices.counted(self.vanished, 'key')} of earlier runs"
                " no longer in the source"
            )

    def _say_end(self, session: Session) -> None:
        sums = session.live.session_statistics
        if session.live.outcome is Outcome.FAILED:
            self._say(
                f"{self._name}: ended with"
                f" {notices.counted(sums.total_items_failed, 'failed item')},"
                f" {sums.total_items_processed:,} completed"
            )
            if self.waiting:
                self._say(notices.waiting_line(session, self.waiting, "item"))
        else:
            done = notices.counted(sums.total_items_processed, "item")
            self._say(f"{self._name}: complete, {done}")

    def _leave(self, error: BaseException | None, *, on_purpose: bool) -> None:
        signals = self._signals
        self._put_down()
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
        self._say_in_hand(session)
        if error is None and not interrupted:
            session.end(Outcome.INTERRUPTED, "an exception ended the loop")
        else:
            session.end(Outcome.INTERRUPTED, error)

    def _say_in_hand(self, session: Session) -> None:
        """Name the item that was left: `sys.exit` shows no traceback, and none shows the item."""
        active = session.live.active_batches.get(0)
        for item in active.open.values() if active is not None else ():
            if item.status is ItemStatus.PROCESSING:
                self._say(f"{self._name}: left with item {item.item_id!r} in hand; it runs again")

    def _put_down(self) -> None:
        shown, self._display = self._display, None
        if shown is not None:
            shown.__exit__(None, None, None)
        if self._signals is not None:
            self._signals.close()

    def _say(self, line: str) -> None:
        if not self._quiet:
            notices.say(line)


def _raised_on(session: Session) -> Key | None:
    """The item that was in hand when the run before ended by an exception."""
    state = session.live
    latest = state.executions[-1] if state.executions else None
    if latest is None or latest.outcome is not Outcome.INTERRUPTED or not latest.in_flight:
        return None
    return latest.in_flight[0][1]
