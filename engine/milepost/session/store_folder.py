"""The folder of a store: its marker, and where its sessions are.

- A folder that has `sessions/` and no `MILEPOST` is a damaged store, never a new one.
- Names of sessions and names of folders are two things; what fits neither is a stranger.

Source: FORMAT.md, "Store".
"""

from __future__ import annotations

import contextlib
import errno
import unicodedata
from typing import TYPE_CHECKING, Final

from milepost.errors import (
    FormatError,
    NotAMilepostFileError,
    SessionNotFoundError,
    StorageError,
    StoreNotFoundError,
    UnsupportedVersionError,
)
from milepost.session import history
from milepost.session.turn import Site
from milepost.snapshots import backups
from milepost.storage import lease as leases
from milepost.storage import marker
from milepost.storage.directory import TEMPORARY_SUFFIX, LocalDirectory
from milepost.storage.names import check_name, folder_name, is_hashed, session_name

if TYPE_CHECKING:
    from collections.abc import Generator

    from milepost.clock import Clock
    from milepost.types import StoreConfig

MARKER: Final = marker.NAME
SESSIONS: Final = "sessions"
_READ_ONLY: Final = {errno.EACCES, errno.EPERM, errno.EROFS}
_READS: Final = {"read", "list", "stat"}


class StoreFolder:
    """A folder that is a store, or will be one. Making the object touches no disk."""

    def __init__(self, directory: LocalDirectory, config: StoreConfig, clock: Clock) -> None:
        self.directory = directory
        self._config = config
        self._clock = clock

    @property
    def path(self) -> str:
        """Its absolute path."""
        return self.directory.root

    def exists(self) -> bool:
        """Whether there is a store, whole or damaged."""
        return self.directory.exists(MARKER) or self.directory.exists(SESSIONS)

    def check(self) -> None:
        """Raise unless the folder is a store that this milepost can read.

        Errors: `StoreNotFoundError`; `FormatError` for a damaged marker; `UnsupportedVersionError`
            for a newer format.
        """
        if not self.directory.exists(MARKER):
            if self.directory.exists(SESSIONS):
                raise NotAMilepostFileError(
                    f"{self.path} has sessions but no {MARKER} file: the store is damaged",
                    path=MARKER,
                    hint=self._marker_hint(),
                )
            self._refuse_file()
            raise StoreNotFoundError(
                f"there is no store at {self.path}",
                hint="name one with --store or $MILEPOST_STORE, or run a job to make one",
            )
        try:
            marker.decode_marker(self.directory.read(MARKER, size_bytes_max=marker.BYTES_MAX))
        except UnsupportedVersionError:
            raise
        except FormatError as error:
            error.hint = self._marker_hint()
            raise

    def _marker_hint(self) -> str:
        root = self.backup_root()
        if root is not None and root.exists(MARKER):
            return f"copy it back from its backup: cp {root.full(MARKER)} {self.path}"
        return f"copy {MARKER} back from where the folder came from"

    def ensure(self) -> None:
        """Make the store where there is none. Errors: as `check`; a folder with other things."""
        if self.exists():
            self.check()
            self._copy_marker()
            return
        self._refuse_file()
        directory = self.directory
        # Another process may be making it just now: what is on its way is nobody's thing.
        others = [name for name in directory.names() if not name.endswith(TEMPORARY_SUFFIX)]
        if others and not self.exists():
            raise StoreNotFoundError(
                f"{self.path} is a folder with other things in it, not a store",
                hint="name an empty or a new folder",
            )
        directory.make_folders()
        try:
            directory.publish(MARKER, marker.encode_marker(self._clock.now_ns()))
        except StorageError:
            if not directory.exists(MARKER):
                raise
            # Another process was quicker, and its marker is as good.
        self.check()
        directory.make_folders(SESSIONS)
        self._copy_marker()

    def _refuse_file(self) -> None:
        status = self.directory.stat()
        if status is not None and not status.is_folder:
            raise StoreNotFoundError(
                f"{self.path} is a file; a store is a folder",
                hint="name a folder with --store or $MILEPOST_STORE",
            )

    @contextlib.contextmanager
    def writable(self) -> Generator[None]:
        """One error where the store must not be written, whatever was to be written first."""
        try:
            yield
        except StorageError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in _READ_ONLY:
                raise
            if error.operation in _READS:
                raise
            raise StorageError(
                f"the store at {self.path} cannot be written: {cause.strerror}",
                operation=error.operation,
                path=error.path,
                hint="make it writable, or go on with a copy of it",
            ) from error

    def _copy_marker(self) -> None:
        """Have the marker a second time, in the backups; a failure fails nothing."""
        root = self.backup_root()
        if root is None or root.exists(MARKER):
            return
        with contextlib.suppress(StorageError):
            data = self.directory.read(MARKER, size_bytes_max=marker.BYTES_MAX)
            root.make_folders()
            root.publish(MARKER, data)

    def site(self, name: str) -> Site:
        """Where a session of this name is, whether it is there or not."""
        checked = check_name(name)
        folder = folder_name(checked)
        if not self.directory.exists(f"{SESSIONS}/{folder}"):
            # A copy by way of another system may have taken the accents of its name apart.
            folder = next(
                (
                    each
                    for each in self.directory.names(SESSIONS)
                    if unicodedata.normalize("NFC", each) == folder
                ),
                folder,
            )
        return Site(self.directory.folder(f"{SESSIONS}/{folder}"), folder, checked)

    def place(self, name: str) -> Site:
        """Where a session is or will be, in a store that is made where there is none."""
        check_name(name)  # before a store is made for it
        with self.writable():
            self.ensure()
        return self.site(name)

    def existing(self, name: str) -> Site:
        """Where a session is. Errors: `SessionNotFoundError`."""
        self.check()
        site = self.site(name)
        status = site.folder.stat()
        if status is None or not status.is_folder:
            known = ", ".join(sorted(self.names())[:5])
            raise SessionNotFoundError(
                f"there is no session {name!r} in {self.path}",
                hint=f"there are: {known}" if known else "the store has no session yet",
            )
        return site

    def backup_root(self) -> LocalDirectory | None:
        """Where backups of all sessions go; `None` for none."""
        if not self._config.backup_enabled:
            return None
        if self._config.backup_path is None:
            return self.directory.folder(backups.FOLDER)
        return LocalDirectory(self._config.backup_path, system=self.directory.system)

    def files(self, site: Site) -> history.Files:
        """The files of a session, and where second copies of them may be."""
        root = self.backup_root()
        if root is None:
            return history.Files(site.folder, (), site.name or None)
        lease = leases.newest_lease(site.folder, session=site.name or None)
        found = backups.find(root, lease.lineage if lease else None, site.folder_name)
        return history.Files(site.folder, tuple(found), site.name or None)

    def names(self) -> list[str]:
        """The names of all sessions."""
        self.check()
        found: list[str] = []
        for folder in self.directory.names(SESSIONS):
            status = self.directory.stat(f"{SESSIONS}/{folder}")
            if folder.startswith(".") or status is None or not status.is_folder:
                continue
            name = session_name(folder)
            if name is None and is_hashed(folder):
                lease = leases.newest_lease(self.directory.folder(f"{SESSIONS}/{folder}"))
                if lease is not None and folder_name(lease.session) == folder:
                    name = lease.session
            if name is not None:
                found.append(name)
        return sorted(found)
