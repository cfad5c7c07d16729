"""How wide text is on a terminal, and text that fits."""

from __future__ import annotations

import unicodedata


def text_width(text: str) -> int:
    """How many columns of a terminal the text takes: `지역` takes four."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(1 for character in text if unicodedata.combining(character))


def shortened(text: str, columns: int) -> str:
    """The text in at most this many columns; an ellipsis stands for what was cut."""
    if text_width(text) <= columns:
        return text
    kept, left = "", columns - 1
    for character in text:
        left -= text_width(character)
        if left < 0:
            break
        kept += character
    return f"{kept}…"
