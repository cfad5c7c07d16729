"""Where a store is when nobody says, and the commands that find it there."""

from __future__ import annotations

import os
import shlex
from typing import Final

from milepost.errors import MilepostError
from milepost.settings.configuration import Setting, configuration
from milepost.settings.file import upwards

DEFAULT_NAME: Final = ".milepost"


def resolve_path(path: str | os.PathLike[str] | None = None) -> str:
    """Where the store is, as an absolute path.

    The argument, else `$MILEPOST_STORE`, else `store` in the user's file, else the nearest
    `.milepost` upwards from the current folder, else a new `.milepost` here.
    """
    found: str = find_store(path).value
    return found


def find_store(path: str | os.PathLike[str] | None = None, *, start: str | None = None) -> Setting:
    """The same with why it is this one; `start` is where the user's file is looked for."""
    if path is not None:
        return Setting("store", os.path.abspath(os.fspath(path)), "given")
    named = os.environ.get("MILEPOST_STORE")
    if named:
        return Setting("store", os.path.abspath(named), "$MILEPOST_STORE")
    in_file = configuration(start).store()
    if in_file is not None:
        return in_file
    here = os.getcwd()
    for folder in upwards(here):
        candidate = os.path.join(folder, DEFAULT_NAME)
        if os.path.isdir(candidate):
            return Setting("store", candidate, f"the nearest {DEFAULT_NAME} upwards from here")
    return Setting("store", os.path.join(here, DEFAULT_NAME), "a new one in the current folder")


def command(store: str, *words: str) -> str:
    """The `milepost` command to type, with the store where it would not be found by itself."""
    return shlex.join(["milepost", *words, *([] if _is_found(store) else ["--store", store])])


def _is_found(store: str) -> bool:
    try:
        return bool(find_store(start=os.getcwd()).value == store)
    except (OSError, MilepostError):
        return False  # the current folder is gone, or its file is wrong
