"""Which sessions of a store want a look, at the price of a `stat` each.

- A new writer always takes a new lease, so the folder of the leases tells of it. One look at a
  thousand idle sessions reads none of them.
- No file tells of a process that was killed: sessions that live are asked for their writer's lock
  at every look, and for nothing else.
- A folder that changed within the grain of its own time stamp is looked at again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from milepost.errors import MilepostError, StoreNotFoundError
from milepost.model.status import Presence

if TYPE_CHECKING:
    from milepost.store import Store

_GRAIN_NS: Final = 1_000_000_000
"""Time stamps younger than this may stand for more changes than one."""


class Scanner:
    """Remembers what each session looked like.

    Attributes:
        folders: Absolute paths of the folders in which something changes when a writer comes.
        living: Names of the sessions whose writer's end is looked for.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[str, int] = {}
        self._listed_ns = -1
        self._folders: dict[str, str] = {}
        self.folders: tuple[str, ...] = ()
        self.living: set[str] = set()

    @property
    def names(self) -> set[str]:
        """The sessions that there were at the last look."""
        return set(self._folders)

    def changed(self) -> set[str]:
        """Names of the sessions that are new, or had a new writer since the last look.

        Those that live are left out: their end is what is of interest. Errors:
        `StoreNotFoundError` where the store is gone.
        """
        self._list()
        now_ns = self._store.now_ns()
        found: set[str] = set()
        for name, folder in self._folders.items():
            if name in self.living:
                continue
            try:
                changed_ns = os.stat(folder).st_mtime_ns
            except OSError:
                changed_ns = 0
            if self._seen.get(name) != changed_ns:
                found.add(name)
                self._seen[name] = _settled(changed_ns, now_ns)
        return found

    def ended(self) -> set[str]:
        """Names of the sessions that lived at the last look, and whose writer is gone."""
        found = {name for name in self.living if self._has_ended(name)}
        self.living -= found
        return found

    def _has_ended(self, name: str) -> bool:
        try:
            presence = self._store.presence(name, note=True)
        except StoreNotFoundError:
            return False  # the store is gone as a whole, which is told elsewhere
        except MilepostError:
            return True
        return presence in {Presence.GONE, Presence.SILENT}

    def _list(self) -> None:
        """Read the names anew where the folder of the sessions changed."""
        self._store.check()
        now_ns = self._store.now_ns()
        listed_ns = self._store.sessions_changed_ns()
        if listed_ns == self._listed_ns:
            return
        self._listed_ns = _settled(listed_ns, now_ns)
        self._folders = {
            name: os.path.join(self._store.folder_of(name), "leases")
            for name in self._store.names()
        }
        self.folders = tuple(self._folders.values())
        self._seen = {name: each for name, each in self._seen.items() if name in self._folders}
        self.living &= self._folders.keys()


def _settled(changed_ns: int, now_ns: int) -> int:
    """A time stamp to compare with at the next look; one that is too young equals none."""
    return -1 if 0 <= now_ns - changed_ns < _GRAIN_NS else changed_ns
