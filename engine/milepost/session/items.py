"""The loop over items: each one is acknowledged when the loop asks for the next.

- One record says "this one done, that one taken", where the source answers at once. A source that
  may take its time (a generator, a file) is asked only after the item in hand is acknowledged, so
  that a kill while it waits repeats nothing.
- What is done is not seen again; a key that comes twice runs once and is counted. Pending items
  come first, then failed ones that may be tried again.
- An item is acknowledged after its body came back, and by nothing else: an exception, `break`, a
  stop request or a kill leave it to be run again.
- In a `with` block, an exception is recorded on the item in hand and raised again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from milepost.errors import ClosedError, MilepostError
from milepost.session.arguments import check_count, check_function, check_source
from milepost.session.consumer import Consumer, left_on_purpose
from milepost.session.keys import check_key
from milepost.types import ItemStatus, Key

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from milepost.session.batch import Batch
    from milepost.session.session import Session

T = TypeVar("T")

_AT_ONCE: Final = (list, tuple, range, dict, set, frozenset, str, bytes)
"""Sources whose next item is there without waiting."""


class StopRequested(BaseException):  # no error: nobody's `except Exception` may eat it
    """The work was asked to stop, and the item in hand is acknowledged.

    It passes through the body up to the runner that asked.
    """


class Items(Generic[T]):
    """Iterator and context manager over the items of a batch.

    Attributes:
        key: Key of the item in hand; `None` between items.
        duplicates: How many items came with a key that had come before.
        waiting: How many failed items were left for `milepost retry`.
    """

    def __init__(
        self,
        batch: Batch | None,
        source: Iterable[T],
        *,
        key: Callable[[T], Key] | None = None,
        total: int | None = None,
    ) -> None:
        if isinstance(source, Items):
            raise TypeError("these items are watched over already; hand in their source")
        check_source(source, "the source of the items")
        check_function("key", key)
        if total is not None:
            check_count("total", total, least=0)
        self._batch = batch
        self._given = source
        self._key_of = key
        self._total = total
        self._source: Iterator[T] | None = None
        self._answers_at_once = isinstance(source, _AT_ONCE)
        self._consumer = Consumer()
        self._unmet: set[Key] = set()
        self._again: list[tuple[Key, T]] = []
        self._ended = False
        self._guarded = False
        self.key: Key | None = None
        self.duplicates = 0
        self.waiting = 0

    # What a subclass does at the edges.

    def _open(self) -> Batch:
        """The batch whose items these are, begun or not."""
        if self._batch is None:
            raise ClosedError("these items belong to no batch")
        return self._batch

    def _begin(self, batch: Batch) -> None:
        """Called before the first item is taken."""

    def _finish(self, batch: Batch) -> None:
        """Called when all items were given out and acknowledged."""

    def _leave(self, error: BaseException | None, *, on_purpose: bool) -> None:
        """Called when the loop was left before its end."""

    # Iterating.

    def __iter__(self) -> Items[T]:
        return self

    def __length_hint__(self) -> int:
        self._consumer.note_length_hint()
        if self._total is not None:
            return self._total
        return len(self._given) if isinstance(self._given, Sized) else 0

    def __next__(self) -> T:
        self._consumer.check()
        if self._ended:
            raise StopIteration
        batch = self._prepared()
        source = cast("Iterator[T]", self._source)
        if self.session.stop_requested:
            self._acknowledge(batch)
            raise StopRequested
        if not self._answers_at_once:
            self._acknowledge(batch)
        try:
            taken = self._next_to_do(batch, source)
        except BaseException:
            # The item in hand is done, whatever the source has to say.
            self._acknowledge(batch)
            raise
        if taken is None:
            self._acknowledge(batch)
            self._ended = True
            self._finish(batch)
            raise StopIteration
        key, item = taken
        done, self.key = self.key, None
        batch.advance(done, key)
        self.key = key
        return item

    def _prepared(self) -> Batch:
        """The batch, with everything known that decides which items come."""
        if self._source is not None:
            return cast("Batch", self._batch)
        self._batch = batch = self._open()
        recorded = batch.recorded
        if recorded is not None:
            self._unmet = recorded.done | recorded.finished.keys() | recorded.open.keys()
        if self._total is None and isinstance(self._given, Sized):
            self._total = len(self._given)
        self._tell_total(batch)
        self._source = iter(self._given)
        return batch

    def _tell_total(self, batch: Batch) -> None:
        """Record how many items there are, where that is news in a batch that runs."""
        active = batch.session.live.active_batches.get(batch.number)
        if active is None or self._total is None or active.items_total == self._total:
            return
        # A loop begins its run with the first item, and tells the total then.
        if batch.session.executing:
            batch.update_progress(items_total=self._total)

    def _next_to_do(self, batch: Batch, source: Iterator[T]) -> tuple[Key, T] | None:
        """The next item that is to be run, or `None` when there is no more."""
        limit = self.session.recovery.max_recovery_attempts
        for item in source:
            key = self._key(item)
            known = key in self._unmet
            self._unmet.discard(key)
            recorded = batch.recorded
            if recorded is None:
                self._begin(batch)
                return key, item
            if recorded.is_done(key):
                self.duplicates += not known
                continue
            progress = recorded.open.get(key)
            if progress is not None and not known:
                self.duplicates += 1
                continue
            if progress is not None and progress.status is ItemStatus.FAILED:
                tried_now = progress.failed_in == self.session.epoch
                if progress.is_recoverable and (progress.failed_runs < limit or tried_now):
                    self._again.append((key, item))
                else:
                    self.waiting += 1
                continue
            self._begin(batch)
            return key, item
        if self._again:
            self._begin(batch)
            return self._again.pop(0)
        return None

    def _key(self, item: T) -> Key:
        if self._key_of is None:
            return check_key(item, "an item")
        return check_key(self._key_of(item), f"the key of {item!r:.80}")

    def _acknowledge(self, batch: Batch) -> None:
        """The item in hand is done; there is no next one in the same record."""
        done, self.key = self.key, None
        if done is not None:
            batch.advance(done, None)

    @property
    def session(self) -> Session:
        """The session that watches over the items."""
        if self._batch is None:
            self._prepared()
        return cast("Batch", self._batch).session

    @property
    def vanished(self) -> int:
        """How many keys of earlier runs the source no longer has; known at the end of the loop."""
        return len(self._unmet)

    # Leaving.

    def __enter__(self) -> Items[T]:
        self._guarded = True
        self._prepared()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._guarded = False
        if isinstance(error, Exception) and not isinstance(error, MilepostError):
            self._record_failure(error)
        self._close(error, on_purpose=error is None)

    def _record_failure(self, error: Exception) -> None:
        key, self.key = self.key, None
        if key is not None and self._batch is not None:
            self._batch.update_item(key, ItemStatus.FAILED, error)

    def close(self) -> None:
        """Leave the loop; the item in hand is not acknowledged."""
        self._close(None, on_purpose=True)

    def _close(self, error: BaseException | None, *, on_purpose: bool) -> None:
        self.key = None
        if self._ended or self._source is None:
            return
        self._ended = True
        source: Any = self._source
        if hasattr(source, "close"):
            # A generator ends now and not at some later collection.
            with contextlib.suppress(Exception):
                source.close()
        self._leave(error, on_purpose=on_purpose)

    def __del__(self) -> None:
        if getattr(self, "_guarded", True) or self._ended:
            return
        on_purpose = left_on_purpose()
        with contextlib.suppress(Exception):
            self._close(None, on_purpose=on_purpose)
