"""Executors of our own, and by name: `threads`, `processes`, `dask://HOST:PORT`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import re
import signal
import sys
import threading
from concurrent.futures import Executor, Future, InvalidStateError
from typing import TYPE_CHECKING, Any, Final

from milepost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

_DASK: Final = re.compile(r"dask://(?P<address>(?:\[[^\s\]]+\]|[^\s/:\[\]]+):(?P<port>[0-9]{1,5}))")
_PORT_MAX: Final = 65_535
DASK_SECONDS: Final = 10
"""How long a scheduler has to answer."""
_CONNECT_SECONDS: Final = 8
"""How long Dask itself tries: it can say more of what is wrong."""


def executor_named(text: str, workers: int) -> Callable[[], Executor]:
    """A function that makes the executor of this name.

    Errors: `ConfigurationError` for any other name, and where what it needs is not installed.
    """
    if text == "threads":
        return lambda: Threads(workers)
    if text == "processes":
        return lambda: _processes(workers)
    dask = _DASK.fullmatch(text)
    if dask is not None and 0 < int(dask["port"]) <= _PORT_MAX:
        if importlib.util.find_spec("distributed") is None:
            raise ConfigurationError(
                "Dask is not installed", hint='install it: pip install "milepost[dask]"'
            )
        return lambda: _dask(dask["address"])
    raise ConfigurationError(
        f"executor is {text!r}; it must be threads, processes or dask://HOST:PORT"
    )


def _processes(workers: int) -> Executor:
    import multiprocessing  # noqa: PLC0415  # slow to import, and seldom needed
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415  # the same

    # A process that is forked while threads run may inherit a lock that nobody gives back.
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker
    )


def _begin_worker() -> None:
    """In a worker process: Ctrl-C is for who made us, and we end with them, however they do."""
    import multiprocessing  # noqa: PLC0415  # it is loaded where this runs

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=[parent], daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _dask(address: str) -> Executor:
    import distributed  # noqa: PLC0415  # optional, and slow to import

    make: Callable[..., Any] = distributed.Client
    try:
        made = _within(DASK_SECONDS, lambda: make(f"tcp://{address}", timeout=_CONNECT_SECONDS))
        return DaskExecutor(made)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"no Dask scheduler answers at {address}: {error}",
            hint="start one (dask scheduler), or name its HOST:PORT: dask://127.0.0.1:8786",
        ) from error


def _within(seconds: float, make: Callable[[], Any]) -> Any:
    """What `make` makes. Errors: its own; `TimeoutError` where it takes longer.

    A client waits for ever where something takes its connection and says nothing. It is left
    behind then, and closed if it comes after all.
    """
    made: Future[Any] = Future()

    def run() -> None:
        try:
            client = make()
        except BaseException as error:  # it is for who waits
            with contextlib.suppress(InvalidStateError):
                made.set_exception(error)
            return
        try:
            made.set_result(client)
        except InvalidStateError:
            client.close()

    threading.Thread(target=run, name="milepost-dask", daemon=True).start()
    with contextlib.suppress(TimeoutError):
        return made.result(seconds)
    if made.cancel():
        raise TimeoutError(f"it takes connections, and said nothing for {seconds} seconds")
    return made.result()


class DaskExecutor(Executor):
    """The executor of a Dask client that goes with it."""

    def __init__(self, client: Any) -> None:
        self._client = client
        # A result must not stand for another item's, and tries are counted by the session.
        self._executor: Executor = client.get_executor(pure=False, retries=0)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a call run on a worker."""
        for each in (fn, *args):
            _bring_along(each)
        return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; what runs there is dropped, and runs again."""
        with contextlib.suppress(Exception):  # a cluster that is gone has nothing to shut down
            self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close()


def scheduler_of(executor: Executor) -> str:
    """Where the scheduler of a cluster's executor is; a client that lost it forgets."""
    scheduler = getattr(_client(executor), "scheduler", None)
    return str(getattr(scheduler, "address", ""))


def is_lost(executor: Executor) -> bool:
    """Whether it is a cluster's that is gone: nothing more comes from it."""
    return getattr(_client(executor), "status", "") in {"closed", "closing", "failed"}


def _client(executor: Executor) -> Any:
    """The Dask client of an executor, if it has one."""
    while isinstance(inner := getattr(executor, "_executor", None), Executor):
        executor = inner
    return getattr(executor, "_client", None)


def _bring_along(function: object) -> None:
    """Have a function of a plain file travel with what is defined beside it.

    The workers have what is installed; a file that was run from where it lies they do not have.
    """
    module = sys.modules.get(getattr(function, "__module__", ""))
    file = getattr(module, "__file__", None) or ""
    if module is None or "." in module.__name__ or "site-packages" in file or not file:
        return
    cloudpickle: Any = sys.modules.get("cloudpickle")
    if (
        cloudpickle is not None
        and module.__name__ not in cloudpickle.list_registry_pickle_by_value()
    ):
        cloudpickle.register_pickle_by_value(module)


class Threads(Executor):
    """Threads that are made as they are needed, and die with the program."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)
        self._is_closed = False
        self._changing = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a call run in one of the threads."""
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

        with self._changing:  # a shutdown has a word for each thread that there is
            if self._is_closed:
                raise RuntimeError("these threads were shut down")
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._workers:
                thread = threading.Thread(
                    target=self._run, name=f"milepost-map-{len(self._threads)}", daemon=True
                )
                thread.start()  # where that fails, nothing was taken, and nobody is waited for
                self._threads.append(thread)
            self._calls.put(call)
        return future

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # it holds the item and what became of it
            self._idle.release()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with `wait`, return when what runs has ended."""
        with self._changing:
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
