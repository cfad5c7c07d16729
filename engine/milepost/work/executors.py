"""Executors by name: `threads`, `processes`, `dask://HOST:PORT`."""

from __future__ import annotations

import importlib.util
import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from milepost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

_DASK: Final = "dask://"


def executor_named(text: str, workers: int) -> Callable[[], Executor] | None:
    """A function that makes the executor of this name; `None` for threads.

    Errors: `ConfigurationError` for any other name, and where what it needs is not installed.
    """
    if text == "threads":
        return None
    if text == "processes":
        return lambda: _processes(workers)
    if text.startswith(_DASK) and len(text) > len(_DASK):
        if importlib.util.find_spec("distributed") is None:
            raise ConfigurationError(
                "Dask is not installed", hint='install it: pip install "milepost[dask]"'
            )
        return lambda: _dask(text.removeprefix(_DASK))
    raise ConfigurationError(
        f"executor is {text!r}; it must be threads, processes or dask://HOST:PORT"
    )


def _processes(workers: int) -> Executor:
    # A process that is forked while threads run may inherit a lock that nobody gives back.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _dask(address: str) -> Executor:
    import distributed  # noqa: PLC0415  # optional, and slow to import

    make: Callable[[str], Any] = distributed.Client
    return DaskExecutor(make(f"tcp://{address}"))


class DaskExecutor(Executor):
    """The executor of a Dask client that goes with it."""

    def __init__(self, client: Any) -> None:
        self._client = client
        # A result must not stand for another item's, and tries are counted by the session.
        self._executor: Executor = client.get_executor(pure=False, retries=0)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a call run on a worker."""
        return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; what runs there is dropped, and runs again."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close()
