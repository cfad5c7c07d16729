"""Text for people: a line for the user, what an error says, how wide it is on a terminal."""

from __future__ import annotations

import re
import sys
import unicodedata
from typing import Final

from milepost.groups import is_group, leaves

_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What a terminal would act on; error messages come from anywhere."""


_LEAVES_TOLD_MAX: Final = 3


def say(text: str) -> None:
    """One line on stderr; a closed stderr is no reason to stop the work."""
    try:
        print(f"milepost: {_CONTROLS.sub(_escape, text)}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode()


def error_text(error: BaseException) -> str:
    """`ValueError: no such page`; the type alone where it says nothing, or cannot say it.

    A group of errors says what they are.
    """
    kind = type(error).__name__
    if is_group(error):
        told = [error_text(each) for each in leaves(error)]
        more = [f"{len(told) - _LEAVES_TOLD_MAX:,} more"] if len(told) > _LEAVES_TOLD_MAX else []
        return f"{kind}: {'; '.join(told[:_LEAVES_TOLD_MAX] + more)}"
    try:
        said = str(error)
    except Exception:  # it is anybody's code
        return kind
    return f"{kind}: {said}" if said else kind


def counted(number: int, word: str) -> str:
    """`1 item`, `2 items`, `1,200 batches`."""
    return f"{number:,} {word if number == 1 else plural(word)}"


def in_a_row(number: int, word: str) -> str:
    """`1 item`, `20 items in a row`."""
    return counted(number, word) + (" in a row" if number > 1 else "")


def plural(word: str) -> str:
    """`items`, `batches`, `cities`; a word in another script is its own, as `구`."""
    if not word[-1:].isascii():
        return word
    if word.endswith(("ch", "sh", "s", "x", "z")):
        return f"{word}es"
    if word.endswith("y") and word[-2:-1] not in set("aeiou"):
        return f"{word[:-1]}ies"
    return f"{word}s"


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
