"""Signs of life beside a lease, and how long another writer has been silent.

- `leases/<epoch>.beat` holds a counter that the writer raises, and in the end says that it ended.
  It is written without a sync, and nothing is built on it but how long to wait for a writer whose
  OS lock says nothing here.
- `leases/<epoch>.seen` remembers, for each boot of an observer, which count it saw and since when
  by its own monotonic clock. So silence is measured by one clock alone, also over several runs of
  the observer, and neither a jump of a wall clock nor two hosts that disagree on the time count.
- A turn is ours for as long as ours is the highest lease. The leases are listed for that: a
  successor's may have been followed by others and let go of while we were asleep.

Source: FORMAT.md, "Leases".
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from milepost.errors import StorageError, SupersededError
from milepost.storage.directory import Translated
from milepost.storage.lease import epoch_of, newest_lease

if TYPE_CHECKING:
    from milepost.storage.directory import AppendedFile, LocalDirectory
    from milepost.storage.host import HostIdentity

BEAT_SECONDS: Final = 2.0
"""How often a living writer raises its counter."""

_ENDED: Final = "ended"
_BEAT_BYTES: Final = 20
_SEEN_BYTES_MAX: Final = 1 << 16


class Beat(NamedTuple):
    """What a beat file says.

    Attributes:
        shown: The counter, as text; empty where the writer has shown none yet.
        has_ended: Whether the writer gave its turn up by itself.
    """

    shown: str
    has_ended: bool


def beat_path(epoch: int) -> str:
    """Where the counter of an epoch is."""
    return f"leases/{epoch}.beat"


def seen_path(epoch: int) -> str:
    """Where observers of an epoch remember what they saw."""
    return f"leases/{epoch}.seen"


def read_beat(folder: LocalDirectory, epoch: int) -> Beat:
    """The latest sign of life of an epoch's writer."""
    try:
        # Its first bytes alone: whatever else got into it, these are what the writer overwrites.
        text = folder.read_head(beat_path(epoch), _BEAT_BYTES)[0].decode("ascii").strip()
    except (StorageError, UnicodeError):
        return Beat("", has_ended=False)
    return Beat(text, has_ended=text == _ENDED)


def silent_seconds(
    folder: LocalDirectory, epoch: int, observer: HostIdentity, monotonic: float, *, note: bool
) -> float:
    """How long this observer has seen the counter of an epoch stand still.

    With `note` it remembers what it sees now, so that a later look can tell; without, it writes
    nothing, and a writer never seen before has been silent for 0 seconds.
    """
    count = read_beat(folder, epoch).shown
    seen = _read_seen(folder, epoch)
    who = observer.boot_id or observer.host
    before = seen.get(who)
    # A monotonic clock that is behind is another boot's, where boots have no id.
    if before is not None and before[0] == count and before[1] <= monotonic:
        return monotonic - before[1]
    if note:
        seen[who] = (count, monotonic)
        with suppress(StorageError):
            folder.publish_derived(seen_path(epoch), msgspec.json.encode(seen))
    return 0.0


def _read_seen(folder: LocalDirectory, epoch: int) -> dict[str, tuple[str, float]]:
    if not folder.exists(seen_path(epoch)):
        return {}
    try:
        data = folder.read(seen_path(epoch), size_bytes_max=_SEEN_BYTES_MAX)
        return msgspec.json.decode(data, type=dict[str, tuple[str, float]])
    except (StorageError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}  # the watching begins again


def mark_ended(folder: LocalDirectory, epoch: int) -> None:
    """Say that an epoch's writer gave its turn up; a disk that refuses makes a successor wait."""
    heartbeat = Heartbeat(folder, epoch, 0)
    heartbeat.end()
    heartbeat.close()


def gone(folder: LocalDirectory) -> StorageError:
    """The error for a session's folder that is not where it was."""
    return StorageError(
        f"the session's folder is no longer at {folder.root}",
        operation="stat",
        path=folder.root,
        hint="put it back, or run again where it is now",
    )


def superseded(folder: LocalDirectory, epoch: int) -> SupersededError:
    """The error for a writer whose turn another one took, in that epoch."""
    lease = newest_lease(folder)
    is_known = lease is not None and lease.epoch == epoch
    who = f"process {lease.pid} on {lease.host}" if lease and is_known else "another process"
    return SupersededError(
        f"{who} took this session over in epoch {epoch}",
        hint="what was acknowledged before is kept; run the command again",
    )


class Heartbeat:
    """The counter beside the lease, and the look whether the turn is still ours."""

    def __init__(self, folder: LocalDirectory, epoch: int, inode: int) -> None:
        self._folder = folder
        self._epoch = epoch
        self._inode = inode
        self._leases = folder.full("leases")
        self._names: list[str] = []  # with which the turn was ours
        self._count = 0
        self._file: AppendedFile | None = None

    def beat(self) -> None:
        """Raise the counter; a disk that refuses is told by the journal, not here."""
        self._count += 1
        self._show(str(self._count))

    def end(self) -> None:
        """Show that the writer ended by itself, so that nobody waits for its silence."""
        self._show(_ENDED)

    def _show(self, text: str) -> None:
        with suppress(StorageError):
            if self._file is None:
                self._file = self._folder.create(beat_path(self._epoch))
            self._file.overwrite(f"{text:>{_BEAT_BYTES - 1}}\n".encode())

    def check(self, *, claimed: int = 0) -> None:
        """Raise if another writer took over, or if the folder is not where it was.

        `claimed` is the epoch of a further lease that this writer is at or has left half made.
        Errors: `SupersededError`; `StorageError` for a moved or deleted folder.
        """
        status = self._folder.stat()
        if status is None or status.inode != self._inode:
            raise gone(self._folder)
        names: list[str] = []
        with Translated("list", self._leases), suppress(FileNotFoundError, NotADirectoryError):
            names = os.listdir(self._leases)
        if names and names == self._names:
            return
        highest = max(map(epoch_of, names), default=0)
        if highest == self._epoch:
            self._names = names
            return
        if highest > self._epoch:
            if highest == claimed:
                return
            raise superseded(self._folder, highest)
        raise StorageError(
            f"the lease of epoch {self._epoch}, in which this process writes, was removed from"
            f" {self._leases}",
            operation="list",
            path="leases",
            hint="leave the files of a store alone while it is written; run the command again",
        )

    def close(self) -> None:
        """Close the beat file; what it shows stays."""
        if self._file is not None:
            self._file.close()

    def close_after_fork(self) -> None:
        """Close the child's descriptor."""
        if self._file is not None:
            self._file.close_after_fork()
