"""File events as hints: something changed in the store, look now rather than later.

- Nothing depends on them: they are silent on network folders, and after a folder was deleted and
  made again. The timer finds everything by itself.
- Only the folders in which a new writer shows are watched, so a busy journal wakes nobody.
- What the system refuses (too many watches, too many instances) is told once, and the timer goes on
  alone; from time to time it is tried again.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

RETRY_SECONDS: Final = 60.0
_STEP_MS: Final = 200
"""How often the watching thread wakes; a hint need not be quicker, and a sleeper costs nothing."""


class FileHints:
    """Watches folders in a thread of its own."""

    def __init__(
        self,
        root: str,
        on_change: Callable[[], None],
        on_trouble: Callable[[str], None],
        *,
        events: Callable[[Sequence[str], threading.Event], Iterator[object]] | None = None,
    ) -> None:
        """`root` is the store; both callbacks are called from the thread.

        `events` yields whenever something changed in one of these folders, until the event is set;
        by default it is the system's file events.
        """
        self._root = root
        self._on_change = on_change
        self._on_trouble = on_trouble
        self._events = events or _file_events
        self._folders: Sequence[str] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._retry_at = 0.0
        self._told: set[str] = set()

    def follow(self, folders: Sequence[str]) -> None:
        """Watch these folders from now on; the same again costs nothing."""
        alive = self._thread is not None and self._thread.is_alive()
        if (alive and folders == self._folders) or (
            not alive and time.monotonic() < self._retry_at
        ):
            return
        self.close()
        self._folders = folders
        self._retry_at = time.monotonic() + RETRY_SECONDS
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, args=(folders, self._stop), name="milepost-hints", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Watch nothing any more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self, folders: Sequence[str], stop: threading.Event) -> None:
        paths = (self._root, os.path.join(self._root, "sessions"), *folders)
        there = [path for path in paths if os.path.isdir(path)]
        try:
            for _ in self._events(there, stop):
                self._on_change()
        except FileNotFoundError:
            return  # it went between our look and theirs; tried again like all the rest
        except Exception as error:  # whatever it is, the timer goes on without
            message = f"no file events ({error}); looking every few seconds instead"
            if message not in self._told:
                self._told.add(message)
                self._on_trouble(message)


def _file_events(folders: Sequence[str], stop: threading.Event) -> Iterator[object]:
    import watchfiles  # noqa: PLC0415  # only a watcher pays for it

    return watchfiles.watch(
        *folders,
        watch_filter=None,
        debounce=_STEP_MS,
        step=_STEP_MS,
        stop_event=stop,
        recursive=False,
        raise_interrupt=False,
    )
