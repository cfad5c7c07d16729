"""Time, as milepost takes it: wall nanoseconds for people, monotonic seconds for waiting.

- Sequence numbers order everything; no decision about order is taken from a clock.
- Tests hand in a `ManualClock`, so no timing decides a test.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import threading


class Clock(Protocol):
    """What the rest of milepost asks of time."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC, by the wall clock; it may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds from an unknown start; never goes back."""
        ...

    def wait(self, event: threading.Event, timeout_seconds: float) -> bool:
        """Sleep until the event is set or the time has passed; return whether it is set."""
        ...


class SystemClock:
    """The machine's own clocks."""

    now_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic)

    def wait(self, event: threading.Event, timeout_seconds: float) -> bool:
        """Sleep until the event is set or the time has passed; return whether it is set."""
        return event.wait(timeout_seconds)


class ManualClock:
    """A clock that moves only when told to; `wait` advances it instead of sleeping."""

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_ns = start_ns
        self._monotonic = 0.0

    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC, as set."""
        return self._now_ns

    def monotonic(self) -> float:
        """Seconds this clock was advanced by."""
        return self._monotonic

    def wait(self, event: threading.Event, timeout_seconds: float) -> bool:
        """Advance by the timeout unless the event is set already."""
        if not event.is_set():
            self.advance(timeout_seconds)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Move both readings forward."""
        self._now_ns += int(seconds * 1e9)
        self._monotonic += seconds

    def set_wall(self, now_ns: int) -> None:
        """Set the wall clock alone, as an administrator or NTP would."""
        self._now_ns = now_ns


def utc(ns: int) -> datetime:
    """An aware UTC datetime from integer nanoseconds; microseconds are what it can hold."""
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).replace(
        microsecond=ns % 1_000_000_000 // 1_000
    )
