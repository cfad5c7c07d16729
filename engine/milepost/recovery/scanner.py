"""Which sessions of a store changed since the last look, at the price of a `stat` each.

- A new writer always takes a new lease, so the folder of the leases tells of it. One look at a
  thousand idle sessions reads none of them.
- No file tells of a process that was killed: sessions that live are asked for their writer's lock
  at every look.
- A folder that changed within the grain of its own time stamp is looked at again.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from milepost.errors import MilepostError
from milepost.model.status import Presence

if TYPE_CHECKING:
    from milepost.store import Store

SCAN_SECONDS: Final = 2.0
"""How often all sessions are looked at where no file event asks for it earlier."""

_GRAIN_NS: Final = 1_000_000_000
"""Time stamps younger than this may stand for more changes than one."""


class Scanner:
    """Remembers what each session looked like."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[str, int] = {}
        self._folders: dict[str, str] = {}
        self._listed_ns = -1
        self.living: set[str] = set()
        """Names of the sessions that had a writer at the last look."""

    @property
    def folders(self) -> list[str]:
        """Absolute paths of the folders in which something changes when a writer comes."""
        return list(self._folders.values())

    def note_living(self, name: str, *, lives: bool) -> None:
        """Say whether a session has a writer, so that its end is looked for."""
        if lives:
            self.living.add(name)
        else:
            self.living.discard(name)

    def changed(self) -> set[str]:
        """Names of the sessions that are new, or had a new writer since the last look.

        Errors: `StoreNotFoundError` where the store is gone.
        """
        self._list()
        now_ns = time.time_ns()
        found: set[str] = set()
        for name, folder in self._folders.items():
            try:
                changed_ns = os.stat(folder).st_mtime_ns
            except OSError:
                changed_ns = 0
            if self._seen.get(name) != changed_ns:
                found.add(name)
                is_settled = not 0 <= now_ns - changed_ns < _GRAIN_NS
                self._seen[name] = changed_ns if is_settled else -1
        return found

    def ended(self) -> set[str]:
        """Names of the sessions that lived at the last look, and whose writer is gone."""
        found: set[str] = set()
        for name in self.living:
            try:
                presence = self._store.presence(name, note=True)
            except MilepostError:
                presence = Presence.GONE
            if presence in {Presence.GONE, Presence.SILENT}:
                found.add(name)
        self.living -= found
        return found

    def _list(self) -> None:
        """Read the names anew where the folder of the sessions changed."""
        self._store.check()
        listed_ns = self._store.sessions_changed_ns()
        if listed_ns == self._listed_ns:
            return
        is_settled = not 0 <= time.time_ns() - listed_ns < _GRAIN_NS
        self._listed_ns = listed_ns if is_settled else -1
        self._folders = {
            name: os.path.join(self._store.folder_of(name), "leases")
            for name in self._store.names()
        }
        for gone in self._seen.keys() - self._folders.keys():
            del self._seen[gone]
            self.living.discard(gone)
