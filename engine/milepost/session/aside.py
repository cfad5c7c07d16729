"""What must not keep an event loop waiting, done aside.

- Each piece of work has a thread of its own: those that an event loop lends may all be busy with
  the program's work, and one that hangs would keep the program from its end.
- What waits for a disk is not stopped half way: who is cancelled meanwhile goes on when it has
  ended. So nothing is opened that nobody would close.
- asyncio is loaded where a loop runs already; a plain program should not pay for it.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable

R = TypeVar("R")

_on_behalf_of: Final[ContextVar[threading.Thread | None]] = ContextVar(
    "milepost_on_behalf_of", default=None
)
_task_served: Final[ContextVar[Task[Any] | None]] = ContextVar("milepost_task_served", default=None)
_left: Final[set[threading.Event]] = set()
"""What ends in threads that nobody could wait for; each is set when it has ended."""


async def aside(work: Callable[..., R], *args: Any) -> R:
    """Do it in a thread; what it raises is raised here."""
    import asyncio  # noqa: PLC0415  # see above

    future: Future[R] = Future()
    context = copy_context()
    context.run(_on_behalf_of.set, working_thread())
    context.run(_task_served.set, working_task())

    def run() -> None:
        nonlocal work, args
        try:
            value = context.run(work, *args)
        except StopIteration as error:  # it would mean another thing to a coroutine
            future.set_exception(RuntimeError(f"StopIteration was raised: {error}"))
        except BaseException as error:  # it is for whoever waits
            future.set_exception(error)
        else:
            # A loop that goes on and drops its iterator must be the last to know it: what ends with
            # it ends there, and not in this thread.
            del work, args
            future.set_result(value)

    threading.Thread(target=run, name="milepost-aside", daemon=True).start()
    ended = asyncio.wrap_future(future)
    cancelled: asyncio.CancelledError | None = None
    while not ended.done():
        try:
            await asyncio.wait([ended])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from ended.exception()
    return ended.result()


def working_thread() -> threading.Thread:
    """The thread whose work this is; for what is done aside, that of the event loop."""
    return _on_behalf_of.get() or threading.current_thread()


def working_task() -> Task[Any] | None:
    """The task whose work this is; `None` where no event loop is concerned."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    with contextlib.suppress(RuntimeError):
        task: Task[Any] | None = asyncio.current_task()
        return task
    return _task_served.get()


def leave_aside(work: Callable[[], object]) -> None:
    """Do it in a thread that nobody waits for but `wait_for_left`, and the end of the program."""

    def run() -> None:
        try:
            with contextlib.suppress(Exception):
                work()
        finally:
            _left.discard(ended)
            ended.set()

    ended = threading.Event()
    _left.add(ended)
    try:
        threading.Thread(target=run, name="milepost-leaving").start()
    except RuntimeError:  # no thread can be started any more
        run()


def forget_left() -> None:
    """In a forked child: the threads that others are waited for in are not here."""
    _left.clear()


def wait_for_left() -> None:
    """Return when all that was left has ended, so that what it held may be opened again."""
    for ended in list(_left):
        ended.wait()


def is_held_here(lock: Any) -> bool:
    """Whether this thread holds a reentrant lock; no where it cannot tell."""
    is_owned: Callable[[], bool] = getattr(lock, "_is_owned", bool)
    return is_owned()


def running_loop() -> AbstractEventLoop | None:
    """The event loop that runs in this thread, if one does."""
    from asyncio import get_running_loop  # noqa: PLC0415  # see above

    with contextlib.suppress(RuntimeError):
        return get_running_loop()
    return None
