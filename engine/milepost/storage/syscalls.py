"""The operating system's calls that a store is written with, behind one small seam.

- Every change to a store passes here, so a test can crash, fail or tear any single one of them,
  and can forget what was never synced.
- Nothing is decided here: no retry, no cleaning up, no translation of errors.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

_BINARY = getattr(os, "O_BINARY", 0)
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


class Syscalls(Protocol):
    """What a store asks of the operating system; every method raises `OSError`."""

    def open_new(self, path: str) -> int:
        """Create a file that must not be there and return its descriptor, for writing."""
        ...

    def open_output(self, path: str) -> int:
        """Open a file of the user's for reading and writing; make it where it is not there."""
        ...

    def pwrite(self, descriptor: int, data: Buffer, offset: int, /) -> int:
        """Write at an offset; return how many bytes were taken, maybe fewer than given."""
        ...

    def allocate(self, descriptor: int, offset: int, size_bytes: int) -> None:
        """Extend the file by zeros that have their blocks; `OSError` where that is not known."""
        ...

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Cut the file to a size."""
        ...

    def sync(self, descriptor: int) -> None:
        """Return when the file's bytes and its size are on the disk."""
        ...

    def sync_folder(self, path: str) -> None:
        """Return when the names in the folder are on the disk."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Give a file or folder another name, at once; a file in its place is replaced."""
        ...

    def remove(self, path: str) -> None:
        """Take a file's name away."""
        ...

    def make_folder(self, path: str) -> None:
        """Make one folder that must not be there."""
        ...

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder."""
        ...


class OperatingSystem:
    """The real calls."""

    def open_new(self, path: str) -> int:
        """Create a file that must not be there; a link in its place is not followed."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY | _NO_FOLLOW, 0o666)

    def open_output(self, path: str) -> int:
        """Open a file of the user's; a link is theirs to set."""
        return os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)

    def pwrite(self, descriptor: int, data: Buffer, offset: int, /) -> int:
        """Write at an offset, also where the system has no one call for it."""
        return _pwrite(descriptor, data, offset)

    def allocate(self, descriptor: int, offset: int, size_bytes: int) -> None:
        """Extend by allocated zeros, so that a later sync need not write the file's size."""
        os.posix_fallocate(descriptor, offset, size_bytes)

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Cut the file to a size."""
        os.ftruncate(descriptor, size_bytes)

    def sync(self, descriptor: int) -> None:
        """Sync data and size; on macOS through the drive's cache as well."""
        _sync(descriptor)

    def sync_folder(self, path: str) -> None:
        """Sync a folder's names. Windows has no such call: its renames are journaled."""
        if os.name == "nt":
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: str, target: str) -> None:
        """Give another name."""
        os.replace(source, target)

    def remove(self, path: str) -> None:
        """Take a file's name away."""
        os.unlink(path)

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder."""
        os.rmdir(path)

    def make_folder(self, path: str) -> None:
        """Make one folder."""
        os.mkdir(path)


def _choose_sync() -> Callable[[int], None]:
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415  # there is no such module on Windows

        def full_sync(descriptor: int) -> None:
            # fsync alone leaves the bytes in the drive's own cache there.
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)

        return full_sync
    return getattr(os, "fdatasync", os.fsync)


def _seek_and_write(descriptor: int, data: Buffer, offset: int, /) -> int:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.write(descriptor, data)


_sync = _choose_sync()
_pwrite = getattr(os, "pwrite", _seek_and_write)
