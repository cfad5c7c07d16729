"""Backups: second, real copies, never made from damage, kept to their own last N."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from milepost.errors import FormatError, StorageError, StorageFullError
from milepost.model.events import NO_BATCH, CheckpointSaved, PlanSealed
from milepost.snapshots import backups, checkpoints, segments, versions
from milepost.snapshots.segments import Identity, PlannedBatch
from milepost.snapshots.versions import SnapshotName, VersionInfo
from milepost.storage import frame
from milepost.storage.directory import LocalDirectory
from milepost.types import CheckpointType
from support.histories import UID, Story
from support.recording import Recording

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = Identity("crawl", UID, 1)


class Original:
    """A session's folder that grows, and what its snapshots need."""

    def __init__(self, folder: LocalDirectory) -> None:
        self.folder = folder
        self.story = Story()
        self.version = 0

    def plan(self, *keys: str) -> None:
        part = segments.seal_plan(
            self.folder,
            [PlannedBatch(key) for key in keys],
            first=self.story.state.planned,
            sequence=self.story.state.sequence,
            created_ns=5,
            identity=IDENTITY,
            level=frame.LEVEL_SEALED,
        )
        self.story.happen(PlanSealed, NO_BATCH, part.path, part.first, part.count)

    def checkpoint(self) -> str:
        made = checkpoints.write(
            self.folder,
            CheckpointType.BATCH_PROGRESS,
            {"page": 7},
            name=None,
            sequence=self.story.state.sequence,
            created_ns=5,
            identity=IDENTITY,
            level=frame.LEVEL_HOT,
        )
        self.story.happen(CheckpointSaved, NO_BATCH, made, CheckpointType.BATCH_PROGRESS, None)
        return made

    def snapshot(self) -> VersionInfo:
        self.story.run()
        self.version += 1
        return versions.write(
            self.folder,
            self.story.state,
            name=SnapshotName(1, self.story.state.sequence, self.version),
            created_ns=5,
            by_hand=False,
            restored_from=None,
            parents=(),
            level=frame.LEVEL_HOT,
        )

    def needs(self) -> list[str]:
        paths = [part.path for part in self.story.state.plan]
        return paths + [checkpoints.path_of(each.id) for each in self.story.state.checkpoints]

    def back_up(self, target: LocalDirectory, info: VersionInfo, *, keep_last: int = 3) -> None:
        backups.copy_version(
            self.folder, target, info.name, needs=self.needs(), keep_last=keep_last
        )


@pytest.fixture
def system(tmp_path: Path) -> Recording:
    return Recording(str(tmp_path / "second"))


@pytest.fixture
def target(tmp_path: Path, system: Recording) -> LocalDirectory:
    (tmp_path / "second").mkdir()
    root = LocalDirectory(str(tmp_path / "second"), system=system)
    return backups.folder_for(root, "lineage", "crawl")


@pytest.fixture
def original(tmp_path: Path) -> Original:
    (tmp_path / "first").mkdir()
    return Original(LocalDirectory(str(tmp_path / "first")))


def everything(folder: LocalDirectory) -> set[str]:
    found: set[str] = set()
    for name in ("snapshots", "segments", "checkpoints"):
        found |= {f"{name}/{file}" for file in folder.names(name)}
    return found


def spoil(folder: LocalDirectory, path: str) -> None:
    with open(folder.full(path), "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))


def test_a_backup_is_the_same_files_with_the_same_bytes(
    original: Original, target: LocalDirectory
) -> None:
    original.plan("a", "b")
    original.checkpoint()
    info = original.snapshot()
    original.back_up(target, info)
    assert everything(target) == {*original.needs(), info.name.path}
    for path in everything(target):
        assert target.read(path, size_bytes_max=1 << 20) == original.folder.read(
            path, size_bytes_max=1 << 20
        )
    assert versions.read(target, info.name)[1].sequence == info.sequence


def test_what_crashed_copies_left_is_removed(original: Original, target: LocalDirectory) -> None:
    original.plan("a")
    original.back_up(target, original.snapshot())
    for folder in ("snapshots", "segments"):
        with open(target.full(f"{folder}/.1.2.3.zst.0a1b2c3d.tmp"), "wb") as file:
            file.write(b"half")
    original.back_up(target, original.snapshot())
    assert target.temporaries("snapshots") == target.temporaries("segments") == []


def test_a_backup_is_a_copy_and_no_link(original: Original, target: LocalDirectory) -> None:
    info = original.snapshot()
    original.back_up(target, info)
    one = os.stat(original.folder.full(info.name.path))
    other = os.stat(target.full(info.name.path))
    assert one.st_ino != other.st_ino
    assert one.st_nlink == other.st_nlink == 1
    spoil(original.folder, info.name.path)
    versions.read(target, info.name)


def test_what_a_snapshot_needs_is_there_before_it(
    original: Original, target: LocalDirectory, system: Recording
) -> None:
    original.plan("a")
    made = original.checkpoint()
    info = original.snapshot()
    original.back_up(target, info)
    renames = [call.rpartition("/")[2] for call in system.calls if call.startswith("rename")]
    assert renames[-1] == info.name.name
    assert f"{made}.zst" in renames[:-1]
    assert len(renames) == 3
    assert system.calls.count("fsync TMP") == 3


def test_backing_up_again_writes_nothing(
    original: Original, target: LocalDirectory, system: Recording
) -> None:
    original.plan("a")
    info = original.snapshot()
    original.back_up(target, info)
    system.calls.clear()
    original.back_up(target, info)
    assert system.calls == []


def test_a_backup_keeps_its_own_last_n(original: Original, target: LocalDirectory) -> None:
    infos = [original.snapshot() for _ in range(5)]
    for info in infos:
        original.back_up(target, info, keep_last=2)
    assert [each.version for each in versions.names(target)] == [4, 5]
    # What the session itself let go of is not let go of here.
    for info in infos:
        original.folder.remove(info.name.path)
    info = original.snapshot()
    original.back_up(target, info, keep_last=2)
    assert [each.version for each in versions.names(target)] == [5, 6]


def test_what_no_kept_snapshot_needs_is_let_go(original: Original, target: LocalDirectory) -> None:
    made = original.checkpoint()
    first = original.snapshot()
    original.back_up(target, first, keep_last=1)
    original.story.state.checkpoints.clear()
    second = original.snapshot()
    original.back_up(target, second, keep_last=2)
    assert checkpoints.path_of(made) in everything(target)
    third = original.snapshot()
    original.back_up(target, third, keep_last=2)
    assert checkpoints.path_of(made) not in everything(target)


def test_a_target_that_cannot_be_written_raises(
    original: Original, target: LocalDirectory, system: Recording
) -> None:
    info = original.snapshot()
    system.failing["write"] = errno.ENOSPC
    with pytest.raises(StorageFullError):
        original.back_up(target, info)
    assert everything(target) == set()
    system.failing = {"fsync": errno.EIO}
    with pytest.raises(StorageError):
        original.back_up(target, info)
    assert everything(target) == set()
    system.failing.clear()
    original.back_up(target, info)
    assert everything(target) == {info.name.path}


@pytest.mark.parametrize("which", ["snapshot", "segment", "checkpoint"])
def test_damage_is_never_copied(original: Original, target: LocalDirectory, which: str) -> None:
    original.plan("a")
    made = original.checkpoint()
    info = original.snapshot()
    path = {
        "snapshot": info.name.path,
        "segment": original.story.state.plan[0].path,
        "checkpoint": checkpoints.path_of(made),
    }[which]
    spoil(original.folder, path)
    with pytest.raises(FormatError) as caught:
        original.back_up(target, info)
    assert caught.value.path == path
    assert path not in everything(target)
    assert info.name.path not in everything(target)


def test_a_swapped_snapshot_is_never_copied(original: Original, target: LocalDirectory) -> None:
    one, two = original.snapshot(), original.snapshot()
    os.replace(original.folder.full(one.name.path), original.folder.full(two.name.path))
    with pytest.raises(FormatError):
        original.back_up(target, two)
    assert everything(target) == set()


def test_nothing_good_in_a_backup_is_replaced(original: Original, target: LocalDirectory) -> None:
    info = original.snapshot()
    original.back_up(target, info)
    before = target.read(info.name.path, size_bytes_max=1 << 20)
    spoil(original.folder, info.name.path)
    original.back_up(target, info)
    assert target.read(info.name.path, size_bytes_max=1 << 20) == before


def test_a_damaged_copy_lets_nothing_go_that_it_may_need(
    original: Original, target: LocalDirectory
) -> None:
    made = original.checkpoint()
    first = original.snapshot()
    original.back_up(target, first)
    spoil(target, first.name.path)
    original.story.state.checkpoints.clear()
    original.back_up(target, original.snapshot())
    assert checkpoints.path_of(made) in everything(target)


def test_where_backups_are_found(tmp_path: Path) -> None:
    root = LocalDirectory(str(tmp_path))
    assert backups.find(root, "one", "crawl") == []
    for lineage, session in (("one", "crawl"), ("two", "crawl"), ("two", "other")):
        (tmp_path / lineage / session).mkdir(parents=True)
    assert [each.root for each in backups.find(root, "one", "crawl")] == [
        str(tmp_path / "one" / "crawl")
    ]
    assert len(backups.find(root, None, "crawl")) == 2
    assert backups.find(root, "three", "crawl") == []
