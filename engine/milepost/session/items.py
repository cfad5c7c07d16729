"""The loop over items: each one is acknowledged when the loop asks for the next.

- One record says "this one done, that one taken", where the source answers at once. A source that
  may take its time (a generator, a file) is asked only after the item in hand is acknowledged, so
  that a kill while it waits repeats nothing.
- An item is acknowledged after its body came back, and by nothing else: an exception, `break`, a
  stop request or a kill leave it to be run again.
- In a `with` block, an exception is recorded on the item in hand and raised again.
- With `chunk=`, lists of items are given out, and acknowledged a list at a time. While there are
  suspects of a death, a list holds one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from milepost.errors import ConfigurationError, ConsumerError, MilepostError
from milepost.model.arms.items import TAKEN_MAX
from milepost.session.arguments import check_count
from milepost.session.feed import Feed, PositionFeed, Taken
from milepost.session.host import Host, StopRequested
from milepost.session.outputs import Slip
from milepost.session.workload import DONE, POSITION, Workload, verdict_of
from milepost.types import ItemStatus, Key

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Collection, Iterable

    from milepost.session.batch import Batch
    from milepost.session.outputs import Outputs

T = TypeVar("T")


class Items(Workload[T]):
    """Iterator, async iterator and context manager over the items of a batch."""

    def __init__(
        self,
        host: Host,
        source: Iterable[T] | AsyncIterable[T] | None,
        *,
        key: Callable[[T], Key] | str | None = None,
        total: int | None = None,
        chunk: int | None = None,
    ) -> None:
        super().__init__(host, source, key=key, total=total)
        if chunk is not None and check_count("chunk", chunk) > TAKEN_MAX:
            raise ConfigurationError(f"chunk is {chunk:,}; at most {TAKEN_MAX:,} go in one")
        self._chunk = chunk
        self._is_one_by_one = chunk is None and key != POSITION
        self._has_begun = False
        self._gathered: list[Taken[T]] = []
        self._last_given: list[Taken[T]] = []
        self._taken: tuple[Key, ...] = ()  # recorded as such, and not given out yet
        self._unrecorded: tuple[Key, ...] = ()
        self._slip: Slip | None = None
        self._outputs: Outputs | None = None  # once one was opened

    # Iterating.

    def __iter__(self) -> Items[T]:
        return self

    def __aiter__(self) -> Items[T]:
        return self

    def __next__(self) -> T:
        try:
            self._consumer.check()
            if self._ended:
                self._refuse_after_failure()
                raise StopIteration
            return self._advance()
        except (StopIteration, StopRequested):
            raise
        except BaseException as error:
            if self._host.owns_session or not isinstance(error, ConsumerError):
                self._failure = error
                self._close(error, on_purpose=False)
            raise

    def _advance(self) -> T:
        feed = self._feed or self._prepared(to_loop=True)
        while not self._taken:  # what another loop ends just now is not given out
            if self._owned().session.stop_requested:
                self._acknowledge()
                self._stop()
            if not self._answers_at_once:
                self._acknowledge()
            try:
                self._gather(feed)
            except BaseException:
                # The item in hand is done, whatever the source has to say.
                self._acknowledge()
                raise
            self._refuse_when_closed()
            if not self._gathered:
                if self._acknowledge():
                    continue
                self._end()
                raise StopIteration
            self._take()
            self._refuse_when_closed()
        return self._give_out()

    async def __anext__(self) -> T:
        from asyncio import CancelledError  # noqa: PLC0415  # a plain loop should not pay for it

        self._task_consumer.check()
        if self._ended:
            self._refuse_after_failure()
            raise StopAsyncIteration
        try:
            return await self._advance_async()
        except (StopAsyncIteration, StopRequested):
            raise
        except BaseException as error:
            # In a batch the loop may go on where a task was cancelled that waited for an item.
            may_go_on = isinstance(error, (ConsumerError, CancelledError)) and not self._unrecorded
            if self._host.owns_session or not may_go_on:
                self._failure = error
                await self._close_async(error, on_purpose=False)
            elif not self._taken:
                self._release()
            raise

    async def _advance_async(self) -> T:
        feed = await self._prepared_async(to_loop=True)
        while True:
            if self.session.stop_requested:
                await self._off_loop(self._acknowledge)
                await self._stop_async()
            # What was recorded as taken for a task that was cancelled is just given out.
            if not self._taken:
                await self._advance_to_next(feed)
            self._refuse_when_closed()
            if self._taken:
                return self._give_out()

    async def _advance_to_next(self, feed: Feed[T]) -> None:
        """Take what comes next, in one record with what is done; nothing where that is gone."""
        if not self._answers_at_once:
            await self._off_loop(self._acknowledge)
        try:
            await self._gather_async(feed)
        except BaseException:
            await self._off_loop(self._acknowledge)
            raise
        self._refuse_when_closed()
        if not self._gathered:
            if await self._off_loop(self._acknowledge):
                return
            await self._end_async()
            raise StopAsyncIteration
        await self._off_loop(self._take)

    def _gather(self, feed: Feed[T]) -> None:
        """See what is given out next; nothing where there is no more."""
        found = self._gathered
        while self._wants_more(found) and (taken := self._next_of_source(feed)) is not None:
            found.append(taken)
        self._gather_rest(feed, found)

    async def _gather_async(self, feed: Feed[T]) -> None:
        # What was gathered for a task that was cancelled, other loops may have taken since.
        found = self._gathered = [each for each in self._gathered if feed.choose_again(each)]
        while self._wants_more(found):
            taken = await self._next_of_source_async(feed)
            if taken is None:
                break
            found.append(taken)
        if not found:
            await self._off_loop(self._gather_rest, feed, found)

    def _gather_rest(self, feed: Feed[T], found: list[Taken[T]]) -> None:
        if found:
            return
        while self._wants_more(found) and (taken := feed.rest()) is not None:
            found.append(taken)

    def _wants_more(self, found: list[Taken[T]]) -> bool:
        if not found:
            return True
        return len(found) < (self._chunk or 1) and not self.session.live.suspects

    def _give_out(self) -> T:
        taken, self._gathered = self._gathered, []
        self._last_given = taken
        self.keys, self._taken = self._taken, ()
        self.key = self.keys[0]
        return self._given_out(taken)

    def _given_out(self, taken: list[Taken[T]]) -> T:
        if self._chunk is not None:
            return cast("T", [each.item for each in taken])
        return taken[0].item

    # Recording.

    def _take(self) -> None:
        """What was in hand is done, and what was gathered is in hand now; in one record."""
        taken, batch = self._gathered, self._owned()
        if not self._has_begun:
            self._host.begin(batch, self._total)
            self._has_begun = True
        # Whatever interrupts us, what was in hand is not acknowledged a second time.
        done, slip = self._let_go_of_hand()
        self._unrecorded = done
        self._taken = tuple(self._record(batch, done, slip, taken))
        self._unrecorded = ()
        self._look_again(slip)
        if len(self._taken) < len(taken):
            self._gathered = [each for each in taken if each.key in self._taken]

    def _acknowledge(self) -> bool:
        """The item in hand is done; there is no next one in the same record.

        Returns whether something of it is not, and comes again.
        """
        done, slip = self._let_go_of_hand()
        if not done:
            return False
        self._unrecorded = done
        self._record(self._owned(), done, slip, [])
        self._unrecorded = ()
        return self._look_again(slip)

    def _look_again(self, slip: Slip | None) -> bool:
        """Of a list whose rows did not count, as another loop ended part of it, the rest comes."""
        if slip is None or len(self._last_given) == 1 or self._feed is None:
            return False
        return self._feed.look_again(self._last_given)

    def _let_go_of_hand(self) -> tuple[tuple[Key, ...], Slip | None]:
        """What was in hand, and its rows: what another thread writes from now on is too late."""
        if self._outputs is None:  # nothing was opened
            done, self.keys, self.key = self.keys, (), None
            return done, None
        with self._outputs.lock:
            done, self.keys, self.key = self.keys, (), None
            slip, self._slip = self._slip, None
        return done, slip

    def _record(
        self, batch: Batch, done: tuple[Key, ...], slip: Slip | None, taken: list[Taken[T]]
    ) -> Collection[Key]:
        """Returns what of the `taken` is in hand now: another loop may end one just before."""
        if slip is None and not self._verdicts and self._is_one_by_one:
            # The hot path: one record of a few bytes.
            key = taken[0].key if taken else None
            is_taken = batch.advance(done[0] if done else None, key, self._host.number)
            return (key,) if is_taken and key is not None else ()
        verdicts, self._verdicts = self._verdicts, {}
        keys = [each.key for each in taken]
        feed: Feed[Any] | None = self._feed
        changes = [batch.change(key, *verdicts.get(key, DONE)) for key in done]
        if all(change.status is not ItemStatus.COMPLETED for change in changes):
            slip = None  # what is not completed leaves no row
        if slip is not None:
            slip.keys = tuple(each.key for each in changes if each.status is ItemStatus.COMPLETED)
        slips = [slip] if slip is not None else []
        if isinstance(feed, PositionFeed):
            return batch.advance_positions(changes, keys, slips, feed)
        return batch.end_items(changes, keys, slips, self._host.number)

    # Outputs, leaving.

    def _slip_in_hand(self) -> Slip | None:
        if self._slip is None and self.keys:
            self._slip = Slip(self.session.outputs)  # under the lock of the outputs
        return self._slip

    def _note_opened(self, outputs: Outputs) -> None:
        self._outputs = outputs

    def _note_error(self, error: BaseException | None) -> None:
        if not isinstance(error, Exception) or isinstance(error, MilepostError) or not self.keys:
            return
        done, _ = self._let_go_of_hand()
        verdicts, self._verdicts = self._verdicts, {}
        verdict = verdict_of(error)
        batch = self._owned()
        changes = [batch.change(each, *verdicts.get(each, verdict)) for each in done]
        self._unrecorded = done
        batch.end_items(changes, [], [], self._host.number)
        self._unrecorded = ()

    def _put_down(self) -> tuple[Key, ...]:
        in_hand = (*self.keys, *self._taken, *self._unrecorded)
        self._let_go_of_hand()
        self._taken, self._unrecorded = (), ()
        self._release()
        return in_hand

    def _release(self) -> None:
        """What was gathered is not taken just now."""
        if self._feed is not None:
            self._feed.release(each.key for each in self._gathered)
