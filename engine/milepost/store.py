"""The store: a folder of sessions.

- Everything is in the folder, and copying it copies the work. Nothing in it is ever executed.
- Reading takes no lock and writes nothing, so it works beside a writer and on read-only media.
- It is long because it is one face; where things are is the store folder's business.

Source: FORMAT.md, "Store".
"""

from __future__ import annotations

import contextlib
import os
import sys
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from milepost.clock import Clock, SystemClock
from milepost.errors import (
    AlreadyLockedError,
    CheckpointNotFoundError,
    ConfigurationError,
    FormatError,
    MilepostError,
    SchemaError,
    SessionNotFoundError,
    StorageError,
)
from milepost.model.retrying import choose_failed
from milepost.model.status import SessionStatus
from milepost.session import contents, history, presence
from milepost.session import plan as plans
from milepost.session.agreement import disagreements
from milepost.session.aside import wait_for_left, working_thread
from milepost.session.creation import create_session, remove_unfinished
from milepost.session.presence import Watcher
from milepost.session.registry import find
from milepost.session.results import CleanupResult, RetryResult, SessionInfo
from milepost.session.session import Policy, Session
from milepost.session.store_folder import SESSIONS, StoreFolder
from milepost.session.turn import Site
from milepost.session.view import View, check_name_of, look
from milepost.session.waiting import wait_for_writer
from milepost.session.writer import Settings, Writer
from milepost.settings.configuration import configuration
from milepost.snapshots import checkpoints, retention, versions
from milepost.storage import frame
from milepost.storage import lease as leases
from milepost.storage.directory import LocalDirectory
from milepost.storage.host import Identify, this_process
from milepost.storage.location import command, resolve_path
from milepost.storage.names import session_name
from milepost.storage.values import convert_value, plain_value
from milepost.types import (
    BatchErrorType,
    Key,
    RecoveryConfig,
    SessionKind,
    StoreConfig,
    TrackerConfig,
)
from milepost.work.classify import Classifier, classify

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from milepost.model.consistency import Finding
    from milepost.model.events import BatchEvent
    from milepost.model.state import CheckpointInfo, SessionState
    from milepost.model.status import Presence
    from milepost.snapshots.segments import PlannedBatch
    from milepost.snapshots.versions import VersionInfo
    from milepost.types import CheckpointType, Durability

T = TypeVar("T")
D = TypeVar("D")

CLEANED: Final = "cleaned"
_MISSING: Final[Any] = object()
_DURABILITIES: Final = ("buffered", "process", "disk")


def _release() -> str:
    try:
        return metadata.version("milepost")
    except metadata.PackageNotFoundError:
        return ""


def _program() -> str:
    """What people typed: a path relative to where they were, or a name; never an absolute path.

    Arguments may hold what is nobody's business; that there were some is said by an ellipsis.
    """
    typed = sys.argv[0] if sys.argv else ""
    if os.path.isabs(typed):
        typed = os.path.basename(typed)
    module = getattr(sys.modules.get("__main__"), "__spec__", None)
    if module is not None:
        typed = f"python -m {module.name.removesuffix('.__main__')}"
    return f"{typed} …" if typed and sys.argv[1:] else typed


class Store:
    """A folder of sessions. Making the object touches no disk."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        config: StoreConfig | None = None,
        tracker: TrackerConfig | None = None,
        recovery: RecoveryConfig | None = None,
        classifier: Classifier = classify,
        clock: Clock | None = None,
        directory: LocalDirectory | None = None,
        program: str | None = None,
        identify: Identify = this_process,
    ) -> None:
        """Name the folder (see `resolve_path`) and how sessions in it are kept.

        Settings that are not given come from the environment (`MILEPOST_` and the field in
        capitals), then from the user's `milepost.toml`. `directory` replaces the disk and
        `identify` the host, for tests. `program` is what people type to run the work again, for
        `milepost show`; by default the script's name.
        """
        said = configuration()
        self.config = config or said.group(StoreConfig)
        self.tracker = tracker or said.group(TrackerConfig)
        self.recovery = recovery or said.group(RecoveryConfig)
        self._identify = identify
        self._clock = clock or SystemClock()
        place = directory or LocalDirectory(resolve_path(path))
        self._folder = StoreFolder(place, self.config, self._clock)
        self._policy = Policy(
            self.recovery, classifier, _release(), _program() if program is None else program
        )

    def __repr__(self) -> str:
        return f"Store({self.path!r})"

    @property
    def path(self) -> str:
        """Absolute path of the folder."""
        return self._folder.directory.root

    def at(self, path: str | os.PathLike[str], *, config: StoreConfig) -> Store:
        """A store in another folder that goes by the same rules."""
        return Store(
            path,
            config=config,
            tracker=self.tracker,
            recovery=self.recovery,
            classifier=self._policy.classifier,
            clock=self._clock,
            program=self._policy.program,
            identify=self._identify,
        )

    def exists(self) -> bool:
        """Whether there is a store, whole or damaged."""
        return self._folder.exists()

    def check(self) -> None:
        """Raise unless the folder is a store that this milepost can read.

        Errors: `StoreNotFoundError`; `FormatError` for a damaged marker; `UnsupportedVersionError`
            for a newer format.
        """
        self._folder.check()

    # Writing.

    def session(
        self,
        name: str,
        *,
        total_batches: int | None = None,
        durability: Durability = "process",
        execute: bool = True,
        waits: bool = True,
    ) -> Session:
        """Open a session for writing, a new one or one to carry on.

        A program that runs under a supervisor waits for the end of another writer, and says so;
        `waits=False` refuses at once there too.

        Durability: what an update survives when its call returns: `"process"` kill -9, `"disk"` a
            power cut, `"buffered"` nothing yet. `execute=False` opens it without beginning a run.
        Errors: `AlreadyLockedError` where another process writes it; `DamagedError` where
            acknowledged work is missing.
        """
        if durability not in _DURABILITIES:
            raise ConfigurationError(
                f"durability is {durability!r}; it must be one of {', '.join(_DURABILITIES)}"
            )
        site = self._folder.place(name)
        self._clean_if_due()
        if site.folder.stat() is None:
            self._create(site, SessionKind.WORK)
        session = self._open_in_turn(site, durability, execute=execute, waits=waits)
        try:
            if total_batches is not None:
                session.set_total_batches(total_batches)
        except BaseException:
            session.close()
            raise
        return session

    def _create(self, site: Site, kind: SessionKind, *data: Any) -> None:
        with self._folder.writable():
            create_session(
                self._folder.directory.folder(SESSIONS), site, self._settings("process"), kind, data
            )

    def _settings(self, durability: Durability) -> Settings:
        return Settings(
            durability,
            self.tracker,
            self.config,
            self._folder.backup_root(),
            self._clock,
            self._identify,
            self.recovery.stale_after_seconds,
        )

    def _watcher(self) -> Watcher:
        return Watcher(self._identify(), self._clock, self.recovery.stale_after_seconds)

    def _open_in_turn(
        self, site: Site, durability: Durability, *, execute: bool, waits: bool
    ) -> Session:
        """Open it, as soon as its writer is gone where that is worth a wait."""
        while True:
            try:
                return self._open(site, durability, execute=execute)
            except AlreadyLockedError as error:
                refusal = error
            # Outside the handler, so that a traceback shows the signal and nothing of ours.
            if not (waits and wait_for_writer(site, self._watcher())):
                raise refusal

    def _open(
        self,
        site: Site,
        durability: Durability = "process",
        *,
        execute: bool = False,
        accept_loss: bool = False,
        take_over: bool = False,
    ) -> Session:
        self._give_way(site)
        writer = Writer(site, self._settings(durability))
        with self._folder.writable():
            self._folder.directory.settle(("", SESSIONS))
            writer.open(accept_loss=accept_loss, take_over=take_over)
        try:
            return Session(writer, self._policy, execute=execute)
        except BaseException:
            writer.close()
            raise

    def _give_way(self, site: Site) -> None:
        """Within one process the newer session goes on: a suspended loop must not lock us out."""
        wait_for_left()
        older = find(site.folder.root)
        if older is None:
            return
        owner = older.thread
        is_other_task = older.is_of_other_task
        if not is_other_task and (owner is working_thread() or not owner.is_alive()):
            older.give_way()
            return
        who = "another task" if is_other_task else f"thread {owner.name!r}"
        raise AlreadyLockedError(
            f"session {site.name!r} is being written by {who} of this process",
            operation="lock",
            path=leases.LOCK_NAME,
            holder={
                "host": self._identify().host,
                "pid": os.getpid(),
                "since": None,
                "epoch": None,
            },
            hint="hand that session over to the other one, or close it first",
        )

    @contextlib.contextmanager
    def _writing(self, name: str, *, accept_loss: bool = False) -> Generator[Session]:
        """The session of this process that writes it, or one for this call alone."""
        site = self._folder.existing(name)
        mine = find(site.folder.root)
        if mine is not None:
            yield mine
            return
        session = self._open(site, accept_loss=accept_loss)
        try:
            yield session
        finally:
            session.close()

    def save_state(self, name: str, data: Any) -> int:
        """Store versioned data without a tracker; return the new version. It is on the disk.

        Errors: `EncodingError` or `RecordTooLargeError` before anything is written.
        """
        plain = plain_value(data, "the data")
        site = self._folder.place(name)
        if site.folder.stat() is None:
            self._create(site, SessionKind.DATA, plain)
            return 1
        with self._writing(name) as session:
            session.set_data(plain)
            return session.snapshot()

    def save_checkpoint(
        self,
        name: str,
        type: CheckpointType | str,
        data: Any = None,
        *,
        label: str | None = None,  # the word of the public face
    ) -> str:
        """Set a typed mark in a session and return its id. It is on the disk."""
        kind = checkpoints.check_type(type)
        with self._writing(name) as session:
            return session.save_checkpoint(kind, data, name=label)

    def restart(self, name: str) -> int:
        """Begin the work anew, as a new version; older versions stay. Return its number."""
        with self._writing(name) as session:
            session.restart()
            return session.snapshot()

    def retry(
        self,
        name: str,
        *,
        keys: Iterable[Key] | None = None,
        error_type: BatchErrorType | None = None,
    ) -> RetryResult:
        """Put failed batches and items back to pending, with fresh attempts.

        `keys` are of items or batches; without a choice all that failed is put back, also what is
        not recoverable. Errors: `LookupError` for a key of nothing that failed.
        """
        with self._writing(name) as session:
            live = session.live
            chosen = choose_failed(live, None if keys is None else list(keys), error_type)
            if chosen.unmet:
                raise SessionNotFoundError(
                    f"nothing that failed in session {name!r} has the key {chosen.unmet[0]!r}",
                    hint=f"see what failed: {command(self.path, 'show', name, '--failed')}",
                )
            labels = [live.failed_batches[number].batch_id for number in chosen.batches]
            if chosen.batches or chosen.items:
                session.put_back(chosen.batches, chosen.items)
            count = sum(len(each) for each in chosen.items.values())
            return RetryResult(batches=labels, items=count)

    def unlock(self, name: str) -> bool:
        """Take a session at once from a writer that may be on another host, and give it free.

        That writer, if it lives after all, is told at its next durable acknowledgement. Returns
        whether there was anything to unlock. Errors: `AlreadyLockedError` where a process of this
        host holds the session: it lives.
        """
        site = self._folder.existing(name)
        lease = leases.newest_lease(site.folder)
        if lease is None or not presence.may_be_elsewhere(site, lease, self._identify()):
            lock = leases.WriterLock(site.folder)
            lock.acquire()  # or it says who holds it
            lock.release()
            return False
        self._open(site, take_over=True).close()
        return True

    def restore(self, name: str, version: int | None = None) -> int:
        """Make an older version the state again, as a new version; return its number.

        This is also what accepts the loss in a damaged session; without a version it goes on from
        all that is sure, journals included.
        """
        site = self._folder.existing(name)
        if version is None:
            with self._writing(name, accept_loss=True) as session:
                return session.snapshot()
        _, old = history.load_version(self._folder.files(site), version)
        with self._writing(name, accept_loss=True) as session:
            return session.restore(old, version)

    # Reading.

    def now_ns(self) -> int:
        """The wall clock by which this store judges ages, in nanoseconds."""
        return self._clock.now_ns()

    def taken_by(self, token: str) -> dict[str, set[int]]:
        """Session name to the pids that took a turn in it, of the processes of one supervisor."""
        found: dict[str, set[int]] = {}
        for site in map(self._folder.site, self.names()):
            for epoch in leases.epochs(site.folder):
                with contextlib.suppress(FormatError, StorageError):
                    lease = leases.read_lease(site.folder, epoch)
                    if lease.started_by == token:
                        found.setdefault(site.name, set()).add(lease.pid)
        return found

    def folder_of(self, name: str) -> str:
        """Absolute path of a session's folder."""
        return self._folder.site(name).folder.root

    def sessions_changed_ns(self) -> int:
        """When a session last came or went; 0 where there is none. It costs one `stat`."""
        status = self._folder.directory.stat(SESSIONS)
        return status.modified_ns if status is not None else 0

    def names(self) -> list[str]:
        """The names of all sessions."""
        return self._folder.names()

    def sessions(self) -> list[SessionInfo]:
        """All sessions, the latest updated first; one that cannot be read says why."""
        found = [self._info(name) for name in self.names()]
        oldest = datetime.min.replace(tzinfo=UTC)
        return sorted(found, key=lambda info: info.last_updated or oldest, reverse=True)

    def _info(self, name: str) -> SessionInfo:
        try:
            view = self.view(name)
            count = len(self.versions(name))
        except MilepostError as error:
            return SessionInfo(
                session_id=name,
                status=None,
                reason=str(error),
                latest_version=0,
                last_updated=None,
                state_count=0,
            )
        return SessionInfo(
            session_id=name,
            status=view.judgement.status,
            reason=view.judgement.reason,
            latest_version=view.version,
            last_updated=view.state.last_updated,
            state_count=count,
        )

    def view(self, name: str) -> View:
        """All that is known of a session, read without a lock."""
        site = self._folder.existing(name)
        return look(site, self._folder.files(site), self._watcher())

    def disagreements(self, name: str, *, events_max: int | None = None) -> list[Finding]:
        """Where the newest version is not what the one before it and the journals lead to.

        It is mostly empty, and costs about as much as another reading; `events_max` bounds it: with
        more events between the two versions nothing is looked at.
        """
        site = self._folder.existing(name)
        return disagreements(self._folder.files(site), events_max=events_max)

    def presence(self, name: str, *, note: bool = False) -> Presence:
        """Whether the writer of a session is there, without reading its state.

        With `note` the heartbeat of a writer on another host is remembered, so that a later look
        can tell how long it has been silent.
        """
        site = self._folder.existing(name)
        lease = leases.newest_lease(site.folder)
        return presence.look(site, lease, self._watcher(), note=note)

    def load_progress(self, name: str, version: int | None = None) -> SessionState:
        """The state of a session, its journal included, or that of one version."""
        site = self._folder.existing(name)
        if version is not None:
            return history.load_version(self._folder.files(site), version)[1]
        loaded = history.load_live(self._folder.files(site))
        check_name_of(site, loaded)
        return loaded.state

    @overload
    def load_state(self, name: str, *, version: int | None = None, type: type[T]) -> T: ...
    @overload
    def load_state(
        self, name: str, *, version: int | None = None, type: type[T], default: D
    ) -> T | D: ...
    @overload
    def load_state(
        self, name: str, *, version: int | None = None, type: None = None, default: Any = ...
    ) -> Any: ...
    def load_state(
        self,
        name: str,
        *,
        version: int | None = None,
        type: type[T] | None = None,  # the word of the public face
        default: Any = _MISSING,
    ) -> Any:
        """The data of a session, of its latest state or of one version.

        With `type`, as that type. An unknown session or version gives `default` if there is one.
        Errors: `SessionNotFoundError`, `SnapshotNotFoundError`; `SchemaError` for the wrong type.
        """
        try:
            state = self.load_progress(name, version)
        except LookupError:
            if default is _MISSING:
                raise
            return default
        if not state.has_data and default is not _MISSING:
            return default
        return convert_value(state.data, type, f"the data of session {name!r}")

    def plan(self, name: str) -> list[PlannedBatch]:
        """The sealed plan of a session, by batch number; empty for one that has none.

        Errors: `FormatError` where every copy of a part is damaged.
        """
        site = self._folder.existing(name)
        files = self._folder.files(site)
        state = history.load_live(files).state
        return plans.load(files.folder, files.backups, state)

    def versions(self, name: str) -> list[VersionInfo]:
        """The versions of a session, the newest first."""
        return list(reversed(versions.list_versions(self._folder.existing(name).folder)))

    def checkpoints(self, name: str) -> list[CheckpointInfo]:
        """The checkpoints of a session, the newest first."""
        return list(reversed(self.load_progress(name).checkpoints))

    @overload
    def load_checkpoint(self, id: str, *, type: type[T]) -> T: ...
    @overload
    def load_checkpoint(self, id: str, *, type: None = None) -> Any: ...
    def load_checkpoint(
        self, id: str, *, type: type[T] | None = None
    ) -> Any:  # the words of the public face
        """The data of a checkpoint; with `type`, as that type.

        Errors: `CheckpointNotFoundError`; `FormatError` where every copy is damaged.
        """
        self.check()
        if checkpoints.is_id(id):
            for folder in self._folder.directory.names(SESSIONS):
                site = Site(
                    self._folder.directory.folder(f"{SESSIONS}/{folder}"),
                    folder,
                    session_name(folder) or "",
                )
                for place in self._places_of(site, id):
                    try:
                        _, data = checkpoints.read(place, id)
                    except (FormatError, SchemaError):
                        continue
                    return convert_value(data, type, f"checkpoint {id}")
                if site.folder.exists(checkpoints.path_of(id)):
                    checkpoints.read(site.folder, id)  # says what is wrong with it
        raise CheckpointNotFoundError(
            f"there is no checkpoint {id!r} in {self.path}",
            hint=f"list them: {command(self.path, 'show', 'NAME', '--checkpoints')}",
        )

    def _places_of(self, site: Site, checkpoint_id: str) -> list[LocalDirectory]:
        path = checkpoints.path_of(checkpoint_id)
        files = self._folder.files(site)
        return [place for place in (files.folder, *files.backups) if place.exists(path)]

    def events(self, name: str) -> Iterator[BatchEvent]:
        """All events that the kept journals hold, the oldest first."""
        site = self._folder.existing(name)
        files = self._folder.files(site)
        uid = history.load_live(files).state.uid
        return history.events_in(files, uid)

    def read_file(self, path: str | os.PathLike[str]) -> Iterator[Any]:
        """What is in a file of a store, as plain data: its header, then its body or its records."""
        return read_file(path)

    # Clean-up by age.

    def cleanup(self, *, older_than: timedelta | None = None) -> CleanupResult:
        """Remove old versions and checkpoints of finished sessions.

        The newest version and checkpoint of anything stay, and so does all of an unfinished
        session. What crashes left of sessions that were being made goes too. Default age:
        `cleanup_interval_hours`.
        """
        self.check()
        if older_than is None:
            older_than = timedelta(hours=self.config.cleanup_interval_hours)
        age_ns = int(older_than.total_seconds() * 1e9)
        states = marks = 0
        skipped: dict[str, str] = {}
        for name in self.names():
            try:
                removed = self._clean(name, age_ns)
            except MilepostError as error:
                skipped[name] = str(error)
                continue
            states += removed[0]
            marks += removed[1]
        with contextlib.suppress(StorageError):
            remove_unfinished(
                self._folder.directory.folder(SESSIONS),
                older_than_ns=age_ns,
                now_ns=self._clock.now_ns(),
            )
        return CleanupResult(deleted_states=states, deleted_checkpoints=marks, skipped=skipped)

    def _clean(self, name: str, age_ns: int) -> tuple[int, int]:
        site = self._folder.existing(name)
        now_ns = self._clock.now_ns()
        old = retention.decide_by_age(
            versions.list_versions(site.folder), older_than_ns=age_ns, now_ns=now_ns
        )
        view = self.view(name)
        marks = [
            each.id for each in view.state.checkpoints[:-1] if now_ns - each.created_ns > age_ns
        ]
        ended = view.judgement.status in {SessionStatus.COMPLETED, SessionStatus.FAILED}
        if not ended or view.is_lossy or not (old.remove or marks):
            return 0, 0
        with self._writing(name) as session:
            return session.clean(age_ns)

    def _clean_if_due(self) -> None:
        """Once per interval, when a session is opened; the stamp's own age says when."""
        stamp = self._folder.directory.stat(CLEANED)
        now_ns = self._clock.now_ns()
        due_ns = int(self.config.cleanup_interval_hours * 3600e9)
        if stamp is not None and 0 <= now_ns - stamp.modified_ns < due_ns:
            return
        with contextlib.suppress(StorageError):
            self._folder.directory.publish_derived(CLEANED, b"when the age clean-up last ran\n")
        if stamp is not None:
            with contextlib.suppress(MilepostError):
                self.cleanup()


def cleanup(store: Store, *, older_than: timedelta | None = None) -> CleanupResult:
    """Remove old versions and checkpoints of finished sessions: `Store.cleanup`."""
    return store.cleanup(older_than=older_than)


def read_file(path: str | os.PathLike[str]) -> Iterator[Any]:
    """What is in any file of a store, as plain data; the file alone is looked at.

    For a framed file its header and body, for a journal every record, for a lease or a manifest its
    fields.

    Errors: `FormatError` for wrong bytes, `NotAMilepostFileError` for a stranger's file.
    """
    folder, name = os.path.split(os.path.abspath(path))
    data = LocalDirectory(folder).read(name, size_bytes_max=frame.FILE_BYTES_MAX)
    return contents.of(data, name)
