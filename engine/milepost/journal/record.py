"""Journal records: how they are framed, chained and told apart.

- A file opens with 16 bytes: magic, format version, CRC-32 of the two. Records follow without gap.
- A record is CRC-32, length, payload. The CRC covers length and payload and is seeded with the CRC
  of the record before it (the first with the file header's), so a record that was lost, repeated,
  swapped or left over from another file breaks the chain.
- The first record is `JournalOpened`: whose journal this is and which predecessor it builds on.
- `SyncedThrough` says that everything up to a sequence number is on the disk. It carries a proof of
  its own, so that it is found behind damage as well: that is how damage is told from a torn tail.
- All other payloads are events.

Source: FORMAT.md, "Journal".
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, Union, final

import msgspec

from milepost.errors import UnsupportedVersionError
from milepost.model.events import BatchEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC: Final = b"MPJOURNL"
FORMAT_VERSION: Final = 1
RECORD_BYTES_MAX: Final = 64 << 20
FILE_BYTES_MAX: Final = 1 << 31
FIRST_EVENT_TAG: Final = 10
FOLDER: Final = "journal"
ENDING: Final = ".journal"

_FILE_HEADER: Final = struct.Struct("<8sII")
RECORD_HEADER: Final = struct.Struct("<II")
_LENGTH: Final = struct.Struct("<I")
_CRC: Final = struct.Struct("<I")
_PROOF: Final = struct.Struct("<QQQ")
FILE_HEADER_BYTES: Final = _FILE_HEADER.size


@final
class JournalOpened(msgspec.Struct, array_like=True, frozen=True, tag=0):
    """The first record of every journal.

    Attributes:
        session: The session's name.
        session_uid: Its identity.
        epoch: The writer's turn.
        first: Sequence number of the first event that may follow.
        predecessor: Name of the journal before, empty for none.
        accepted_bytes: How much of the predecessor was accepted.
        accepted_chain: The predecessor's chain value at that place.
    """

    session: str
    session_uid: str
    epoch: int
    first: int
    predecessor: str = ""
    accepted_bytes: int = 0
    accepted_chain: int = 0


@final
class SyncedThrough(msgspec.Struct, array_like=True, frozen=True, tag=1, gc=False):
    """All events up to this one are on the disk.

    Attributes:
        sequence: The last of them.
        proof: `synced_proof` of it.
    """

    sequence: int
    proof: int


Record: TypeAlias = Union[JournalOpened, SyncedThrough, BatchEvent]  # noqa: UP007  # one object

encode_payload = msgspec.msgpack.Encoder().encode
decode_payload = msgspec.msgpack.Decoder(Record).decode
decode_synced = msgspec.msgpack.Decoder(SyncedThrough).decode


class JournalName(NamedTuple):
    """A journal's place in its session.

    Attributes:
        epoch: The writer's turn.
        first: Sequence number of the first event that may be in it.
    """

    epoch: int
    first: int

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.first}.{self.epoch}{ENDING}"

    @property
    def path(self) -> str:
        """The file, relative to the session's folder."""
        return f"{FOLDER}/{self.name}"


def parse_name(name: str) -> JournalName | None:
    """The parts of a journal's file name; `None` for a stranger."""
    parts = name.removesuffix(ENDING).split(".")
    if not name.endswith(ENDING) or len(parts) != 2:
        return None
    if not all(part.isascii() and part.isdigit() for part in parts):
        return None
    parsed = JournalName(epoch=int(parts[1]), first=int(parts[0]))
    return parsed if parsed.name == name else None


def file_header() -> bytes:
    """The opening 16 bytes of a journal."""
    start = _FILE_HEADER.pack(MAGIC, FORMAT_VERSION, 0)[:-4]
    return start + _CRC.pack(zlib.crc32(start))


def read_file_header(data: bytes) -> int | None:
    """The format version of a journal; `None` where the header is damaged or a stranger's."""
    if len(data) < FILE_HEADER_BYTES:
        return None
    magic, version, checksum = _FILE_HEADER.unpack_from(data)
    if magic != MAGIC or zlib.crc32(data[: FILE_HEADER_BYTES - 4]) != checksum:
        return None
    return int(version)


def first_seed(data: bytes) -> int:
    """The chain value before the first record."""
    return zlib.crc32(data[:FILE_HEADER_BYTES])


def frame(payload: bytes, chain: int) -> tuple[bytes, int]:
    """A whole record, and the chain value after it."""
    body = _LENGTH.pack(len(payload)) + payload
    checksum = zlib.crc32(body, chain)
    return _CRC.pack(checksum) + body, checksum


def synced_proof(sequence: int, name: JournalName, session_uid: str) -> int:
    """What makes a `SyncedThrough` of this journal known wherever it is found."""
    return zlib.crc32(
        _PROOF.pack(sequence, name.epoch, name.first), zlib.crc32(session_uid.encode())
    )


def frames(data: bytes, offset: int, chain: int) -> Iterator[tuple[memoryview, int, int]]:
    """The payloads from an offset on, each with where the next record begins and the chain there.

    It ends where there is no record that checks: the end, a torn tail, or damage.
    """
    # A long journal is read at the speed of this loop, so it looks nothing up twice.
    unpack, crc32 = RECORD_HEADER.unpack_from, zlib.crc32
    view, size = memoryview(data), len(data)
    while (start := offset + RECORD_HEADER.size) <= size:
        checksum, length = unpack(data, offset)
        stop = start + length
        if not 0 < length <= RECORD_BYTES_MAX or stop > size:
            return
        if crc32(view[offset + _CRC.size : stop], chain) != checksum:
            return
        yield view[start:stop], stop, checksum
        offset, chain = stop, checksum


def decode(payload: memoryview, *, path: str, offset: int) -> Record:
    """The record in a payload whose checksum holds; `offset` is where it stands in the file.

    Errors: `UnsupportedVersionError` for one of a kind not known here: it was written so by a newer
        milepost, and to take it for a torn tail would drop what was acknowledged.
    """
    try:
        found: Record = decode_payload(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise UnsupportedVersionError(
            f"{path} holds a record at byte {offset:,} that this milepost does not know",
            path=path,
            offset=offset,
            supported=FORMAT_VERSION,
            hint="install a newer milepost",
        ) from error
    return found


def records(
    data: bytes, offset: int, chain: int, *, path: str = "this journal"
) -> Iterator[tuple[Record, int, int]]:
    """`frames`, decoded."""
    for payload, stop, checksum in frames(data, offset, chain):
        yield decode(payload, path=path, offset=offset), stop, checksum
        offset = stop


def is_event(payload: memoryview) -> bool:
    """Whether the payload holds an event, told by its tag alone: the journal's own are below 10."""
    return len(payload) > 1 and payload[1] >= FIRST_EVENT_TAG
