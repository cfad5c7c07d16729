"""Running calls in an executor: what was handed in, what has ended, what broke.

- Anything that is a `concurrent.futures.Executor` will do, or a function that makes one. What was
  made here is shut down here and made anew when it breaks; what was lent is left alone.
- Without one, threads that die with the program: a call that hangs must not keep it alive.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
)
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

from milepost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS_MAX: Final = 10_000

ExecutorOrFactory: TypeAlias = "Executor | Callable[[], Executor]"
"""What `executor=` takes."""


class Engine:
    """An executor, made when it is first needed and made anew when it broke.

    Attributes:
        generation: How many were made, so that of many who see a break only the first mends it.
    """

    def __init__(self, executor: ExecutorOrFactory | None, workers: int) -> None:
        """Without an executor, up to `workers` threads run the calls."""
        self._make: Callable[[], Executor] | None
        if isinstance(executor, Executor):
            self._make = None
        elif executor is None:
            self._make = lambda: Threads(workers)
        elif callable(executor):
            self._make = executor
        else:
            raise TypeError(
                "executor= takes a concurrent.futures.Executor or a function that makes one, not"
                f" {executor!r:.80}"
            )
        self._executor = executor if isinstance(executor, Executor) else None
        self._making = threading.Lock()
        self.generation = 0

    @property
    def executor(self) -> Executor:
        """The executor that runs calls just now."""
        with self._making:
            if self._executor is None:
                made = cast("Callable[[], object]", self._make)()
                if not isinstance(made, Executor):
                    raise TypeError(
                        f"executor= made {made!r:.80}, which is no concurrent.futures.Executor"
                    )
                self._executor = made
                self.generation += 1
            return self._executor

    @property
    def runs_here(self) -> bool:
        """Whether calls run in threads of this process."""
        return isinstance(self.executor, (Threads, ThreadPoolExecutor))

    @property
    def pickles_by_name(self) -> bool:
        """Whether functions travel by their name, as the standard library does it."""
        # Its module is there if one was made, and slow to load where none was.
        module = sys.modules.get("concurrent.futures.process")
        return module is not None and isinstance(self.executor, module.ProcessPoolExecutor)

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have a call run; one that meets a broken executor fails as those before it did."""
        try:
            return self.executor.submit(function, *args)
        except BrokenExecutor as error:
            future: Future[Any] = Future()
            future.set_exception(error)
            return future

    def rebuild(self, generation: int) -> None:
        """Leave the broken executor of that generation.

        Errors: `ConfigurationError` where it was lent, so that no other can be made.
        """
        if self._make is None:
            raise ConfigurationError(
                "the executor broke: one of its processes died",
                hint="hand in a function that makes one, executor=lambda: ProcessPoolExecutor(4),"
                " so that work goes on with a new one",
            )
        if generation == self.generation:
            self.close(wait=False)

    def close(self, *, wait: bool) -> None:
        """Shut down what was made here; with `wait`, return when what runs has ended."""
        if self._make is None:
            return
        with self._making:
            executor, self._executor = self._executor, None
        if executor is None:
            return
        try:
            executor.shutdown(wait=wait, cancel_futures=True)
        except TypeError:  # Dask's takes no such argument
            executor.shutdown(wait=wait)


class Ended(NamedTuple):
    """A call that has ended.

    Attributes:
        token: What the caller knows it by.
        value: What it returned.
        error: What it raised instead; `None` where it returned.
    """

    token: Any
    value: Any
    error: BaseException | None


class Pool:
    """Many calls at once, and what ends first. Its methods belong to one thread."""

    def __init__(self, executor: ExecutorOrFactory | None, workers: int) -> None:
        """`executor` runs the calls; without one, up to `workers` threads do."""
        self._engine = Engine(executor, workers)
        self._ended: queue.SimpleQueue[tuple[Any, Future[Any]]] = queue.SimpleQueue()
        self._running: dict[Any, Future[Any]] = {}

    @property
    def runs_here(self) -> bool:
        """Whether calls run in threads of this process."""
        return self._engine.runs_here

    def submit(self, token: Any, function: Callable[..., Any], *args: Any) -> None:
        """Have a call run; how it ends comes from `next_ended`."""
        future = self._engine.submit(function, *args)
        self._running[token] = future
        future.add_done_callback(lambda done: self._ended.put((token, done)))

    def next_ended(self, timeout_seconds: float) -> Ended | None:
        """The next call that has ended; `None` after the timeout."""
        with contextlib.suppress(queue.Empty):
            while True:
                token, future = self._ended.get(timeout=timeout_seconds)
                # The late end of a call that was given up is nobody's.
                if self._running.get(token) is future:
                    del self._running[token]
                    return _ended(token, future)
        return None

    def rebuild(self) -> tuple[list[Ended], list[Any]]:
        """After a break: what had ended before, and the tokens of the calls that are lost.

        Errors: `ConfigurationError` where the executor was lent, so that no other can be made.
        """
        ended: list[Ended] = []
        while (each := self.next_ended(0)) is not None:
            ended.append(each)
        lost = list(self._running)
        self._running.clear()
        self._engine.rebuild(self._engine.generation)
        return ended, lost

    def close(self, *, wait: bool) -> None:
        """Start nothing more; with `wait`, return when what runs has ended."""
        running = list(self._running.values())
        self._running.clear()
        for future in running:
            future.cancel()
        if wait:
            for future in running:
                with contextlib.suppress(BaseException):
                    future.exception()
        self._engine.close(wait=wait)


def _ended(token: Any, future: Future[Any]) -> Ended:
    try:
        error = future.exception()
    except CancelledError as cancelled:
        error = cancelled
    return Ended(token, None if error is not None else future.result(), error)


class Threads(Executor):
    """Threads that are made as they are needed, and die with the program."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)
        self._is_closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a call run in one of the threads."""
        if self._is_closed:
            raise RuntimeError("these threads were shut down")
        future: Future[Any] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                value = fn(*args, **kwargs)
            except BaseException as error:  # it is the future's
                future.set_exception(error)
            else:
                future.set_result(value)

        self._calls.put(call)
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._workers:
            thread = threading.Thread(
                target=self._run, name=f"milepost-map-{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        return future

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # it holds the item and what became of it
            self._idle.release()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with `wait`, return when what runs has ended."""
        self._is_closed = True
        if cancel_futures:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._calls.get_nowait()
        for _ in self._threads:
            self._calls.put(None)
        if wait:
            for thread in self._threads:
                thread.join()
