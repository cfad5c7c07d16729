"""Clocks: the machine's, and one that moves only when told to."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from milepost.clock import Clock, ManualClock, SystemClock, utc


@given(st.integers(0, 2**63 - 1))
def test_a_time_is_aware_and_exact_to_the_microsecond(ns: int) -> None:
    found = utc(ns)
    assert found.tzinfo is UTC
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert found - epoch == timedelta(microseconds=ns // 1_000)


def test_a_manual_clock_moves_only_when_told() -> None:
    clock: Clock = ManualClock(5)
    assert (clock.now_ns(), clock.monotonic()) == (5, 0.0)
    assert isinstance(clock, ManualClock)
    clock.advance(2.5)
    assert (clock.now_ns(), clock.monotonic()) == (2_500_000_005, 2.5)
    clock.set_wall(1)
    assert (clock.now_ns(), clock.monotonic()) == (1, 2.5)


def test_waiting_on_a_manual_clock_moves_it() -> None:
    clock, event = ManualClock(), threading.Event()
    assert not clock.wait(event, 10)
    assert clock.monotonic() == 10
    event.set()
    assert clock.wait(event, 10)
    assert clock.monotonic() == 10


def test_the_machines_clocks() -> None:
    clock: Clock = SystemClock()
    assert clock.now_ns() > 1_600_000_000_000_000_000
    assert clock.monotonic() <= clock.monotonic()
    event = threading.Event()
    assert not clock.wait(event, 0)
    event.set()
    assert clock.wait(event, 60)
