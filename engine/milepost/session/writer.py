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
- It is long because it is one protocol: opening, committing, mending, saving and closing share the
  flags by which each knows what the others left undone.

Source: FORMAT.md, "Opening a session", "Rotation".
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import threading
from typing import TYPE_CHECKING, Concatenate, Final, NamedTuple, ParamSpec, TypeVar

import msgspec

from milepost.clock import Clock, SystemClock
from milepost.errors import (
    ClosedError,
    DamagedError,
    DurabilityLostError,
    EncodingError,
    FormatError,
    MilepostError,
    OutputError,
    StorageError,
    SupersededError,
)
from milepost.journal import record
from milepost.journal.writer import JournalWriter
from milepost.model import fold
from milepost.model.events import NO_BATCH, ItemCapChanged, ItemUpdated, Restored
from milepost.session import history
from milepost.session.archive import Archive
from milepost.session.aside import running_loop
from milepost.session.keeper import Keeper
from milepost.session.outputs import Outputs
from milepost.session.registry import note_writer
from milepost.session.turn import Site, Turn
from milepost.session.view import check_name_of
from milepost.snapshots import checkpoints, retention, segments, versions
from milepost.storage import lease as leases
from milepost.storage.directory import LocalDirectory
from milepost.storage.host import Identify, this_process
from milepost.storage.location import command
from milepost.storage.values import encode_value
from milepost.types import Durability, StoreConfig, TrackerConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.journal.reader import Replay
    from milepost.model.consistency import Finding
    from milepost.model.events import BatchEvent, ItemsEnded, PositionsAdvanced
    from milepost.model.state import SessionState
    from milepost.session.outputs import Slip
    from milepost.session.subscription import Subscription

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
        identify: Says who this process is.
        stale_after_seconds: Silence of a writer on another host until it counts as gone.
    """

    durability: Durability = "process"
    tracker: TrackerConfig = TrackerConfig()
    store: StoreConfig = StoreConfig()
    backup_root: LocalDirectory | None = None
    clock: Clock = SystemClock()
    identify: Identify = this_process
    stale_after_seconds: float = 60.0


P = ParamSpec("P")
R = TypeVar("R")

_ITS_OWN: Final = (StorageError, SupersededError, ClosedError, FormatError, OutputError)
"""Errors that no value that was handed in is the cause of."""


def _told_whose(method: Callable[Concatenate[Writer, P], R]) -> Callable[Concatenate[Writer, P], R]:
    """Have errors of a method say that the session cannot go on for them."""

    @functools.wraps(method)
    def told(self: Writer, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except _ITS_OWN as error:
            if hasattr(self, "state"):
                error.session_uid = self.state.uid
            raise

    return told


class Writer:
    """The one who writes a session."""

    def __init__(self, site: Site, settings: Settings) -> None:
        """Prepare; `open` takes the turn."""
        self.site = site
        self.settings = settings
        self.lock = threading.RLock()
        self.snapshot_error = ""
        self.findings: list[Finding] = []
        self.turn = Turn(
            site,
            settings.clock,
            settings.identify,
            stale_after_seconds=settings.stale_after_seconds,
        )
        self.archive = Archive(
            site, self.turn, settings.store, settings.backup_root, settings.clock
        )
        self.outputs = Outputs(
            site.store_path, site.folder.system, level=lambda: self.archive.level
        )
        self._folder = site.folder
        self._now_ns = settings.clock.now_ns
        self._disk = settings.durability == "disk"
        self._journal: JournalWriter | None = None
        self._predecessor: JournalWriter | Replay | None = None
        self._subscriptions: tuple[Subscription, ...] = ()
        self._attention = False
        self._broken: str | None = None
        self._failure: MilepostError | None = None
        self._closed = False
        self._keeper: Keeper | None = None
        self.state: SessionState
        note_writer(self)

    # Opening.

    def open(self, *, accept_loss: bool = False, take_over: bool = False) -> None:
        """Take the turn; with `take_over` without waiting for a writer that may be elsewhere.

        Errors: `AlreadyLockedError`; `DamagedError` where acknowledged work is missing and that is
            not accepted; `UnsupportedVersionError` for a newer milepost's session.
        """
        self.turn.acquire()
        try:
            self._take_turn(accept_loss=accept_loss, take_over=take_over)
        except BaseException:
            self.turn.show_end()
            self.turn.release()
            raise

    def _take_turn(self, *, accept_loss: bool, take_over: bool) -> None:
        # The number before the judgement: whoever takes a turn after it is met at that number.
        highest = history.highest_epoch(self.archive.files(self._latest_lease()))
        before = self._latest_lease()
        if not take_over:
            self.turn.await_predecessor(before)
        self.turn.follow(before)
        files = self.archive.files(before)
        uid = before.session_uid if before else history.load(files).state.uid
        # The lease before the look: a writer elsewhere is told before we believe its journal.
        self.turn.take(highest, uid)
        # Names that a killed writer left in memory alone: we are about to build on them.
        self._folder.settle(
            ("", record.FOLDER, versions.FOLDER, segments.FOLDER, checkpoints.FOLDER)
        )
        loaded = history.load(files)
        check_name_of(self.site, loaded)
        if loaded.is_lossy and not accept_loss:
            raise damaged(self.site, loaded)
        self._adopt(loaded)
        self._sweep()
        if self.state.sequence > self.archive.latest.sequence or loaded.from_backup:
            self.outputs.settle(self.state)
            self._save()
            self.archive.write_manifest(self.state)
        self._keeper = Keeper(self)
        self._keeper.start()

    def _latest_lease(self) -> leases.Lease | None:
        return leases.newest_lease(self._folder, session=self.site.name)

    def _sweep(self) -> None:
        """Remove what crashed publishes left; we hold the lock, so nobody is at it."""
        for folder in ("", versions.FOLDER, segments.FOLDER, checkpoints.FOLDER):
            for name in self._folder.temporaries(folder):
                with contextlib.suppress(StorageError):
                    self._folder.remove(f"{folder}/{name}".lstrip("/"))

    def backups(self) -> tuple[LocalDirectory, ...]:
        """Where second copies of the immutable files may be."""
        return self.archive.files(self._latest_lease()).backups

    def _adopt(self, loaded: history.Loaded) -> None:
        self.state = loaded.state
        self.findings = loaded.findings
        self._predecessor = loaded.tip
        self.archive.adopt(loaded)
        if loaded.is_lossy:
            # The loss is accepted: numbers that may have been used are not used again.
            self.state.sequence = max(self.state.sequence, loaded.highest)
            self._predecessor = None

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

    def takes_at_once(self) -> bool:
        """Take the lock if an update would wait for nothing: no sync, no thread, nothing to mend.

        Where it was taken, the caller releases it.
        """
        if self._disk or not self.lock.acquire(blocking=False):
            return False
        if self._attention or self._failure is not None or self._journal is None:
            self.lock.release()
            return False
        return True

    def commit(self, event: BatchEvent, *, durable: bool = False) -> None:
        """Make one event happen; see `commit_all`."""
        try:
            payload = record.encode_payload(event)
        except Exception as error:
            raise self._cannot_encode(event, error) from error
        if type(event) is not ItemUpdated or event.error_message is not None:
            # The hot path has checked its few fields itself; all others are proved here.
            self._prove(event, payload)
        self._write([payload], event.sequence, durable=durable)
        self._fold(event)
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
                payload = record.encode_payload(event)
            except Exception as error:
                raise self._cannot_encode(event, error) from error
            self._prove(event, payload)
            payloads.append(payload)
        self._write(payloads, events[-1].sequence, durable=durable)
        for event in events:
            self._fold(event)
        self._attention = False
        for subscription in self._subscriptions:
            for event in events:
                subscription.push(event)

    @_told_whose
    def commit_with_rows(self, event: ItemsEnded | PositionsAdvanced, slips: list[Slip]) -> None:
        """Append the rows of what the event acknowledges, then make it happen with their marks.

        Errors: as `commit`, and what the outputs raise; then neither rows nor event count.
        """
        if any(slip.rows for slip in slips):
            self.check_turn()  # a successor may write the same file
        self._attention = True  # whatever interrupts us, the journal says which rows count
        try:
            rows = self.outputs.append(slips, self.state)
            self.commit(msgspec.structs.replace(event, rows=rows) if rows else event)
        except MilepostError:
            if self._broken is None and self._failure is None:
                self._attention = True  # the journal is as it was, the outputs are not yet
                if running_loop() is None:  # which must not wait for their sync; the next call does
                    self.outputs.take_back(self.state)
                    self._attention = False
            raise

    def _fold(self, event: BatchEvent) -> None:
        try:
            self.state = fold.apply(self.state, event)
        except fold.FoldError as error:
            # It stands in the journal and cannot have happened: the journal is left behind with it.
            self._broken = str(error)
            raise

    @_told_whose
    def _write(self, payloads: list[bytes], last: int, *, durable: bool) -> None:
        journal = self._journal
        if journal is None:
            journal = self._begin_journal()
        elif durable:
            self.check_turn()  # a call that must be refused should leave nothing behind
        # Set before and taken back after: whatever interrupts in between is mended by `_attend`.
        before, self._attention = self._attention, True
        try:
            journal.append(payloads, last)
            if durable or self._disk:
                self.outputs.sync()
                journal.sync()
                self.turn.check()
                journal.write_mark()  # from here on, what is acknowledged as durable is known to be
        except SupersededError as error:
            self._failure = error
            raise
        except MilepostError as error:
            if journal.poisoned or journal.last == last:
                # Its record is in the file or waits for it, and must not count: it is left behind.
                self._broken = str(error)
            else:
                self._attention = before  # the journal is as it was; rows may not be
            raise

    def _begin_journal(self) -> JournalWriter:
        self.check_turn()
        name = record.JournalName(self.turn.epoch, self.state.sequence + 1)
        before, self._attention = self._attention, True
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
        self._attention = before  # rows may wait for their record
        self.archive.write_manifest(self.state)
        return self._journal

    @staticmethod
    def _prove(event: BatchEvent, payload: bytes) -> None:
        """What no reader could decode must not be written: the session would not open again."""
        try:
            record.decode_payload(payload)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            place = re.search(r"\$\[(\d+)\]", str(error))
            fields = ("", *event.__struct_fields__)
            field = fields[int(place.group(1))] if place else type(event).__name__
            raise EncodingError(f"{field} cannot be stored: {error}") from error

    def _cannot_encode(self, event: BatchEvent, error: Exception) -> MilepostError:
        for field in event.__struct_fields__:
            encode_value(getattr(event, field), field)
        return MilepostError(f"{type(event).__name__} cannot be stored: {error}")

    # Mending.

    def fail(self, error: MilepostError) -> None:
        """Have the next call raise this; from the background thread."""
        self._failure = error

    @_told_whose
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
        self.outputs.refuse_poisoned()
        self.turn.own_what_was_claimed()
        self.check_turn()
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
        self.turn.take(self.turn.epoch, self.state.uid)
        if self.state.sequence > self.archive.latest.sequence:
            self._save()
        else:
            # No sequence gets a second snapshot: the new journal says where the broken one ends.
            self._begin_journal()
        self.outputs.take_back(self.state)
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
        loaded = history.load(self.archive.files(self._latest_lease()))
        self.check_turn()  # whoever came while we read has the turn
        if loaded.is_lossy or loaded.state.sequence < self.state.sequence:
            raise damaged(self.site, loaded)
        self.turn.take(max(self.turn.epoch, loaded.epoch), self.state.uid)
        self._adopt(loaded)
        self.outputs.take_back(self.state)
        if self.state.sequence > self.archive.latest.sequence:
            self._save()
        self._attention = False

    # Syncs and snapshots.

    @_told_whose
    def flush(self) -> None:
        """Return when everything acknowledged so far is on the disk, and still ours."""
        with self.lock:
            self.ready()
            journal = self._journal
            if journal is not None and journal.synced_through < journal.last:
                self._attention = True
                try:
                    self.outputs.sync()
                    journal.sync()
                    journal.write_mark()
                except MilepostError as error:
                    self._broken = str(error)
                    raise
                self._attention = False
            self.check_turn()

    @_told_whose
    def check_turn(self) -> None:
        """Raise if another writer took over, or if the folder is not where it was."""
        try:
            self.turn.check()
        except SupersededError as error:
            self._failure = error
            raise

    @_told_whose
    def snapshot(self, *, by_hand: bool = False) -> int:
        """Save the state as a whole and return the version that holds it."""
        with self.lock:
            self.ready()
            latest = self.archive.latest
            if by_hand and self.state.sequence == latest.sequence and not latest.by_hand:
                # It must be kept as one made by hand, and no sequence gets a second one: an event
                # that changes nothing makes room for it.
                cap = self.state.item_cap
                self.commit(ItemCapChanged(self.next_sequence, self._now_ns(), NO_BATCH, cap))
            if self.state.sequence == self.archive.latest.sequence:
                self.check_turn()  # a version in a folder that is gone is none
                return self.archive.latest.version
            self.flush()
            # What interrupts us before the rotation is done is mended by `_attend`.
            self._attention = True
            try:
                made = self._save(by_hand=by_hand)
            except MilepostError:
                self._attention = False  # nothing was published; the journal is as it was
                raise
            self._rotate()
            self._attention = False
            self.archive.keep_house(self.state)
            return made

    def restore(self, old: SessionState, version: int) -> int:
        """Make an older version the state again, as a new version; return its number."""
        with self.lock:
            self.ready()
            self.flush()
            event = Restored(self.next_sequence, self._now_ns(), NO_BATCH, version, old.sequence)
            restored = fold.restored(fold.copy(self.state), old, event)
            # Whatever fails or interrupts us from here on: the disk says which of the two it is.
            self._attention = True
            made = self._save(restored, by_hand=True, restored_from=version)
            self.state = restored
            self._rotate()
            self._attention = False
            self.archive.keep_house(self.state)
            for subscription in self._subscriptions:
                subscription.push(event)
            return made

    def _save(
        self,
        state: SessionState | None = None,
        *,
        by_hand: bool = False,
        restored_from: int | None = None,
    ) -> int:
        self.outputs.sync()
        journal = self._journal or self._predecessor
        return self.archive.save(
            self.state if state is None else state,
            parent=journal.name.name if journal is not None else None,
            by_hand=by_hand,
            restored_from=restored_from,
        )

    def _rotate(self) -> None:
        """After a snapshot the next event begins a new journal."""
        journal = self._journal
        if journal is not None:
            self._predecessor = journal
            self._journal = None
            journal.close()

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
        try:
            # Rows first: what the journal calls synced needs no row that is not.
            self.outputs.sync()
            journal.sync_appended()
        except DurabilityLostError:
            with self.lock:
                if self._journal is not journal:
                    return  # it was synced and closed meanwhile; a newer one takes its place
            raise
        with self.lock:
            if self._journal is journal and not self._attention:
                journal.note_synced(through)
                journal.write_mark()

    def snapshot_if_due(self) -> None:
        """Save when the interval has passed and something changed, or the journal is long."""
        with self.lock:
            if self._attention or self._failure is not None or self._closed:
                return
            if self.state.sequence == self.archive.latest.sequence:
                return
            age = (self._now_ns() - self.archive.latest.created_ns) / 1e9
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
        """Copy the newest snapshot, if it has no second copy; a failure is told, not raised."""
        with self.lock:
            task = self.archive.next_backup()
        if task is None:
            return
        problem = self.archive.copy(task)
        with self.lock:
            if self.archive.note_copy(task, problem):
                self.archive.write_manifest(self.state)

    def let_go(self, decision: retention.Decision) -> int:
        """Carry out a decision about versions; returns how many snapshots were removed."""
        with self.lock:
            return self.archive.let_go(decision, self.state)

    @property
    def identity(self) -> segments.Identity:
        """What immutable files say of whose they are."""
        return segments.Identity(self.state.session_id, self.state.uid, self.turn.epoch)

    @property
    def folder(self) -> LocalDirectory:
        """The session's folder."""
        return self._folder

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
                self.archive.keep_house(self.state)
            self.turn.show_end()
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
        self.outputs.close()
        self.turn.release()
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
        self.outputs.close_after_fork()
        self.turn.close_after_fork()


def damaged(site: Site, loaded: history.Loaded) -> DamagedError:
    """The refusal to write a session of which acknowledged work is missing."""
    lost = [each for each in loaded.findings if each.is_error] or loaded.findings
    reasons = "; ".join(finding.message for finding in lost[:3])
    reasons = reasons or f"what was recorded after event {loaded.state.sequence} is not there"
    return DamagedError(
        f"session {site.name!r} is damaged: {reasons}",
        path=lost[0].path if lost else None,
        findings=loaded.findings,
        hint="put the file back from another copy, or accept the loss and go on from what is sure"
        f" ({command(site.store_path, 'show', site.name)}) with:"
        f" {command(site.store_path, 'restore', site.name)}",
    )
