"""A subscriber holds the latest events in order, and is never in the way of the work."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.model import events as e
from milepost.session.subscription import EVENT_BUFFER, Subscription

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
