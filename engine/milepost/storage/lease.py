"""Who writes a session: the OS lock and the numbered lease.

- On one boot of one host the OS lock alone says who lives: it ends with its process, however that
  ends. The lock file is never deleted, and a lock on a file that is no longer under its name counts
  for nothing.
- Who only looks asks for a shared lock. A starter that meets nothing but looks asks again and is
  not refused: only an exclusive lock is a writer's.
- An epoch is taken by creating `leases/<epoch>.json` where no such file was: exactly one writer
  can, also where locks do not work. The file is immutable and carries its own checksum.

Source: FORMAT.md, "Leases".
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import filelock
import msgspec

from milepost.clock import utc
from milepost.errors import (
    AlreadyLockedError,
    ChecksumMismatchError,
    FormatError,
    StorageError,
    UnsupportedVersionError,
)

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from milepost.storage.directory import LocalDirectory

LOCK_NAME: Final = "writer.lock"
LEASE_BYTES_MAX: Final = 1 << 16
LEASE_FORMAT: Final = 1
PATIENCE_SECONDS: Final = 0.25
"""A writer may be about to end; a starter asks again for this long."""
LOOKS_SECONDS_MAX: Final = 10.0
"""Looks hold the lock for an instant each. Only one that was stopped in it holds it for so long."""
_ASK_AGAIN_SECONDS: Final = 0.005


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """One writer's turn.

    Attributes:
        epoch: The turn's number.
        session: The session's name.
        session_uid: The session's identity.
        lineage: The line of copies it belongs to; a copy that is opened begins a new one.
        host: Machine name of the writer.
        boot_id: Boot of that machine.
        pid: Process number.
        process_started: When the process began, in the system's own notation.
        folder_inode: Inode of the session's folder; another one means that the folder is a copy.
        taken_at_ns: Wall clock, for people.
        format: Number of this file's format.
        started_by: Token of the supervisor that started the process; left out for none.
    """

    epoch: int
    session: str
    session_uid: str
    lineage: str
    host: str
    boot_id: str
    pid: int
    process_started: str
    folder_inode: int
    taken_at_ns: int
    format: int = LEASE_FORMAT
    started_by: str | msgspec.UnsetType = msgspec.UNSET


def lease_path(epoch: int) -> str:
    """Where the lease of an epoch is."""
    return f"leases/{epoch}.json"


def encode_lease(lease: Lease) -> bytes:
    """The bytes of a lease file: JSON with its checksum, a line of text for people."""
    body = msgspec.json.encode(lease)
    return _spell(body, _checksum(body))


def decode_lease(data: bytes, path: str) -> Lease:
    """The lease in the bytes, with its checksum and its path checked."""
    try:
        raw = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        body = bytes(raw["lease"])
        checksum = msgspec.json.decode(raw["checksum"], type=str)
        if checksum != _checksum(body) or _spell(body, checksum) != data:
            raise ChecksumMismatchError(
                f"{path} is damaged", path=path, expected=checksum, actual=_checksum(body)
            )
        number = msgspec.json.decode(body, type=dict[str, Any]).get("format")
        if isinstance(number, int) and number > LEASE_FORMAT:
            raise UnsupportedVersionError(
                f"{path} is of format {number}; this milepost reads up to {LEASE_FORMAT}",
                path=path,
                found=number,
                supported=LEASE_FORMAT,
                hint="install a newer milepost",
            )
        lease = msgspec.json.decode(body, type=Lease)
    except (msgspec.MsgspecError, KeyError, RecursionError, UnicodeError) as error:
        raise FormatError(f"{path} is damaged: {error}", path=path) from error
    if path != lease_path(lease.epoch):
        raise FormatError(f"{path} holds the lease of epoch {lease.epoch}", path=path)
    return lease


def _spell(body: bytes, checksum: str) -> bytes:
    """The only spelling a lease file has; any other is damage."""
    return b'{"lease":' + body + b',"checksum":"' + checksum.encode() + b'"}\n'


def _checksum(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def epochs(folder: LocalDirectory) -> list[int]:
    """The epochs that were taken, in order, readable or not."""
    return sorted({epoch for name in folder.names("leases") if (epoch := epoch_of(name))})


def epoch_of(name: str) -> int:
    """The epoch that a file of this name takes; 0 for any other file."""
    stem, _, ending = name.partition(".")
    is_ours = ending in {"json", "beat"} and stem.isascii() and stem.isdigit()
    return int(stem) if is_ours else 0


def read_lease(folder: LocalDirectory, epoch: int) -> Lease:
    """The lease of an epoch."""
    path = lease_path(epoch)
    return decode_lease(folder.read(path, size_bytes_max=LEASE_BYTES_MAX), path)


def newest_lease(folder: LocalDirectory, *, session: str | None = None) -> Lease | None:
    """The lease of the highest epoch that can be read, `None` if there is none.

    With the session's name, only leases of that session count.
    """
    for epoch in reversed(epochs(folder)):
        with suppress(FormatError, StorageError):
            lease = read_lease(folder, epoch)
            if session is None or lease.session == session:
                return lease
    return None


class WriterLock:
    """The OS lock of one session's writer."""

    def __init__(self, folder: LocalDirectory) -> None:
        self._folder = folder
        self._path = folder.full(LOCK_NAME)
        self._lock = filelock.FileLock(self._path, thread_local=False)

    def acquire(self, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Take the lock, or raise `AlreadyLockedError` naming the holder as far as it is known."""
        until = time.monotonic() + patience_seconds
        while not self._try():
            now = time.monotonic()
            if now >= until and _is_exclusive(self._path):
                raise refused(self._folder)
            if now >= until + LOOKS_SECONDS_MAX:
                raise AlreadyLockedError(
                    f"a process that only looks at this session has held its {LOCK_NAME} for"
                    f" {LOOKS_SECONDS_MAX:g} s",
                    operation="lock",
                    path=LOCK_NAME,
                    hint="end the `milepost` command that is stopped, and try again",
                )
            time.sleep(_ASK_AGAIN_SECONDS)

    def _try(self) -> bool:
        if not os.path.isdir(self._folder.root):
            # The lock's own library would make the folder anew.
            raise StorageError(
                f"cannot lock {LOCK_NAME}: there is no folder {self._folder.root}",
                operation="lock",
                path=LOCK_NAME,
            )
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            return False
        except OSError as error:
            raise StorageError(
                f"cannot lock {LOCK_NAME}: {error.strerror or error}",
                operation="lock",
                path=LOCK_NAME,
                hint="a session on read-only media can be read, not written",
            ) from error
        return True

    def held_elsewhere(self) -> bool:
        """Whether a living process holds the lock; on media that cannot lock, nobody does."""
        if not os.path.exists(self._path) or self._lock.is_locked:
            return False
        if sys.platform != "win32":
            return _is_exclusive(self._path)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            return True
        except (OSError, NotImplementedError):
            return False
        self._lock.release()
        return False

    def release(self) -> None:
        """Give the lock back; a second time does nothing."""
        if self._lock.is_locked:
            self._lock.release(force=True)


def refused(folder: LocalDirectory) -> AlreadyLockedError:
    """The refusal of a starter by a writer that lives, named as far as it is known."""
    lease = newest_lease(folder)
    if lease is None:
        return AlreadyLockedError(
            "another process writes this session", operation="lock", path=LOCK_NAME
        )
    since = utc(lease.taken_at_ns)
    return AlreadyLockedError(
        f"session {lease.session!r} is being written by process {lease.pid} on {lease.host}"
        f" since {since:%Y-%m-%d %H:%M:%S} UTC",
        operation="lock",
        path=LOCK_NAME,
        holder={
            "host": lease.host,
            "pid": lease.pid,
            "since": since,
            "epoch": lease.epoch,
        },
        hint="wait for it to end, or stop it; reading works meanwhile",
    )


def _is_exclusive(path: str) -> bool:
    """Whether somebody holds more than a look's shared lock.

    It asks for a shared one through a reader's descriptor: that works on read-only media too.
    """
    if sys.platform == "win32":
        return True  # there are no shared locks
    try:
        # What is no plain file must not make us wait.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK}
    finally:
        os.close(descriptor)  # and with it the lock, if it was given
    return False
