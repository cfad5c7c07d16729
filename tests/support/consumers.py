"""Who asks a loop for items, and should not."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import milepost

if TYPE_CHECKING:
    from collections.abc import Iterator


def refused_in_a_thread(items: Iterator[Any]) -> bool:
    """Whether another thread that asks for the next item is refused."""
    caught: list[BaseException] = []

    def pull() -> None:
        try:
            next(items)
        except milepost.ConsumerError as error:
            caught.append(error)

    thread = threading.Thread(target=pull)
    thread.start()
    thread.join()
    return len(caught) == 1
