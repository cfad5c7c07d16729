"""Concurrent maps of coroutine functions: tasks of the event loop, which is never kept waiting."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, TypeVar, cast

from milepost.session.mapping import OUR_FAULT, Mapping
from milepost.session.outputs import in_function
from milepost.session.workload import Host, StopRequested

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable

    from milepost.session.dispatch import Dispatch, Rules, Ticket
    from milepost.session.feed import Feed
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
        self._function = function
        self._tasks: dict[asyncio.Task[R], Ticket[T]] = {}
        self._ends: deque[asyncio.Task[R]] = deque()
        self._news = asyncio.Event()

    def __aiter__(self) -> AsyncMapped[T, R]:
        return self

    def __iter__(self) -> AsyncMapped[T, R]:
        raise TypeError(
            "the function is a coroutine function; write: async for item, result in ..."
        )

    async def __anext__(self) -> tuple[T, R]:
        if self._ended:
            raise StopAsyncIteration
        try:
            return await self._advance()
        except (StopAsyncIteration, StopRequested):
            raise
        except BaseException as error:
            if self._host.owns_session:
                await self._close_async(error, on_purpose=False)
            else:
                await self._end_tasks()
            raise

    async def _advance(self) -> tuple[T, R]:
        dispatch = self._dispatcher(await self._prepared_async())
        self._acknowledge_shown(dispatch)
        while not self._ready:
            await self._fill(dispatch)
            if self._is_stopping() and dispatch.is_empty_handed:
                await self._end_tasks()
                self._host.stop()
            if dispatch.is_idle and not self._has_more:
                await self._end_tasks()
                await self._end_async()
                raise StopAsyncIteration
            await self._wait(self._seconds_to_wait(dispatch))
            while self._ends:
                self._note_end(dispatch, self._ends.popleft())
        await self._fill(dispatch)
        return self._show()

    async def _wait(self, seconds: float) -> None:
        """Until a task ends, or the time is over."""
        if not self._ends:
            self._news.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                return

    async def _fill(self, dispatch: Dispatch[T]) -> None:
        begun: list[Ticket[T]] = []
        try:
            while not self._is_stopping() and dispatch.has_room():
                ticket = dispatch.due(time.monotonic()) or await self._begin_next(dispatch)
                if ticket is None:
                    break
                begun.append(ticket)
        finally:
            if begun:
                await self._off_loop(self._begin)
            await self._off_loop(dispatch.commit)
        for ticket in begun:
            task = asyncio.create_task(self._run(ticket))
            self._tasks[task] = ticket
            task.add_done_callback(self._note_done)

    async def _begin_next(self, dispatch: Dispatch[T]) -> Ticket[T] | None:
        if self._has_more:
            if not self._answers_at_once:
                await self._off_loop(dispatch.commit)
            taken = await self._next_of_source_async(cast("Feed[T]", self._feed))
            if taken is not None:
                return dispatch.begin(taken)
            self._has_more = False
        return dispatch.begin_rest()

    async def _run(self, ticket: Ticket[T]) -> R:
        in_function.set(ticket.slip)  # a task has a context of its own
        return await self._function(ticket.item)

    def _note_done(self, task: asyncio.Task[R]) -> None:
        self._ends.append(task)
        self._news.set()

    def _note_end(self, dispatch: Dispatch[T], task: asyncio.Task[R]) -> None:
        ticket = self._tasks.pop(task)
        if task.cancelled():
            dispatch.raised(ticket, asyncio.CancelledError("cancelled"), time.monotonic())
            return
        error = task.exception()
        if error is None:
            dispatch.returned(ticket)
            self._ready.append((ticket, task.result()))
        elif isinstance(error, OUR_FAULT) or not isinstance(error, Exception):
            raise error
        else:
            dispatch.raised(ticket, error, time.monotonic())

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        self._cancel_tasks()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    def _cancel_tasks(self) -> None:
        tasks, self._tasks = self._tasks, {}
        for task in tasks:
            task.remove_done_callback(self._note_done)
            task.cancel()

    async def _close_async(self, error: BaseException | None, *, on_purpose: bool) -> None:
        await self._end_tasks()
        await super()._close_async(error, on_purpose=on_purpose)

    def _close(self, error: BaseException | None, *, on_purpose: bool) -> None:
        self._cancel_tasks()
        super()._close(error, on_purpose=on_purpose)
