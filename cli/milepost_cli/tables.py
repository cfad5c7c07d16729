"""`[[recover]]` tables: which command carries on which sessions, from the user's own file.

- The nearest `milepost.toml` upwards from the current folder counts, or a `pyproject.toml` that has
  a `[tool.milepost]`; never one inside the store, because nothing in a store is ever executed.
- A command runs in the folder of its file.
- A table with a wrong key or value is refused with file and key: left out in silence, another one
  could take its sessions.
"""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import milepost
from milepost_cli.failure import WrongUseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FILE: Final = "milepost.toml"
PROJECT_FILE: Final = "pyproject.toml"
_KEYS: Final = ("session", "command")
_EXAMPLE: Final = 'for example: session = "crawl-*" and command = ["python", "crawl.py"]'


def targets(store_path: str) -> list[milepost.Target]:
    """The tables of the user's file, in their order; none without a file.

    Errors: `WrongUseError` naming the file and the key.
    """
    for folder in _upwards(os.getcwd()):
        if _is_within(folder, store_path):
            continue
        for name in (FILE, PROJECT_FILE):
            path = os.path.join(folder, name)
            settings = _settings(path) if os.path.isfile(path) else None
            if settings is not None:
                return [
                    _target(path, number, table)
                    for number, table in enumerate(_tables(path, settings), start=1)
                ]
    return []


def are_there() -> bool:
    """Whether the user's file has any, whatever the store."""
    return bool(targets(os.devnull))


def _upwards(folder: str) -> Iterator[str]:
    while True:
        yield folder
        above = os.path.dirname(folder)
        if above == folder:
            return
        folder = above


def _is_within(folder: str, store_path: str) -> bool:
    folder, store_path = os.path.realpath(folder), os.path.realpath(store_path)
    return f"{folder}{os.sep}".startswith(f"{store_path.rstrip(os.sep)}{os.sep}")


def _settings(path: str) -> dict[str, Any] | None:
    """What the file says to milepost; `None` where it does not speak to it."""
    try:
        with open(path, "rb") as file:
            told: dict[str, Any] = tomllib.load(file)
    except OSError as error:
        _refuse(f"{path} cannot be read: {error.strerror}", "make it readable")
    except ValueError as error:  # TOML, or UTF-8
        if os.path.basename(path) == PROJECT_FILE:
            return None  # other tools complain of it in their own words
        _refuse(f"{path} is not TOML: {error}", _EXAMPLE)
    if os.path.basename(path) == FILE:
        return told
    tool = told.get("tool")
    ours = cast("dict[str, Any]", tool).get("milepost") if isinstance(tool, dict) else None
    return cast("dict[str, Any]", ours) if isinstance(ours, dict) else None


def _tables(path: str, settings: dict[str, Any]) -> list[Any]:
    tables = settings.get("recover", [])
    if not isinstance(tables, list):
        _refuse(f"{path}: recover is no list of tables", "write [[recover]], in double brackets")
    return list(cast("Iterable[Any]", tables))


def _target(path: str, number: int, table: Any) -> milepost.Target:
    where = f"{path}: [[recover]] {number}"
    if not isinstance(table, dict):
        _refuse(f"{where}: it is no table", "write [[recover]], in double brackets")
    told = cast("dict[str, Any]", table)
    for key in told:
        if key not in _KEYS:
            _refuse(f"{where}: unknown key {key!r}", f"there are: {', '.join(_KEYS)}")
    for key in _KEYS:
        if key not in told:
            _refuse(f"{where}: {key} is missing", _EXAMPLE)
    session, words = told["session"], told["command"]
    if not isinstance(session, str) or not session:
        _refuse(f"{where}: session is {session!r}; it must be a name or a pattern", _EXAMPLE)
    if not _is_command(words):
        _refuse(f"{where}: command is {words!r}; it must be a list of words", _EXAMPLE)
    return milepost.Target(session, tuple(words), os.path.dirname(path))


def _is_command(words: Any) -> bool:
    if not isinstance(words, list):
        return False
    each = list(cast("Iterable[Any]", words))
    return all(isinstance(word, str) for word in each) and bool(each) and bool(each[0])


def _refuse(message: str, hint: str) -> NoReturn:
    raise WrongUseError(message, hint)
