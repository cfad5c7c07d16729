"""Groups of errors, as task groups raise them: what is in one, and what it stands for.

A group says little of what went wrong, and has neither the type nor the attributes by which its
errors are known. So one error in a group stands for itself, and so does one that decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable


def is_group(error: BaseException | None) -> bool:
    """Whether it is a group of errors."""
    return isinstance(error, BaseExceptionGroup)


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group, those of groups in it too; any other error is its own leaf."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:  # they may be nested deeper than calls can be
        each = waiting.pop()
        if is_group(each):
            waiting.extend(reversed(cast("BaseExceptionGroup[Any]", each).exceptions))
        else:
            found.append(each)
    return found


def ungrouped(error: BaseException, *decides: Callable[[BaseException], bool]) -> BaseException:
    """What a group stands for: the leaf that decides, by the first of these that knows one.

    Else its one leaf; the group itself where it has several.
    """
    if not is_group(error):
        return error
    found = leaves(error)
    for each in decides:
        for leaf in found:
            if each(leaf):
                return leaf
    return found[0] if len(found) == 1 else error
