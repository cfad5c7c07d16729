"""Running calls in an executor: what was handed in, what has ended, what broke.

- Anything that is a `concurrent.futures.Executor` will do, or a function that makes one. What was
  made here is shut down here and made anew when it breaks; what was lent is left alone.
- Without one, threads that die with the program: a call that hangs must not keep it alive.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

from milepost.errors import ClosedError, ConfigurationError, OutageError
from milepost.text import error_text
from milepost.work import far
from milepost.work.executors import Threads, executor_named, is_lost, scheduler_of

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS_MAX: Final = 10_000
_POLL_SECONDS: Final = 0.1
_HEEDING_SECONDS: Final = 1.0
"""How long a worker process has to end when it is told to."""

ExecutorOrFactory: TypeAlias = "Executor | Callable[[], Executor] | str"
"""What `executor=` takes: an executor, a function that makes one, or a name (`executor_named`)."""


class Engine:
    """An executor, made when it is first needed and made anew when it broke.

    Attributes:
        generation: How many broke, so that of many who see a break only the first mends it.
        is_closed: Whether it was closed: it makes nothing more, and takes nothing.
    """

    def __init__(self, executor: ExecutorOrFactory | None, workers: int) -> None:
        """Without an executor, up to `workers` threads run the calls."""
        self._make: Callable[[], Executor] | None
        if isinstance(executor, Executor):
            self._make = None
        elif executor is None:
            self._make = lambda: Threads(workers)
        elif isinstance(executor, str):
            self._make = executor_named(executor, workers)
        elif callable(executor):
            self._make = executor
        else:
            raise TypeError(
                "executor= takes a concurrent.futures.Executor or a function that makes one, not"
                f" {executor!r:.80}"
            )
        self._executor: Executor | None = None
        self._runs_here = False
        self._pickles_by_name = False
        self._scheduler = ""
        self._making = threading.Lock()
        self.generation = 0
        self.is_closed = False
        if isinstance(executor, Executor):
            self._take(executor)

    def _take(self, executor: Executor) -> None:
        self._executor = executor
        # All are asked for when it is gone, too, and must not need another one then.
        self._runs_here = isinstance(executor, (Threads, ThreadPoolExecutor))
        # Its module is there if one was made, and slow to load where none was.
        module = sys.modules.get("concurrent.futures.process")
        self._pickles_by_name = module is not None and isinstance(
            executor, module.ProcessPoolExecutor
        )
        self._scheduler = scheduler_of(executor)

    @property
    def executor(self) -> Executor:
        """The executor that runs calls just now.

        Errors: `ClosedError` after `close`; whatever making it raises.
        """
        executor = self._executor
        if executor is not None and not self.is_closed:
            return executor  # for each call: no lock
        try:
            with self._making:
                self._refuse_when_closed()
                if self._executor is None:
                    made = cast("Callable[[], object]", self._make)()
                    if not isinstance(made, Executor):
                        raise TypeError(
                            f"executor= made {made!r:.80}, which is no concurrent.futures.Executor"
                        )
                    self._take(made)
                executor = cast("Executor", self._executor)
        finally:
            if self.is_closed:  # and who closed it did not wait for us
                self._discard(wait=False)
        self._refuse_when_closed()
        return executor

    def _refuse_when_closed(self) -> None:
        if self.is_closed:
            raise ClosedError("the executor of a run that has ended takes no more calls")

    def make(self) -> None:
        """Make it now, so that what is wrong with it is no call's fault."""
        _ = self.executor

    @property
    def runs_here(self) -> bool:
        """Whether calls run in threads of this process."""
        self.make()
        return self._runs_here

    @property
    def pickles_by_name(self) -> bool:
        """Whether functions travel by their name, as the standard library does it."""
        self.make()
        return self._pickles_by_name

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have a call run; one that meets a broken executor fails as those before it did.

        What it raises elsewhere comes back as a value: `outcome` tells it apart. Errors: whatever
        the executor raises, `OutageError` where it is lost.
        """
        executor = self.executor
        try:
            if self._runs_here:
                return executor.submit(far.call_here, function, *args)
            if not self._pickles_by_name:
                return executor.submit(far.call, function, *args)
            try:
                data = far.packed_call(function, args)
            except Exception as error:  # a call that cannot travel is at fault itself
                return _failed(error)
            return executor.submit(far.call_packed, data)
        except BrokenExecutor as error:
            return _failed(error)
        except Exception:
            self._refuse_when_closed()
            self.check()
            raise

    def has_broken(self, future: Future[Any]) -> bool:
        """Whether a call ended because the executor broke; what a function raises is its own."""
        try:
            return isinstance(future.exception(), BrokenExecutor)
        except CancelledError:
            return False

    def prove(self, wait_for: Callable[[Future[Any]], object]) -> None:
        """See that a call that does nothing runs: only then can another be blamed for a break.

        Errors: `ConfigurationError` where it breaks the executor as well; whatever `submit` raises.
        """
        future = self.submit(far.nothing)
        wait_for(future)
        self.refuse_dropped(future)
        if self.has_broken(future):
            error = cast("BaseException", future.exception())
            raise ConfigurationError(
                "the executor's workers cannot start: a call that does nothing breaks it as well"
                f" ({error_text(error)})",
                hint="see what they print; what only the program itself does, the loop or"
                ' job.run(), belongs under: if __name__ == "__main__":',
            ) from error

    def check(self) -> None:
        """Raise `OutageError` where nothing more can come from the executor."""
        if self._executor is not None and is_lost(self._executor):
            raise OutageError(
                f"the Dask scheduler at {self._scheduler} is gone; what it had in hand runs again",
                hint="run it again when there is one",
            )

    def refuse_dropped(self, future: Future[Any]) -> None:
        """Raise `OutageError` where the executor cancelled a call that nobody here gave up."""
        if future.cancelled():
            self.check()
            where = (
                f"the Dask scheduler at {self._scheduler}" if self._scheduler else "the executor"
            )
            raise OutageError(
                f"{where} dropped what it had in hand, which runs again",
                hint="run it again when its workers are there",
            )

    def rebuild(self, generation: int) -> None:
        """Leave the broken executor of that generation.

        Errors: `ConfigurationError` where it was lent, so that no other can be made.
        """
        if self._make is None:
            raise ConfigurationError(
                "the executor broke: one of its workers died, or could not start",
                hint="hand in a function that makes one, executor=lambda: ProcessPoolExecutor(4),"
                " so that work goes on with a new one",
            )
        with self._making:
            if generation != self.generation:
                return
            self.generation += 1
            executor, self._executor = self._executor, None
        self._shut_down(executor, wait=False)

    def close(self, *, wait: bool) -> None:
        """Shut down what was made here, for good; with `wait`, return when what runs has ended.

        Without it, processes are ended at once, and threads are left behind.
        """
        self.is_closed = True
        self._discard(wait=wait)

    def _discard(self, *, wait: bool) -> None:
        if not self._making.acquire(blocking=False):
            return  # whoever makes one, for as long as that takes, discards it then
        try:
            executor, self._executor = self._executor, None
        finally:
            self._making.release()
        self._shut_down(executor, wait=wait)

    def _shut_down(self, executor: Executor | None, *, wait: bool) -> None:
        if executor is None or self._make is None:
            return
        # A shutdown forgets its processes, and waits at the program's end for what they run.
        processes: dict[int, Any] = getattr(executor, "_processes", None) or {}
        hanging = list(processes.values())
        try:
            try:
                executor.shutdown(wait=wait, cancel_futures=True)
            except TypeError:  # Dask's takes no such argument
                executor.shutdown(wait=wait)
            if wait:
                hanging.clear()
        finally:
            _end(hanging)


class Ended(NamedTuple):
    """A call that has ended.

    Attributes:
        token: What the caller knows it by.
        value: What it returned.
        error: What it raised instead; `None` where it returned.
        is_break: Whether that is the executor's own: it broke, and all its calls with it.
    """

    token: Any
    value: Any
    error: BaseException | None
    is_break: bool


class Pool:
    """Many calls at once, and what ends first. Its methods belong to one thread."""

    def __init__(self, executor: ExecutorOrFactory | None, workers: int) -> None:
        """`executor` runs the calls; without one, up to `workers` threads do."""
        self._engine = Engine(executor, workers)
        self._ended: queue.SimpleQueue[tuple[Any, Future[Any]]] = queue.SimpleQueue()
        self._running: dict[Any, Future[Any]] = {}
        self._is_closed = False

    def make(self) -> None:
        """Make the executor now, so that what is wrong with it is no call's fault."""
        self._engine.make()

    @property
    def runs_here(self) -> bool:
        """Whether calls run in threads of this process."""
        return self._engine.runs_here

    def submit(self, token: Any, function: Callable[..., Any], *args: Any) -> None:
        """Have a call run; how it ends comes from `next_ended`."""
        future = self._engine.submit(function, *args)
        self._running[token] = future
        if self._is_closed:  # by another thread, which did not see this one
            future.cancel()
        future.add_done_callback(lambda done: self._ended.put((token, done)))

    @property
    def has_ended(self) -> bool:
        """Whether `next_ended` need not wait."""
        return not self._ended.empty()

    def next_ended(self, timeout_seconds: float) -> Ended | None:
        """The next call that has ended; `None` after the timeout.

        Errors: `OutageError` where the executor dropped a call.
        """
        with contextlib.suppress(queue.Empty):
            while True:
                token, future = self._ended.get(timeout=timeout_seconds)
                # The late end of a call that was given up is nobody's; closing gives all up.
                if self._running.get(token) is not future:
                    continue
                if not (self._is_closed and future.cancelled()):
                    self._engine.refuse_dropped(future)
                    self._running.pop(token, None)  # another thread may close it just now
                    return Ended(token, *outcome(future), self._engine.has_broken(future))
        return None

    def prove(self) -> None:
        """See that a call that does nothing runs: only then can another be blamed for a break.

        Errors: `ConfigurationError` where it breaks the executor as well.
        """
        self._engine.prove(_wait)

    def check(self) -> None:
        """Raise `OutageError` where nothing more can come from the executor."""
        self._engine.check()

    def clear(self) -> tuple[list[Ended], list[Any]]:
        """After a break: what had ended before, and the tokens of the calls that are lost."""
        ended: list[Ended] = []
        while (each := self.next_ended(0)) is not None:
            ended.append(each)
        lost = list(self._running)
        self._running.clear()
        return ended, lost

    def rebuild(self) -> None:
        """Leave the executor that broke.

        Errors: `ConfigurationError` where it was lent, so that no other can be made.
        """
        self._engine.rebuild(self._engine.generation)

    def close(self, *, wait: bool) -> None:
        """Start nothing more; with `wait`, return when what runs has ended."""
        # Threads that die with the interpreter do not go on while it ends: nobody waits for them.
        wait = wait and not sys.is_finalizing()
        self._is_closed = True
        running = list(self._running.values())
        self._running.clear()
        for future in running:
            future.cancel()
        try:
            if wait:
                for future in running:
                    with contextlib.suppress(CancelledError):
                        future.exception()
        except BaseException:  # a second Ctrl-C
            wait = False
            raise
        finally:
            self._engine.close(wait=wait)


def _wait(future: Future[Any]) -> None:
    while not future.done():  # `wait` alone does not see that a pool cancelled it
        wait([future], timeout=_POLL_SECONDS)


def _end(processes: list[Any]) -> None:
    """End worker processes, also those that do not heed it."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + _HEEDING_SECONDS
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        if process.is_alive():
            _kill(process)


def _kill(process: Any) -> None:
    try:
        process.kill()
    except AttributeError:  # loky's cannot
        os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def _failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def outcome(future: Future[Any]) -> tuple[Any, BaseException | None]:
    """What a call that has ended returned, and what it raised instead."""
    try:
        return far.opened(future.result()), None
    except BaseException as error:  # it is for whoever handed the call in
        return None, error
