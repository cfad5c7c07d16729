"""Reading a journal: every record that is sure, and what the end of the file means.

- Nothing behind the first record that does not check is believed.
- What stands there is told apart: nothing or zeros (a clean end), a tail that was never known to be
  on the disk (torn: a crash or a writer at work), or one that was (damaged: work is gone).
- `through` is how much a successor accepted: what a superseded writer wrote after that is reported,
  never read.

Source: FORMAT.md, "Reading a journal".
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from milepost.errors import UnsupportedVersionError
from milepost.journal import record
from milepost.model.events import BatchEvent

_SYNCED_OPENING: Final = b"\x93\x01"
"""How every encoded `SyncedThrough` begins: an array of three, tag 1."""
_SYNCED_BYTES_MAX: Final = 16


class Tail(enum.Enum):
    """What stands behind the last sure record."""

    CLEAN = "clean"
    """Nothing, or zeros allocated ahead."""
    BEYOND = "beyond"
    """Records that no successor accepted: a superseded writer's."""
    TORN = "torn"
    """Bytes that were never known to be on the disk."""
    DAMAGED = "damaged"
    """Bytes that were known to be on the disk, and are not what they were."""


class Replay(msgspec.Struct, kw_only=True):
    """What a journal holds.

    Attributes:
        name: Which journal.
        opened: Its first record; `None` if that is damaged, and then the journal counts as empty.
        events: Its events, in order, but those the caller has in a snapshot.
        size_bytes: Where the last sure record ends.
        chain: Chain value there.
        ends: Where a successor may have gone on: behind the last sure event and behind each mark
            that follows it; with the chain value there.
        synced_through: Highest sequence number known to have been on the disk.
        tail: What stands behind.
        tail_bytes: How much of it.
        last: Sequence number of the last sure event; one before the first where there is none.
    """

    name: record.JournalName
    opened: record.JournalOpened | None
    events: list[BatchEvent]
    size_bytes: int
    chain: int
    ends: dict[int, int]
    synced_through: int
    tail: Tail
    tail_bytes: int
    last: int


def replay(
    data: bytes,
    name: record.JournalName,
    session_uid: str,
    *,
    through: int | None = None,
    after: int = 0,
) -> Replay:
    """Read a journal's bytes as far as they are sure.

    Events up to `after` are checked but not decoded: they are in the caller's snapshot.

    Errors: `UnsupportedVersionError` for a newer format, or a record of a newer kind. Damage is no
        error here but a finding of the caller's.
    """
    version = record.read_file_header(data)
    if version is not None and version > record.FORMAT_VERSION:
        raise UnsupportedVersionError(
            f"{name.path} is of format {version}; this milepost reads up to"
            f" {record.FORMAT_VERSION}",
            path=name.path,
            found=version,
            supported=record.FORMAT_VERSION,
            hint="install a newer milepost",
        )
    result = Replay(
        name=name,
        opened=None,
        events=[],
        size_bytes=0,
        chain=0,
        ends={},
        synced_through=0,
        tail=Tail.CLEAN,
        tail_bytes=0,
        last=name.first - 1,
    )
    if version is not None:
        _read_records(result, data, session_uid, through, after)
    if result.tail is Tail.CLEAN:
        _judge_tail(result, data, session_uid, through)
    return result


def _read_records(
    result: Replay, data: bytes, session_uid: str, through: int | None, after: int
) -> None:
    path = result.name.path
    offset = record.FILE_HEADER_BYTES
    chain = record.first_seed(data)
    expected = result.name.first
    known = after if through is None else min(after, through)
    marked = 0  # before which event the marks stood whose places are in `ends`
    for payload, stop, checksum in record.frames(data, offset, chain):
        if expected <= known and result.opened is not None and record.is_event(payload):
            # It is in the snapshot; that it is here and whole is all that matters.
            expected += 1
            offset, chain = stop, checksum
            continue
        found = record.decode(payload, path=path, offset=offset)
        # isinstance is slow with msgspec's classes, and nearly all records are events.
        if type(found) is record.JournalOpened:
            if result.opened is not None or not _is_ours(found, result.name, session_uid):
                break
            result.opened = found
        elif type(found) is record.SyncedThrough:
            proof = record.synced_proof(found.sequence, result.name, session_uid)
            if found.proof != proof:
                break
            result.synced_through = max(result.synced_through, found.sequence)
            if marked != expected:
                result.ends, marked = {}, expected
            result.ends[offset] = chain
        else:
            if result.opened is None or found.sequence != expected:
                break
            if through is not None and expected > through:
                result.tail = Tail.BEYOND
                result.tail_bytes = len(data.rstrip(b"\0")) - offset
                break
            result.events.append(found)
            expected += 1
        offset, chain = stop, checksum
    result.last = expected - 1
    if marked != expected:
        result.ends = {}
    if result.opened is not None:
        result.size_bytes = offset
        result.chain = chain
        result.ends[offset] = chain


def _is_ours(opened: record.JournalOpened, name: record.JournalName, session_uid: str) -> bool:
    return (opened.epoch, opened.first) == name and opened.session_uid == session_uid


def _judge_tail(result: Replay, data: bytes, session_uid: str, through: int | None) -> None:
    rest = data[result.size_bytes :].rstrip(b"\0")
    if not rest:
        return
    result.tail = Tail.TORN
    result.tail_bytes = len(rest)
    promised = _highest_synced(data[result.size_bytes :], result.name, session_uid)
    promised = max(promised, result.synced_through)
    result.synced_through = promised
    # What no successor accepted was not lost, however durable a superseded writer had made it.
    if promised > result.last and (through is None or result.last < through):
        result.tail = Tail.DAMAGED


def _highest_synced(rest: bytes, name: record.JournalName, session_uid: str) -> int:
    """The highest "synced through" behind the damage, each known by its own proof."""
    highest = 0
    position = rest.find(_SYNCED_OPENING)
    while position >= 0:
        header = position - record.RECORD_HEADER.size
        if header >= 0:
            _, length = record.RECORD_HEADER.unpack_from(rest, header)
            if 0 < length <= _SYNCED_BYTES_MAX:
                try:
                    mark = record.decode_synced(rest[position : position + length])
                except (msgspec.MsgspecError, UnicodeError):
                    mark = None
                if mark and mark.proof == record.synced_proof(mark.sequence, name, session_uid):
                    highest = max(highest, mark.sequence)
        position = rest.find(_SYNCED_OPENING, position + 1)
    return highest
