"""What a function gave back instead of doing its work: something that has yet to be run."""

from __future__ import annotations

from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Final, cast

from milepost.errors import ConfigurationError
from milepost.types import ItemStatus

_TO_BE_RUN: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)


def check_body(value: object, what: str) -> None:
    """As `check_returned`; refuse outcomes of items, too: without an executor nobody records them.

    Errors: also `ConfigurationError`.
    """
    check_returned(value, what)
    first = value
    if isinstance(value, dict):
        first = next(iter(cast("dict[object, object]", value).values()), None)
    elif isinstance(value, list):
        first = next(iter(cast("list[object]", value)), None)
    if isinstance(first, tuple):
        first = next(iter(cast("tuple[object, ...]", first)[1:]), None)
    if isinstance(first, ItemStatus):
        raise ConfigurationError(
            f"{what} returned what became of its items, which is recorded with an executor alone",
            hint="run it with an executor, as with --executor threads; or go through batch.items()",
        )


def check_returned(value: object, what: str) -> None:
    """Refuse a coroutine, a generator and an async generator: nothing was done yet.

    Errors: `TypeError`, which names `what` returned it.
    """
    if not isinstance(value, _TO_BE_RUN):
        return
    if isinstance(value, CoroutineType):
        value.close()  # else Python warns of it later
        raise TypeError(
            f"{what} returned a coroutine, so nothing was done; write it with async def, and await"
            " what it calls"
        )
    kind = "a generator" if isinstance(value, GeneratorType) else "an async generator"
    raise TypeError(
        f"{what} returned {kind}, so nothing was done; write it without yield, and return a list"
        " where there is something to return"
    )
