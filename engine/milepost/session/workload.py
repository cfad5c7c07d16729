"""What loops over items and concurrent maps share: whose items, from where, and how it ends.

- Whose items they are, and what happens when they are left, is the host's matter.
- Asking a source for its next item and recording what became of one are two things: the first
  happens where the loop runs, the second may have to wait for a disk.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import AsyncIterable, Collection, Generator, Iterable, Iterator, Sized
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Self, TypeAlias, TypeVar

from milepost.errors import ClosedError, ConfigurationError, MilepostError
from milepost.groups import is_group, leaves
from milepost.session.arguments import check_count, check_function, check_source
from milepost.session.aside import aside, leave_aside, running_loop
from milepost.session.consumer import Consumer, TaskConsumer, left_on_purpose
from milepost.session.feed import Feed, PositionFeed, Taken
from milepost.session.outcomes import Skip
from milepost.session.outputs import in_function
from milepost.session.registry import holds_a_lock
from milepost.session.stops import counting
from milepost.types import ItemStatus, Key

if TYPE_CHECKING:
    import os
    from asyncio import Lock
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    from milepost.session.batch import Batch
    from milepost.session.host import Host
    from milepost.session.outputs import Output, Outputs, Slip
    from milepost.session.session import Session

T = TypeVar("T")
R = TypeVar("R")

POSITION: Final = "position"
_SKIPPED: Final = ItemStatus.SKIPPED
_FAILED: Final = ItemStatus.FAILED

Verdict: TypeAlias = tuple[ItemStatus, str | BaseException | None]
"""What a body said of an item, and why."""

DONE: Final[Verdict] = (ItemStatus.COMPLETED, None)

_AT_ONCE: Final = (list, tuple, range, dict, set, frozenset, str, bytes)
"""Sources whose next item is there without waiting."""


def verdict_of(error: Exception) -> Verdict:
    """What an exception of the body says of the item in hand."""
    return (_SKIPPED, error.reason or None) if isinstance(error, Skip) else (_FAILED, error)


class Workload(Generic[T]):
    """The items of a batch, on their way to be worked on.

    Attributes:
        is_guarded: Whether a `with` block is around the loop.
        key: Key of the item in hand, with `chunk=` of the first one; `None` between items.
        keys: Keys of all that is in hand.
    """

    def __init__(
        self,
        host: Host,
        source: Iterable[T] | AsyncIterable[T] | None,
        *,
        key: Callable[[T], Key] | str | None = None,
        total: int | None = None,
    ) -> None:
        if isinstance(source, Workload):
            raise TypeError("these items are watched over already; hand in their source")
        if source is not None and not isinstance(source, AsyncIterable):
            check_source(source, "the source of the items")
        if isinstance(key, str):
            if key != POSITION:
                raise ConfigurationError(
                    f'key is {key!r}; it must be a function of an item, or "{POSITION}"'
                )
            if source is None or isinstance(source, AsyncIterable):
                raise ConfigurationError(f'key="{POSITION}" wants a source that a for loop takes')
        else:
            check_function("key", key)
        if total is not None:
            check_count("total", total, least=0)
        self._host = host
        self._given = source
        self._key_of = key
        self._total = total
        self._answers_at_once = source is None or isinstance(source, _AT_ONCE)
        self._batch: Batch | None = None
        self._feed: Feed[T] | None = None
        self._around: Slip | None = None  # of the item in whose function this loop runs
        self._source: Iterator[T] | None = None
        self._async_source: AsyncIterator[T] | None = None
        self._consumer = Consumer()
        self._task_consumer = TaskConsumer()
        self._verdicts: dict[Key, Verdict] = {}
        self.key: Key | None = None
        self.keys: tuple[Key, ...] = ()
        self._refusal: MilepostError | None = None
        self._failure: BaseException | None = None
        self._was_cancelled = False  # in the source, and it has given nothing since
        self._is_async = False
        self._opening = threading.RLock()
        self._opening_tasks: Lock | None = None
        self._opened: Feed[T] | None = None  # it is `_feed` once the loop has begun
        self._ended = False
        self.is_guarded = False

    def __length_hint__(self) -> int:
        self._consumer.note_length_hint()
        if self._total is not None:
            return self._total
        return len(self._given) if isinstance(self._given, Sized) else 0

    # Opening.

    def _prepared(self, *, to_loop: bool = False) -> Feed[T]:
        """The feed, with everything known that decides which items come.

        Args:
            to_loop: Whether this is the thread that loops: then signals stop the work here.
        """
        feed = self._feed if to_loop else self._opened
        if feed is not None:
            return feed
        if isinstance(self._given, AsyncIterable):
            raise TypeError("the source is an async one; write: async for item in ...")
        with self._opening:  # several threads may add to it at once
            self._refuse_after_failure()
            try:
                feed = self._open()
                return self._attach(feed) if to_loop else feed
            except BaseException as error:
                self._close(error, on_purpose=False)
                raise

    async def _prepared_async(self, *, to_loop: bool = False) -> Feed[T]:
        feed = self._feed if to_loop else self._opened
        if feed is not None:
            return feed
        from asyncio import CancelledError, Lock  # noqa: PLC0415  # a plain loop should not pay

        self._is_async = True
        self._opening_tasks = self._opening_tasks or Lock()
        async with self._opening_tasks:  # several tasks may open outputs at once
            self._refuse_after_failure()
            try:
                # Opening a session waits for the disk, and for other writers.
                feed = self._opened
                if feed is None:
                    feed = await aside(self._open)
                return self._attach(feed) if to_loop else feed
            except BaseException as error:
                if self._host.owns_session or not isinstance(error, CancelledError):
                    self._failure = error
                    await self._close_async(error, on_purpose=False)
                raise

    @contextlib.contextmanager
    def _once(self) -> Generator[None]:
        """One thread after another, and none after one that failed."""
        with self._opening:
            self._refuse_after_failure()
            try:
                yield
            except BaseException as error:
                self._failure = error
                raise

    def _open(self) -> Feed[T]:
        """Have the batch, and the feed of its items; it may wait for the disk."""
        with self._once():
            if self._opened is None:
                batch = self._batch = self._host.open()
                if self._ended:  # it was closed meanwhile
                    self._host.leave(None, (), on_purpose=True)
                    self._refuse_when_closed()
                key, number = self._key_of, self._host.number
                feed: Feed[T] = (
                    PositionFeed(batch, number=number)
                    if isinstance(key, str)
                    else Feed(batch, key, number=number)
                )
                if self._total is None and isinstance(self._given, Sized):
                    self._total = len(self._given)
                self._tell_total(batch)
                self._around = in_function.get()
                self._opened = feed
            return self._opened

    def _attach(self, feed: Feed[T]) -> Feed[T]:
        """Be ready to give items out, here in the thread that loops."""
        with self._once():
            if self._feed is None:
                self._refuse_when_closed()
                self._host.attach()
                if self._ended:  # whoever closed it could not know of this
                    self._host.detach()
                    self._refuse_when_closed()
                if isinstance(self._given, AsyncIterable):
                    self._async_source = aiter(self._given)
                else:
                    self._source = iter(() if self._given is None else self._given)
                self._feed = feed
            return self._feed

    def _owned(self) -> Batch:
        batch = self._batch
        assert batch is not None  # noqa: S101  # whoever calls this has prepared
        return batch

    def _tell_total(self, batch: Batch) -> None:
        """Record how many items there are, where that is news in a batch that runs."""
        active = batch.session.live.active_batches.get(batch.number)
        if active is None or self._total is None or active.items_total == self._total:
            return
        # A loop begins its run with the first item, and tells the total then.
        if batch.session.executing:
            batch.update_progress(items_total=self._total)

    async def _off_loop(self, work: Callable[..., R], *args: Any) -> R:
        """Do what may have to wait for the disk; off the event loop if it has to."""
        if self._batch is None:
            return await aside(work, *args)
        return await self._batch.session.off_loop(work, *args)

    # Asking for items.

    def _next_of_source(self, feed: Feed[T]) -> Taken[T] | None:
        source = self._source
        assert source is not None  # noqa: S101  # it came with the feed
        return feed.next_from(source)

    async def _next_of_source_async(self, feed: Feed[T]) -> Taken[T] | None:
        if self._async_source is None:
            return self._next_of_source(feed)
        was_cancelled, self._was_cancelled = self._was_cancelled, True
        async for item in self._async_source:
            was_cancelled = False
            if (taken := feed.consider(item)) is not None:
                self._was_cancelled = False
                return taken
        if was_cancelled:
            raise ClosedError(
                "the source was cancelled while it was asked, and asked again it ended: nobody"
                " knows whether it has more",
                hint="loop over a new one: it goes on with what is not done",
            )
        self._was_cancelled = False
        return None

    # What a body may ask for and say.

    @property
    def session(self) -> Session:
        """The session that watches over the items."""
        if self._opened is None:
            self._prepared()
        return self._owned().session

    @property
    def duplicates(self) -> int:
        """How many items came with a key that had come before."""
        return self._feed.duplicates if self._feed is not None else 0

    @property
    def waiting(self) -> int:
        """How many failed items were left for `milepost retry`."""
        return self._feed.waiting if self._feed is not None else 0

    @property
    def failed(self) -> int:
        """How many items stand as failed, those of earlier runs too."""
        if self._batch is None:
            return 0
        return self._batch.session.live.session_statistics.total_items_failed

    @property
    def vanished(self) -> int:
        """How many keys of earlier runs the source no longer has; known at the end of the loop."""
        return self._feed.vanished if self._feed is not None else 0

    @property
    def expected(self) -> int | None:
        """How many items the source has, if that is known."""
        return self._total

    def add(self, item: Any, *, key: Key | None = None) -> bool:
        """Add an item that was found on the way; returns whether it is new. See `Batch.add`."""
        self._prepared()
        return self._add(item, key)

    def add_many(self, items: Iterable[Any]) -> int:
        """Add items that were found on the way; returns how many are new. See `Batch.add_many`."""
        self._prepared()
        return self._add_many(items)

    async def aadd(self, item: Any, *, key: Key | None = None) -> bool:
        """As `add`, in an event loop, which it does not keep waiting for the disk."""
        await self._prepared_async()
        return await self._off_loop(self._add, item, key)

    async def aadd_many(self, items: Iterable[Any]) -> int:
        """As `add_many`, in an event loop, which it does not keep waiting for the disk."""
        await self._prepared_async()
        return await self._off_loop(self._add_many, list(items))

    def _add(self, item: Any, key: Key | None) -> bool:
        self._host.begin(self._owned(), self._total)
        return self._owned().add(item, key=self._added_key(item, key))

    def _add_many(self, items: Iterable[Any]) -> int:
        self._host.begin(self._owned(), self._total)
        if self._key_of is None:
            return self._owned().add_many(items)
        return self._owned().add_many(items, key=lambda item: self._added_key(item, None))

    def _added_key(self, item: Any, key: Key | None) -> Any:
        if isinstance(self._key_of, str):
            raise ConfigurationError(
                "items that are known by their position cannot be added to",
                hint="hand in key= a function, or add them to the source",
            )
        return self._key_of(item) if key is None and self._key_of is not None else key

    def open(self, path: str | os.PathLike[str]) -> Output:
        """An output for rows: text or bytes, `.gz` and `.zst` compressed.

        Rows reach the file with the acknowledgement of the item whose body wrote them, and when
        work is taken up again the file is cut back to them. Errors: `DamagedError` where the file
        is not what it was; `OutputError` where it holds what this session did not write.
        """
        self._prepared()
        try:
            output = self._open_output(path)
        except MilepostError as error:
            self._refused(error)
            raise
        self._refusal = None  # it was dealt with
        return output

    def skip(self, reason: str = "", *, key: Key | None = None) -> None:
        """Leave out the item in hand, on purpose and for good; it is recorded with the next.

        Errors: `ClosedError` where no item is in hand, or not the one of this `key`.
        """
        self._say(key, (_SKIPPED, reason or None))

    def fail(self, error: str | BaseException, *, key: Key | None = None) -> None:
        """Give up the item in hand for this run; it is recorded with the next, and leaves no row.

        Errors: `ClosedError` where no item is in hand, or not the one of this `key`.
        """
        self._say(key, (_FAILED, error))

    def _say(self, key: Key | None, verdict: Verdict) -> None:
        self._refuse_in_function()
        if not self.keys or (key is not None and key not in self.keys):
            raise ClosedError(
                "no item is in hand" if key is None else f"item {key!r} is not in hand",
                hint="say it in the body of the loop, of the item that the loop gave out last",
            )
        for each in self.keys if key is None else (key,):
            self._verdicts[each] = verdict

    def _refuse_in_function(self) -> None:
        """Raise where a function runs here that is not the body of the loop."""

    def catching(self, *kinds: type[Exception]) -> Catching:
        """A block whose exceptions of these kinds (default: all) fail the item and end there.

        `Skip` leaves the item out. What milepost itself raises is never caught.
        """
        self._refuse_in_function()
        return Catching(self, kinds or (Exception,))

    def _refused(self, error: MilepostError) -> None:
        """Have it known, where the loop is left for it, what the work was refused for."""
        error.session_uid = self._owned().session.live.uid
        if self._host.owns_session:
            # Without its traceback: that holds the frame that holds this loop, so that nobody would
            # ever drop it.
            self._refusal = copy.copy(error).with_traceback(None)
            with contextlib.suppress(MilepostError):
                self._owned().session.begin_execution()

    async def aopen(self, path: str | os.PathLike[str]) -> Output:
        """The same in an event loop, which it does not keep waiting for the disk."""
        await self._prepared_async()
        try:
            output = await aside(self._open_output, path)
        except MilepostError as error:
            await aside(self._refused, error)
            raise
        self._refusal = None
        return output

    def _open_output(self, path: str | os.PathLike[str]) -> Output:
        session = self._owned().session
        self._note_opened(session.outputs)
        return session.open_output(path, self._slip_in_hand, self._around)

    def _note_opened(self, outputs: Outputs) -> None:
        """Rows may come from now on, as long as nobody holds the lock of these."""

    def _slip_in_hand(self) -> Slip | None:
        """Where rows go that are written in the loop's body."""
        raise NotImplementedError

    # Leaving.

    def __enter__(self) -> Self:
        self.is_guarded = True
        self._prepared(to_loop=True)
        return self

    async def __aenter__(self) -> Self:
        self.is_guarded = True
        await self._prepared_async(to_loop=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.is_guarded = False
        try:
            with _told_with(error):
                self._note_error(self._counting(error))
        finally:
            with _told_with(error):
                self._close(error, on_purpose=error is None)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.is_guarded = False
        try:
            with _told_with(error):
                await self._off_loop(self._note_error, self._counting(error))
        finally:
            with _told_with(error):
                await self._close_async(error, on_purpose=error is None)

    def _counting(self, error: BaseException | None) -> BaseException | None:
        """What counts of what the body raised."""
        if error is None or self._batch is None or not is_group(error):
            return error
        return counting(error, self._batch.session)

    def _note_error(self, error: BaseException | None) -> None:
        """Record an error of the body on the item in hand."""

    def _refuse_after_failure(self) -> None:
        """An end by an error is no end of the work: who asks again must not take it for that."""
        if self._failure is not None:
            raise ClosedError(
                f"this loop ended with {type(self._failure).__name__}, and gives out nothing more",
                hint="make another one: it goes on with what is not done",
            ) from self._failure

    def _end(self) -> None:
        """All items were given out and acknowledged."""
        self._put_down()
        self._ended = True
        try:
            self._host.finish(self._owned(), self)
        finally:
            self._host.detach()

    async def _end_async(self) -> None:
        self._put_down()
        self._ended = True
        try:
            await aside(self._host.finish, self._owned(), self)
        finally:
            self._host.detach()

    def _stop(self) -> NoReturn:
        """Somebody asked for it: the loop ends here, and all that came back is acknowledged."""
        self._close(None, on_purpose=True)
        self._host.raise_stop()

    async def _stop_async(self) -> NoReturn:
        await self._close_async(None, on_purpose=True)
        self._host.raise_stop()

    def close(self) -> None:
        """Leave the loop; the item in hand is not acknowledged."""
        self._close(None, on_purpose=True)

    async def aclose(self) -> None:
        """The same in an event loop, which it does not keep waiting for the disk."""
        await self._close_async(None, on_purpose=True)

    def _put_down(self) -> Collection[Key]:
        """Let go of what is in hand, and say what that was; a second time it is nothing."""
        raise NotImplementedError

    def _close(self, error: BaseException | None, *, on_purpose: bool) -> None:
        if (leave := self._leave(error, on_purpose=on_purpose)) is not None:
            try:
                self._let_go_here()
            finally:
                leave()

    async def _close_async(self, error: BaseException | None, *, on_purpose: bool) -> None:
        if (leave := self._leave(error, on_purpose=on_purpose)) is None:
            return
        try:
            source: Any = self._async_source
            if hasattr(source, "aclose"):
                with contextlib.suppress(Exception):
                    await source.aclose()
        finally:
            try:
                self._let_go_here()
            finally:
                await aside(leave)

    def _let_go_here(self) -> None:
        """Let go of what belongs to the thread that loops."""
        try:
            source: Any = self._source
            if isinstance(source, Generator):
                # It ends now and not at some later collection.
                with contextlib.suppress(Exception):
                    source.close()
        finally:
            self._host.detach()

    def _leave(
        self, error: BaseException | None, *, on_purpose: bool
    ) -> Callable[[], object] | None:
        """Let go of what is in hand; what has yet to be done may wait for the disk."""
        in_hand = self._put_down()
        if error is not None and self._opened is not None:
            self._opened.release_all()
        if self._batch is None:
            self._ended = True
            return None
        if self._ended:
            return None
        self._ended = True
        return partial(self._host.leave, error, in_hand, on_purpose=on_purpose)

    def _refuse_when_closed(self) -> None:
        """Raise where another thread or task closed the loop while it waited here."""
        if self._ended:
            raise ClosedError("the loop was closed while the next item was waited for")

    def __del__(self) -> None:
        if getattr(self, "is_guarded", True) or self._ended:
            return
        refusal = self._refusal
        on_purpose = left_on_purpose() and refusal is None
        with contextlib.suppress(Exception):
            if self._must_not_wait():
                leave = self._leave(refusal, on_purpose=on_purpose)
                if leave is not None:
                    try:
                        self._let_go_here()
                    finally:
                        leave_aside(partial(_leave_behind, self._drop_workers, leave))
            else:
                self._close(refusal, on_purpose=on_purpose)

    def _must_not_wait(self) -> bool:
        """Whether this is collected where nobody may wait.

        In an event loop, or while this very thread holds a lock that those may want who are waited
        for, be it another session's.
        """
        if running_loop() is not None and (self._is_async or self._is_recording()):
            return True
        return holds_a_lock()

    def _is_recording(self) -> bool:
        """Whether another thread records something in the session just now."""
        if self._batch is None:
            return False
        is_free = self._batch.lock.acquire(blocking=False)
        if is_free:
            self._batch.lock.release()
        return not is_free

    def _drop_workers(self) -> None:
        """Have what runs for the loop in other threads end by itself: nobody waits for it."""


def _leave_behind(drop_workers: Callable[[], object], leave: Callable[[], object]) -> None:
    try:
        drop_workers()
    finally:
        leave()


@contextlib.contextmanager
def _told_with(error: BaseException | None) -> Generator[None]:
    """The body's own error is what its user must see: what fails after it is a note on it.

    What ends the program or the task goes before both.
    """
    try:
        yield
    except Exception as failure:
        if not isinstance(error, Exception):
            raise
        error.add_note(f"milepost: leaving the loop failed too: {failure}")


class Catching:
    """The block of `Workload.catching`."""

    def __init__(self, items: Workload[Any], kinds: tuple[type[Exception], ...]) -> None:
        self._items = items
        self._kinds = kinds

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is None:
            return False
        counts = counting(error, self._items.session) if is_group(error) else error
        if isinstance(counts, Skip):
            self._items.skip(counts.reason)
            return True
        is_caught = isinstance(counts, self._kinds) or isinstance(error, self._kinds)
        if is_caught and isinstance(counts, Exception) and not any(map(_is_ours, leaves(error))):
            self._items.fail(counts)
            return True
        return False


def _is_ours(error: BaseException) -> bool:
    return isinstance(error, MilepostError)
