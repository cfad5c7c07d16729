"""A subscriber holds the latest events in order, and is never in the way of the work."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import milepost
from milepost.model import events as e
from milepost.session.subscription import EVENT_BUFFER, Subscription

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_SECONDS = 30.0


def event(number: int) -> e.BatchEvent:
    return e.TotalBatchesSet(number, 5, e.NO_BATCH, number)


def subscription(maxlen: int = EVENT_BUFFER) -> Subscription:
    return Subscription(maxlen, lambda _: None)


@given(st.integers(1, 10), st.integers(0, 30))
def test_the_oldest_are_dropped_and_counted(maxlen: int, pushed: int) -> None:
    held = subscription(maxlen)
    for number in range(pushed):
        held.push(event(number))
    assert held.dropped == max(0, pushed - maxlen)
    assert held.drain() == [event(n) for n in range(max(0, pushed - maxlen), pushed)]
    assert held.drain() == []


def test_events_come_in_order() -> None:
    held = subscription()
    for number in range(3):
        held.push(event(number))
    assert [held.get(0), held.get(0), held.get(0), held.get(0)] == [*map(event, range(3)), None]


def test_waiting_ends_with_the_timeout() -> None:
    assert subscription().get(0.01) is None


def test_waiting_ends_with_an_event_or_the_end() -> None:
    held = subscription()
    seen: list[e.BatchEvent] = []
    reader = threading.Thread(target=lambda: seen.extend(held))
    reader.start()
    for number in range(5):
        held.push(event(number))
    held.close()
    reader.join(PATIENCE_SECONDS)
    assert not reader.is_alive()
    assert seen == [event(n) for n in range(5)]


def test_the_end_wakes_everybody_who_waits() -> None:
    held = subscription()
    readers = [threading.Thread(target=held.get) for _ in range(3)]
    for reader in readers:
        reader.start()
    held.close()
    for reader in readers:
        reader.join(PATIENCE_SECONDS)
        assert not reader.is_alive()


def test_what_is_there_at_the_end_can_still_be_fetched() -> None:
    told: list[Subscription] = []
    held = Subscription(5, told.append)
    held.push(event(1))
    with held:
        pass
    assert told == [held]
    assert list(held) == [event(1)]
    assert held.get() is None


@pytest.mark.parametrize("maxlen", [0, -1])
def test_a_subscription_that_holds_nothing_is_refused(maxlen: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        subscription(maxlen)


# In an event loop.


def test_an_event_loop_waits_without_standing_still() -> None:
    held = subscription()

    async def read() -> list[e.BatchEvent]:
        return [event async for event in held]

    async def main() -> list[e.BatchEvent]:
        reader = asyncio.create_task(read())
        await asyncio.sleep(0)  # it waits by now, and the loop goes on
        for number in range(5):
            await asyncio.to_thread(held.push, event(number))
        await asyncio.to_thread(held.close)
        return await reader

    assert asyncio.run(main()) == [event(n) for n in range(5)]


def test_an_event_wakes_who_waits_in_an_event_loop() -> None:
    held = subscription()

    async def main() -> None:
        waiting = asyncio.create_task(held.aget())
        await asyncio.sleep(0)
        await asyncio.to_thread(held.push, event(1))
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await waiting == event(1)

    asyncio.run(main())


def test_in_an_event_loop_waiting_ends_with_the_timeout() -> None:
    held = subscription()

    async def main() -> None:
        assert await held.aget(0.01) is None
        held.push(event(1))
        assert await held.aget(0) == event(1)
        held.close()
        assert await held.aget() is None

    asyncio.run(main())


def test_each_event_goes_to_one_of_many_who_wait() -> None:
    held = subscription()
    seen: list[e.BatchEvent] = []

    async def read() -> None:
        while (each := await held.aget()) is not None:
            seen.append(each)

    async def main() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(read())
            await asyncio.sleep(0)
            for number in range(20):
                held.push(event(number))
                await asyncio.sleep(0)
            held.close()

    asyncio.run(main())
    assert sorted(seen, key=lambda each: each.sequence) == [event(n) for n in range(20)]


def test_who_stops_waiting_takes_no_event_along() -> None:
    held = subscription()

    async def main() -> None:
        waiting = asyncio.create_task(held.aget())
        await asyncio.sleep(0)
        waiting.cancel()
        held.push(event(1))
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        assert await held.aget(0) == event(1)

    asyncio.run(main())


def test_an_event_loop_that_is_gone_is_in_nobodys_way() -> None:
    held = subscription()
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(held.aget())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    held.push(event(1))
    assert held.drain() == [event(1)]
    waiting.get_coro().close()  # nobody will run it any more


def test_the_end_of_a_session_ends_who_waits_in_an_event_loop(tmp_path: Path) -> None:
    session = milepost.Store(tmp_path).session("s")
    held = session.subscribe()

    async def read() -> int:
        return len([each async for each in held])

    async def main() -> int:
        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        await asyncio.to_thread(session.close)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await reader

    assert asyncio.run(main()) == 1  # the end of the run
