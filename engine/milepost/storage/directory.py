"""A folder on this machine, and the one right order of calls to change it.

- Paths are relative to the root, with `/`, and cannot leave it; links are not followed.
- An immutable file appears whole or not at all: temporary name in the same folder → write → fsync
  → rename → fsync of the folder. What mentions it is written after `publish` returned.
- An appended file keeps its last good length: a short write or a full disk cuts it back to it.
- A failed fsync poisons its file: the kernel may have dropped the bytes, so a second fsync that
  succeeds proves nothing. Everything after it on that file raises `DurabilityLostError`.
- A folder fsync that the file system does not have (EINVAL, ENOTSUP) is tolerated; EIO never.

Source: FORMAT.md, "Write order".
"""

from __future__ import annotations

import errno
import logging
import os
import stat as stat_module
import threading
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from milepost.errors import DurabilityLostError, StorageError, StorageFullError
from milepost.storage.syscalls import OperatingSystem, Syscalls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

logger = logging.getLogger("milepost.storage")

TEMPORARY_SUFFIX = ".tmp"
"""Files whose name ends so were never published: to be ignored, and removed by the writer."""

_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_READ_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a pipe in a store must keep no reader waiting
)
_ALLOCATION_BYTES = 1 << 20


class Stat(NamedTuple):
    """What is known of a file or folder without opening it.

    Attributes:
        size_bytes: Length of a file.
        inode: What tells a folder from its copy, on one file system.
        modified_ns: Wall clock of the last change; a hint, nothing is decided by it alone.
        is_folder: Folder or file.
    """

    size_bytes: int
    inode: int
    modified_ns: int
    is_folder: bool


class Translated:
    """Turns an `OSError` into ours, at the one seam where it may appear.

    A class and no generator: those leave the error in a cycle with its frames, and a loop that is
    left would then be closed at some later garbage collection instead of now.
    """

    __slots__ = ("_operation", "_path")

    def __init__(self, operation: str, path: str) -> None:
        self._operation = operation
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise _storage_error(error, self._operation, self._path) from error


def sync_names(system: Syscalls, folder: str) -> None:
    """Make the names in a folder durable, as far as its file system does that at all."""
    try:
        system.sync_folder(folder)
    except OSError as error:
        if error.errno in _NO_FOLDER_SYNC:
            logger.debug("%s: the file system has no folder fsync (%s)", folder, error.strerror)
            return
        raise _storage_error(error, "fsync", folder) from error


def _storage_error(error: OSError, operation: str, path: str) -> StorageError:
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return StorageFullError(
            f"no room left to {operation} {path}: {reason}",
            operation=operation,
            path=path,
            hint="free some space and repeat the call; what was acknowledged is kept",
        )
    return StorageError(f"cannot {operation} {path}: {reason}", operation=operation, path=path)


class AppendedFile:
    """A file that grows at its end, in the hands of one writer.

    `append` belongs to one thread at a time; `sync` and `close` may come from another one.
    """

    def __init__(
        self,
        system: Syscalls,
        descriptor: int,
        path: str,
        *,
        preallocate: bool = False,
        size_bytes: int = 0,
    ) -> None:
        self._system = system
        self._pwrite = system.pwrite
        self._descriptor = descriptor
        self._allocated = 0 if preallocate else -1
        self._poison: str | None = None
        self._closing = threading.RLock()  # what is collected meanwhile may sync or close, too
        self.path = path
        self.size_bytes = size_bytes

    @property
    def poisoned(self) -> bool:
        """Whether a sync or a cut failed, so that nothing may be acknowledged through it."""
        return self._poison is not None

    def append(self, data: Buffer, size_bytes: int) -> None:
        """Write all of it at the end, or none of it.

        Errors: `StorageFullError` and `StorageError` with the file at its former length;
            `DurabilityLostError` once the file is poisoned.
        """
        self._refuse_poisoned()
        if 0 <= self._allocated < self.size_bytes + size_bytes:
            self._allocate(size_bytes)
        try:
            written = self._pwrite(self._descriptor, data, self.size_bytes)
            while written < size_bytes:
                rest = memoryview(data)[written:]
                taken = self._pwrite(self._descriptor, rest, self.size_bytes + written)
                if taken == 0:
                    raise OSError(errno.EIO, "the system took no byte")
                written += taken
        except OSError as error:
            self._cut_back()
            raise _storage_error(error, "write", self.path) from error
        self.size_bytes += size_bytes

    def _allocate(self, size_bytes: int) -> None:
        """Put zeros with blocks ahead, so that a sync writes no metadata; or do without."""
        start = max(self._allocated, self.size_bytes)
        size = max(_ALLOCATION_BYTES, size_bytes)
        try:
            self._system.allocate(self._descriptor, start, size)
            self._allocated = start + size
        except (OSError, AttributeError):
            self._allocated = -1

    def _cut_back(self) -> None:
        try:
            self._system.truncate(self._descriptor, self.size_bytes)
        except OSError as error:
            self._poison = f"its tail could not be cut back: {error.strerror}"
        if self._allocated >= 0:
            self._allocated = self.size_bytes

    def sync(self) -> None:
        """Return when all that was appended before the call is on the disk."""
        with self._closing:
            self._refuse_poisoned()
            try:
                self._system.sync(self._descriptor)
            except OSError as error:
                self._poison = f"fsync failed: {error.strerror}"
                self._refuse_poisoned(error)

    def _refuse_poisoned(self, cause: OSError | None = None) -> None:
        if self._poison is not None:
            raise DurabilityLostError(
                f"{self.path} takes nothing more: {self._poison}",
                operation="fsync",
                path=self.path,
                hint="check the disk; the next call goes on with a snapshot and a new journal",
            ) from cause

    def overwrite(self, data: Buffer) -> None:
        """Write at the start, in place; only for the heartbeat, which nothing is built on."""
        with self._closing, Translated("write", self.path):
            if self._descriptor >= 0:
                self._system.pwrite(self._descriptor, data, 0)

    def trim(self) -> None:
        """Give back what was allocated ahead; a failure to do so loses nothing."""
        if self._allocated > self.size_bytes:
            with self._closing, suppress(OSError):
                self._system.truncate(self._descriptor, self.size_bytes)
            self._allocated = self.size_bytes

    def close(self) -> None:
        """Close the descriptor; a second time does nothing."""
        with self._closing:
            descriptor, self._descriptor = self._descriptor, -1
            self._poison = self._poison or "it is closed"
            if descriptor >= 0:
                with suppress(OSError):
                    os.close(descriptor)

    def __del__(self) -> None:
        # A Ctrl-C between opening it and keeping it leaves nobody else who would close it.
        if getattr(self, "_descriptor", -1) >= 0:
            with suppress(OSError):
                os.close(self._descriptor)

    def close_after_fork(self) -> None:
        """Close the child's descriptor without the lock, whose owner may not exist here."""
        descriptor, self._descriptor = self._descriptor, -1
        self._poison = "it belongs to the parent process"
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)


class LocalDirectory:
    """A folder of this machine: reading at will, writing in the right order."""

    def __init__(self, root: str, *, system: Syscalls | None = None) -> None:
        self.root = os.path.abspath(root)  # keeps links in the user's own path
        self.system: Syscalls = system or OperatingSystem()

    def __repr__(self) -> str:
        return f"LocalDirectory({self.root!r})"

    def folder(self, path: str) -> LocalDirectory:
        """The same machinery with one of our folders as the root."""
        return LocalDirectory(self.full(path), system=self.system)

    def full(self, path: str) -> str:
        """The absolute path, which cannot be outside the root."""
        parts = path.split("/") if path else []
        if any(part in {"", ".", ".."} or "\\" in part or "\0" in part for part in parts):
            raise ValueError(f"not a path inside a store: {path!r}")
        return os.path.join(self.root, *parts)

    def _inside(self, path: str) -> str:
        """The absolute path; no folder on the way from the root to it may be a link."""
        full = self.full(path)
        folder = os.path.dirname(full)
        while len(folder) > len(self.root):
            if os.path.islink(folder):
                raise OSError(errno.ELOOP, f"{os.path.basename(folder)} is a link")
            folder = os.path.dirname(folder)
        return full

    # Reading.

    def read(self, path: str, *, size_bytes_max: int) -> bytes:
        """The whole file, refused before it is read where it is larger than the bound."""
        with Translated("read", path):
            descriptor = os.open(self._inside(path), _READ_FLAGS)
            try:
                status = os.fstat(descriptor)
                if not stat_module.S_ISREG(status.st_mode):
                    raise OSError(errno.EINVAL, "it is no plain file")
                if status.st_size > size_bytes_max:
                    raise StorageError(
                        f"cannot read {path}: {status.st_size:,} bytes are more than the"
                        f" {size_bytes_max:,} that such a file may have",
                        operation="read",
                        path=path,
                    )
                with os.fdopen(descriptor, "rb", closefd=False) as file:
                    # Not the bound: that much memory would be taken, however small the file is.
                    return file.read(status.st_size)
            finally:
                os.close(descriptor)

    def read_head(self, path: str, size_bytes: int) -> tuple[bytes, int]:
        """The first bytes of a file, and how long the whole of it is."""
        with Translated("read", path):
            descriptor = os.open(self._inside(path), _READ_FLAGS)
            try:
                status = os.fstat(descriptor)
                if not stat_module.S_ISREG(status.st_mode):
                    raise OSError(errno.EINVAL, "it is no plain file")
                return os.read(descriptor, size_bytes), status.st_size
            finally:
                os.close(descriptor)

    def names(self, path: str = "") -> list[str]:
        """What is in the folder, without our temporary files; empty where there is no folder."""
        with Translated("list", path or "."):
            full = self._inside(path)
            if path and os.path.islink(full):
                raise OSError(errno.ELOOP, "it is a link")
            try:
                entries = os.listdir(full)
            except FileNotFoundError:
                return []
        return sorted(entry for entry in entries if not entry.endswith(TEMPORARY_SUFFIX))

    def stat(self, path: str = "") -> Stat | None:
        """What is known of a file or folder, `None` where there is none; a link is not followed."""
        with Translated("stat", path or "."):
            full = self.full(path)
            try:
                status = os.lstat(full) if path else os.stat(full)
            except (FileNotFoundError, NotADirectoryError):
                return None
        return Stat(
            status.st_size,
            status.st_ino,
            status.st_mtime_ns,
            stat_module.S_ISDIR(status.st_mode),
        )

    def exists(self, path: str) -> bool:
        """Whether something has this name."""
        return os.path.lexists(self.full(path))

    # Writing.

    def make_folders(self, path: str = "") -> None:
        """Make a folder and those above it, each durable in the one above."""
        with Translated("make", path or "."):
            full = self._inside(path)
            if path and os.path.islink(full):
                raise OSError(errno.ELOOP, "it is a link")
        missing: list[str] = []
        while not os.path.isdir(full):
            missing.append(full)
            full = os.path.dirname(full)
        for folder in reversed(missing):
            self._make_folder(folder, folder)

    def make_folder(self, path: str) -> None:
        """Make one folder directly below one that is there, durably; fine if it is there itself.

        Errors: `StorageError` where the folder above is gone, so that nothing that was moved or
            deleted is ever made anew by a save.
        """
        with Translated("make", path):
            full = self._inside(path)
        if not os.path.isdir(full):
            self._make_folder(full, path)

    def _make_folder(self, full: str, path: str) -> None:
        with Translated("make", path):
            try:
                self.system.make_folder(full)
            except FileExistsError:
                # Somebody else was quicker, or what is there is no folder.
                if not os.path.isdir(full):
                    raise
        self._sync_folder(os.path.dirname(full))

    def create(self, path: str, *, preallocate: bool = False) -> AppendedFile:
        """Open a new file for appending; its name is durable after `sync_folder`."""
        with Translated("create", path):
            descriptor = self.system.open_new(self._inside(path))
        return AppendedFile(self.system, descriptor, path, preallocate=preallocate)

    def create_whole(self, path: str, data: bytes) -> bool:
        """Create a small file durably unless it is there; return whether it was we who did.

        A crash in between leaves the name with fewer bytes: the name alone is what counts.
        """
        try:
            file = self.create(path)
        except StorageError as error:
            if isinstance(error.__cause__, FileExistsError):
                return False
            raise
        try:
            file.append(data, len(data))
            file.sync()
        finally:
            file.close()
        self.sync_folder(os.path.dirname(path))
        return True

    def publish_derived(self, path: str, data: bytes) -> None:
        """Replace a file that can be made again from others: whole at a kill, maybe not durable."""
        folder, _, name = path.rpartition("/")
        temporary = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}".lstrip("/")
        file = self.create(temporary)
        try:
            file.append(data, len(data))
            with Translated("rename", path):
                self.system.rename(self.full(temporary), self.full(path))
        except BaseException:
            self._discard(temporary)
            raise
        finally:
            file.close()

    def publish(self, path: str, data: bytes) -> None:
        """Make a file appear whole and durable under its name, in the full write order.

        Errors: `StorageError` with nothing under the name, as far as this process can tell.
        """
        if self.exists(path):
            raise StorageError(
                f"cannot publish {path}: it is there already", operation="publish", path=path
            )
        folder, _, name = path.rpartition("/")
        temporary = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}".lstrip("/")
        file = self.create(temporary)
        try:
            file.append(data, len(data))
            file.sync()
        except BaseException:
            file.close()
            self._discard(temporary)
            raise
        file.close()
        try:
            with Translated("rename", path):
                self.system.rename(self.full(temporary), self.full(path))
        except BaseException:
            self._discard(temporary)
            raise
        try:
            self.sync_folder(folder)
        except StorageError:
            # The name may not survive: better none than one that was reported as failed.
            self._discard(path)
            raise

    def rename_folder(self, source: str, target: str) -> bool:
        """Move a finished folder to its name, durably; `False` if something is there already."""
        try:
            with Translated("rename", target):
                # POSIX would replace an empty folder, but ours are never empty.
                self.system.rename(self.full(source), self.full(target))
        except StorageError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in {
                errno.EEXIST,
                errno.ENOTEMPTY,
                errno.EACCES if os.name == "nt" else errno.EEXIST,
            }:
                return False
            raise
        self.sync_folder(os.path.dirname(target))
        return True

    def remove(self, path: str) -> None:
        """Remove a file; it is fine if it is gone already."""
        with Translated("remove", path), suppress(FileNotFoundError):
            self.system.remove(self._inside(path))

    def remove_folder(self, path: str) -> None:
        """Remove a folder of ours with what is in it; links in it are removed, not followed."""
        with Translated("remove", path):
            full = self._inside(path)
            if os.path.islink(full):
                self.system.remove(full)
                return
            for folder, folders, files in os.walk(full, topdown=False):
                for name in files:
                    self.system.remove(os.path.join(folder, name))
                for name in folders:
                    inner = os.path.join(folder, name)
                    if os.path.islink(inner):
                        self.system.remove(inner)
                    else:
                        self.system.remove_folder(inner)
            if os.path.isdir(full):
                self.system.remove_folder(full)

    def temporaries(self, path: str = "") -> list[str]:
        """The leftovers of crashed publishes in a folder."""
        with suppress(OSError):
            entries = os.listdir(self.full(path))
            return sorted(entry for entry in entries if entry.endswith(TEMPORARY_SUFFIX))
        return []

    def sync_folder(self, path: str = "") -> None:
        """Make the names in a folder durable."""
        self._sync_folder(self.full(path))

    def settle(self, paths: Iterable[str]) -> None:
        """Make the names in these folders durable, where a killed process may not have come to it.

        Without this, what is built on such a name goes with it at a power cut.
        """
        for path in paths:
            if os.path.isdir(self.full(path)):
                self.sync_folder(path)

    def _sync_folder(self, full: str) -> None:
        sync_names(self.system, full)

    def _discard(self, path: str) -> None:
        with suppress(OSError):
            self.system.remove(self.full(path))
