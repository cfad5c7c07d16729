"""Concurrent maps over items: what each gives is worked on in the loop's body, as they finish.

- A function runs in threads, or in an executor; a coroutine function runs as tasks of the event
  loop (`async_mapping`). The rules (`Dispatch`) are the same.
- The item whose result was given out is acknowledged when the loop asks for the next one. So links
  that its body added, and rows that it wrote, are there wherever it counts as done.
- Leaving the loop, however that happens, leaves no thread and no task behind: what runs is waited
  for, as far as it can be; what it returns then is dropped, and its item runs again.
"""

from __future__ import annotations

import inspect
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from milepost.errors import ClosedError, ConfigurationError, MilepostError
from milepost.session.arguments import check_count
from milepost.session.dispatch import Dispatch, Rules, Ticket
from milepost.session.host import Host, StopRequested
from milepost.session.outputs import Slip, in_function
from milepost.session.stops import counting, is_stop_within
from milepost.session.workload import DONE, Workload, verdict_of
from milepost.work.pool import WORKERS_MAX, Ended, Pool
from milepost.work.returned import check_returned

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Collection, Iterable

    from milepost.session.async_mapping import AsyncMapped
    from milepost.session.batch import Batch
    from milepost.session.feed import Feed, Taken
    from milepost.types import Key
    from milepost.work.pool import ExecutorOrFactory

T = TypeVar("T")
R = TypeVar("R")

_POLL_SECONDS: Final = 0.1
"""How soon a request to stop is seen."""


def check_rules(rules: Rules) -> Rules:
    """Refuse numbers that cannot be."""
    if check_count("workers", rules.workers) > WORKERS_MAX:
        raise ConfigurationError(
            f"workers is {rules.workers:,}; it must be at most {WORKERS_MAX:,}"
        )
    check_count("attempts", rules.attempts)
    check_count("give_up_after", rules.give_up_after, least=0)
    return rules


class Mapping(Workload[T], Generic[T, R]):
    """What both kinds of maps do."""

    def __init__(
        self,
        host: Host,
        source: Iterable[T] | AsyncIterable[T] | None,
        rules: Rules,
        *,
        key: Callable[[T], Key] | str | None,
        total: int | None,
    ) -> None:
        super().__init__(host, source, key=key, total=total)
        self._rules = check_rules(rules)
        self._dispatch: Dispatch[T] | None = None
        self._ready: deque[tuple[Ticket[T], R]] = deque()
        self._shown: Ticket[T] | None = None
        self._has_more = True
        self._source_error: Exception | None = None
        self._make_ready: Callable[[], None] | None = None

    def _dispatcher(self, feed: Feed[T]) -> Dispatch[T]:
        if self._dispatch is None:
            batch = self._owned()
            # Not a method of this object: it would keep itself alive when the loop lets go of it.
            begin = partial(_begin, self._make_ready, self._host, batch, self._total)
            self._dispatch = Dispatch(batch, feed, self._rules, begin)
        return self._dispatch

    def _acknowledge_shown(self, dispatch: Dispatch[T]) -> None:
        """The body came back: what it had is done, or what it said of it."""
        shown, self._shown = self._shown, None
        self.key, self.keys = None, ()
        if shown is not None:
            dispatch.acknowledge(shown, *self._verdicts.pop(shown.key, DONE))
        self._verdicts.clear()

    def _show(self) -> tuple[T, R]:
        self._shown, result = self._ready.popleft()
        self.key, self.keys = self._shown.key, (self._shown.key,)
        return self._shown.item, result

    def _begins_nothing(self) -> bool:
        """Whether only what is in hand is still worked on."""
        return self._source_error is not None or self.session.stop_requested

    def _note_source_error(self, error: Exception) -> None:
        """The source is broken: what is in hand is given out, and then the loop ends with this."""
        self._source_error = error
        self._has_more = False

    def _raise_source_error(self, dispatch: Dispatch[T]) -> None:
        if self._source_error is not None and dispatch.is_empty_handed:
            raise self._source_error

    def _is_no_items(self, error: BaseException) -> bool:
        """Whether what a function raised is no matter of its item, so that the work ends."""
        return not isinstance(error, Exception) or self.session.is_to_blame(error)

    def _note_result(self, dispatch: Dispatch[T], ticket: Ticket[T], result: R) -> None:
        check_returned(result, "the function of this map")
        dispatch.returned(ticket)
        self._ready.append((ticket, result))

    def _refuse_late(self, taken: Taken[T]) -> None:
        """Raise where the loop was closed while the source was asked for this."""
        if self._ended:
            cast("Feed[T]", self._feed).release([taken.key])
        self._refuse_when_closed()

    def _seconds_to_wait(self, dispatch: Dispatch[T]) -> float:
        if self._begins_nothing() or not dispatch.has_room():
            return _POLL_SECONDS  # what is due could not begin
        until_due = dispatch.seconds_until_due(time.monotonic())
        return _POLL_SECONDS if until_due is None else min(_POLL_SECONDS, until_due)

    @property
    def _may_take_its_time(self) -> bool:
        """Whether the source has more, and need not answer at once."""
        return self._has_more and not self._answers_at_once

    def _slip_in_hand(self) -> Slip | None:
        return self._shown.slip if self._shown is not None else None

    def _refuse_in_function(self) -> None:
        if self._dispatch is not None and self._dispatch.is_within(in_function.get()):
            raise ClosedError(
                "the function of a map speaks of the item that the loop's body has in hand",
                hint="in the function raise the error, milepost.Skip or milepost.Retry; in the"
                " body, say it of the item that the map gave out",
            )

    def _note_error(self, error: BaseException | None) -> None:
        shown, dispatch = self._shown, self._dispatch
        if (
            shown is None
            or dispatch is None
            or not isinstance(error, Exception)
            or isinstance(error, MilepostError)
        ):
            return
        self._verdicts[shown.key] = verdict_of(error)
        self._acknowledge_shown(dispatch)
        dispatch.commit()

    def _put_down(self) -> Collection[Key]:
        self.key, self.keys = None, ()
        self._shown = None
        self._ready.clear()
        return self._dispatch.put_down() if self._dispatch is not None else ()


class Mapped(Mapping[T, R]):
    """The results of a function over items, as they finish: pairs of item and result."""

    def __init__(
        self,
        function: Callable[[T], R],
        host: Host,
        source: Iterable[T] | None,
        rules: Rules,
        *,
        executor: ExecutorOrFactory | None = None,
        key: Callable[[T], Key] | str | None = None,
        total: int | None = None,
    ) -> None:
        super().__init__(host, source, rules, key=key, total=total)
        self._function = function
        self._pool = Pool(executor, rules.workers)
        self._make_ready = self._pool.make

    def __iter__(self) -> Mapped[T, R]:
        return self

    def __aiter__(self) -> Mapped[T, R]:
        raise TypeError(
            "the function is a plain function; write: for item, result in ..., or make it async def"
        )

    def __next__(self) -> tuple[T, R]:
        try:
            self._consumer.check()
            if self._ended:
                self._refuse_after_failure()
                raise StopIteration
            return self._advance()
        except (StopIteration, StopRequested):
            raise
        except BaseException as error:
            self._failure = error
            self._close(error, on_purpose=False)
            raise

    def _advance(self) -> tuple[T, R]:
        dispatch = self._dispatcher(self._prepared(to_loop=True))
        self._acknowledge_shown(dispatch)
        while not self._ready:
            self._fill(dispatch)
            self._refuse_when_closed()
            self._raise_source_error(dispatch)
            if self.session.stop_requested and dispatch.is_empty_handed:
                self._stop()
            if dispatch.is_idle and not self._has_more:
                self._let_go(wait=True)
                self._end()
                raise StopIteration
            ended = self._pool.next_ended(self._seconds_to_wait(dispatch))
            if ended is None:
                self._pool.check()
            else:
                self._note_end(dispatch, ended)
            self._refuse_when_closed()
            if dispatch.outage is not None:
                dispatch.commit()
                raise dispatch.outage
        # What the body now works on is no news; what was acknowledged must not wait for it.
        self._fill(dispatch, is_awaited=True)
        self._refuse_when_closed()
        return self._show()

    def _fill(self, dispatch: Dispatch[T], *, is_awaited: bool = False) -> None:
        """Begin as many items as there is room for, and record it with what ended.

        A source that may take its time is asked no more once there is something to give out, but
        for one item where that `is_awaited` already, so that the workers have work meanwhile.
        """
        begun: list[Ticket[T]] = []
        try:
            while not self._begins_nothing() and dispatch.has_room():
                ticket = dispatch.due(time.monotonic()) or self._begin_next(dispatch)
                if ticket is None:
                    break
                begun.append(ticket)
                if self._may_take_its_time:
                    dispatch.commit()
                    self._start(dispatch, begun)  # before it is asked again
                    if is_awaited or self._pool.has_ended:
                        break
        finally:
            # What the source has to say changes nothing of what was acknowledged.
            dispatch.commit()
        self._start(dispatch, begun)

    def _start(self, dispatch: Dispatch[T], begun: list[Ticket[T]]) -> None:
        while begun:
            if dispatch.has(ticket := begun.pop(0)):
                self._submit(ticket)

    def _begin_next(self, dispatch: Dispatch[T]) -> Ticket[T] | None:
        if self._has_more:
            if not self._answers_at_once:
                dispatch.commit()  # while it takes its time, a kill repeats nothing
            try:
                taken = self._next_of_source(cast("Feed[T]", self._feed))
            except Exception as error:
                self._note_source_error(error)
                return None
            if taken is not None:
                self._refuse_late(taken)
                return dispatch.begin(taken)
            self._has_more = False
        return dispatch.begin_rest()

    def _submit(self, ticket: Ticket[T]) -> None:
        if self._pool.runs_here:  # only then can a function write rows of its own
            ticket.slip.outer = in_function.get()
            self._pool.submit(ticket, _run_with_slip, ticket.slip, self._function, ticket.item)
        else:
            self._pool.submit(ticket, self._function, ticket.item)

    def _note_end(self, dispatch: Dispatch[T], ended: Ended) -> None:
        ticket = cast("Ticket[T]", ended.token)
        error = None if ended.error is None else counting(ended.error, self.session)
        if error is None:
            self._note_result(dispatch, ticket, ended.value)
        elif ended.is_break:
            before, lost = self._pool.clear()
            broken = [ticket, *lost]
            for each in before:
                if each.is_break:
                    broken.append(each.token)
                else:
                    self._note_end(dispatch, each)
            self._note_break(dispatch, broken, error)
        elif is_stop_within(error, self.session):
            dispatch.stopped(ticket)
        elif self._is_no_items(error):
            raise error
        else:
            dispatch.raised(ticket, error, time.monotonic())

    def _note_break(
        self, dispatch: Dispatch[T], broken: list[Ticket[T]], error: BaseException
    ) -> None:
        if self.session.stop_requested:  # the same signal may have killed the workers
            for each in broken:
                dispatch.stopped(each)
            return
        self._pool.rebuild()
        dispatch.broke(broken, error, self._pool.prove)

    def _let_go(self, *, wait: bool) -> None:
        # One of our own functions would wait for itself.
        is_own = self._dispatch is not None and self._dispatch.is_within(in_function.get())
        self._pool.close(wait=wait and not is_own)

    def _drop_workers(self) -> None:
        self._let_go(wait=False)

    def _close(self, error: BaseException | None, *, on_purpose: bool) -> None:
        try:
            # After a second Ctrl-C nobody waits for a call that hangs.
            self._let_go(wait=error is None or isinstance(error, Exception))
        finally:
            super()._close(error, on_purpose=on_purpose)


def _begin(
    make_ready: Callable[[], None] | None, host: Host, batch: Batch, total: int | None
) -> None:
    """Begin the run, once there is something that can run its items."""
    if make_ready is not None:
        make_ready()
    host.begin(batch, total)


def _run_with_slip(slip: Slip, function: Callable[[T], R], item: T) -> R:
    """Run the function of an item, so that rows written in it are the item's."""
    token = in_function.set(slip)
    try:
        return function(item)
    finally:
        in_function.reset(token)


def mapped(
    function: Callable[[Any], Any],
    host: Host,
    source: Any,
    rules: Rules,
    *,
    executor: ExecutorOrFactory | None,
    key: Callable[[Any], Key] | str | None,
    total: int | None,
) -> Mapped[Any, Any] | AsyncMapped[Any, Any]:
    """The map that fits the function: tasks for a coroutine function, else threads or `executor`.

    Errors: `TypeError` for what cannot be called, and for an executor of coroutine functions.
    """
    if not callable(function):  # pyright: ignore[reportUnnecessaryComparison]  # callers are not all typed
        raise TypeError(f"map takes a function of one item first, not {function!r:.80}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"map takes a function that does its work when it is called; {function!r:.80} is a"
            " generator function: write it without yield, and return a list"
        )
    if not is_async(function):
        return Mapped(function, host, source, rules, executor=executor, key=key, total=total)
    if executor is not None:
        raise TypeError(
            "a coroutine function runs as tasks of the event loop, and no executor= can run it"
        )
    from milepost.session.async_mapping import AsyncMapped  # noqa: PLC0415  # it loads asyncio

    return AsyncMapped(function, host, source, rules, key=key, total=total)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it makes a coroutine."""
    call: Any = getattr(function, "__call__", None)  # noqa: B004  # an object whose call is one
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
