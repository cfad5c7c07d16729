"""One watcher a store: an OS lock beside the sessions, held as long as one watches.

- It ends with its process, however that ends. Children do not inherit it.
- The file is never deleted. A store that was away may have come back as another folder, with a
  watcher of its own: then the lock is to be taken anew.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import filelock

from milepost.errors import AlreadyLockedError, StorageError

if TYPE_CHECKING:
    from milepost.store import Store

LOCK_NAME: Final = "watcher.lock"
_PATIENCE_SECONDS: Final = 0.25


class SoleWatcher:
    """The lock of one store's watcher."""

    def __init__(self, store: Store) -> None:
        self._store = store
        path = os.path.join(store.path, LOCK_NAME)
        self._lock = filelock.FileLock(path, thread_local=False)

    def acquire(self) -> None:
        """Take it, or take it anew.

        Errors: `AlreadyLockedError` where another process watches; `StoreNotFoundError`;
            `StorageError` where the store cannot be written.
        """
        self._store.check()  # the lock's own library would make the folder
        self.release()
        try:
            self._lock.acquire(timeout=_PATIENCE_SECONDS, poll_interval=0.02)
        except filelock.Timeout:
            raise AlreadyLockedError(
                f"another process watches {self._store.path} already",
                operation="lock",
                path=LOCK_NAME,
                hint="one watcher a store is enough; stop that one first",
            ) from None
        except (OSError, NotImplementedError) as error:
            raise StorageError(
                f"cannot lock {LOCK_NAME}: {getattr(error, 'strerror', None) or error}",
                operation="lock",
                path=LOCK_NAME,
                hint="a watcher needs a store that it may write",
            ) from error

    def release(self) -> None:
        """Give it back; a second time does nothing."""
        if self._lock.is_locked:
            self._lock.release(force=True)
