"""The user's own file: `milepost.toml`, or a `pyproject.toml` with a `[tool.milepost]` table.

- The nearest one counts, upwards from the folder of the program that runs, and nothing above it.
- Never one inside a store: a store may come from anywhere, and it has no say in what is done.
- It is right as a whole or refused, so a mistyped key is not left out in silence.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final, cast

from milepost.errors import ConfigurationError
from milepost.settings.schema import check_file

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from milepost.settings.lines import Place

FILE: Final = "milepost.toml"
PROJECT_FILE: Final = "pyproject.toml"
STORE_MARKER: Final = "MILEPOST"
_BOM: Final = b"\xef\xbb\xbf"
_SPEAKS: Final = re.compile(
    rb"^(?:\xef\xbb\xbf)?[ \t]*\[*[ \t]*([\"']?)tool\1[ \t]*\.[ \t]*([\"']?)milepost\2[ \t]*[].=]",
    re.MULTILINE,
)
"""A line of a `pyproject.toml` that is for us, also where the file as a whole cannot be read."""

_told: str | None = None


@contextlib.contextmanager
def searching_from(folder: str | os.PathLike[str]) -> Generator[None]:
    """In this block the file is looked for upwards from this folder.

    For who runs somebody else's program: `milepost run` is the main script then, and not meant.
    """
    global _told  # noqa: PLW0603  # of the whole process, as the main script is
    before, _told = _told, os.fspath(folder)
    try:
        yield
    finally:
        _told = before


def search_start() -> str:
    """Where the search begins: the main script's folder; without a script, the current one.

    Of a script behind a link it is the real folder, as it is on `sys.path`.
    """
    if _told is not None:
        return os.path.abspath(_told)
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.dirname(os.path.realpath(script)) if script else os.getcwd()


class ConfigFile:
    """A file as it was read.

    Attributes:
        path: Where it is, absolute.
        folder: Where it lies.
        table: What it says to milepost.
    """

    def __init__(self, path: str, text: str, table: dict[str, Any], root: Place) -> None:
        self.path = path
        self.folder = os.path.dirname(path)
        self.table = table
        self._text = text
        self._root = root

    def where(self, *place: str | int) -> str:
        """File and line of a key, as `path:12`."""
        from milepost.settings.lines import line_of  # noqa: PLC0415  # for who has a file alone

        line = line_of(self._lines, (*self._root, *place))
        return self.path if line is None else f"{self.path}:{line}"

    @functools.cached_property
    def _lines(self) -> dict[Place, int]:
        from milepost.settings.lines import lines_of  # noqa: PLC0415  # the same

        return lines_of(self._text)


def find_file(start: str | None = None) -> ConfigFile | None:
    """The file that counts, upwards from a folder; `None` without one.

    Errors: `ConfigurationError` naming file, line and key.
    """
    try:
        folder = search_start() if start is None else start
    except OSError:
        return None  # the current folder is gone
    for each in upwards(folder):
        for name in (FILE, PROJECT_FILE):
            path = os.path.join(each, name)
            if os.path.isfile(path) and not _is_in_store(each):
                found = _read(path)
                if found is not None:
                    return found
    return None


def upwards(folder: str) -> Iterator[str]:
    """A folder and all above it, the nearest first."""
    while True:
        yield folder
        above = os.path.dirname(folder)
        if above == folder:
            return
        folder = above


def _is_in_store(folder: str) -> bool:
    return any(
        os.path.isfile(os.path.join(each, STORE_MARKER))
        for each in upwards(os.path.realpath(folder))
    )


def _read(path: str) -> ConfigFile | None:
    try:
        status = os.stat(path)
        return _parsed(path, (status.st_mtime_ns, status.st_size, status.st_ino))
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}", hint="make it readable"
        ) from error
    except RecursionError:  # its traceback would tell a thousand times the same
        raise ConfigurationError(
            f"{path} is nested too deeply to be read", hint="take the deepest value out"
        ) from None


@functools.lru_cache(maxsize=8)
def _parsed(path: str, _version: tuple[int, ...]) -> ConfigFile | None:
    """What the file says, read again when it changes; `None` where it does not speak to us."""
    with open(path, "rb") as opened:
        data = opened.read()
    is_project = os.path.basename(path) == PROJECT_FILE
    if is_project and b"milepost" not in data:
        return None
    import tomllib  # noqa: PLC0415  # most programs have no such file, and it takes milliseconds

    try:
        text = data.decode()
        told: Any = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOML, or UTF-8
        if is_project and not _SPEAKS.search(data):
            return None  # other tools complain of it in their own words
        if isinstance(error, RecursionError):
            raise
        raise _no_toml(path, data, error) from error
    root: Place = ()
    if is_project:
        root = ("tool", "milepost")
        tool = told.get("tool")
        told = cast("dict[str, Any]", tool).get("milepost") if isinstance(tool, dict) else None
        if not isinstance(told, dict):
            return None
    file = ConfigFile(path, text, cast("dict[str, Any]", told), root)
    check_file(file.table, file.where)
    return file


def _no_toml(path: str, data: bytes, error: ValueError) -> ConfigurationError:
    if data.startswith(_BOM):
        return ConfigurationError(
            f"{path}:1: the file begins with a BOM (byte order mark), and is not TOML",
            hint="save it as UTF-8 without a BOM",
        )
    why, place = str(error), path
    if isinstance(error, UnicodeDecodeError):
        why = f"it is not UTF-8: {error.reason}"
        line = data.count(b"\n", 0, error.start) + 1
        place = f"{path}:{line}"
    return ConfigurationError(
        f"{place} is not TOML: {why}", hint='correct it; a setting is a line: name = "value"'
    )
