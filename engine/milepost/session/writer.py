"""One writer's turn over a session: from the lock to the last sync.

- Opening: lock → lease durable → fold → where the last writer left a tail, a snapshot, durable →
  only then a new journal, with the first event. So nothing is ever built on what only the page
  cache held.
- An event is: encoded → in the journal → (where asked) on the disk, with a look whether the turn is
  still ours → folded → given to subscribers. What raises on the way was not folded.
- A journal that failed is left for good. The next call takes a new epoch and goes on with a whole
  snapshot and a new journal; the failed call is not in them.
- A call that was interrupted half way (Ctrl-C, MemoryError) leaves a mark; the next one folds again
  from the disk before it does anything.
- All public methods may be called from any thread; those that say so want the lock held.

Source: FORMAT.md, "Opening a session", "Rotation".
"""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from milepost.clock import Clock, SystemClock
from milepost.errors import (
    ClosedError,
    DamagedError,
    DurabilityLostError,
    FormatError,
    MilepostError,
    StorageError,
    SupersededError,
)
from milepost.journal import record
from milepost.journal.writer import JournalWriter
from milepost.model import fold
from milepost.model.events import NO_BATCH, ItemCapChanged, Restored
from milepost.session import history
from milepost.session.keeper import Keeper
from milepost.snapshots import backups, checkpoints, retention, segments, versions
from milepost.snapshots import manifest as manifests
from milepost.storage import frame
from milepost.storage import lease as leases
from milepost.storage.directory import LocalDirectory
from milepost.storage.host import this_process
from milepost.storage.values import encode_value
from milepost.types import Durability, StoreConfig, TrackerConfig, label

if TYPE_CHECKING:
    from milepost.journal.reader import Replay
    from milepost.model.consistency import Finding
    from milepost.model.events import BatchEvent
    from milepost.model.state import SessionState
    from milepost.session.subscription import Subscription
    from milepost.snapshots.versions import VersionInfo

logger = logging.getLogger("milepost.session")

JOURNAL_BYTES_BOUND: Final = 16 << 20
"""A journal longer than this is ended by a snapshot, so that loading stays quick."""


class Settings(NamedTuple):
    """What a writer is told from above.

    Attributes:
        durability: What an update survives when its call returns.
        tracker: How progress is recorded.
        store: How it is kept.
        backup_root: Where backups of all sessions go; `None` for none.
        clock: Time.
    """

    durability: Durability = "process"
    tracker: TrackerConfig = TrackerConfig()
    store: StoreConfig = StoreConfig()
    backup_root: LocalDirectory | None = None
    clock: Clock = SystemClock()


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


class Writer:
    """The one who writes a session."""

    def __init__(self, site: Site, settings: Settings) -> None:
        """Prepare; `open` takes the turn."""
        self.site = site
        self.settings = settings
        self.lock = threading.RLock()
        self.backup_error = ""
        self.snapshot_error = ""
        self.findings: list[Finding] = []
        self.notice = ""
        self._folder = site.folder
        self._now_ns = settings.clock.now_ns
        self._level = frame.LEVEL_HOT if settings.store.enable_compression else frame.LEVEL_NONE
        self._disk = settings.durability == "disk"
        self._writer_lock = leases.WriterLock(site.folder)
        self._journal: JournalWriter | None = None
        self._predecessor: JournalWriter | Replay | None = None
        self._subscriptions: tuple[Subscription, ...] = ()
        self._versions: list[VersionInfo] = []
        self._attention = False
        self._broken: str | None = None
        self._failure: MilepostError | None = None
        self._closed = False
        self._backup_queue: list[VersionInfo] = []
        self._changed_at = 0.0
        self._keeper: Keeper | None = None
        self.epoch = 0
        self._claimed = 0
        self.lineage = ""
        self.state: SessionState
        self._last_version = 0
        self._last_snapshot: VersionInfo
        self._heartbeat: leases.Heartbeat
        self._inode = 0

    # Opening.

    def open(self, *, accept_loss: bool = False) -> None:
        """Take the turn.

        Errors: `AlreadyLockedError`; `DamagedError` where acknowledged work is missing and that is
            not accepted; `UnsupportedVersionError` for a newer milepost's session.
        """
        self._writer_lock.acquire()
        try:
            self._take_turn(accept_loss=accept_loss)
        except BaseException:
            self._writer_lock.release()
            raise

    def _take_turn(self, *, accept_loss: bool) -> None:
        before = leases.newest_lease(self._folder)
        self._inode = self._status_inode()
        uid = before.session_uid if before else history.load(self._files(None)).state.uid
        self.lineage = before.lineage if before else uuid.uuid4().hex
        if before is not None and before.folder_inode != self._inode:
            self.lineage = uuid.uuid4().hex
            self.notice = (
                f"this is a copy of the session that process {before.pid} wrote on {before.host};"
                " it goes on as a line of its own"
            )
        # The lease before the look: a writer elsewhere is told before we believe its journal.
        self._take_lease(history.highest_epoch(self._files(before)), uid)
        # Names that a killed writer left in memory alone: we are about to build on them.
        self._folder.settle(
            ("", record.FOLDER, versions.FOLDER, segments.FOLDER, checkpoints.FOLDER)
        )
        loaded = history.load(self._files(before))
        if loaded.state.session_id != self.site.name:
            raise FormatError(
                f"the folder of session {self.site.name!r} holds session"
                f" {loaded.state.session_id!r}",
                path=self._folder.root,
                hint="it was renamed or copied by hand; give it back its own name",
            )
        if loaded.is_lossy and not accept_loss:
            raise damaged(self.site.name, loaded)
        self._adopt(loaded)
        self._sweep()
        if self.state.sequence > self._last_snapshot.sequence or loaded.from_backup:
            self._write_snapshot(by_hand=False, restored_from=None)
            self._changed_files()
        if self.state.item_cap != self.settings.tracker.item_cap:
            self.commit(
                ItemCapChanged(
                    self.next_sequence, self._now_ns(), NO_BATCH, self.settings.tracker.item_cap
                )
            )
        self._keeper = Keeper(self)
        self._keeper.start()

    def _sweep(self) -> None:
        """Remove what crashed publishes left; we hold the lock, so nobody is at it."""
        for folder in ("", versions.FOLDER, segments.FOLDER, checkpoints.FOLDER):
            for name in self._folder.temporaries(folder):
                with contextlib.suppress(StorageError):
                    self._folder.remove(f"{folder}/{name}".lstrip("/"))

    def _files(self, lease: leases.Lease | None) -> history.Files:
        root = self.settings.backup_root
        if root is None:
            return history.Files(self._folder)
        lineage = lease.lineage if lease else None
        return history.Files(
            self._folder, tuple(backups.find(root, lineage, self.site.folder_name))
        )

    def backups(self) -> tuple[LocalDirectory, ...]:
        """Where second copies of the immutable files may be."""
        return self._files(leases.newest_lease(self._folder)).backups

    def _adopt(self, loaded: history.Loaded) -> None:
        self.state = loaded.state
        self.findings = loaded.findings
        self._predecessor = loaded.tip
        self._last_version = loaded.version
        self._last_snapshot = loaded.base
        self._versions = versions.list_versions(self._folder)
        if loaded.is_lossy:
            # The loss is accepted: numbers that may have been used are not used again.
            self.state.sequence = max(self.state.sequence, loaded.highest)
            self._predecessor = None

    def _take_lease(self, highest: int, uid: str) -> None:
        """Create the next free lease; exactly one writer can create each."""
        process = this_process()
        self._folder.make_folder("leases")
        epoch = highest + 1
        while True:
            lease = leases.Lease(
                epoch=epoch,
                session=self.site.name,
                session_uid=uid,
                lineage=self.lineage,
                host=process.host,
                boot_id=process.boot_id,
                pid=process.pid,
                process_started=process.process_started,
                folder_inode=self._inode,
                taken_at_ns=self._now_ns(),
            )
            data = leases.encode_lease(lease)
            # From here on the name may be ours, whatever fails or interrupts us in between.
            self._claimed = epoch
            if self._folder.create_whole(leases.lease_path(epoch), data):
                break
            self._claimed = 0
            if self.epoch:
                self.check_turn()  # not opening: who took this one has superseded us
            epoch += 1
        self.epoch = epoch
        self._heartbeat = leases.Heartbeat(self._folder, epoch, self._inode)
        self._claimed = 0

    def _own_what_was_claimed(self) -> None:
        """A lease that a failed or interrupted call left half made is ours, and no successor's."""
        epoch, self._claimed = self._claimed, 0
        if not self._folder.exists(leases.lease_path(epoch)):
            return
        with contextlib.suppress(FormatError, StorageError):
            found = leases.read_lease(self._folder, epoch)
            process = this_process()
            if (found.host, found.pid, found.process_started) != (
                process.host,
                process.pid,
                process.process_started,
            ):
                return
        self.epoch = epoch
        self._heartbeat = leases.Heartbeat(self._folder, epoch, self._inode)

    def _status_inode(self) -> int:
        status = self._folder.stat()
        if status is None:
            raise StorageError(
                f"the session's folder is no longer at {self._folder.root}",
                operation="stat",
                path=self._folder.root,
            )
        return status.inode

    # Committing events; the caller holds the lock.

    @property
    def next_sequence(self) -> int:
        """Sequence number of the next event."""
        return self.state.sequence + 1

    def now_ns(self) -> int:
        """The wall clock, for the next event."""
        return self._now_ns()

    def ready(self) -> None:
        """Raise if nothing can be written; mend what an earlier call left behind."""
        if self._attention or self._failure is not None:
            self._attend()

    def commit(self, event: BatchEvent, *, durable: bool = False) -> None:
        """Make one event happen; see `commit_all`."""
        try:
            payload = record.encode_payload(event)
        except Exception as error:
            raise self._cannot_encode(event, error) from error
        self._write([payload], event.sequence, durable=durable)
        self.state = fold.apply(self.state, event)
        self._attention = False
        for subscription in self._subscriptions:
            subscription.push(event)

    def commit_all(self, events: list[BatchEvent], *, durable: bool = False) -> None:
        """Make events happen together: in one write, with one sync.

        Errors: `EncodingError` or `RecordTooLargeError` before anything is written; `StorageError`
            with nothing changed; `SupersededError` where the turn is over.
        """
        payloads: list[bytes] = []
        for event in events:
            try:
                payloads.append(record.encode_payload(event))
            except Exception as error:
                raise self._cannot_encode(event, error) from error
        self._write(payloads, events[-1].sequence, durable=durable)
        for event in events:
            self.state = fold.apply(self.state, event)
        self._attention = False
        for subscription in self._subscriptions:
            for event in events:
                subscription.push(event)

    def _write(self, payloads: list[bytes], last: int, *, durable: bool) -> None:
        journal = self._journal
        if journal is None:
            journal = self._begin_journal()
        elif durable:
            self.check_turn()  # a call that must be refused should leave nothing behind
        # Set before and taken back after: whatever interrupts in between is mended by `_attend`.
        self._attention = True
        try:
            journal.append(payloads, last)
            if durable or self._disk:
                journal.sync()
                self._heartbeat.check()
        except SupersededError as error:
            self._failure = error
            raise
        except MilepostError as error:
            if journal.poisoned or journal.last == last:
                # Its record is in the file or waits for it, and must not count: it is left behind.
                self._broken = str(error)
            else:
                self._attention = False  # the journal is as it was
            raise

    def _begin_journal(self) -> JournalWriter:
        self.check_turn()
        name = record.JournalName(self.epoch, self.state.sequence + 1)
        self._attention = True
        self._broken = "a journal could not be begun"
        self._journal = JournalWriter.create(
            self._folder,
            name,
            session=self.state.session_id,
            session_uid=self.state.uid,
            predecessor=self._predecessor,
            durability=self.settings.durability,
        )
        self._broken = None
        self._attention = False
        self._changed_files()
        return self._journal

    def _cannot_encode(self, event: BatchEvent, error: Exception) -> MilepostError:
        for field in event.__struct_fields__:
            encode_value(getattr(event, field), field)
        return MilepostError(f"{type(event).__name__} cannot be stored: {error}")

    # Mending.

    def fail(self, error: MilepostError) -> None:
        """Have the next call raise this; from the background thread."""
        self._failure = error

    def _attend(self) -> None:
        if self._closed:
            raise self._failure or ClosedError("the session is closed")
        failure = self._failure
        if isinstance(failure, (SupersededError, ClosedError)):
            raise failure
        if failure is not None:
            # Told once; the next call tries to go on.
            self._failure = None
            if self._journal is not None and self._journal.poisoned:
                self._broken = str(failure)
            self._attention = True
            raise failure
        if self._claimed:
            self._own_what_was_claimed()
        self._heartbeat.check()
        if self._broken is not None:
            self._heal()
        elif self._attention:
            self._fold_again()
        if self._keeper is not None and not self._keeper.is_alive():
            self._keeper = Keeper(self)
            self._keeper.start()

    def _heal(self) -> None:
        """Leave a broken journal: new epoch, whole snapshot, new journal.

        What is in memory is what was acknowledged; the failed call is not in it.
        """
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        self._predecessor = None
        self._heartbeat.close()
        self._take_lease(self.epoch, self.state.uid)
        if self.state.sequence > self._last_snapshot.sequence:
            self._write_snapshot(by_hand=False, restored_from=None)
        else:
            # No sequence gets a second snapshot: the new journal says where the broken one ends.
            self._begin_journal()
        self._broken = None
        self._attention = False

    def _fold_again(self) -> None:
        """After an interruption between write and fold, the disk knows what happened."""
        journal = self._journal
        if journal is not None:
            with contextlib.suppress(DurabilityLostError):
                journal.flush()
            journal.close()
            self._journal = None
        self._heartbeat.close()
        loaded = history.load(self._files(leases.newest_lease(self._folder)))
        if loaded.is_lossy or loaded.state.sequence < self.state.sequence:
            raise damaged(self.site.name, loaded)
        self._take_lease(max(self.epoch, loaded.epoch), self.state.uid)
        self._adopt(loaded)
        if self.state.sequence > self._last_snapshot.sequence:
            self._write_snapshot(by_hand=False, restored_from=None)
        self._attention = False

    # Syncs and snapshots.

    def flush(self) -> None:
        """Return when everything acknowledged so far is on the disk, and still ours."""
        with self.lock:
            self.ready()
            journal = self._journal
            if journal is not None and journal.synced_through < journal.last:
                try:
                    journal.sync()
                except MilepostError as error:
                    self._attention = True
                    self._broken = str(error)
                    raise
            self.check_turn()

    def check_turn(self) -> None:
        """Raise if another writer took over, or if the folder is not where it was."""
        try:
            self._heartbeat.check()
        except SupersededError as error:
            self._failure = error
            raise

    def snapshot(self, *, by_hand: bool = False) -> int:
        """Save the state as a whole and return the version that holds it."""
        with self.lock:
            self.ready()
            if self.state.sequence == self._last_snapshot.sequence:
                return self._last_snapshot.version
            self.flush()
            self._write_snapshot(by_hand=by_hand, restored_from=None)
            self._rotate()
            self._keep_house()
            return self._last_version

    def restore(self, old: SessionState, version: int) -> int:
        """Make an older version the state again, as a new version; return its number."""
        with self.lock:
            self.ready()
            self.flush()
            event = Restored(self.next_sequence, self._now_ns(), NO_BATCH, version, old.sequence)
            before = self.state
            self.state = fold.restored(fold.copy(before), old, event)
            try:
                self._write_snapshot(by_hand=True, restored_from=version)
            except BaseException:
                self.state = before
                raise
            self._rotate()
            self._keep_house()
            for subscription in self._subscriptions:
                subscription.push(event)
            return self._last_version

    def _write_snapshot(self, *, by_hand: bool, restored_from: int | None) -> None:
        journal = self._journal or self._predecessor
        name = versions.SnapshotName(self.epoch, self.state.sequence, self._last_version + 1)
        # The number is spent even if this fails: a name is never used twice.
        self._last_version += 1
        info = versions.write(
            self._folder,
            self.state,
            name=name,
            created_ns=self._now_ns(),
            by_hand=by_hand,
            restored_from=restored_from,
            parents=(journal.name.name,) if journal is not None else (),
            level=self._level,
        )
        self._last_snapshot = info
        self.state.last_snapshot_ns = info.created_ns
        self._versions.append(info)
        if self.settings.backup_root is not None:
            self._backup_queue.append(info)

    def _rotate(self) -> None:
        """After a snapshot the next event begins a new journal."""
        if self._journal is not None:
            self._predecessor = self._journal
            self._journal.close()
            self._journal = None

    # Called by the keeper, from its thread.

    def sync_behind(self) -> None:
        """Sync what was appended, without keeping anybody from appending more meanwhile."""
        with self.lock:
            journal = self._journal
            if journal is None or self._attention or journal.synced_through >= journal.last:
                if journal is not None and not self._attention:
                    journal.write_mark()
                return
            through = journal.last
            journal.flush()
        journal.sync_appended()
        with self.lock:
            if self._journal is journal and not self._attention:
                journal.note_synced(through)
                journal.write_mark()

    def beat(self) -> None:
        """Show a sign of life, and look whether the turn is still ours."""
        self._heartbeat.beat()
        self._heartbeat.check()

    def snapshot_if_due(self) -> None:
        """Save when the interval has passed and something changed, or the journal is long."""
        with self.lock:
            if self._attention or self._failure is not None or self._closed:
                return
            if self.state.sequence == self._last_snapshot.sequence:
                return
            age = (self._now_ns() - self._last_snapshot.created_ns) / 1e9
            interval = self.settings.tracker.checkpoint_interval_seconds
            size = self._journal.size_bytes if self._journal is not None else 0
            # A clock that was set back must not put snapshots off for as long.
            if 0 <= age < interval and size < JOURNAL_BYTES_BOUND:
                return
            try:
                self.snapshot()
            except StorageError as error:
                # Nothing is lost: the journal has it all. Said, and tried again next time.
                self.snapshot_error = str(error)
                logger.warning("session %r: no snapshot: %s", self.site.name, error)
            else:
                self.snapshot_error = ""

    def back_up(self) -> None:
        """Copy the newest snapshot that has no second copy; a failure is told, not raised."""
        root = self.settings.backup_root
        with self.lock:
            queue, self._backup_queue = self._backup_queue, []
            if not queue or root is None:
                return
            info = queue[-1]
            needs = [part.path for part in self.state.plan]
            needs += [checkpoints.path_of(each.id) for each in self.state.checkpoints]
        target = backups.folder_for(root, self.lineage, self.site.folder_name)
        try:
            backups.copy_version(
                self._folder,
                target,
                info.name,
                needs=needs,
                keep_last=self.settings.store.max_state_history,
            )
        except (MilepostError, OSError) as error:
            self.backup_error = str(error)
            logger.warning("session %r: the backup failed: %s", self.site.name, error)
            self._changed_files()
        else:
            if self.backup_error:
                self.backup_error = ""
                self._changed_files()

    # Keeping house.

    def _keep_house(self) -> None:
        """Let go of what nothing kept needs; a disk that refuses it fails nothing."""
        keep_last = self.settings.store.max_state_history
        if self._backup_queue:
            # The newest has no second copy yet: the one before must not go first.
            keep_last = max(2, keep_last)
        decision = retention.decide(self._versions, keep_last=keep_last, now_ns=self._now_ns())
        self.let_go(decision)

    def let_go(self, decision: retention.Decision) -> int:
        """Carry out a decision about versions; returns how many snapshots were removed."""
        with self.lock:
            going = [each for each in self._versions if each.version in decision.remove]
            self._versions = [each for each in self._versions if each.version in decision.keep]
            kept_journals, old_journals = self._split_journals()
            self._changed_files(kept_journals)
            with contextlib.suppress(StorageError):
                for each in going:
                    self._folder.remove(each.name.path)
                for journal in old_journals:
                    self._folder.remove(journal.path)
                self._let_go_of_leases()
            return len(going)

    def _split_journals(self) -> tuple[list[record.JournalName], list[record.JournalName]]:
        there = history.journals(self._folder)
        old = retention.journals_to_remove(there, self._versions)
        return [name for name in there if name not in old], old

    def _let_go_of_leases(self) -> None:
        used = [each.epoch for each in self._versions]
        used += [name.epoch for name in history.journals(self._folder)]
        oldest = min([self.epoch, *used])
        for epoch in leases.epochs(self._folder):
            if epoch < oldest:
                self._folder.remove(leases.lease_path(epoch))
                self._folder.remove(f"leases/{epoch}.beat")

    def _changed_files(self, journals: list[record.JournalName] | None = None) -> None:
        """Write the manifest anew."""
        if journals is None:
            journals = history.journals(self._folder)
        state = self.state
        manifests.write(
            self._folder,
            manifests.Manifest(
                session=state.session_id,
                session_uid=state.uid,
                lineage=self.lineage,
                epoch=self.epoch,
                folder_inode=self._inode,
                journals=[name.name for name in journals],
                versions=[
                    {
                        "version": each.version,
                        "sequence": each.sequence,
                        "epoch": each.epoch,
                        "created_ns": each.created_ns,
                        "by_hand": each.by_hand,
                    }
                    for each in self._versions
                ],
                checkpoints=[
                    {
                        "id": each.id,
                        "type": label(each.checkpoint_type),
                        "name": each.name,
                        "sequence": each.sequence,
                    }
                    for each in state.checkpoints
                ],
                executions=[msgspec.to_builtins(_as_dict(each)) for each in state.executions],
                backup=self.backup_error,
            ),
        )

    @property
    def versions(self) -> list[VersionInfo]:
        """The versions there are, the oldest first."""
        return list(self._versions)

    @property
    def identity(self) -> segments.Identity:
        """What immutable files say of whose they are."""
        return segments.Identity(self.state.session_id, self.state.uid, self.epoch)

    @property
    def folder(self) -> LocalDirectory:
        """The session's folder."""
        return self._folder

    @property
    def level(self) -> int:
        """Zstandard level for what is written often."""
        return self._level

    # Subscribers.

    def add_subscription(self, subscription: Subscription) -> None:
        """Give this one all events from here on."""
        with self.lock:
            self._subscriptions = (*self._subscriptions, subscription)

    def remove_subscription(self, subscription: Subscription) -> None:
        """Give this one no more events."""
        with self.lock:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)

    # Closing.

    @property
    def closed(self) -> bool:
        """Whether the turn is over."""
        return self._closed

    def close(self) -> None:
        """End the turn: a last snapshot, the backups, and the lock given back. Twice is once.

        Errors: what kept the last snapshot from being written; the lock is given back all the same.
        """
        with self.lock:
            if self._closed:
                return
            try:
                self.snapshot()
                failure = None
            except SupersededError:
                failure = None  # the successor has all that was acknowledged, and told us before
            except BaseException as error:  # raised again when all is let go
                failure = error
            self._closed = True
            self._attention = True
            keeper, self._keeper = self._keeper, None
        try:
            if keeper is not None:
                keeper.stop()
            self.back_up()
            if failure is None and self._failure is None:
                self._keep_house()
        finally:
            self._let_everything_go()
        if failure is not None:
            raise failure

    def supersede(self) -> None:
        """End the turn for a newer one in this process: nothing more is written through it."""
        with self.lock:
            self._failure = SupersededError(
                "this session was opened again in the same process; the newer one goes on",
                hint="keep one iterator or session of a name at a time",
            )
            self._closed = True
            self._attention = True
            keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stop()
        self._let_everything_go()

    def _let_everything_go(self) -> None:
        if self._journal is not None:
            with contextlib.suppress(MilepostError):
                self._journal.flush()
            self._journal.close()
            self._journal = None
        self._heartbeat.close()
        self._writer_lock.release()
        for subscription in self._subscriptions:
            subscription.close()

    def abandon_after_fork(self) -> None:
        """In a forked child: close what was inherited, and refuse every call."""
        self._failure = ClosedError(
            "this session belongs to the parent process",
            hint="open it in the process that writes it; hand results back to the parent",
        )
        self._closed = True
        self._attention = True
        self.lock = threading.RLock()  # the parent's may be held by a thread that is not here
        if self._journal is not None:
            self._journal.close_after_fork()
        self._heartbeat.close_after_fork()


def damaged(name: str, loaded: history.Loaded) -> DamagedError:
    """The refusal to write a session of which acknowledged work is missing."""
    lost = [finding for finding in loaded.findings if finding.is_error]
    reasons = "; ".join(finding.message for finding in lost[:3])
    return DamagedError(
        f"session {name!r} is damaged: {reasons}",
        path=lost[0].path if lost else None,
        findings=loaded.findings,
        hint="put the file back from another copy, or accept the loss and go on from what is sure"
        f" (milepost show {name!r}) with: milepost restore {name!r}",
    )


def _as_dict(value: msgspec.Struct) -> dict[str, Any]:
    return {field: getattr(value, field) for field in value.__struct_fields__}
