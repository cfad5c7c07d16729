"""What is to be run next: from the source, from what was found on the way, from earlier failures.

- What is done is not seen again; a key that comes twice runs once and is counted.
- The order: the source as it comes, then work found on the way, the oldest first (what was in hand
  when a run ended comes before what was never taken), then failed items that may be tried again.
- Items known by their position need no keys kept: the done prefix is a number, and a digest of the
  items before it tells whether the source still begins as it did.
- Nothing is recorded here. Who takes an item from the feed says so to the batch.
"""

from __future__ import annotations

import hashlib
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from milepost.errors import EncodingError, InputChangedError
from milepost.session.keys import check_key
from milepost.storage.location import command
from milepost.storage.values import copied
from milepost.types import ItemStatus, Key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from milepost.model.state import ActiveBatch, ItemProgress
    from milepost.session.batch import Batch

T = TypeVar("T")

DIGEST_BYTES: Final = 16
_ENDED: Final = frozenset({ItemStatus.COMPLETED, ItemStatus.SKIPPED})
_PREFIX_ITEMS: Final = 4_096
_MET_LEAST: Final = 256
_QUEUED_LEAST: Final = 256
_QUEUED_SHARE: Final = 16


class Taken(NamedTuple, Generic[T]):
    """An item that is to be run.

    Attributes:
        key: What it is known by.
        item: The item itself.
    """

    key: Key
    item: T


class Feed(Generic[T]):
    """The items of a batch that are to be run, known by their keys.

    Attributes:
        duplicates: How many items came with a key that had come before.
        waiting: How many failed items were left for `milepost retry`.
    """

    def __init__(self, batch: Batch, key_of: Callable[[T], Key] | None, *, number: int = 0) -> None:
        self._batch = batch
        self._loops = batch.loops
        self.number = number
        self._key_of = key_of
        self._unmet: set[Key] = set()
        self._again: deque[Taken[T]] = deque()
        self._found: deque[Key] = deque()
        self._looked_at: int | None = None
        self._heard_of = 0
        self._unmet_added = 0
        self._passed: deque[Taken[T]] = deque()
        self._passed_most = _MET_LEAST
        self._held: set[Key] = set()
        self._met: set[Key] = set()
        self._met_most = _MET_LEAST
        self.duplicates = 0
        self.waiting = 0
        recorded = batch.recorded
        if recorded is not None:
            with batch.lock:  # others may record and add meanwhile
                self._refuse_other_kind(recorded)
                self._heard_of = len(self._loops.found_again)
                self._meet(recorded)

    def _refuse_other_kind(self, recorded: ActiveBatch) -> None:
        if recorded.is_positional:
            raise InputChangedError(
                f"the items of session {self._batch.session.name!r} are known by their position",
                hint='go on with key="position", or give the work another name',
            )

    def _meet(self, recorded: ActiveBatch) -> None:
        self._unmet = {*recorded.done, *recorded.finished, *recorded.open, *recorded.queued}
        self._unmet_added = recorded.items_added
        self._hold(recorded)

    def _hold(self, recorded: ActiveBatch) -> None:
        """Note what other loops have in hand: one that is gone need not have said so."""
        processing = ItemStatus.PROCESSING
        self._held = {key for key, item in recorded.open.items() if item.status is processing}

    @property
    def vanished(self) -> int:
        """How many keys of earlier runs the source no longer has; known at the end of it."""
        return max(0, len(self._unmet) - self._unmet_added)

    def consider(self, item: T) -> Taken[T] | None:
        """The next item of the source, if it is to be run now."""
        key = self._key(item)
        known = self._is_met_first(key)
        recorded = self._batch.recorded
        if recorded is not None and recorded.is_done(key):
            self.duplicates += not known
            return None
        progress = recorded.open.get(key) if recorded is not None else None
        if key in self._met:
            self.duplicates += 1
            return None
        self._meet_now(key)
        if progress is not None and progress.status is ItemStatus.FAILED:
            if known:  # else another loop has tried it since this one began
                self._consider_failed(Taken(key, item), progress)
            return None
        return self._chosen(Taken(key, item), progress)

    def _chosen(
        self, taken: Taken[T], progress: ItemProgress | None, *, at_last: bool = False
    ) -> Taken[T] | None:
        """Claim an item, with what was recorded of it, unless another loop has it.

        What another one had in hand when this one began is taken `at_last`, for it may be gone; at
        once where nobody else began one: then it is left, or waits for us.
        """
        key = taken.key
        status = ItemStatus.PENDING if progress is None else progress.status
        if status in _ENDED:
            return None  # its loop ends it just now
        is_held = status is ItemStatus.PROCESSING
        is_mine = key in self._held and (at_last or not self._loops.are_shared)
        is_others = is_held and not is_mine
        if is_others or not self._loops.claim(key, self):
            self._pass_over(taken)
            return None
        recorded = self._batch.recorded
        if recorded is not None:
            item = recorded.open.get(key)
            has_changed = item is not progress or (item is not None and item.status is not status)
            if has_changed or recorded.is_done(key):
                self._loops.release(key, self)
                self._pass_over(taken)
                return None
        return taken

    def choose_again(self, taken: Taken[T]) -> bool:
        """Claim an item that was chosen before and is not recorded as taken, if it still waits."""
        return self._chosen(taken, self._progress(taken.key)) is not None

    def _progress(self, key: Key) -> ItemProgress | None:
        recorded = self._batch.recorded
        return recorded.open.get(key) if recorded is not None else None

    def release(self, keys: Iterable[Key]) -> None:
        """What was chosen is not taken just now."""
        for key in keys:
            self._loops.release(key, self)

    def release_all(self) -> None:
        """Nothing that was chosen is taken: the loop was interrupted, and is left."""
        self._loops.release_all(self)

    def look_again(self, items: Iterable[Taken[T]]) -> bool:
        """What a loop had in hand and could not end comes after all else; whether any does."""
        recorded = self._batch.recorded
        pending = [
            each
            for each in items
            if recorded is not None and recorded.status_of(each.key) is ItemStatus.PENDING
        ]
        self._passed.extend(pending)
        return bool(pending)

    def _pass_over(self, taken: Taken[T]) -> None:
        """Leave an item to another loop; should that put it down, it is looked at in the end."""
        recorded = self._batch.recorded
        if recorded is not None and len(self._passed) >= self._passed_most:
            self._passed = deque(each for each in self._passed if not recorded.is_done(each.key))
            self._passed_most = max(_MET_LEAST, 2 * len(self._passed))
        self._passed.append(taken)

    def _passed_over(self) -> Taken[T] | None:
        """What another loop was to do and has not; `None` where there is nothing."""
        for _ in range(len(self._passed)):
            taken = self._passed.popleft()
            progress = self._progress(taken.key)
            if progress is not None and progress.status is ItemStatus.FAILED:
                continue  # it was that loop's to try
            if self._chosen(taken, progress, at_last=True) is not None:
                return taken
        return None

    def _is_met_first(self, key: Key) -> bool:
        """Whether it is an item of an earlier run that was not met in this loop; now it is."""
        if key not in self._unmet:
            return False
        self._hear_of_found()
        self._unmet.discard(key)
        recorded = self._batch.recorded
        if recorded is not None:
            item = recorded.open.get(key) or recorded.finished.get(key)
            # Of those that are done without details, nobody knows whether they were found.
            self._unmet_added -= item.is_added if item is not None else key in recorded.queued
        return True

    def _meet_now(self, key: Key) -> None:
        """Remember what was met, for as long as no record would tell that it was."""
        recorded = self._batch.recorded
        if recorded is not None and len(self._met) >= self._met_most:
            self._met = {each for each in self._met if not recorded.is_done(each)}
            self._met_most = max(_MET_LEAST, 2 * len(self._met))
        self._met.add(key)

    def next_from(self, source: Iterator[T]) -> Taken[T] | None:
        """The next item that the source has to be run; `None` at its end."""
        for item in source:
            if (taken := self.consider(item)) is not None:
                return taken
        return None

    def rest(self) -> Taken[T] | None:
        """What is to be run when the source has no more; `None` if there is nothing just now."""
        return self.found() or self.failed_before()

    def failed_before(self) -> Taken[T] | None:
        """A failed item that may be tried again; `None` if there is none."""
        while self._again:
            taken = self._again.popleft()
            if self.choose_again(taken):
                return taken
        return self._passed_over()

    def _consider_failed(self, taken: Taken[T], progress: ItemProgress) -> None:
        session = self._batch.session
        tried_now = progress.failed_in == session.epoch
        limit = session.recovery.max_recovery_attempts
        if progress.is_recoverable and (progress.failed_runs < limit or tried_now):
            self._again.append(taken)
        else:
            self.waiting += 1

    def _key(self, item: T) -> Key:
        if self._key_of is None:
            return check_key(item, "an item")
        try:
            key = self._key_of(item)
        except (StopIteration, StopAsyncIteration) as error:  # it would end the loop without a word
            raise RuntimeError(f"key= raised {type(error).__name__} for {item!r:.80}") from error
        return check_key(key, f"the key of {item!r:.80}")

    # Work found on the way.

    def found(self) -> Taken[T] | None:
        """The oldest item that was found on the way; `None` if there is none just now."""
        recorded = self._batch.recorded
        if recorded is None:
            return None
        while self._found or self._refill(recorded):
            key = self._found.popleft()
            if key in self._met:
                continue  # the source had it, too
            item = recorded.open.get(key)
            if item is None and key not in recorded.queued:
                continue  # it is done
            if item is not None and item.status is ItemStatus.PROCESSING:
                continue
            payload = recorded.queued.get(key) if item is None else item.payload
            # What is recorded is not the body's to change.
            taken = Taken(key, _value(key, None if payload is None else copied(payload)))
            self._is_met_first(key)
            self._meet_now(key)
            if item is not None and item.status is ItemStatus.FAILED:
                self._consider_failed(taken, item)
            elif self._chosen(taken, item) is not None:
                return taken
        return None

    def _hear_of_found(self) -> None:
        """Count what the batch knew from a source among what was found, from when it was."""
        found = self._loops.found_again
        while self._heard_of < len(found):
            key = found[self._heard_of]
            self._heard_of += 1
            self._unmet_added += key in self._unmet
            self._found.append(key)

    def _refill(self, recorded: ActiveBatch) -> bool:
        with self._batch.lock:  # others may add while this is gone through
            return self._refill_alone(recorded)

    def _refill_alone(self, recorded: ActiveBatch) -> bool:
        if self._looked_at != self._loops.times_put_down:
            is_first, self._looked_at = self._looked_at is None, self._loops.times_put_down
            waiting = {ItemStatus.PENDING, ItemStatus.FAILED} if is_first else {ItemStatus.PENDING}
            self._found.extend(
                key
                for key, item in recorded.open.items()
                if item.is_added and item.status in waiting and key not in self._met
            )
        self._hear_of_found()
        if not self._found:
            # A share at a time: a dict whose front was emptied is walked over again and again.
            count = max(_QUEUED_LEAST, len(recorded.queued) // _QUEUED_SHARE)
            fresh = (key for key in recorded.queued if key not in self._met)
            self._found.extend(islice(fresh, count))
        return bool(self._found)


class PositionFeed(Feed[T]):
    """The items of a batch that are to be run, known by their position in the source."""

    def __init__(self, batch: Batch, *, number: int = 0) -> None:
        super().__init__(batch, None, number=number)
        self._position = 0
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._marks = deque([(0, self._hash.hexdigest())])
        self._before: deque[Taken[T]] = deque()
        self._is_checked = False

    def _refuse_other_kind(self, recorded: ActiveBatch) -> None:
        if not recorded.is_positional and (recorded.items_known or recorded.items_added):
            raise InputChangedError(
                f"the items of session {self._batch.session.name!r} are known by their keys",
                hint="go on with the key= it was made with, or give the work another name",
            )

    def _meet(self, recorded: ActiveBatch) -> None:
        """No key is kept, so none can be missed."""
        self._hold(recorded)

    @property
    def vanished(self) -> int:
        """Nothing: a source that lost an item does not begin as it did."""
        return 0

    def consider(self, item: T) -> Taken[T] | None:
        """The next item of the source, if it is to be run now."""
        position = self._position
        self._position += 1
        data = _bytes_of(item)
        self._hash.update(len(data).to_bytes(8, "little"))
        self._hash.update(data)
        recorded = self._batch.recorded
        if recorded is None:
            return Taken(position, item)
        progress = recorded.open.get(position)
        if progress is None and recorded.is_done(position):
            return None
        if progress is not None and progress.status is ItemStatus.FAILED:
            self._consider_failed(Taken(position, item), progress)
            return None
        return self._chosen(Taken(position, item), progress)

    def next_from(self, source: Iterator[T]) -> Taken[T] | None:
        """The next item that the source has to be run; `None` at its end.

        Errors: `InputChangedError` where the source does not begin as it did.
        """
        if not self._is_checked:
            self._is_checked = True
            self._pass_over_prefix(source)
        while self._before:
            taken = self._before.popleft()
            if self.choose_again(taken):
                return taken
        return super().next_from(source)

    def mark(self) -> None:
        """Remember how many items the source has given so far, and their digest."""
        if self._marks and self._marks[-1][0] == self._position:
            return
        self._marks.append((self._position, self._hash.hexdigest()))

    def latest_mark(self, position: int) -> tuple[int, str] | None:
        """The furthest mark that is not beyond the position; it and all before are forgotten."""
        found = None
        while self._marks and self._marks[0][0] <= position:
            found = self._marks.popleft()
        return found

    def _pass_over_prefix(self, source: Iterator[T]) -> None:
        """Compare the beginning of the source with what it was."""
        recorded = self._batch.recorded
        if recorded is None or not recorded.digested:
            return
        with self._batch.lock:  # another loop may go on meanwhile
            count, digest = recorded.digested, recorded.digest
        unfinished = {key for key in recorded.open if isinstance(key, int) and key < count}
        while self._position < count:
            items = list(islice(source, min(_PREFIX_ITEMS, count - self._position)))
            if not items:
                raise self._changed(
                    f"has {self._position:,} items, and {count:,} were taken from it"
                )
            if unfinished:
                for item in items:
                    taken = self.consider(item)
                    if taken is not None:
                        self._before.append(taken)
                        self.release([taken.key])
                continue
            parts: list[bytes] = []
            for item in items:
                data = _bytes_of(item)
                parts.append(len(data).to_bytes(8, "little"))
                parts.append(data)
            self._hash.update(b"".join(parts))
            self._position += len(items)
        if self._hash.hexdigest() != digest:
            raise self._changed(f"does not begin with the {count:,} items that it began with")
        self.mark()

    def _changed(self, what: str) -> InputChangedError:
        session = self._batch.session
        again = command(session.store_path, "restart", session.name)
        return InputChangedError(
            f"the source of session {session.name!r} {what}, so positions mean other items now",
            hint=f"hand in the same source, or begin anew: {again}; with key= a function, items are"
            " known by themselves and may come in any order",
        )


def _value(key: Key, payload: Any) -> Any:
    """An item that was found on the way: its payload, or the key where that is all of it."""
    return key if payload is None else payload


def _bytes_of(item: object) -> bytes:
    """What an item is, for a digest."""
    if type(item) is str:
        return item.encode("utf-8", "surrogatepass")
    if type(item) is bytes:
        return item
    try:
        return msgspec.msgpack.encode(item)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise EncodingError(
            f'with key="position" an item must be data that can be compared with what it was:'
            f" {item!r:.80} is not ({error})",
            hint="use text, bytes or plain data as items, or key= a function",
        ) from error
