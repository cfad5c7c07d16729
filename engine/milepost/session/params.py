"""What makes a run this run, compared with what it was."""

from __future__ import annotations

from typing import Any, TypeGuard

_SHOWN_CHARACTERS = 80


def difference(before: Any, now: Any, place: str = "params") -> str | None:
    """Where two plain values differ first, for people; `None` where they are the same."""
    if _is_map(before) and _is_map(now):
        for key in {**before, **now}:
            where = f"{place}[{key!r}]"
            if key not in now:
                return f"{where} was {_shown(before[key])} and is not there now"
            if key not in before:
                return f"{where} is {_shown(now[key])} and was not there"
            if (found := difference(before[key], now[key], where)) is not None:
                return found
        return None
    if _is_list(before) and _is_list(now) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            if (found := difference(*pair, f"{place}[{index}]")) is not None:
                return found
        return None
    # 1, 1.0 and True are equal to Python, and three settings to a program.
    if type(before) is type(now) and before == now:
        return None
    return f"{place} was {_shown(before)} and is {_shown(now)} now"


def _is_map(value: object) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
