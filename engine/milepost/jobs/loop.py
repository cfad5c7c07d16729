"""`resume`: a plain loop that survives."""

from __future__ import annotations

import contextlib
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from milepost.errors import ConfigurationError
from milepost.jobs.host import WHEN_COMPLETE, LoopHost
from milepost.jobs.place import Place
from milepost.session.arguments import check_choice, check_source
from milepost.session.items import Items

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, Callable, Generator, Iterable

    from milepost.jobs.host import WhenComplete
    from milepost.jobs.progress import ProgressFactory
    from milepost.session.feed import Taken
    from milepost.store import Store
    from milepost.types import Durability, Key

T = TypeVar("T")

_refusal: ContextVar[str] = ContextVar("milepost_refusal", default="")


@contextlib.contextmanager
def refusing_loops(reason: str) -> Generator[None]:
    """In this block loops, maps and runs of jobs raise `ConfigurationError` with this reason.

    For who imports a file only to see what is in it: a plain script would run to its end.
    """
    token = _refusal.set(reason)
    try:
        yield
    finally:
        _refusal.reset(token)


def refuse_while_importing(what: str = "a loop") -> None:
    """Raise where a file is imported only to be looked at, or by a worker process of its own."""
    if reason := _refusal.get():
        raise ConfigurationError(
            f"{what} is not begun while {reason}",
            hint='run it as a program: python FILE.py; or put it under: if __name__ == "__main__":',
        )
    module = sys.modules.get("multiprocessing.process")
    if module is not None and getattr(module.current_process(), "_inheriting", False):
        raise ConfigurationError(
            "a worker process imports this file, and would begin the same work once more",
            hint='put what only the program itself does under: if __name__ == "__main__":',
        )


@overload
def resume(
    source: Iterable[T] | AsyncIterable[T],
    name: str,
    *,
    key: Callable[[T], Key] | str | None = None,
    chunk: None = None,
    params: Any = None,
    total: int | None = None,
    when_complete: WhenComplete = "stop",
    store: Store | str | os.PathLike[str] | None = None,
    durability: Durability = "process",
    progress: bool | ProgressFactory | None = None,
) -> Items[T]: ...
@overload
def resume(
    source: Iterable[T] | AsyncIterable[T],
    name: str,
    *,
    key: Callable[[T], Key] | str | None = None,
    chunk: int,
    params: Any = None,
    total: int | None = None,
    when_complete: WhenComplete = "stop",
    store: Store | str | os.PathLike[str] | None = None,
    durability: Durability = "process",
    progress: bool | ProgressFactory | None = None,
) -> Items[list[T]]: ...
def resume(
    source: Iterable[T] | AsyncIterable[T],
    name: str,
    *,
    key: Callable[[T], Key] | str | None = None,
    chunk: int | None = None,
    params: Any = None,
    total: int | None = None,
    when_complete: WhenComplete = "stop",
    store: Store | str | os.PathLike[str] | None = None,
    durability: Durability = "process",
    progress: bool | ProgressFactory | None = None,
) -> Items[T] | Items[list[T]]:
    """Loop over the items of a source that are not done yet, in this run or any before it.

    The last item is acknowledged when the loop asks for the next one, so a killed loop carries on
    with the item in hand. Items are known by `key(item)`; text and whole numbers are their own key.
    Write `for` or `async for`.

    Args:
        source: All items, every time; those that are done are passed over. More can be found on the
            way (`add`).
        name: The session's name.
        key: What an item is known by: a function that gives text or a whole number, or
            `"position"` for its place in the source, which must then begin as it did.
        chunk: Give out lists of this many items, acknowledged a list at a time.
        params: What makes this run this run (a model, flags), as data: it is kept, and a later run
            that says something else is refused.
        total: How many items there are, where the source does not tell.
        when_complete: What a run after the end does: `"stop"` runs what is new in the source and
            nothing else, `"restart"` begins anew, `"error"` raises `UnfinishedError`.
        store: The store or its folder; default as `resolve_path` says.
        durability: What an acknowledgement survives.
        progress: `True` for a progress line, `False` for no line at all; by default the start and
            the end are told on stderr.

    Use it as a context manager to have an exception recorded on the item in hand.
    """
    refuse_while_importing()
    check_choice("when_complete", when_complete, WHEN_COMPLETE)
    if source is None:  # pyright: ignore[reportUnnecessaryComparison]  # callers are not all typed
        check_source(source, "the source of the items")
    host = LoopHost(
        Place(name, store, durability),
        when_complete=when_complete,
        params=params,
        progress=progress,
    )
    return Loop(host, source, key=key, total=total, chunk=chunk)


class Loop(Items[T]):
    """The items of a `resume`."""

    def _given_out(self, taken: list[Taken[T]]) -> T:
        host = cast("LoopHost", self._host)
        if host.failed_key is not None:
            host.hint_at(self.key, is_guarded=self.is_guarded)
        return super()._given_out(taken)
