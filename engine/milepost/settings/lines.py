"""In which line of a TOML file a key stands; `tomllib` does not tell.

The text is known to be valid TOML, so it is only walked over: headers of tables, keys before a `=`,
and values, of which nothing matters but where they end. Keys inside of an inline table are not
told apart: they stand where its own key stands.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias, cast

Place: TypeAlias = tuple[str | int, ...]
"""Keys from the top, with the number of the table where there are several of one name."""

_KEY: Final = r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)"""
_DOTTED: Final = rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*"
_STATEMENT: Final = re.compile(rf"[ \t]*(?:(\[\[?)[ \t]*({_DOTTED})[ \t]*\]\]?|({_DOTTED})[ \t]*=)")
_PIECE: Final = re.compile(
    r'"{3}(?:[^\\]|\\.)*?"{3,5}'  # strings of many lines may end with quotes of their own
    r"|'{3}.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[^\"'\#\n\[\]{}]+"
    r"|.",
    re.DOTALL,
)


def lines_of(text: str) -> dict[Place, int]:
    """Every key and every table with its line, counted from 1."""
    found: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    at, line = 0, 1
    while at < len(text):
        start = line
        statement = _STATEMENT.match(text, at)
        if statement is not None:
            brackets, header, key = statement.groups()
            if header is not None:
                table = _counted(_keys(header), counts, is_list=brackets == "[[")
                _note(found, table, 0, start)
            else:
                _note(found, (*table, *_keys(key)), len(table), start)
            at = statement.end()
        after = _statement_end(text, at)
        line += text.count("\n", at, after)
        at = after
    return found


def line_of(lines: dict[Place, int], place: Place) -> int | None:
    """The line of a key, or of the nearest thing around it that has one."""
    while place:
        if place in lines:
            return lines[place]
        place = place[:-1]
    return None


def _note(found: dict[Place, int], place: Place, above: int, line: int) -> None:
    for length in range(above + 1, len(place) + 1):
        found.setdefault(place[:length], line)


def _counted(keys: tuple[str, ...], counts: dict[Place, int], *, is_list: bool) -> Place:
    """The keys of a header, with the number of the table that each list of tables has now."""
    place: Place = ()
    for number, key in enumerate(keys, start=1):
        place = (*place, key)
        if is_list and number == len(keys):
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = (*place, counts[place])
    return place


def _keys(dotted: str) -> tuple[str, ...]:
    """The keys of `a."b c".d`, without quotes and escapes."""
    import tomllib  # noqa: PLC0415  # it is imported where there is a file to read

    keys: list[str] = []
    told: Any = tomllib.loads(f"{dotted} = 0")
    while isinstance(told, dict):
        ((key, told),) = cast("dict[str, Any]", told).items()
        keys.append(key)
    return tuple(keys)


def _statement_end(text: str, at: int) -> int:
    """Behind the line feed that ends a statement: not one in a string or between brackets."""
    depth = 0
    for piece in _PIECE.finditer(text, at):
        word = piece.group()
        if word in {"[", "{"}:
            depth += 1
        elif word in {"]", "}"}:
            depth -= 1
        elif word == "\n" and depth <= 0:
            return piece.end()
    return len(text)
