"""What an item is known by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.errors import EncodingError

if TYPE_CHECKING:
    from milepost.types import Key


def check_key(key: object, what: str = "an item's key") -> Key:
    """The key, if it is one: text or a 64-bit whole number; a bool is neither."""
    if isinstance(key, str):
        return key
    if isinstance(key, int) and not isinstance(key, bool):
        if -(1 << 63) <= key < 1 << 64:
            return key
        raise EncodingError(f"{what} is {key}: more than 64 bits", hint="use text: str(key)")
    raise EncodingError(
        f"{what} is {key!r}, a {type(key).__name__}; it must be text or a whole number",
        hint="pass key=, a function that returns one: key=lambda item: item['id']",
    )
