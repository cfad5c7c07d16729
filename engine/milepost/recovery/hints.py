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
    from collections.abc import Callable, Sequence

RETRY_SECONDS: Final = 60.0
_STEP_MS: Final = 100
_DEBOUNCE_MS: Final = 200
_TIMEOUT_MS: Final = 5_000


class FileHints:
    """Watches folders in a thread of its own."""

    def __init__(
        self, root: str, on_change: Callable[[], None], on_trouble: Callable[[str], None]
    ) -> None:
        """`root` is the store; both callbacks are called from the thread."""
        self._root = root
        self._on_change = on_change
        self._on_trouble = on_trouble
        self._paths: tuple[str, ...] = ()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._retry_at = 0.0
        self._told = ""

    def follow(self, folders: Sequence[str]) -> None:
        """Watch these folders from now on; the same again costs nothing."""
        paths = (self._root, os.path.join(self._root, "sessions"), *folders)
        alive = self._thread is not None and self._thread.is_alive()
        if (alive and paths == self._paths) or (not alive and time.monotonic() < self._retry_at):
            return
        self.close()
        self._paths = paths
        self._retry_at = time.monotonic() + RETRY_SECONDS
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, args=(paths, self._stop), name="milepost-hints", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Watch nothing any more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self, paths: tuple[str, ...], stop: threading.Event) -> None:
        import watchfiles  # noqa: PLC0415  # only a watcher pays for it

        there = [path for path in paths if os.path.isdir(path)]
        try:
            for _ in watchfiles.watch(
                *there,
                watch_filter=None,
                debounce=_DEBOUNCE_MS,
                step=_STEP_MS,
                rust_timeout=_TIMEOUT_MS,
                stop_event=stop,
                recursive=False,
                raise_interrupt=False,
            ):
                self._on_change()
        except Exception as error:  # whatever it is, the timer goes on without
            if str(error) != self._told:
                self._told = str(error)
                self._on_trouble(f"no file events ({error}); looking every few seconds instead")
