"""`map`: a concurrent loop that survives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from milepost.jobs.host import WHEN_COMPLETE, LoopHost
from milepost.jobs.loop import refuse_while_importing
from milepost.jobs.place import Place
from milepost.session.arguments import check_choice, check_source
from milepost.session.dispatch import Rules
from milepost.session.mapping import Mapped, is_async, mapped
from milepost.settings.configuration import configuration
from milepost.work.retry import Backoff

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, Callable, Coroutine, Iterable

    from milepost.jobs.host import WhenComplete
    from milepost.jobs.progress import ProgressFactory
    from milepost.session.async_mapping import AsyncMapped
    from milepost.store import Store
    from milepost.types import Durability, Key
    from milepost.work.pool import ExecutorOrFactory

T = TypeVar("T")
R = TypeVar("R")


@overload
def map(  # type: ignore[overload-overlap]  # noqa: A001  # the word of the public face
    function: Callable[[T], Coroutine[Any, Any, R]],
    source: Iterable[T] | AsyncIterable[T],
    name: str,
    *,
    workers: int | None = None,
    executor: None = None,
    attempts: int | None = None,
    give_up_after: int | None = None,
    backoff: Backoff | None = None,
    key: Callable[[T], Key] | str | None = None,
    params: Any = None,
    total: int | None = None,
    when_complete: WhenComplete = "stop",
    store: Store | str | os.PathLike[str] | None = None,
    durability: Durability = "process",
    progress: bool | ProgressFactory | None = None,
) -> AsyncMapped[T, R]: ...
@overload
def map(  # noqa: A001
    function: Callable[[T], R],
    source: Iterable[T],
    name: str,
    *,
    workers: int | None = None,
    executor: ExecutorOrFactory | None = None,
    attempts: int | None = None,
    give_up_after: int | None = None,
    backoff: Backoff | None = None,
    key: Callable[[T], Key] | str | None = None,
    params: Any = None,
    total: int | None = None,
    when_complete: WhenComplete = "stop",
    store: Store | str | os.PathLike[str] | None = None,
    durability: Durability = "process",
    progress: bool | ProgressFactory | None = None,
) -> Mapped[T, R]: ...
def map(  # noqa: A001
    function: Callable[[Any], Any],
    source: Any,
    name: str,
    *,
    workers: int | None = None,
    executor: ExecutorOrFactory | None = None,
    attempts: int | None = None,
    give_up_after: int | None = None,
    backoff: Backoff | None = None,
    key: Callable[[Any], Key] | str | None = None,
    params: Any = None,
    total: int | None = None,
    when_complete: WhenComplete = "stop",
    store: Store | str | os.PathLike[str] | None = None,
    durability: Durability = "process",
    progress: bool | ProgressFactory | None = None,
) -> Mapped[Any, Any] | AsyncMapped[Any, Any]:
    """Run a function over the items that are not done yet, several at once, as they finish.

    Gives pairs of item and result; the item is acknowledged when the loop asks for the next. A
    plain function runs in threads or in `executor`, a coroutine function as tasks: then write
    `async for`. What raises is tried again, then recorded as failed and not given out. A function
    may raise `Skip` or `Retry`.

    Args:
        function: What is done with one item.
        source: All items, every time; those that are done are passed over. More can be found on the
            way (`add`).
        name: The session's name.
        workers: How many items run at once; 8 by default.
        executor: A `concurrent.futures.Executor`, or a function that makes one: processes, `loky`,
            Dask. One that was made here is shut down here, and made anew when it breaks. Also by
            name: `"threads"`, `"processes"`, `"dask://HOST:PORT"`.
        attempts: Tries an item gets in one run where its error is recoverable; 3 by default.
        give_up_after: So many failures in a row are an outage: those items are put back, and
            `OutageError` is raised; 0 for never, 20 by default.
        backoff: How long to wait between tries.
        key: What an item is known by, as for `resume`.
        params: What makes this run this run, as for `resume`.
        total: How many items there are, where the source does not tell.
        when_complete: What a run after the end does, as for `resume`.
        store: The store or its folder; default as `resolve_path` says.
        durability: What an acknowledgement survives.
        progress: `True` for a progress line, `False` for no line at all.
    """
    refuse_while_importing()
    check_choice("when_complete", when_complete, WHEN_COMPLETE)
    if source is None:
        check_source(source, "the source of the items")
    host = LoopHost(
        Place(name, store, durability),
        when_complete=when_complete,
        params=params,
        progress=progress,
    )
    settings = configuration()
    said, usual = settings.job_options(name), Rules()
    rules = Rules(
        _first(workers, said.workers, usual.workers),
        _first(attempts, said.attempts, usual.attempts),
        _first(give_up_after, said.give_up_after, usual.give_up_after),
        backoff or Backoff(),
    )
    if executor is None:
        executor = settings.executor(name, is_async=is_async(function))
    return mapped(function, host, source, rules, executor=executor, key=key, total=total)


def _first(*values: int | None) -> int:
    """What is said nearest to the call: by it, by the settings, by default."""
    return next(each for each in values if each is not None)
