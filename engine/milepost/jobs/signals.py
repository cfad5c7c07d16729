"""Ctrl-C and SIGTERM while work runs: finish the item in hand, save, stop.

- Handlers are set in the main thread only, only over Python's defaults, and are put back. The one
  by which `asyncio.run` cancels its main task is such a default.
- The first signal asks the work to stop. What is in hand after `GRACE_SECONDS` is dropped, and
  a second signal drops it at once: then `KeyboardInterrupt` (or `SystemExit(143)`) is raised where
  the work is.
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

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Self

GRACE_SECONDS: Final = 5.0
EXIT_TERMINATED: Final = 143


class StopSignals:
    """Context in which signals stop the work instead of killing it.

    Attributes:
        received: The first signal, `None` while there was none.
    """

    def __init__(self, request_stop: Callable[[], None]) -> None:
        self._request_stop = request_stop
        self._before: dict[int, Any] = {}
        self._done = False
        self.received: int | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number, default in (
                (signal.SIGINT, signal.default_int_handler),
                (signal.SIGTERM, signal.SIG_DFL),
            ):
                before = signal.getsignal(number)
                if before is default or _is_of_asyncio(before):
                    self._before[number] = before
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Put the handlers back; a second time does nothing."""
        self._done = True
        if threading.current_thread() is not threading.main_thread():
            return
        while self._before:
            number, before = self._before.popitem()
            if signal.getsignal(number) == self._handle:
                signal.signal(number, before)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            self.raise_stop()
        self.received = number
        self._request_stop()
        # The low-level call, because Thread.start takes locks that the interrupted code may hold.
        _thread.start_new_thread(self._insist, (number,))

    def _insist(self, number: int) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            if self._done:
                return
            time.sleep(0.05)
        if not self._done:
            with contextlib.suppress(OSError, AttributeError):
                # A real signal also ends a wait inside the operating system.
                main = threading.main_thread().ident
                if main is not None and os.name != "nt":
                    signal.pthread_kill(main, number)
                    return
            _thread.interrupt_main()

    def raise_stop(self) -> NoReturn:
        """Raise what the first signal means."""
        if self.received == signal.SIGTERM:
            raise SystemExit(EXIT_TERMINATED)
        raise KeyboardInterrupt


def _is_of_asyncio(handler: object) -> bool:
    """Whether it is the handler that `asyncio.run` sets; asyncio itself is not loaded for that."""
    return (
        isinstance(handler, functools.partial)
        and getattr(handler.func, "__module__", "") == "asyncio.runners"
    )
