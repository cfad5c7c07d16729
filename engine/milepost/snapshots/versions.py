"""Snapshots: the folded state at one sequence number, in a file that never changes.

- The file name says version, sequence and epoch; the header says the same, or the file is not
  believed.
- Versions count up from 1 and are never used twice in a session. A restored state is a new version.

Source: FORMAT.md, "Snapshots".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from milepost.clock import utc
from milepost.errors import FormatError, SchemaError, StorageError, UnsupportedVersionError
from milepost.model.state import FOLD_VERSION, SCHEMA_VERSION, SessionState
from milepost.storage import frame

if TYPE_CHECKING:
    from datetime import datetime

    from milepost.storage.directory import LocalDirectory

FOLDER: Final = "snapshots"
ENDING: Final = ".zst"
KIND: Final = "snapshot"
SCHEMA: Final = "SessionState"

_encode_state = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(SessionState).decode


class SnapshotName(NamedTuple):
    """A snapshot's place in its session; sorts by epoch, then sequence.

    Attributes:
        epoch: The writer's turn in which it was made.
        sequence: The last event that is in it.
        version: Its label for people.
    """

    epoch: int
    sequence: int
    version: int

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.version}.{self.sequence}.{self.epoch}{ENDING}"

    @property
    def path(self) -> str:
        """The file, relative to the session's folder."""
        return f"{FOLDER}/{self.name}"


class VersionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a session's state.

    Attributes:
        version: Its label.
        sequence: The last event that is in it.
        epoch: The writer's turn in which it was made.
        created_ns: When.
        size_bytes: Length of its file.
        by_hand: Whether somebody asked for it; such versions have their own number to keep.
        restored_from: The version it restored; `None` for an ordinary one.
        segments: Segments it refers to.
    """

    version: int
    sequence: int
    epoch: int
    created_ns: int
    size_bytes: int
    by_hand: bool = False
    restored_from: int | None = None
    segments: tuple[str, ...] = ()

    @property
    def created_at(self) -> datetime:
        """When it was made."""
        return utc(self.created_ns)

    @property
    def name(self) -> SnapshotName:
        """Its place in the session."""
        return SnapshotName(self.epoch, self.sequence, self.version)


def parse_name(name: str) -> SnapshotName | None:
    """The parts of a snapshot's file name; `None` for a stranger."""
    parts = name.removesuffix(ENDING).split(".")
    if not name.endswith(ENDING) or len(parts) != 3:
        return None
    if not all(part.isascii() and part.isdigit() for part in parts):
        return None
    version, sequence, epoch = (int(part) for part in parts)
    parsed = SnapshotName(epoch, sequence, version)
    return parsed if parsed.name == name else None


def names(folder: LocalDirectory) -> list[SnapshotName]:
    """The snapshots of a session by their names, the oldest first; nothing is read."""
    parsed = (parse_name(name) for name in folder.names(FOLDER))
    return sorted(name for name in parsed if name is not None)


def write(
    folder: LocalDirectory,
    state: SessionState,
    *,
    name: SnapshotName,
    created_ns: int,
    by_hand: bool,
    restored_from: int | None,
    parents: tuple[str, ...],
    level: int,
) -> VersionInfo:
    """Publish a snapshot; on return it is durable."""
    segments = tuple(part.path for part in state.plan)
    facts: dict[str, Any] = {"by_hand": by_hand, "segments": segments}
    if restored_from is not None:
        facts["restored_from"] = restored_from
    header = frame.FrameHeader(
        kind=KIND,
        session=state.session_id,
        session_uid=state.uid,
        version=name.version,
        sequence=name.sequence,
        epoch=name.epoch,
        parents=parents,
        created_ns=created_ns,
        schema=SCHEMA,
        schema_version=SCHEMA_VERSION,
        fold_version=FOLD_VERSION,
        facts=facts,
    )
    data = frame.encode(header, _encode_state(state), level=level)
    folder.make_folder(FOLDER)
    folder.publish(name.path, data)
    return _info(header, len(data))


def read(
    folder: LocalDirectory, name: SnapshotName, *, uid: str | None = None
) -> tuple[VersionInfo, SessionState]:
    """A snapshot, wholly checked; of the session with this identity, where one is given.

    Errors: `FormatError` for wrong bytes or a file that is not what its name says;
        `UnsupportedVersionError` for one of a newer milepost; `StorageError` where it is missing.
    """
    data = folder.read(name.path, size_bytes_max=frame.FILE_BYTES_MAX)
    header, body = frame.decode(data, name.path)
    check_header(header, name)
    try:
        state = _decode_state(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise SchemaError(f"{name.path} does not hold a session state: {error}") from error
    if (state.sequence, state.session_id, state.uid) != (
        header.sequence,
        header.session,
        header.session_uid,
    ):
        raise FormatError(f"{name.path} holds another state than it says", path=name.path)
    if uid is not None and state.uid != uid:
        raise FormatError(
            f"{name.path} belongs to another session, {state.session_id!r}",
            path=name.path,
            hint="put the right file back",
        )
    state.last_snapshot_ns = header.created_ns
    return _info(header, len(data)), state


def read_info(folder: LocalDirectory, name: SnapshotName) -> VersionInfo:
    """What a snapshot says of itself, by its header alone."""
    header, size_bytes = read_header(folder, name.path)
    check_header(header, name)
    return _info(header, size_bytes)


def read_header(folder: LocalDirectory, path: str) -> tuple[frame.FrameHeader, int]:
    """The checked header of any framed file, and the file's size; the body is not looked at."""
    head, size_bytes = folder.read_head(path, frame.HEADER_BYTES_MAX + 64)
    return frame.decode_header(head, path)[0], size_bytes


def check_header(header: frame.FrameHeader, name: SnapshotName) -> None:
    """Header and path must agree, and this release must be able to fold on."""
    if header.kind != KIND or (header.epoch, header.sequence, header.version) != name:
        raise FormatError(
            f"{name.path} says that it is {header.kind}"
            f" {header.version}.{header.sequence}.{header.epoch}",
            path=name.path,
            hint="it was renamed or swapped; put the right file back",
        )
    numbers = ((header.schema_version, SCHEMA_VERSION), (header.fold_version, FOLD_VERSION))
    newer = next(((found, known) for found, known in numbers if found > known), None)
    if newer is not None:
        raise UnsupportedVersionError(
            f"{name.path} holds schema {header.schema_version}, fold {header.fold_version}; this"
            f" milepost knows schema {SCHEMA_VERSION}, fold {FOLD_VERSION}",
            path=name.path,
            found=newer[0],
            supported=newer[1],
            hint="install a newer milepost",
        )


def _texts(value: Any) -> tuple[str, ...]:
    """A list of text, as whoever wrote the header may or may not have meant it."""
    try:
        return tuple(msgspec.convert(value, list[str]))
    except msgspec.ValidationError:
        return ()


def _info(header: frame.FrameHeader, size_bytes: int) -> VersionInfo:
    facts = header.facts
    restored: Any = facts.get("restored_from")
    return VersionInfo(
        version=header.version,
        sequence=header.sequence,
        epoch=header.epoch,
        created_ns=header.created_ns,
        size_bytes=size_bytes,
        by_hand=facts.get("by_hand") is True,
        restored_from=restored if isinstance(restored, int) else None,
        segments=_texts(facts.get("segments")),
    )


def list_versions(folder: LocalDirectory) -> list[VersionInfo]:
    """All versions whose header can be read, the oldest first; damaged ones are left out."""
    found: list[VersionInfo] = []
    for name in names(folder):
        try:
            found.append(read_info(folder, name))
        except (FormatError, SchemaError, StorageError):
            continue
    return found
