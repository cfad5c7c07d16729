"""Ctrl-C and SIGTERM while work runs: finish the item in hand, save, stop.

- Handlers are set in the main thread only, only over Python's defaults, and are put back. The one
  by which `asyncio.run` cancels its main task is such a default. Where work runs in the body of
  other work, both are stopped; so is work in other threads, which can set no handlers.
- The first signal asks the work to stop. What is in hand after `GRACE_SECONDS` is dropped, and
  a second signal drops it at once: then `KeyboardInterrupt` (or `SystemExit(143)`) is raised where
  the work is.
- Outer work is told before what runs in it: so it knows why that ends.
- A handler takes no lock, because the code it interrupts may hold it.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NoReturn

from milepost.session.stops import at_once
from milepost.text import say

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Self

GRACE_SECONDS: Final = 5.0
TELLING_SECONDS: Final = 0.5
"""Who stops sooner need not say that it is about to."""
EXIT_TERMINATED: Final = 143

_in_threads: Final[dict[StopSignals, None]] = {}
"""Work of threads that can set no handlers, as it began: what runs in other work comes later."""


class StopSignals:
    """Context in which signals stop the work instead of killing it.

    Attributes:
        received: The first signal, `None` while there was none.
        before: The handlers that were there before ours, by signal.
        closed: Whether the work is over.
    """

    def __init__(self, request_stop: Callable[[], None]) -> None:
        self._request_stop = request_stop
        self.before: dict[int, Any] = {}
        self.closed = False
        self.received: int | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number, default in (
                (signal.SIGINT, signal.default_int_handler),
                (signal.SIGTERM, signal.SIG_DFL),
            ):
                outer = _owner(signal.getsignal(number))
                if outer is not None and outer.closed:
                    outer.close()
                before = signal.getsignal(number)
                if before is default or _is_of_asyncio(before) or _owner(before) is not None:
                    self.before[number] = before
                    signal.signal(number, self._handle)
            outers = [_owner(before) for before in self.before.values()]
        else:
            _in_threads[self] = None
            outers = [_owner(signal.getsignal(each)) for each in (signal.SIGINT, signal.SIGTERM)]
        for owner in outers:
            if owner is not None and not owner.closed and owner.received is not None:
                owner.note_all(owner.received)  # it came before us, and may be at it still
                self.note(owner.received)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Put the handlers back; a second time does nothing."""
        self.closed = True
        _in_threads.pop(self, None)
        if threading.current_thread() is not threading.main_thread():
            return
        for number, before in self.before.items():
            handler = signal.getsignal(number)
            if handler == self._handle:
                signal.signal(number, before)
                continue
            # Work that began later is still there; it puts back what we would have.
            later = _owner(handler)
            while later is not None:
                if later.before.get(number) == self._handle:
                    later.before[number] = before
                later = _owner(later.before.get(number))
        self.before = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.closed:
            # It was closed in a thread that may set no handlers; it must swallow nothing now.
            self.close()
            signal.raise_signal(number)
            return
        if self.received is not None:
            raise at_once(self._meant())
        self.note_all(number)
        # The low-level call, because Thread.start takes locks that the interrupted code may hold.
        _thread.start_new_thread(self._insist, (number,))

    def note_all(self, number: int) -> None:
        """Have this work stop, and all in threads; what was told before is only told again."""
        self.note(number)
        for other in tuple(_in_threads):
            other.note(number)

    def note(self, number: int) -> None:
        """Have the work stop in whose body this runs, and this."""
        outer = _owner(self.before.get(number))
        if outer is not None and not outer.closed:
            outer.note(number)
        if self.received is None:
            self.received = number
        self._request_stop()

    def _insist(self, number: int) -> None:
        begun = time.monotonic()
        is_told = False
        while (waited := time.monotonic() - begun) < GRACE_SECONDS:
            if self.closed:
                return
            if waited > TELLING_SECONDS and not is_told:
                is_told = True
                say(
                    f"finishing what is in hand, for at most {GRACE_SECONDS:g} s; the same signal"
                    " again stops at once"
                )
            time.sleep(0.05)
        if not self.closed:
            with contextlib.suppress(OSError, AttributeError):
                # A real signal also ends a wait inside the operating system.
                main = threading.main_thread().ident
                if main is not None and os.name != "nt":
                    signal.pthread_kill(main, number)
                    return
            _thread.interrupt_main()

    def raise_stop(self) -> NoReturn:
        """Raise what the first signal means."""
        raise self._meant()

    def _meant(self) -> BaseException:
        if self.received == signal.SIGTERM:
            return SystemExit(EXIT_TERMINATED)
        return KeyboardInterrupt()


def _owner(handler: object) -> StopSignals | None:
    """Whose handler it is, if it is one of ours."""
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, StopSignals) else None


def _is_of_asyncio(handler: object) -> bool:
    """Whether it is the handler that `asyncio.run` sets; asyncio itself is not loaded for that."""
    return (
        isinstance(handler, functools.partial)
        and getattr(handler.func, "__module__", "") == "asyncio.runners"
    )


def _leave_to_the_parent() -> None:
    """In a process that was forked: no work is stopped here, and signals do what they did."""
    _in_threads.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        while (owner := _owner(handler)) is not None:
            handler = owner.before.get(number, signal.SIG_DFL)
        if handler is not signal.getsignal(number):
            signal.signal(number, handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
