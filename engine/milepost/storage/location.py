"""Where a store is when nobody says, and the commands that find it there."""

from __future__ import annotations

import os
import shlex
from typing import Final

DEFAULT_NAME: Final = ".milepost"


def resolve_path(path: str | os.PathLike[str] | None = None) -> str:
    """Where the store is, as an absolute path.

    The argument, else `$MILEPOST_STORE`, else the nearest `.milepost` upwards from the current
    folder, else a new `.milepost` here.
    """
    if path is not None:
        return os.path.abspath(os.fspath(path))
    named = os.environ.get("MILEPOST_STORE")
    if named:
        return os.path.abspath(named)
    here = os.getcwd()
    folder = here
    while True:
        candidate = os.path.join(folder, DEFAULT_NAME)
        if os.path.isdir(candidate):
            return candidate
        above = os.path.dirname(folder)
        if above == folder:
            return os.path.join(here, DEFAULT_NAME)
        folder = above


def command(store: str, *words: str) -> str:
    """The `milepost` command to type, with the store where it would not be found by itself."""
    return shlex.join(["milepost", *words, *([] if _is_found(store) else ["--store", store])])


def _is_found(store: str) -> bool:
    try:
        return resolve_path() == store
    except OSError:
        return False  # the current folder is gone
