"""The progress line of `milepost run`: rich's on a terminal that has rich, else a plain one."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

import milepost

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


def factory() -> Callable[[milepost.Session], AbstractContextManager[object]]:
    """What shows a session's progress here."""
    if sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
        from milepost_cli.rich_progress import RichProgress  # noqa: PLC0415  # rich is optional

        return RichProgress
    return milepost.PlainProgress
