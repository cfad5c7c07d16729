"""A session's immutable files in the hands of its writer: versions, second copies, what may go.

- A version number is spent when it is tried: a name is never used twice, also after a failure.
- Nothing goes that something kept needs; the newest version has a second copy before the one before
  it goes (where backups are on).
- The manifest is written without the files that go, then they go. A disk that refuses to let go of
  something fails nothing.
- All methods but `copy` want the writer's lock held.

Source: FORMAT.md, "Retention", "Backups", "Manifest".
"""

from __future__ import annotations

import contextlib
import logging
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from milepost.errors import MilepostError, StorageError
from milepost.session import history
from milepost.snapshots import backups, checkpoints, retention, versions
from milepost.snapshots import manifest as manifests
from milepost.snapshots.versions import SnapshotName
from milepost.storage import frame
from milepost.storage import lease as leases
from milepost.storage.heartbeat import beat_path, seen_path
from milepost.types import StoreConfig, label

if TYPE_CHECKING:
    import msgspec

    from milepost.clock import Clock
    from milepost.journal.record import JournalName
    from milepost.model.state import SessionState
    from milepost.session.turn import Site, Turn
    from milepost.snapshots.versions import VersionInfo
    from milepost.storage.directory import LocalDirectory

logger = logging.getLogger("milepost.session")

COPY_AGAIN_SECONDS = 30.0
"""A backup that failed is tried again after this long, or with the next snapshot."""


FIRST_VERSION: Final = 1


class BackupTask(NamedTuple):
    """A snapshot that has no second copy yet, and the files that it needs."""

    name: SnapshotName
    needs: list[str]


class Archive:
    """The versions of one session, as its writer keeps them.

    Attributes:
        latest: The newest version.
        backup_error: What was last wrong with the backup; empty while it works.
    """

    latest: VersionInfo

    def __init__(
        self,
        site: Site,
        turn: Turn,
        config: StoreConfig,
        backup_root: LocalDirectory | None,
        clock: Clock,
    ) -> None:
        self._site = site
        self._folder = site.folder
        self._turn = turn
        self._config = config
        self._backup_root = backup_root
        self._clock = clock
        self._versions: list[VersionInfo] = []
        self._last_version = 0
        self._not_copied: BackupTask | None = None
        self._copy_again_at = -math.inf
        self.level = frame.LEVEL_HOT if config.enable_compression else frame.LEVEL_NONE
        self.backup_error = ""

    def adopt(self, loaded: history.Loaded) -> None:
        """Know what an opening found."""
        self._last_version = loaded.version
        self._versions = versions.list_versions(self._folder)
        self.latest = loaded.base
        if loaded.base.version == FIRST_VERSION and self._is_first_alone():
            self._not_copied = BackupTask(loaded.base.name, [])

    def _is_first_alone(self) -> bool:
        """Whether the version that the session was made with, by no writer, has no second copy.

        Without it, and until there is another one, nothing could be read.
        """
        if self._backup_root is None:
            return False
        target = backups.folder_for(self._backup_root, self._turn.lineage, self._site.folder_name)
        with contextlib.suppress(StorageError):
            return not versions.names(target)
        return True  # the copy will say what is wrong

    @property
    def versions(self) -> list[VersionInfo]:
        """The versions there are, the oldest first."""
        return list(self._versions)

    def files(self, lease: leases.Lease | None) -> history.Files:
        """Where to read the session from: its folder, and the backups of the lease's line."""
        if self._backup_root is None:
            return history.Files(self._folder, (), self._site.name)
        lineage = lease.lineage if lease else None
        found = backups.find(self._backup_root, lineage, self._site.folder_name)
        return history.Files(self._folder, tuple(found), self._site.name)

    # Snapshots.

    def save(
        self,
        state: SessionState,
        *,
        parent: str | None,
        by_hand: bool = False,
        restored_from: int | None = None,
    ) -> int:
        """Publish the state as the next version and return its number; it is durable."""
        self._last_version += 1
        info = versions.write(
            self._folder,
            state,
            name=versions.SnapshotName(self._turn.epoch, state.sequence, self._last_version),
            created_ns=self._clock.now_ns(),
            by_hand=by_hand,
            restored_from=restored_from,
            parents=(parent,) if parent is not None else (),
            level=self.level,
        )
        self.latest = info
        state.last_snapshot_ns = info.created_ns
        self._versions.append(info)
        if self._backup_root is not None:
            # What it needs is what this state names; by the time of the copy there is another one.
            needs = [part.path for part in state.plan]
            needs += [checkpoints.path_of(each.id) for each in state.checkpoints]
            self._not_copied = BackupTask(info.name, needs)
            self._copy_again_at = -math.inf
        return info.version

    # Second copies.

    def next_backup(self) -> BackupTask | None:
        """The newest snapshot, if it has no second copy yet and is to be copied now."""
        return self._not_copied if self._clock.monotonic() >= self._copy_again_at else None

    def copy(self, task: BackupTask) -> str:
        """Make a second copy; a failure is told, not raised: returns what was wrong, if anything.

        Called without the lock: copying may take its time.
        """
        if self._backup_root is None:
            return ""
        target = backups.folder_for(self._backup_root, self._turn.lineage, self._site.folder_name)
        try:
            backups.copy_version(
                self._folder,
                target,
                task.name,
                needs=task.needs,
                keep_last=self._config.max_state_history,
            )
        except (MilepostError, OSError) as error:
            logger.warning("session %r: the backup failed: %s", self._site.name, error)
            return str(error)
        return ""

    def note_copy(self, task: BackupTask, problem: str) -> bool:
        """Know how a copy went; returns whether what is told of the backup changed."""
        if problem:
            self._copy_again_at = self._clock.monotonic() + COPY_AGAIN_SECONDS
        elif self._not_copied is task:  # and not a newer one
            self._not_copied = None
        before, self.backup_error = self.backup_error, problem
        return problem != before

    # Letting go.

    def keep_house(self, state: SessionState) -> None:
        """Let go of what nothing kept needs."""
        keep_last = self._config.max_state_history
        if self._not_copied is not None:
            keep_last = max(2, keep_last)
        decision = retention.decide(
            self._versions, keep_last=keep_last, now_ns=self._clock.now_ns()
        )
        self.let_go(decision, state)

    def let_go(self, decision: retention.Decision, state: SessionState) -> int:
        """Carry out a decision about versions; returns how many snapshots were removed.

        Errors: `SupersededError` with nothing changed: what is there is the successor's to keep.
        """
        self._turn.check()
        going = [each for each in self._versions if each.version in decision.remove]
        self._versions = [each for each in self._versions if each.version in decision.keep]
        there = history.journals(self._folder)
        old = set(
            retention.journals_to_remove(
                there,
                self._versions,
                keep_last=self._config.max_state_history,
                now_ns=self._clock.now_ns(),
            )
        )
        self.write_manifest(state, [name for name in there if name not in old])
        with contextlib.suppress(StorageError):
            for each in going:
                self._folder.remove(each.name.path)
            for journal in old:
                self._folder.remove(journal.path)
            self._let_go_of_leases()
        return len(going)

    def _let_go_of_leases(self) -> None:
        used = [each.epoch for each in self._versions]
        used += [name.epoch for name in history.journals(self._folder)]
        oldest = min([self._turn.epoch, *used])
        for epoch in leases.epochs(self._folder):
            if epoch < oldest:
                self._folder.remove(leases.lease_path(epoch))
                self._folder.remove(beat_path(epoch))
                self._folder.remove(seen_path(epoch))

    # The index.

    def write_manifest(
        self, state: SessionState, journals: list[JournalName] | None = None
    ) -> None:
        """Write the manifest anew."""
        if journals is None:
            journals = history.journals(self._folder)
        # One that a killed writer had begun and not written holds nothing that could be missed.
        own = self._turn.epoch
        journals = [each for each in journals if each.first <= state.sequence or each.epoch == own]
        manifests.write(
            self._folder,
            manifests.Manifest(
                session=state.session_id,
                session_uid=state.uid,
                lineage=self._turn.lineage,
                epoch=self._turn.epoch,
                folder_inode=self._turn.inode,
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
                executions=[_as_dict(each) for each in state.executions],
                backup=self.backup_error,
            ),
        )


def _as_dict(value: msgspec.Struct) -> dict[str, Any]:
    return {field: getattr(value, field) for field in value.__struct_fields__}
