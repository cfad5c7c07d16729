"""Signals for a command that looks after other processes: they are passed on, not obeyed."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType


@contextlib.contextmanager
def signals_to(stop: Callable[[int], None]) -> Generator[None]:
    """Hand Ctrl-C, SIGTERM and a terminal that is closed to `stop`, as SIGINT or SIGTERM.

    What is ignored stays so (`nohup`). The handlers before are put back.
    """
    meaning: dict[int, int] = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM}
    if hasattr(signal, "SIGHUP"):
        meaning[signal.SIGHUP] = signal.SIGTERM

    def hand_on(number: int, _frame: FrameType | None) -> None:
        stop(meaning[number])

    before: dict[int, Any] = {}
    for number in meaning:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, hand_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
