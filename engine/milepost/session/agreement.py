"""Whether journals and snapshots agree: an older version and the events since are the newer one.

- Both are read by the rules of any reading; neither is believed more than the other. Where they
  part, somebody has to look.
- Nothing can be said where events in between are gone, or where the newer version is a restored
  one: then nothing is found.

Source: FORMAT.md, "Opening a session".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from milepost.errors import FormatError, SchemaError, StorageError
from milepost.model import fold
from milepost.model.consistency import Finding
from milepost.session import history
from milepost.snapshots import versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from milepost.model.state import SessionState
    from milepost.snapshots.versions import VersionInfo


def disagreements(files: history.Files, *, events_max: int | None = None) -> list[Finding]:
    """What is wrong between the newest good version and the one before it; mostly nothing.

    It costs two snapshots and the events between them, of which some 250,000 are folded a second.
    Where they are more than `events_max`, nothing is looked at and nothing found.
    """
    found = _good_versions(files)
    newer, older = next(found, None), next(found, None)
    if newer is None or older is None or newer[0].restored_from is not None:
        return []
    (info, stated), (base, state) = newer, older
    if events_max is not None and info.sequence - base.sequence > events_max:
        return []
    try:
        for event in history.events_in(
            files, stated.uid, after=base.sequence, through=info.sequence
        ):
            if event.sequence != state.sequence + 1:
                break  # what lies between is gone
            state = fold.apply(state, event)
    except fold.FoldError as error:
        return [_finding(info, base, f"an event between them cannot have happened: {error}")]
    except (FormatError, SchemaError):
        return []  # damage is told by who reads the session
    if state.sequence != stated.sequence:
        return []
    state.last_snapshot_ns = stated.last_snapshot_ns
    parts = [
        name
        for name in stated.__struct_fields__
        if not _are_same(getattr(state, name), getattr(stated, name))
    ]
    return [_finding(info, base, f"they differ in {', '.join(parts)}")] if parts else []


def _good_versions(files: history.Files) -> Iterator[tuple[VersionInfo, SessionState]]:
    """The versions that can be read, from wherever they can be, the newest first."""
    for name in history.accepted_versions(files):
        for place in (files.folder, *files.backups):
            try:
                yield versions.read(place, name)
                break
            except (FormatError, SchemaError, StorageError):
                continue


def _are_same(one: Any, other: Any) -> bool:
    """Equal, where what is no number equals itself: a user's data may hold it."""
    if one == other:
        return True
    kind: Any = one.__class__
    if kind is not type(other):
        return False
    if issubclass(kind, msgspec.Struct):
        return all(
            _are_same(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__
        )
    if kind is dict:
        return one.keys() == other.keys() and all(_are_same(one[key], other[key]) for key in one)
    if kind is list or kind is tuple:
        return len(one) == len(other) and all(map(_are_same, one, other))
    return kind is float and one != one and other != other  # noqa: PLR0124  # that is the question


def _finding(newer: VersionInfo, older: VersionInfo, what: str) -> Finding:
    return Finding(
        rule="disagreement",
        path=newer.name.path,
        message=f"version {newer.version} is not what version {older.version} and the journals"
        f" since lead to: {what}",
    )
