"""A batch in hand: what a job's body and a hand-written loop talk to.

- What is recorded is checked first, then committed as an event; what it means is the fold's matter.
- It is long because it is one face, and a third of it signatures and what they promise: how loops
  and maps go through its items has files of its own.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, overload

from milepost.errors import ClosedError, ConfigurationError, EncodingError
from milepost.model import events as e
from milepost.model.fold import copy_batch
from milepost.session.dispatch import Rules
from milepost.session.host import Host
from milepost.session.items import Items
from milepost.session.keys import check_key
from milepost.session.mapping import Mapped, mapped
from milepost.storage.values import plain_value
from milepost.text import counted
from milepost.types import BatchErrorType, BatchStatus, ItemStatus, Key
from milepost.work.meter import Meter
from milepost.work.retry import Backoff

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncIterable, Callable, Collection, Coroutine, Iterable
    from datetime import datetime

    from milepost.model.state import ActiveBatch, BatchMetrics, Phase
    from milepost.session.async_mapping import AsyncMapped
    from milepost.session.feed import PositionFeed
    from milepost.session.loops import Loops
    from milepost.session.outputs import Slip
    from milepost.session.session import Session
    from milepost.session.writer import Writer
    from milepost.work.pool import ExecutorOrFactory

T = TypeVar("T")
R = TypeVar("R")

ItemUpdate = tuple[Key, ItemStatus] | tuple[Key, ItemStatus, str | BaseException | None]
"""An item of `update_items`: its key, what became of it, and what was wrong if something was."""


_ADDED_MAX = 10_000
"""More added items go into several records."""
ITEM_BYTES_MAX = 1 << 16
"""An item that was found on the way is an address, and no document."""
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
        self._loops: Loops | None = None
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
    def loops(self) -> Loops:
        """What all loops over its items share."""
        if self._loops is None:
            self._loops = self._session.loops.of(self.number)
        return self._loops

    @property
    def lock(self) -> threading.RLock:
        """The session's: while it is held, nothing is recorded."""
        return self._writer.lock

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
        change = self.change(key, ItemStatus(status), error)
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
            self._note_put_back([change])

    def update_items(self, updates: Iterable[ItemUpdate]) -> None:
        """Record what became of many items, in one write: all of them or none."""
        changes = [
            self.change(
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
            self._note_put_back(changes)

    def _note_put_back(self, changes: list[e.ItemChange]) -> None:
        """Have loops that run look again where somebody put items back by hand."""
        if any(change.status is ItemStatus.PENDING for change in changes):
            self.loops.times_put_down += 1

    def advance(self, done: Key | None, taken: Key | None, number: int) -> bool:
        """One item done, the next one in hand, in one record. For the loop of this number.

        Returns whether it has that one in hand now.
        """
        writer, loops = self._writer, self.loops
        with writer.lock:
            writer.ready()
            batch = self._require_items()
            if not loops.is_open(number) or not (done is None or loops.has(done, number)):
                changes = [] if done is None else [e.ItemChange(done, ItemStatus.COMPLETED)]
                return bool(self.end_items(changes, [] if taken is None else [taken], [], number))
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
            # As `_note` does, for one of each: this is done for every item.
            if done is not None:
                loops.note_ended((done,))
            if taken is None:
                return False
            if taken not in batch.open:
                loops.drop_claims((taken,))
                return False
            loops.note_taken((taken,), number)
            return True

    def change(
        self, key: Key, status: ItemStatus, error: str | BaseException | None = None
    ) -> e.ItemChange:
        """What became of an item, for `end_items`."""
        if error is None:
            return e.ItemChange(key, status)
        message, error_type, recoverable = self._session.judge(error)
        if status is ItemStatus.SKIPPED:
            return e.ItemChange(key, status, message)
        return e.ItemChange(key, status, message, error_type, recoverable)

    def end_items(
        self, changes: list[e.ItemChange], taken: list[Key], slips: list[Slip], number: int
    ) -> list[Key]:
        """Items changed, others taken, with their rows, in one record. For the loop of this number.

        What another loop has ended first is left out, with its rows. Returns what of the `taken`
        the loop has in hand now.
        """
        with self._writer.lock:
            self._writer.ready()
            batch = self._require_items()
            changes, slips = self._that_count(batch, changes, slips, number)
            return self._commit_ended(batch, changes, taken, slips, number)

    def _that_count(
        self, batch: ActiveBatch, changes: list[e.ItemChange], slips: list[Slip], number: int
    ) -> tuple[list[e.ItemChange], list[Slip]]:
        """Of what became of items in a loop, and of their rows, what is that loop's to say."""
        loops = self.loops
        counting = [
            each
            for each in changes
            if loops.has(each.key, number)
            or loops.may_end(each.key, each.status, is_done=batch.is_done(each.key))
        ]
        if len(counting) == len(changes):
            return changes, slips
        others = {each.key for each in changes} - {each.key for each in counting}
        whole = [each for each in slips if others.isdisjoint(each.keys)]
        # Of the rows of a list nobody can tell whose they are: the rest of it runs again.
        parted = {key for each in slips if each.rows for key in each.keys} - {
            key for each in whole for key in each.keys
        }
        return [
            e.ItemChange(each.key, ItemStatus.PENDING) if each.key in parted else each
            for each in counting
        ], whole

    def _commit_ended(
        self,
        batch: ActiveBatch,
        changes: list[e.ItemChange],
        taken: list[Key],
        slips: list[Slip],
        number: int,
    ) -> list[Key]:
        writer = self._writer
        if not self.loops.is_open(number):
            self.loops.drop_claims(taken)
            taken = []
        if changes or taken:
            writer.commit_with_rows(
                e.ItemsEnded(writer.next_sequence, writer.now_ns(), self.number, changes, taken),
                slips,
            )
        return self._note(batch, [each.key for each in changes], taken, number)

    def _note(
        self, batch: ActiveBatch, ended: Collection[Key], taken: Collection[Key], number: int
    ) -> list[Key]:
        """A record of a loop was made; returns what it has taken of it."""
        self.loops.note_ended(ended)
        in_hand = [key for key in taken if key in batch.open]  # what is done stays done
        self.loops.note_taken(in_hand, number)
        if len(in_hand) < len(taken):
            self.loops.drop_claims(taken)
        return in_hand

    def _put_down(self, keys: Collection[Key]) -> None:
        """What loops had in hand waits again; the caller holds the lock."""
        self._writer.ready()
        batch = self._require_items()
        in_hand = [key for key in keys if batch.status_of(key) is ItemStatus.PROCESSING]
        self.loops.times_put_down += bool(in_hand)
        self._commit_ended(
            batch, [e.ItemChange(key, ItemStatus.PENDING) for key in in_hand], [], [], 0
        )
        self.loops.note_ended(keys)

    def begin_loop(self) -> int:
        """Begin a loop, and return its number; what dropped loops had in hand waits again for it.

        Who goes through its items says so where it begins (`Loops.note_begun`).
        """
        loops = self.loops
        with self._writer.lock:
            if left := loops.left_in_hand():
                if self.status is BatchStatus.PROCESSING:
                    self._put_down(left)
                loops.note_ended(left)
            self._forget_left()
            return loops.begin()

    def end_loop(self, number: int, *, stays: bool = False) -> None:
        """The loop of this number takes nothing more, and what it has in hand waits again.

        Where it `stays` in hand, or that cannot be recorded, it does once another loop begins.
        """
        with self._writer.lock:
            left = self.loops.end(number)
            try:
                if self.status is not BatchStatus.PROCESSING:
                    self.loops.note_ended(left)  # what has ended has nothing in hand
                elif left and not stays:
                    self._put_down(left)
            finally:
                self._forget_left()

    def _forget_left(self) -> None:
        self.loops.forget_left()
        self._session.loops.keep(self.number, self.loops)

    def advance_positions(
        self,
        changes: list[e.ItemChange],
        taken: list[Key],
        slips: list[Slip],
        feed: PositionFeed[Any],
    ) -> list[Key]:
        """The same for items known by their position; what comes in order is said in numbers."""
        writer, number = self._writer, feed.number
        feed.mark()
        with writer.lock:
            writer.ready()
            batch = self._require_items()
            counting, slips = self._that_count(batch, changes, slips, number)
            position = batch.position
            through = position + len(changes)
            in_order = (
                counting is changes and self.loops.is_open(number),
                batch.is_positional or not batch.items_known,
                all(change.status is ItemStatus.COMPLETED for change in changes),
                [change.key for change in changes] == list(range(position, through)),
                # Another loop, or somebody by hand, may have put them back.
                all(batch.status_of(change.key) is ItemStatus.PROCESSING for change in changes),
                taken == list(range(through, through + len(taken))),
            )
            mark = feed.latest_mark(through if all(in_order) else position)
            if mark is not None and mark[0] == through and all(in_order):
                advanced = self._positions(through, mark[1], len(taken))
                writer.commit_with_rows(advanced, slips)
                return self._note(batch, [each.key for each in changes], taken, number)
            if mark is not None and not batch.is_positional and not batch.items_known:
                # Recorded out of order: first of all, that keys are positions here.
                writer.commit(self._positions(*mark, 0))
            in_hand = self._commit_ended(batch, counting, taken, slips, number)
            mark = feed.latest_mark(batch.position) or mark
            if mark is not None and mark[0] > batch.digested:
                writer.commit(self._positions(*mark, 0))
            return in_hand

    def _positions(self, through: int, digest: str, taken: int) -> e.PositionsAdvanced:
        writer = self._writer
        return e.PositionsAdvanced(
            writer.next_sequence, writer.now_ns(), self.number, through, digest, taken
        )

    def add(self, item: Any, *, key: Key | None = None) -> bool:
        """Add an item that was found on the way; returns whether it is new.

        Once, by its key (default: the item itself, as text or a whole number). An item that is more
        than its key is kept as data until it is done, so it should be small. It is recorded before
        the item in hand counts as done. Errors: `EncodingError` for what cannot be stored.
        """
        return bool(self.add_many([item], key=None if key is None else lambda _item: key))

    def add_many(self, items: Iterable[Any], *, key: Callable[[Any], Key] | None = None) -> int:
        """Add items that were found on the way, in one record; returns how many are new.

        One that a source gave and that is not done is not new, but noted: should the source have it
        no more when work is taken up again, it runs all the same.
        """
        fresh: dict[Key, Any] = {}
        for item in items:
            if item is None:
                raise EncodingError("None is no item", hint="add data, or its key alone")
            known_by = check_key(item if key is None else key(item), f"the key of {item!r:.80}")
            is_all = type(item) is type(known_by) and item == known_by
            fresh.setdefault(known_by, None if is_all else item)
        writer = self._writer
        with writer.lock:
            writer.ready()
            batch = self._require_items()
            if batch.is_positional:
                raise ConfigurationError(
                    f"the items of batch {self.key!r} are known by their position",
                    hint="hand in key= a function to add to them",
                )
            keys = [each for each in fresh if batch.is_addable(each)]
            count = 0
            for start in range(0, len(keys), _ADDED_MAX):
                part = keys[start : start + _ADDED_MAX]
                again = [each for each in part if each in batch.open]
                self._commit_added(part, [fresh[each] for each in part])
                self.loops.found_again += again
                count += len(part) - len(again)
        return count

    async def aadd(self, item: Any, *, key: Key | None = None) -> bool:
        """As `add`, in an event loop, which it does not keep waiting for the disk."""
        return bool(await self.aadd_many([item], key=None if key is None else lambda _item: key))

    async def aadd_many(
        self, items: Iterable[Any], *, key: Callable[[Any], Key] | None = None
    ) -> int:
        """As `add_many`, in an event loop, which it does not keep waiting for the disk."""
        return await self._session.off_loop(partial(self.add_many, list(items), key=key))

    def _commit_added(self, keys: list[Key], payloads: list[Any]) -> None:
        writer = self._writer
        plain = None
        if any(each is not None for each in payloads):
            plain = [
                plain_value(each, "an item", size_bytes_max=ITEM_BYTES_MAX) for each in payloads
            ]
        writer.commit(e.ItemsAdded(writer.next_sequence, writer.now_ns(), self.number, keys, plain))

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
            tracked = batch.items_known or batch.is_positional
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

    @overload
    def items(
        self,
        source: Iterable[T] | AsyncIterable[T],
        *,
        key: Callable[[T], Key] | str | None = None,
        total: int | None = None,
        chunk: None = None,
    ) -> Items[T]: ...
    @overload
    def items(
        self,
        source: Iterable[T] | AsyncIterable[T],
        *,
        key: Callable[[T], Key] | str | None = None,
        total: int | None = None,
        chunk: int,
    ) -> Items[list[T]]: ...
    @overload
    def items(
        self,
        source: None = None,
        *,
        key: Callable[[Any], Key] | str | None = None,
        total: int | None = None,
        chunk: int | None = None,
    ) -> Items[Any]: ...
    def items(
        self,
        source: Iterable[T] | AsyncIterable[T] | None = None,
        *,
        key: Callable[[T], Key] | str | None = None,
        total: int | None = None,
        chunk: int | None = None,
    ) -> Items[Any]:
        """Loop over the items that are not done; each is acknowledged when the next is asked for.

        Pending ones come first, then those found on the way (`add`), then those that failed and may
        be tried again. Without a source, all are found on the way. Use it as a context manager to
        have an exception recorded on the item in hand. With `chunk`, lists of that many.
        """
        return Items(Host(self), source, key=key, total=total, chunk=chunk)

    @overload
    def map(  # type: ignore[overload-overlap]  # a coroutine function is a function, too
        self,
        function: Callable[[Any], Coroutine[Any, Any, R]],
        source: Iterable[Any] | AsyncIterable[Any] | None = None,
        *,
        workers: int = 8,
        attempts: int = 3,
        give_up_after: int = 20,
        backoff: Backoff | None = None,
        executor: None = None,
        key: Callable[[Any], Key] | str | None = None,
        total: int | None = None,
    ) -> AsyncMapped[Any, R]: ...
    @overload
    def map(
        self,
        function: Callable[[Any], R],
        source: Iterable[Any] | None = None,
        *,
        workers: int = 8,
        attempts: int = 3,
        give_up_after: int = 20,
        backoff: Backoff | None = None,
        executor: ExecutorOrFactory | None = None,
        key: Callable[[Any], Key] | str | None = None,
        total: int | None = None,
    ) -> Mapped[Any, R]: ...
    def map(
        self,
        function: Callable[[Any], Any],
        source: Any = None,
        *,
        workers: int = 8,
        attempts: int = 3,
        give_up_after: int = 20,
        backoff: Backoff | None = None,
        executor: ExecutorOrFactory | None = None,
        key: Callable[[Any], Key] | str | None = None,
        total: int | None = None,
    ) -> Mapped[Any, Any] | AsyncMapped[Any, Any]:
        """Run a function over the items that are not done, several at once; see `milepost.map`.

        Without a source, all items are found on the way (`add`), those added meanwhile too.
        """
        return mapped(
            function,
            Host(self),
            source,
            Rules(workers, attempts, give_up_after, backoff or Backoff()),
            executor=executor,
            key=key,
            total=total,
        )

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
                f"{len(failed):,} of {counted(batch.items_finished, 'item')} failed, at last"
                f" {worst.item_id!r}: {worst.error_message or 'no reason given'}",
                BatchErrorType.UNKNOWN_ERROR if worst.error_type is None else worst.error_type,
                any(item.is_recoverable for item in failed),
            )
        waiting = (ItemStatus.PENDING, ItemStatus.PROCESSING)
        found = (i.item_id for i in batch.open.values() if i.is_added and i.status in waiting)
        left = [*islice(batch.queued, 1), *found]
        if left:
            # Only here are they known: a batch that ended well would lose them without a word.
            return e.BatchFailed(
                writer.next_sequence,
                writer.now_ns(),
                self.number,
                f"{counted(len(batch.queued) + len(left) - bool(batch.queued), 'item')} found on"
                f" the way not done, for example {left[0]!r}",
                BatchErrorType.UNKNOWN_ERROR,
                is_recoverable=True,
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
