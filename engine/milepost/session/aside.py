"""What must not keep an event loop waiting, done aside.

asyncio is loaded where a loop runs already; a plain program should not pay for it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

R = TypeVar("R")


async def aside(work: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    """Do it in a thread; what it raises is raised here."""
    from asyncio import to_thread  # noqa: PLC0415  # see above

    return await to_thread(work, *args, **kwargs)


def running_loop() -> AbstractEventLoop | None:
    """The event loop that runs in this thread, if one does."""
    from asyncio import get_running_loop  # noqa: PLC0415  # see above

    with contextlib.suppress(RuntimeError):
        return get_running_loop()
    return None
