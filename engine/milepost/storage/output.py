"""A file of the user's that rows are appended to, exactly as far as they are acknowledged.

- It lies where the user wants it, outside of what a store is made of: nothing is created or cut
  but by who was told its path.
- Each time it is opened, what it ends with is compared with what is known of it. What stands
  behind that end was never acknowledged: it is cut off where it may be ours, else refused.
- Before each write its name and length are looked at: a file that others write, cut, move or delete
  is noticed, not written on.
- `append` and the cuts belong to one thread at a time; `sync` may come from another one.

Source: FORMAT.md, "Outputs".
"""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from milepost.errors import DamagedError, DurabilityLostError, OutputError
from milepost.storage.directory import AppendedFile, Translated, sync_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.storage.syscalls import Syscalls

fcntl: Any = None
with contextlib.suppress(ImportError):  # on Windows nobody else can move or replace it
    import fcntl

_READ_BYTES: Final = 1 << 20


def lacks_rows(path: str, start_bytes: int, length_bytes: int, checksum: int) -> bool:
    """Whether the file is there without the bytes from `start_bytes` on that have this CRC-32.

    No crash takes a file away, or makes it unreadable: such a one is not said to lack anything.
    """
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return _checksum(file.fileno(), start_bytes, length_bytes) != checksum
    except OSError:
        return False


class OutputFile:
    """An output that is open for appending.

    Attributes:
        path: Where it is, absolute.
        users: Who may still write to it.
        cut_bytes: How many bytes behind its last row were cut off when it was taken up again.
    """

    def __init__(self, path: str, system: Syscalls) -> None:
        """Open it, or make it. Errors: `StorageError`."""
        self.path = path
        self._system = system
        with Translated("open", path):
            self._descriptor = system.open_output(path)
        # Where its name is: a link to it may be in another folder.
        self._folder = os.path.dirname(os.path.realpath(path))
        self._file = AppendedFile(system, self._descriptor, path, size_bytes=self.found_bytes())
        # How far a write went that an interruption may have hidden from us.
        self._reach_bytes = self._file.size_bytes
        # Who had it before may have left bytes and a name that are not on the disk yet.
        self._changes = 1
        self._changes_synced = 0
        self._is_name_sure = False
        self.cut_bytes = 0
        self._is_locked = False
        self.users: WeakSet[Any] = WeakSet()

    def found_bytes(self) -> int:
        """How long it is just now."""
        with Translated("look at", self.path):
            return os.fstat(self._descriptor).st_size

    @property
    def length_bytes(self) -> int:
        """How long it is by all that went through here."""
        return self._file.size_bytes

    def cut_back(
        self, start_bytes: int, length_bytes: int, checksum: int, *, may_be_ours: Callable[[], bool]
    ) -> int:
        """Go on behind the last rows that are known; returns how many bytes were cut off.

        `may_be_ours` says whether a run of ours may have left what stands behind them.
        Errors: `DamagedError` where the file does not have these rows, or goes on with bytes of
            somebody else.
        """
        self._lock()
        found = self.found_bytes()
        if found < length_bytes:
            raise self._changed(
                f"has {found:,} bytes, and {length_bytes:,} of it were acknowledged"
            )
        with Translated("read", self.path):
            known = _checksum(self._descriptor, start_bytes, length_bytes)
        if known != checksum:
            raise self._changed(
                f"is not what it was: bytes {start_bytes:,} to {length_bytes:,} are different ones"
            )
        if found > length_bytes:
            if not may_be_ours():
                raise DamagedError(
                    f"the output {self.path} has {found - length_bytes:,} bytes behind the"
                    f" {length_bytes:,} that were acknowledged, and every run ended by itself:"
                    " somebody else wrote them",
                    path=self.path,
                    hint="move these bytes to another file and cut this one to"
                    f" {length_bytes} bytes, or begin the work anew with a new file"
                    if length_bytes
                    else "move the file away, or use another name",
                )
            with Translated("cut back", self.path):
                self._system.truncate(self._descriptor, length_bytes)
        self._ends_at(length_bytes)
        return found - length_bytes

    def begin(self) -> None:
        """Take a file that is nobody's. Errors: `OutputError` where it holds something."""
        self._lock()
        if found := self.found_bytes():
            raise OutputError(
                f"the output {self.path} has {found:,} bytes that this session did not"
                " write, or wrote before it was begun anew or restored",
                hint="move the file away, or use another name",
            )

    def _lock(self) -> None:
        """Keep other sessions out for as long as it is open, where the file system can."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._is_locked = True
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                return  # it has no such locks; each append looks at the length
            raise OutputError(
                f"the output {self.path} is being written by another session",
                hint="use another name, or wait until that one has ended",
            ) from error

    def append(self, data: bytes) -> None:
        """Write all of it at the end, or nothing.

        Errors: `StorageError`; `DamagedError` where others changed it; `DurabilityLostError` once a
            sync of it has failed.
        """
        self.refuse_poisoned()
        with Translated("look at", self.path):
            status = os.fstat(self._descriptor)
        if not self._has_its_name(status):
            raise DamagedError(
                f"the output {self.path} was moved, deleted or replaced while it was being written",
                path=self.path,
                hint="put the file back under this name and run the work again: it goes on behind"
                " the last row that is there; or begin the work anew with a new file",
            )
        if status.st_size != self._file.size_bytes:
            raise self._changed(
                f"has {status.st_size:,} bytes, and {self._file.size_bytes:,} of it are ours:"
                " somebody else writes it"
            )
        self._reach_bytes = self._file.size_bytes + len(data)
        self._file.append(data, len(data))
        # After the write: a sync that runs just now must not take it for its own.
        self._changes += 1

    def _has_its_name(self, status: os.stat_result) -> bool:
        if os.name == "nt":
            return True  # what is open cannot be moved there
        with Translated("look at", self.path):
            try:
                return os.path.samestat(os.stat(self.path), status)
            except (FileNotFoundError, NotADirectoryError):
                return False

    def take_back(self, length_bytes: int) -> None:
        """Cut off rows whose acknowledgement failed, also where an interruption hid them.

        On return they are off the disk, too: no power cut brings them back behind a run's end.
        """
        if self._reach_bytes <= length_bytes:
            return
        with Translated("cut back", self.path):
            self._system.truncate(self._descriptor, length_bytes)
        self._changes += 1
        self.sync()
        self._ends_at(length_bytes)

    def _ends_at(self, length_bytes: int) -> None:
        self._file.size_bytes = self._reach_bytes = length_bytes
        self._changes += 1

    def sync(self) -> None:
        """Return when all that was appended before the call is on the disk.

        Errors: `DurabilityLostError`, from then on for good: nobody knows which rows were lost.
        """
        changes = self._changes
        if changes == self._changes_synced:
            return
        try:
            self._file.sync()
        except DurabilityLostError as error:
            raise self._lost() from error
        if not self._is_name_sure:
            sync_names(self._system, self._folder)
            self._is_name_sure = True
        self._changes_synced = changes

    def refuse_poisoned(self) -> None:
        """Raise if a sync or a cut failed before."""
        if self._file.poisoned:
            raise self._lost()

    def _lost(self) -> DurabilityLostError:
        return DurabilityLostError(
            f"the output {self.path} takes nothing more: a sync or a cut of it failed, and rows"
            " that were not on the disk yet may be lost",
            operation="fsync",
            path=self.path,
            hint="check the disk, then run the work again: it goes on behind the last row that is"
            " there",
        )

    def close(self) -> None:
        """Close it; a second time does nothing."""
        if self._is_locked:
            self._is_locked = False
            with contextlib.suppress(OSError):  # a child that was forked just then may hold it, too
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._file.close()

    def close_after_fork(self) -> None:
        """Close the child's descriptor."""
        self._file.close_after_fork()

    def _changed(self, what: str) -> DamagedError:
        return DamagedError(
            f"the output {self.path} {what}",
            path=self.path,
            hint="put the file back as it was, or begin the work anew with a new file",
        )


def _checksum(descriptor: int, start: int, stop: int) -> int | None:
    """CRC-32 of a stretch; `None` where the file ends before it."""
    value = 0
    while start < stop:
        # Read at an offset, so that nobody's position in the file is moved.
        data = _read_at(descriptor, min(_READ_BYTES, stop - start), start)
        if not data:
            return None
        value = zlib.crc32(data, value)
        start += len(data)
    return value


def _seek_and_read(descriptor: int, size: int, offset: int, /) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, size)


_read_at = getattr(os, "pread", _seek_and_read)
