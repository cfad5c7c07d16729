"""Concurrent maps of coroutine functions: tasks of the event loop, which is never kept waiting."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from milepost.session.aside import running_loop
from milepost.session.host import Host, StopRequested
from milepost.session.mapping import Mapping
from milepost.session.outputs import in_function
from milepost.session.stops import counting, is_stop_within

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Iterable

    from milepost.session.dispatch import Dispatch, Rules, Ticket
    from milepost.session.feed import Feed
    from milepost.session.session import Session
    from milepost.types import Key

T = TypeVar("T")
R = TypeVar("R")


class AsyncMapped(Mapping[T, R]):
    """The results of a coroutine function over items, as they finish."""

    def __init__(
        self,
        function: Callable[[T], Awaitable[R]],
        host: Host,
        source: Iterable[T] | AsyncIterable[T] | None,
        rules: Rules,
        *,
        key: Callable[[T], Key] | str | None = None,
        total: int | None = None,
    ) -> None:
        super().__init__(host, source, rules, key=key, total=total)
        self._crew = _Crew(function)

    def __aiter__(self) -> AsyncMapped[T, R]:
        return self

    def __iter__(self) -> AsyncMapped[T, R]:
        raise TypeError(
            "the function is a coroutine function; write: async for item, result in ..."
        )

    async def __anext__(self) -> tuple[T, R]:
        self._task_consumer.check()
        if self._ended:
            self._refuse_after_failure()
            raise StopAsyncIteration
        try:
            return await self._advance()
        except (StopAsyncIteration, StopRequested):
            raise
        except BaseException as error:
            self._failure = error
            await self._close_async(error, on_purpose=False)
            raise

    async def _advance(self) -> tuple[T, R]:
        dispatch = self._dispatcher(await self._prepared_async(to_loop=True))
        self._acknowledge_shown(dispatch)
        while not self._ready:
            await self._fill(dispatch)
            self._refuse_when_closed()
            self._raise_source_error(dispatch)
            if self.session.stop_requested and dispatch.is_empty_handed:
                await self._stop_async()
            if dispatch.is_idle and not self._has_more:
                await self._end_async()
                raise StopAsyncIteration
            for ticket, task in await self._crew.ended(self._seconds_to_wait(dispatch)):
                self._note_end(dispatch, ticket, task)
            self._refuse_when_closed()
            if dispatch.outage is not None:
                await self._off_loop(dispatch.commit)
                raise dispatch.outage
        await self._fill(dispatch, is_awaited=True)
        self._refuse_when_closed()
        return self._show()

    async def _fill(self, dispatch: Dispatch[T], *, is_awaited: bool = False) -> None:
        begun: list[Ticket[T]] = []
        try:
            while not self._begins_nothing() and dispatch.has_room():
                ticket = dispatch.due(time.monotonic()) or await self._begin_next(dispatch)
                if ticket is None:
                    break
                begun.append(ticket)
                if self._may_take_its_time:
                    await self._off_loop(dispatch.commit)
                    self._start(dispatch, begun)
                    if is_awaited or self._crew.has_ended:
                        break
        finally:
            await self._off_loop(dispatch.commit)
        self._start(dispatch, begun)

    def _start(self, dispatch: Dispatch[T], begun: list[Ticket[T]]) -> None:
        while begun:
            if dispatch.has(ticket := begun.pop(0)):
                self._crew.start(ticket, self.session)

    async def _begin_next(self, dispatch: Dispatch[T]) -> Ticket[T] | None:
        if self._has_more:
            if not self._answers_at_once:
                await self._off_loop(dispatch.commit)
            try:
                taken = await self._next_of_source_async(cast("Feed[T]", self._feed))
            except Exception as error:
                self._note_source_error(error)
                return None
            if taken is not None:
                self._refuse_late(taken)
                return dispatch.begin(taken)
            self._has_more = False
        return await self._off_loop(dispatch.begin_rest)

    def _note_end(self, dispatch: Dispatch[T], ticket: Ticket[T], task: asyncio.Task[R]) -> None:
        if task.cancelled():
            dispatch.raised(ticket, asyncio.CancelledError("cancelled"), time.monotonic())
            return
        raised = task.exception()
        error = None if raised is None else counting(raised, self.session)
        if error is None:
            self._note_result(dispatch, ticket, task.result())
        elif is_stop_within(error, self.session):
            dispatch.stopped(ticket)
        elif self._is_no_items(error):
            raise error
        else:
            dispatch.raised(ticket, error, time.monotonic())

    def _put_down(self) -> Collection[Key]:
        self._crew.cancel()
        return super()._put_down()

    async def _close_async(self, error: BaseException | None, *, on_purpose: bool) -> None:
        try:
            await self._crew.end()
        finally:
            await super()._close_async(error, on_purpose=on_purpose)


class _Crew(Generic[T, R]):
    """The tasks of one map.

    They know nothing of the loop over their results, so that one that is left lets go of them.
    """

    def __init__(self, function: Callable[[T], Awaitable[R]]) -> None:
        self._function = function
        self._tasks: dict[asyncio.Task[R], Ticket[T]] = {}
        self._ended: deque[asyncio.Task[R]] = deque()
        self._news = asyncio.Event()

    def start(self, ticket: Ticket[T], session: Session) -> None:
        """Have the function run on an item."""
        task = asyncio.create_task(_run(self._function, ticket, session))
        self._tasks[task] = ticket
        task.add_done_callback(self._note_done)

    @property
    def has_ended(self) -> bool:
        """Whether `ended` need not wait."""
        return bool(self._ended)

    async def ended(self, seconds: float) -> list[tuple[Ticket[T], asyncio.Task[R]]]:
        """What has ended, at least one, or nothing when the time is over."""
        if not self._ended:
            self._news.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                return []
        ended = [(self._tasks.pop(task), task) for task in self._ended if task in self._tasks]
        self._ended.clear()
        return ended

    def cancel(self) -> list[asyncio.Task[R]]:
        """Ask all to end, but for the one that asks; what they return is nobody's any more."""
        loop = running_loop()
        ours = None if loop is None else asyncio.current_task()
        tasks = [task for task in self._tasks if task is not ours]
        self._tasks.clear()
        self._ended.clear()
        for task in tasks:
            task.remove_done_callback(self._note_done)
            if task.get_loop() is not loop:  # a collection, in any thread
                with contextlib.suppress(RuntimeError):  # of a loop that is closed
                    task.get_loop().call_soon_threadsafe(task.cancel)
            elif not task.cancel() and not task.cancelled():
                task.exception()  # it is looked at, so that nobody else complains
        return tasks

    async def end(self) -> None:
        """Return when all have ended."""
        await asyncio.gather(*self.cancel(), return_exceptions=True)

    def _note_done(self, task: asyncio.Task[R]) -> None:
        self._ended.append(task)
        self._news.set()


async def _run(function: Callable[[T], Awaitable[R]], ticket: Ticket[T], session: Session) -> R:
    ticket.slip.outer = in_function.get()
    in_function.set(ticket.slip)  # a task has a context of its own
    try:
        return await function(ticket.item)
    except (KeyboardInterrupt, SystemExit) as error:
        # Out of a task they would end the event loop, and cut all else in hand.
        if not is_stop_within(error, session):
            raise
        raise StopRequested from None
