"""What subscribers hold: the latest events, in order, never in the way of the work."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from milepost.model.events import BatchEvent

EVENT_BUFFER = 1_000


class Subscription:
    """Events of one session, as the journal holds them; the oldest are dropped and counted.

    Iterating, with `for` or `async for`, waits for the next event and ends when the session is
    closed. Several may wait at once, in threads and event loops; each event goes to one of them.

    Attributes:
        dropped: How many events were not fetched in time.
    """

    def __init__(self, maxlen: int, unsubscribe: Callable[[Subscription], None]) -> None:
        if maxlen < 1:
            raise ValueError(f"maxlen is {maxlen}; a subscription holds at least 1 event")
        self._events: deque[BatchEvent] = deque()
        self._maxlen = maxlen
        self._changed = threading.Condition()
        self._sleepers: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._unsubscribe = unsubscribe
        self._closed = False
        self.dropped = 0

    def push(self, event: BatchEvent) -> None:
        """Take an event in; called by the session."""
        with self._changed:
            if len(self._events) >= self._maxlen:
                self._events.popleft()
                self.dropped += 1
            self._events.append(event)
            self._changed.notify()
            self._wake_sleepers()

    def get(self, timeout_seconds: float | None = None) -> BatchEvent | None:
        """The next event, waiting for it; `None` after the timeout or at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._closed, timeout_seconds)
            return self._events.popleft() if self._events else None

    async def aget(self, timeout_seconds: float | None = None) -> BatchEvent | None:
        """The same in an event loop, which goes on meanwhile."""
        import asyncio  # noqa: PLC0415  # a plain program should not pay for it

        sleeper = (asyncio.get_running_loop(), asyncio.Event())
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    with self._changed:
                        if self._events or self._closed:
                            return self._events.popleft() if self._events else None
                        sleeper[1].clear()
                        self._sleepers.append(sleeper)
                    await sleeper[1].wait()
        except TimeoutError:
            return None
        finally:
            with self._changed, contextlib.suppress(ValueError):
                self._sleepers.remove(sleeper)

    def drain(self) -> list[BatchEvent]:
        """All events that are there now, without waiting."""
        with self._changed:
            events = list(self._events)
            self._events.clear()
            return events

    def __iter__(self) -> Iterator[BatchEvent]:
        while (event := self.get()) is not None:
            yield event

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BatchEvent:
        event = await self.aget()
        if event is None:
            raise StopAsyncIteration
        return event

    def close(self) -> None:
        """Take no more events; those that are there can still be fetched."""
        self._unsubscribe(self)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._wake_sleepers()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _wake_sleepers(self) -> None:
        sleepers, self._sleepers = self._sleepers, []
        for loop, woken in sleepers:
            with contextlib.suppress(RuntimeError):  # its loop was closed meanwhile
                loop.call_soon_threadsafe(woken.set)
