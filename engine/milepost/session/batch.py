"""A batch in hand: what a job's body and a hand-written loop talk to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from milepost.errors import ClosedError, ConfigurationError, EncodingError
from milepost.model import events as e
from milepost.model.fold import copy_batch
from milepost.session.items import Items
from milepost.session.keys import check_key
from milepost.types import BatchErrorType, BatchStatus, ItemStatus, Key
from milepost.work.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from milepost.model.state import ActiveBatch, BatchMetrics, Phase
    from milepost.session.session import Session
    from milepost.session.writer import Writer

T = TypeVar("T")

ItemUpdate = tuple[Key, ItemStatus] | tuple[Key, ItemStatus, str | BaseException | None]
"""An item of `update_items`: its key, what became of it, and what was wrong if something was."""


COUNT_MAX = 1 << 53
"""No count goes beyond this, so that sums of them stay within what every reader can hold."""


class Batch:
    """A batch of a living session. Its methods may be called from any thread.

    Attributes:
        key: What it is known by.
        number: Its number in the session, from 0.
        label: What people call it.
        payload: What it is about: what the plan says, or what it was started with.
    """

    def __init__(
        self, session: Session, writer: Writer, number: int, key: str, label: str, payload: Any
    ) -> None:
        self._session = session
        self._writer = writer
        self._meter = Meter()
        self.number = number
        self.key = key
        self.label = label
        self.payload = payload

    def __repr__(self) -> str:
        status = self.status.name.lower()
        return f"<Batch {self.number} {self.key!r} of {self._session.name!r}: {status}>"

    @property
    def session(self) -> Session:
        """The session it belongs to."""
        return self._session

    @property
    def status(self) -> BatchStatus:
        """Where it stands."""
        return self._writer.state.batch_status(self.number) or BatchStatus.PENDING

    @property
    def recorded(self) -> ActiveBatch | None:
        """All its item records, live; `None` if it was never begun, or kept none."""
        return self._session.recorded(self.number)

    @property
    def updated_at(self) -> datetime | None:
        """When anything last happened to it; `None` for a batch that was never begun."""
        recorded = self.recorded
        return recorded.updated_at if recorded is not None else None

    @property
    def progress(self) -> ActiveBatch:
        """All that is recorded of it, as a copy of its own; for a batch that is not ended."""
        with self._writer.lock:
            return copy_batch(self._require_active())

    def is_done(self, key: Key) -> bool:
        """Whether an item of it is completed or skipped."""
        return self._require_active().is_done(key)

    def status_of(self, key: Key) -> ItemStatus | None:
        """Where an item stands; `None` if it was never seen."""
        return self._require_active().status_of(key)

    def update_item(
        self, key: Key, status: ItemStatus, error: str | BaseException | None = None
    ) -> None:
        """Record what became of one item; it survives what the session's durability says.

        An item that is completed or skipped stays so. Errors: `EncodingError` (a `TypeError`) for a
        key that is none; `ValueError` where the batch reports counts; `ClosedError` where it is
        ended.
        """
        key = check_key(key)
        change = self._change(key, ItemStatus(status), error)
        writer = self._writer
        with writer.lock:
            writer.ready()
            self._require_items()
            writer.commit(
                e.ItemUpdated(
                    writer.state.sequence + 1,
                    writer.now_ns(),
                    self.number,
                    change.key,
                    change.status,
                    None,
                    change.error_message,
                    change.error_type,
                    change.is_recoverable,
                )
            )

    def update_items(self, updates: Iterable[ItemUpdate]) -> None:
        """Record what became of many items, in one write: all of them or none."""
        changes = [
            self._change(
                check_key(update[0]),
                ItemStatus(update[1]),
                update[2] if len(update) > 2 else None,
            )
            for update in updates
        ]
        if not changes:
            return
        writer = self._writer
        with writer.lock:
            writer.ready()
            self._require_items()
            writer.commit(
                e.ItemsUpdated(writer.next_sequence, writer.now_ns(), self.number, changes)
            )

    def advance(self, done: Key | None, taken: Key | None) -> None:
        """One item done, the next one in hand, in one record. For loops over items."""
        writer = self._writer
        with writer.lock:
            writer.ready()
            self._require_items()
            writer.commit(
                e.ItemUpdated(
                    writer.state.sequence + 1,
                    writer.now_ns(),
                    self.number,
                    done,
                    ItemStatus.COMPLETED,
                    taken,
                )
            )

    def update_progress(
        self,
        *,
        phase: Phase | None = None,
        processed: int | None = None,
        failed: int | None = None,
        items_total: int | None = None,
    ) -> None:
        """Record the phase, or how many items are done where they are not tracked one by one.

        Units: `processed` and `failed` are absolute, and `failed` is not among `processed`.
        Errors: `ValueError` for counts in a batch that tracks items, or negative ones.
        """
        for name, count in (
            ("processed", processed),
            ("failed", failed),
            ("items_total", items_total),
        ):
            if count is None:
                continue
            if not isinstance(count, int) or isinstance(count, bool):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers are not all typed
                raise EncodingError(f"{name} is {count!r:.80}; it must be a whole number")
            if not 0 <= count <= COUNT_MAX:
                raise ConfigurationError(f"{name} is {count}; it must be from 0 to {COUNT_MAX:,}")
        writer = self._writer
        with writer.lock:
            writer.ready()
            batch = self._require_active()
            counts = processed is not None or failed is not None
            tracked = batch.items_finished or batch.open
            if counts and tracked and not batch.is_counted:
                raise ValueError(
                    f"batch {self.key!r} tracks its items one by one; processed= and failed= are"
                    " for batches that do not"
                )
            writer.commit(
                e.ProgressUpdated(
                    writer.next_sequence,
                    writer.now_ns(),
                    self.number,
                    processed,
                    failed,
                    phase,
                    items_total,
                )
            )

    def count(self, **amounts: int) -> None:
        """Add to user counters: `batch.count(network_requests=1, rows=80)`."""
        if not amounts:
            return
        for name, amount in amounts.items():
            if isinstance(amount, bool) or not isinstance(amount, int):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers are not all typed
                raise EncodingError(f"the counter {name} goes up by a whole number, not {amount!r}")
        writer = self._writer
        with writer.lock:
            writer.ready()
            counters = self._require_active().counters
            for name, amount in amounts.items():
                if abs(counters.get(name, 0) + amount) > COUNT_MAX:
                    raise EncodingError(f"the counter {name} would go beyond {COUNT_MAX:,}")
            writer.commit(
                e.CountersAdded(writer.next_sequence, writer.now_ns(), self.number, dict(amounts))
            )

    def items(
        self,
        source: Iterable[T],
        *,
        key: Callable[[T], Key] | None = None,
        total: int | None = None,
    ) -> Items[T]:
        """Loop over the items that are not done; each is acknowledged when the next is asked for.

        Pending ones come first, then those that failed and may be tried again. Use it as a context
        manager to have an exception recorded on the item in hand.
        """
        return Items(self, source, key=key, total=total)

    def complete(self, metrics: BatchMetrics | None = None) -> BatchStatus:
        """End the batch; on return that is on the disk. With failed items it ends as failed.

        Errors: `ClosedError` where it is ended already.
        """
        with self._writer.lock:
            self._writer.ready()
            self._writer.commit_all([self.ending(metrics)], durable=True)
            return self.status

    def ending(self, metrics: BatchMetrics | None = None) -> e.BatchCompleted | e.BatchFailed:
        """The event that ends the batch as what it is; the caller holds the lock and commits it."""
        writer = self._writer
        batch = self._require_active()
        if batch.items_failed and not batch.is_counted:
            failed = [i for i in batch.open.values() if i.status is ItemStatus.FAILED]
            worst = failed[-1]
            return e.BatchFailed(
                writer.next_sequence,
                writer.now_ns(),
                self.number,
                f"{len(failed)} of {batch.items_finished} items failed, at last"
                f" {worst.item_id!r}: {worst.error_message or 'no reason given'}",
                BatchErrorType.UNKNOWN_ERROR if worst.error_type is None else worst.error_type,
                any(item.is_recoverable for item in failed),
            )
        if metrics is None and writer.settings.tracker.enable_performance_metrics:
            metrics = self._measure(batch)
        return e.BatchCompleted(writer.next_sequence, writer.now_ns(), self.number, metrics)

    def fail(
        self,
        error: str | BaseException,
        *,
        type: BatchErrorType | None = None,  # the word of the public face
        recoverable: bool | None = None,
    ) -> None:
        """Give the batch up; on return that is on the disk. Its completed items are kept.

        What is not said is judged by the session's classifier; text alone is an unknown error that
        may be tried again.
        """
        with self._writer.lock:
            self._writer.ready()
            self._require_active()
            self._writer.commit_all([self.failing(error, type, recoverable)], durable=True)

    def failing(
        self,
        error: str | BaseException,
        error_type: BatchErrorType | None = None,
        recoverable: bool | None = None,  # internal, always named
    ) -> e.BatchFailed:
        """The event that gives the batch up; the caller holds the lock and commits it."""
        message, judged_type, judged = self._session.judge(error)
        return e.BatchFailed(
            self._writer.next_sequence,
            self._writer.now_ns(),
            self.number,
            message or "no reason given",
            judged_type if error_type is None else error_type,
            judged if recoverable is None else recoverable,
        )

    def attempt_failed(self, error: BaseException, delay_seconds: float) -> None:
        """Record that a try failed and another one follows after the delay. For runners."""
        message, error_type, _ = self._session.judge(error)
        writer = self._writer
        with writer.lock:
            writer.ready()
            self._require_active()
            writer.commit(
                e.BatchAttemptFailed(
                    writer.next_sequence,
                    writer.now_ns(),
                    self.number,
                    message or "no reason given",
                    error_type,
                    int(delay_seconds * 1000),
                )
            )

    def begin_again(self) -> None:
        """Record that the next try begins. For runners."""
        writer = self._writer
        with writer.lock:
            writer.ready()
            batch = self._require_active()
            writer.commit(
                e.BatchStarted(writer.next_sequence, writer.now_ns(), self.number, batch.batch_id)
            )

    def _measure(self, batch: ActiveBatch) -> BatchMetrics:
        running = max(0, self._writer.now_ns() - batch.resumed_ns) if batch.resumed_ns else 0
        return self._meter.read(
            items_processed=batch.items_processed,
            items_failed=batch.items_failed,
            items_skipped=batch.items_skipped,
            active_seconds=(batch.active_ns + running) / 1e9,
            counters=batch.counters,
        )

    def _change(
        self, key: Key, status: ItemStatus, error: str | BaseException | None
    ) -> e.ItemChange:
        if error is None:
            return e.ItemChange(key, status)
        message, error_type, recoverable = self._session.judge(error)
        return e.ItemChange(key, status, message, error_type, recoverable)

    def _require_active(self) -> ActiveBatch:
        batch = self._writer.state.active_batches.get(self.number)
        if batch is None:
            # A closed or superseded session says so itself.
            self._writer.ready()
            raise ClosedError(
                f"batch {self.key!r} is {self.status.name.lower()}; nothing more can be recorded",
                hint="start it again with session.start_batch",
            )
        return batch

    def _require_items(self) -> ActiveBatch:
        batch = self._require_active()
        if batch.is_counted:
            raise ValueError(
                f"batch {self.key!r} reports counts (update_progress); its items cannot be tracked"
                " one by one as well"
            )
        return batch
