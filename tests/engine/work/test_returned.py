"""What a function gave back instead of doing its work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from milepost.work.returned import check_returned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


async def coroutine() -> int:
    return 1


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (coroutine, "a coroutine"),
        (generator, "a generator"),
        (async_generator, "an async generator"),
    ],
)
def test_what_has_yet_to_be_run(function: Callable[[], Any], kind: str) -> None:
    # A coroutine that is only dropped would warn, and a warning is an error here.
    with pytest.raises(TypeError, match=f"the function returned {kind}, so nothing was done"):
        check_returned(function(), "the function")


@pytest.mark.parametrize("value", [None, 0, [1], iter([1]), generator, {"a": 1}.items()])
def test_what_is_a_result(value: object) -> None:
    check_returned(value, "the function")
