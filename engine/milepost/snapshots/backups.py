"""Backups: a second, real copy of a snapshot and all it needs, on another disk if one is named.

- What is copied is checked first: damage is never copied over something good, and nothing in a
  backup is ever replaced.
- A backup keeps its own last N; what a kept snapshot names stays as long.
- Files have the same names and bytes as in the session, so that one can be put back by hand.

Source: FORMAT.md, "Backups".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from milepost.errors import FormatError, SchemaError, StorageError
from milepost.snapshots import checkpoints, segments, versions
from milepost.storage import frame

if TYPE_CHECKING:
    from collections.abc import Iterable

    from milepost.snapshots.versions import SnapshotName
    from milepost.storage.directory import LocalDirectory

FOLDER: Final = "backups"


def copy_version(
    source: LocalDirectory,
    target: LocalDirectory,
    name: SnapshotName,
    *,
    needs: Iterable[str],
    keep_last: int,
) -> None:
    """Copy a snapshot after the files it needs, then let go of what is beyond the last N.

    Errors: `StorageError` where the target cannot be written; `FormatError` where the source is
        damaged, and then nothing of it is copied.
    """
    _sweep(target)
    for path in needs:
        _copy(source, target, path)
    versions.read_info(source, name)  # one that was swapped is not copied under a wrong name
    _copy(source, target, name.path)
    _prune(target, keep_last)


def _sweep(target: LocalDirectory) -> None:
    """Remove what crashed copies left; only the session's one writer copies here."""
    for folder in (versions.FOLDER, segments.FOLDER, checkpoints.FOLDER):
        for name in target.temporaries(folder):
            target.remove(f"{folder}/{name}")


def _copy(source: LocalDirectory, target: LocalDirectory, path: str) -> None:
    if target.exists(path):
        return
    data = source.read(path, size_bytes_max=frame.FILE_BYTES_MAX)
    frame.decode(data, path)
    target.make_folders(path.rpartition("/")[0])
    target.publish(path, data)


def _prune(target: LocalDirectory, keep_last: int) -> None:
    kept = versions.names(target)
    for name in kept[:-keep_last]:
        target.remove(name.path)
    needed: set[str] = set()
    for name in kept[-keep_last:]:
        try:
            _, state = versions.read(target, name)
        except (FormatError, SchemaError, StorageError):
            return  # what a damaged copy needs is not known, so nothing more is let go
        needed.update(part.path for part in state.plan)
        needed.update(checkpoints.path_of(each.id) for each in state.checkpoints)
    for folder in (segments.FOLDER, checkpoints.FOLDER):
        for file in target.names(folder):
            if f"{folder}/{file}" not in needed:
                target.remove(f"{folder}/{file}")


def folder_for(root: LocalDirectory, lineage: str, session_folder: str) -> LocalDirectory:
    """Where the backups of one session in one line of copies are."""
    return root.folder(f"{lineage}/{session_folder}")


def find(root: LocalDirectory, lineage: str | None, session_folder: str) -> list[LocalDirectory]:
    """The backups there are for a session; without a lineage, those of all lines."""
    lineages = [lineage] if lineage else root.names()
    folders = [folder_for(root, each, session_folder) for each in lineages]
    return [folder for folder in folders if folder.stat() is not None]
