"""What a function gave back instead of doing its work: something that has yet to be run."""

from __future__ import annotations

import inspect


def check_returned(value: object, what: str) -> None:
    """Refuse a coroutine, a generator and an async generator: nothing was done yet.

    Errors: `TypeError`, which names `what` returned it.
    """
    if inspect.iscoroutine(value):
        value.close()  # else Python warns of it later
        raise TypeError(
            f"{what} returned a coroutine, so nothing was done; write it with async def, and await"
            " what it calls"
        )
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        kind = "a generator" if inspect.isgenerator(value) else "an async generator"
        raise TypeError(
            f"{what} returned {kind}, so nothing was done; write it without yield, and return a"
            " list where there is something to return"
        )
