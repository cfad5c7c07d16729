"""The `.zst` file: a skippable frame with our header, then one standard Zstandard frame.

- `zstd -dc` reads the body on any machine; milepost reads the header first and believes nothing
  that the header's digests do not cover.
- Every byte of the file is under a digest: the header digest covers all before it, the checksum in
  the header covers the compressed bytes, and their number is stated. Zstandard's own content
  checksum is written too, but it lets some flips of reserved bits pass, so it is not what we trust.
- Decoding is bounded before anything is decompressed: header size, declared content size, window.

Source: FORMAT.md, "Framed file"; RFC 8878, 3.1.2 (skippable frames).
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any, Final

import msgspec
import zstandard

from milepost.errors import (
    ChecksumMismatchError,
    FormatError,
    NotAMilepostFileError,
    RecordTooLargeError,
    SchemaError,
    TruncatedError,
    UnsupportedVersionError,
)

SKIPPABLE_MAGIC: Final = 0x184D2A5D
MAGIC: Final = b"MILEPOST"
FORMAT_VERSION: Final = 1
HEADER_BYTES_MAX: Final = 1 << 16
RAW_BYTES_MAX: Final = 1 << 30
FILE_BYTES_MAX: Final = RAW_BYTES_MAX + (1 << 24)
WINDOW_BYTES_MAX: Final = 1 << 27
DIGEST_BYTES: Final = 16

LEVEL_HOT: Final = 1
LEVEL_SEALED: Final = 3
LEVEL_NONE: Final = -131072
"""The fastest level there is: it finds no matches, so all that comes out is raw or run-length."""

# RFC 8878, 3.1.1: magic, a header of at most 14 bytes, an empty block, the content checksum.
_EMPTY_FRAME_BYTES_MAX: Final = 4 + 14 + 3 + 4

# Skippable frame: magic, size; then our magic, format version, flags, header size.
_PREFIX: Final = struct.Struct("<II8sHHI")
_OUTER_BYTES: Final = 8


class FrameHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says of itself.

    Attributes:
        kind: `snapshot`, `segment` or `checkpoint`.
        session: The session's name, as the user wrote it (NFC).
        session_uid: What tells this session from another one that once had the same name.
        version: A snapshot's version; 0 for other kinds.
        sequence: The last sequence number whose effect is inside; for a checkpoint, the last one
            before it.
        epoch: The writer's turn in which the file was made.
        parents: Names of the files it was made from, relative to the session's folder.
        created_ns: Wall clock, for people.
        schema: Name of the body's type.
        schema_version: Its number.
        fold_version: Number of the fold that made the body.
        raw_size_bytes: Length of the body.
        compressed_size_bytes: Length of the Zstandard frame after the header.
        checksum: BLAKE2b, 16 bytes, of those compressed bytes.
        facts: What this kind adds, all optional to a reader.
    """

    kind: str
    session: str
    session_uid: str
    version: int = 0
    sequence: int = 0
    epoch: int = 0
    parents: tuple[str, ...] = ()
    created_ns: int = 0
    schema: str = ""
    schema_version: int = 1
    fold_version: int = 1
    raw_size_bytes: int = 0
    compressed_size_bytes: int = 0
    checksum: bytes = b""
    facts: dict[str, Any] = {}


_encode_header = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(FrameHeader).decode


def digest(data: bytes | memoryview) -> bytes:
    """BLAKE2b of the bytes, 16 bytes long."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def compress(body: bytes, *, level: int = LEVEL_HOT) -> bytes:
    """One standard Zstandard frame, with content size and checksum."""
    return zstandard.ZstdCompressor(
        level=level, write_checksum=True, write_content_size=True
    ).compress(body)


def encode(header: FrameHeader, body: bytes, *, level: int = LEVEL_HOT) -> bytes:
    """One whole file; sizes and checksum of the header are filled in here.

    Errors: `RecordTooLargeError` where a reader would refuse the result.
    """
    if len(body) > RAW_BYTES_MAX:
        raise RecordTooLargeError(
            f"a {header.kind} of {len(body):,} bytes is more than the {RAW_BYTES_MAX:,} that a"
            " reader accepts",
            hint="keep large data in files of your own and record where they are",
        )
    compressed = compress(body, level=level)
    filled = msgspec.structs.replace(
        header,
        raw_size_bytes=len(body),
        compressed_size_bytes=len(compressed),
        checksum=digest(compressed),
    )
    encoded = _encode_header(filled)
    if len(encoded) > HEADER_BYTES_MAX:
        raise RecordTooLargeError(f"a {header.kind} header of {len(encoded):,} bytes is too large")
    size = _PREFIX.size - _OUTER_BYTES + len(encoded) + DIGEST_BYTES
    opening = _PREFIX.pack(SKIPPABLE_MAGIC, size, MAGIC, FORMAT_VERSION, 0, len(encoded)) + encoded
    return opening + digest(opening) + compressed


def decode_header(data: bytes, path: str) -> tuple[FrameHeader, int]:
    """The header, checked against its digest, and the offset at which the body's frame starts."""
    if len(data) < _PREFIX.size:
        raise TruncatedError(
            f"{path} is cut: {len(data)} bytes are less than a header",
            path=path,
            offset=len(data),
            expected_bytes=_PREFIX.size,
            actual_bytes=len(data),
        )
    outer, size, magic, version, _flags, header_bytes = _PREFIX.unpack_from(data)
    if outer != SKIPPABLE_MAGIC or magic != MAGIC:
        raise NotAMilepostFileError(f"{path} is not a file of milepost", path=path, offset=0)
    inner = _PREFIX.size - _OUTER_BYTES + header_bytes + DIGEST_BYTES
    if header_bytes > HEADER_BYTES_MAX or size != inner:
        raise FormatError(f"{path} states impossible header sizes", path=path, offset=4)
    end = _PREFIX.size + header_bytes
    start = end + DIGEST_BYTES
    if len(data) < start:
        raise TruncatedError(
            f"{path} is cut inside its header",
            path=path,
            offset=len(data),
            expected_bytes=start,
            actual_bytes=len(data),
        )
    actual = digest(memoryview(data)[:end])
    if actual != data[end:start]:
        raise ChecksumMismatchError(
            f"{path} has a damaged header",
            path=path,
            offset=0,
            expected=data[end:start].hex(),
            actual=actual.hex(),
        )
    # Only now: a flipped bit must not look like a file from the future.
    if version > FORMAT_VERSION:
        raise UnsupportedVersionError(
            f"{path} is of format {version}; this milepost reads up to {FORMAT_VERSION}",
            path=path,
            found=version,
            supported=FORMAT_VERSION,
            hint="install a newer milepost",
        )
    try:
        return _decode_header(data[_PREFIX.size : end]), start
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise SchemaError(f"{path} has a header that this milepost cannot read: {error}") from error


def decode(data: bytes, path: str) -> tuple[FrameHeader, bytes]:
    """Header and body of a whole file, every byte of it checked.

    Errors: `FormatError` and its leaves, with the path; nothing is decompressed unless all digests
        match and the declared sizes are within bounds.
    """
    header, start = decode_header(data, path)
    compressed = memoryview(data)[start:]
    if len(compressed) != header.compressed_size_bytes:
        raise TruncatedError(
            f"{path} has {len(data):,} bytes and states {start + header.compressed_size_bytes:,}",
            path=path,
            offset=min(len(data), start + header.compressed_size_bytes),
            expected_bytes=start + header.compressed_size_bytes,
            actual_bytes=len(data),
        )
    actual = digest(compressed)
    if actual != header.checksum:
        raise ChecksumMismatchError(
            f"{path} has a damaged body",
            path=path,
            offset=start,
            expected=header.checksum.hex(),
            actual=actual.hex(),
        )
    return header, _decompress(bytes(compressed), header.raw_size_bytes, path)


def _decompress(compressed: bytes, raw_size_bytes: int, path: str) -> bytes:
    try:
        declared = zstandard.get_frame_parameters(compressed)
        if declared.content_size != raw_size_bytes or raw_size_bytes > RAW_BYTES_MAX:
            raise FormatError(
                f"{path} declares {declared.content_size:,} bytes of body and"
                f" {raw_size_bytes:,} in its header",
                path=path,
            )
        if declared.window_size > WINDOW_BYTES_MAX and declared.window_size > raw_size_bytes:
            raise FormatError(f"{path} asks for a window of {declared.window_size:,}", path=path)
        if raw_size_bytes == 0:
            # The call below returns at once for an empty body, without a look at what is there.
            return _decompress_nothing(compressed, path)
        body = zstandard.ZstdDecompressor().decompress(
            compressed, max_output_size=raw_size_bytes, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise FormatError(f"{path} does not decompress: {error}", path=path) from error
    if len(body) != raw_size_bytes:
        raise TruncatedError(
            f"{path} decompresses to {len(body):,} bytes and states {raw_size_bytes:,}",
            path=path,
            expected_bytes=raw_size_bytes,
            actual_bytes=len(body),
        )
    return body


def _decompress_nothing(compressed: bytes, path: str) -> bytes:
    reader = zstandard.ZstdDecompressor().decompressobj()
    # So few bytes cannot become many, and no empty frame has more.
    is_empty = len(compressed) <= _EMPTY_FRAME_BYTES_MAX and not reader.decompress(compressed)
    if not is_empty or not reader.eof or reader.unused_data:
        raise FormatError(f"{path} states an empty body and has another", path=path)
    return b""
