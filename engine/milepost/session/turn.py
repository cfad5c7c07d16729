"""A writer's turn over a session: the OS lock, the lease with its epoch, the heartbeat.

- The epoch is in the name of everything its writer makes, so files of two writers never mix.
- A lease that a failed call left half made is ours, and no successor's.
- Another inode of the session's folder than the last lease recorded means that the folder is a
  copy: it goes on as a line of its own.

Source: FORMAT.md, "Leases".
"""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from milepost.errors import FormatError, StorageError
from milepost.session import presence
from milepost.session.presence import Standing
from milepost.storage import heartbeat
from milepost.storage import lease as leases
from milepost.storage.directory import LocalDirectory

if TYPE_CHECKING:
    from milepost.clock import Clock
    from milepost.storage.host import Identify


class Site(NamedTuple):
    """Where a session is.

    Attributes:
        folder: Its folder.
        folder_name: The name of that folder.
        name: The session's name.
    """

    folder: LocalDirectory
    folder_name: str
    name: str

    @property
    def store_path(self) -> str:
        """Absolute path of the store it is in."""
        return os.path.dirname(os.path.dirname(self.folder.root))


class Turn:
    """Who may write, and until when.

    Attributes:
        epoch: The turn's number; 0 before it is taken.
        lineage: The line of copies that this folder belongs to.
        inode: The session folder's.
        notice: What its user should know about where the folder comes from.
    """

    def __init__(
        self, site: Site, clock: Clock, identify: Identify, *, stale_after_seconds: float
    ) -> None:
        self._site = site
        self._folder = site.folder
        self._clock = clock
        self._identify = identify
        self._stale_after_seconds = stale_after_seconds
        self._lock = leases.WriterLock(site.folder)
        self._heartbeat: heartbeat.Heartbeat | None = None
        self._claimed = 0
        self.epoch = 0
        self.lineage = ""
        self.inode = 0
        self.notice = ""

    def acquire(self) -> None:
        """Take the OS lock; `AlreadyLockedError` where another process has it."""
        self._lock.acquire()

    def await_predecessor(self, before: leases.Lease | None) -> None:
        """Return once the last writer is surely gone; that may take a few seconds.

        Errors: `AlreadyLockedError` where it is on another host and may live.
        """
        if before is None:
            return
        watcher = presence.Watcher(self._identify(), self._clock, self._stale_after_seconds)
        if presence.wait_until_gone(self._site, before, watcher) is Standing.ELSEWHERE:
            self.notice = (
                f"process {before.pid} on {before.host} wrote this session and was silent for"
                f" {self._stale_after_seconds:g} s; it is taken over"
            )

    def follow(self, before: leases.Lease | None) -> None:
        """Go on in the line of the last writer, or begin one where the folder is a copy."""
        status = self._folder.stat()
        if status is None:
            raise heartbeat.gone(self._folder)
        self.inode = status.inode
        if before is None:
            self.lineage = uuid.uuid4().hex
        elif before.folder_inode == self.inode:
            self.lineage = before.lineage
        else:
            self.lineage = uuid.uuid4().hex
            self.notice = (
                f"this is a copy of the session that process {before.pid} wrote on {before.host};"
                " it goes on as a line of its own"
            )

    def take(self, highest: int, session_uid: str) -> None:
        """Create the lease after the highest epoch in use, durably; exactly one writer can.

        The highest is what was in use when the last writer was judged to be gone: whoever was
        quicker since is met at this very number, also where the OS lock does not reach.
        Errors: `AlreadyLockedError` where another one was; `SupersededError` where this is a
            further lease of a writer.
        """
        process = self._identify()
        self._folder.make_folder("leases")
        epoch = highest + 1
        lease = leases.Lease(
            epoch=epoch,
            session=self._site.name,
            session_uid=session_uid,
            lineage=self.lineage,
            host=process.host,
            boot_id=process.boot_id,
            pid=process.pid,
            process_started=process.process_started,
            started_by=process.started_by or msgspec.UNSET,
            folder_inode=self.inode,
            taken_at_ns=self._clock.now_ns(),
        )
        # From here on the name may be ours, whatever fails or interrupts us in between.
        self._claimed = epoch
        if not self._folder.create_whole(leases.lease_path(epoch), leases.encode_lease(lease)):
            self._claimed = 0
            if self.epoch:
                raise heartbeat.superseded(self._folder, epoch)
            raise leases.refused(self._folder)
        self._enter(epoch)

    def _enter(self, epoch: int) -> None:
        if self._heartbeat is not None:
            self._heartbeat.close()
        self.epoch = epoch
        self._heartbeat = heartbeat.Heartbeat(self._folder, epoch, self.inode)
        self._claimed = 0

    def own_what_was_claimed(self) -> None:
        """Enter the epoch whose lease an earlier call may have left half made."""
        epoch = self._claimed
        if not epoch:
            return
        if self._is_ours(epoch):
            self._enter(epoch)
        else:
            self._claimed = 0

    def _is_ours(self, epoch: int) -> bool:
        """Whether a lease that we tried to create is there and nobody else's."""
        if not self._folder.exists(leases.lease_path(epoch)):
            return False
        with contextlib.suppress(FormatError, StorageError):
            found = leases.read_lease(self._folder, epoch)
            process = self._identify()
            return (found.host, found.pid, found.process_started) == (
                process.host,
                process.pid,
                process.process_started,
            )
        return True  # half made, and we hold the session's lock

    def check(self) -> None:
        """Raise if another writer took over, or if the folder is not where it was."""
        if self._heartbeat is not None:
            self._heartbeat.check(claimed=self._claimed)

    def beat(self) -> None:
        """Show a sign of life, and look whether the turn is still ours."""
        if self._heartbeat is not None:
            self._heartbeat.beat()
            self.check()

    def show_end(self) -> None:
        """Show that we end by ourselves, so that nobody waits for a sign of life."""
        if self._heartbeat is not None:
            self._heartbeat.end()

    def release(self) -> None:
        """Give the turn up; a second time does nothing."""
        if self._heartbeat is not None:
            self._heartbeat.close()
        self._lock.release()

    def close_after_fork(self) -> None:
        """Close the child's descriptors; the lock stays the parent's."""
        if self._heartbeat is not None:
            self._heartbeat.close_after_fork()
