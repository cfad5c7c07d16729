"""A framed file says what it is, is read by stock zstd, and no wrong byte of it is believed."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import (
    ChecksumMismatchError,
    FormatError,
    MilepostError,
    NotAMilepostFileError,
    RecordTooLargeError,
    SchemaError,
    TruncatedError,
    UnsupportedVersionError,
)
from milepost.storage import frame

LEVELS = [frame.LEVEL_NONE, frame.LEVEL_HOT, frame.LEVEL_SEALED]
PATH = "snapshots/3.17.2.zst"

headers = st.builds(
    frame.FrameHeader,
    kind=st.sampled_from(["snapshot", "segment", "checkpoint"]),
    session=st.text(max_size=20),
    session_uid=st.text(max_size=32),
    version=st.integers(0, 2**40),
    sequence=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 2**40),
    parents=st.lists(st.text(max_size=10), max_size=3).map(tuple),
    created_ns=st.integers(0, 2**63 - 1),
    schema=st.text(max_size=10),
    schema_version=st.integers(1, 1000),
    fold_version=st.integers(1, 1000),
    facts=st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=3),
)


def header(**fields: Any) -> frame.FrameHeader:
    fields = {"kind": "snapshot", "session": "crawl", "session_uid": "u" * 32} | fields
    return frame.FrameHeader(**fields)


def craft(
    compressed: bytes, *, raw_size_bytes: int, format_version: int = 1, head: bytes | None = None
) -> bytes:
    """A file whose digests are all right, around whatever somebody else compressed."""
    if head is None:
        head = msgspec.msgpack.encode(
            header(
                raw_size_bytes=raw_size_bytes,
                compressed_size_bytes=len(compressed),
                checksum=frame.digest(compressed),
            )
        )
    size = 16 + len(head) + frame.DIGEST_BYTES
    opening = (
        struct.pack("<II8sHHI", 0x184D2A5D, size, b"MILEPOST", format_version, 0, len(head)) + head
    )
    return opening + frame.digest(opening) + compressed


@given(headers, st.binary(max_size=5_000), st.sampled_from(LEVELS))
def test_what_is_encoded_is_decoded(given: frame.FrameHeader, body: bytes, level: int) -> None:
    data = frame.encode(given, body, level=level)
    found, back = frame.decode(data, PATH)
    assert back == body
    assert found.raw_size_bytes == len(body)
    assert frame.decode_header(data, PATH)[0] == found
    for name in frame.FrameHeader.__struct_fields__:
        if name not in {"raw_size_bytes", "compressed_size_bytes", "checksum"}:
            assert getattr(found, name) == getattr(given, name)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("body", [b"", b"x", b"ab" * 50_000, bytes(range(256)) * 999])
def test_stock_zstd_reads_the_body(level: int, body: bytes) -> None:
    data = frame.encode(header(), body, level=level)
    # The streaming reader steps over skippable frames, as the zstd program does.
    reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    assert reader.read() == body


def test_the_body_has_its_size_and_a_checksum_of_its_own() -> None:
    data = frame.encode(header(), b"hello" * 100)
    _, start = frame.decode_header(data, PATH)
    declared = zstandard.get_frame_parameters(data[start:])
    assert declared.content_size == 500
    assert declared.has_checksum


def test_without_compression_the_blocks_are_raw() -> None:
    body = b"the same again, " * 1_000
    data = frame.encode(header(), body, level=frame.LEVEL_NONE)
    assert body in data
    assert len(frame.encode(header(), body, level=frame.LEVEL_HOT)) < len(body) // 10


@pytest.mark.parametrize("level", LEVELS)
def test_every_flipped_bit_is_noticed(level: int) -> None:
    body = b"one two three " * 4
    data = frame.encode(header(parents=("9.1.journal",)), body, level=level)
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(FormatError) as caught:
                frame.decode(bytes(damaged), PATH)
            assert caught.value.path == PATH
            assert PATH in str(caught.value)


def test_a_flipped_version_is_damage_and_not_the_future() -> None:
    data = bytearray(frame.encode(header(), b"body"))
    data[16] ^= 0x80
    with pytest.raises(ChecksumMismatchError):
        frame.decode(bytes(data), PATH)


def test_every_cut_is_noticed() -> None:
    data = frame.encode(header(), b"one two three " * 10)
    for length in range(len(data)):
        with pytest.raises(TruncatedError) as caught:
            frame.decode(data[:length], PATH)
        assert caught.value.actual_bytes == length
        assert caught.value.expected_bytes is not None
        assert caught.value.expected_bytes > length


@given(st.binary(min_size=1, max_size=40))
def test_every_byte_behind_the_end_is_noticed(extra: bytes) -> None:
    data = frame.encode(header(), b"one two three")
    with pytest.raises(TruncatedError):
        frame.decode(data + extra, PATH)


def test_a_second_frame_is_no_part_of_the_file() -> None:
    data = frame.encode(header(), b"one")
    with pytest.raises(FormatError):
        frame.decode(data + data, PATH)


@given(st.binary(max_size=300))
def test_whatever_the_bytes_are_the_error_is_ours(data: bytes) -> None:
    with pytest.raises(FormatError):
        frame.decode(data, PATH)


@given(st.binary(max_size=200))
def test_whatever_a_header_holds_the_error_is_ours(head: bytes) -> None:
    with pytest.raises(MilepostError):
        frame.decode(craft(b"", raw_size_bytes=0, head=head), PATH)


@given(st.binary(max_size=200), st.integers(-1, 2**40))
def test_whatever_is_compressed_the_error_is_ours(compressed: bytes, size: int) -> None:
    with pytest.raises(FormatError):
        frame.decode(craft(compressed, raw_size_bytes=size), PATH)


def test_another_programs_zstd_file_is_told_apart() -> None:
    with pytest.raises(NotAMilepostFileError):
        frame.decode(zstandard.compress(b"not ours" * 20), PATH)
    other = struct.pack("<II", 0x184D2A5D, 100) + b"SOMEBODY" + bytes(92)
    with pytest.raises(NotAMilepostFileError):
        frame.decode(other, PATH)


def test_a_newer_format_is_refused_by_name() -> None:
    data = craft(zstandard.compress(b"body"), raw_size_bytes=4, format_version=2)
    with pytest.raises(UnsupportedVersionError) as caught:
        frame.decode(data, PATH)
    assert (caught.value.found, caught.value.supported) == (2, frame.FORMAT_VERSION)
    assert caught.value.hint == "install a newer milepost"


def test_a_header_of_another_shape_is_refused() -> None:
    head = msgspec.msgpack.encode({"kind": 7})
    with pytest.raises(SchemaError):
        frame.decode(craft(b"", raw_size_bytes=0, head=head), PATH)


def test_a_header_nested_without_end_is_refused() -> None:
    deep = b"\x91" * 60_000 + b"\xc0"
    head = b"\x81\xa5facts\x81\xa1a" + deep
    with pytest.raises(SchemaError):
        frame.decode(craft(b"", raw_size_bytes=0, head=head), PATH)


def test_a_header_too_large_for_any_reader_is_not_written() -> None:
    with pytest.raises(RecordTooLargeError):
        frame.encode(header(parents=("x" * frame.HEADER_BYTES_MAX,)), b"")


def test_a_body_too_large_for_any_reader_is_not_written() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return frame.RAW_BYTES_MAX + 1

    with pytest.raises(RecordTooLargeError, match="snapshot"):
        frame.encode(header(), Huge())


# Bombs: small files with right digests that ask for much. Layout of a frame by RFC 8878, 3.1.1:
# magic, descriptor, then the window (unless it is a single segment) and the content size.


def zstd_frame(descriptor: int, rest: bytes) -> bytes:
    return struct.pack("<IB", 0xFD2FB528, descriptor) + rest


def rle_blocks(total: int) -> bytes:
    """Blocks that repeat one byte, up to the total: 4 bytes for each 128 KiB."""
    blocks = bytearray()
    while total:
        size = min(total, 1 << 17)
        total -= size
        blocks += struct.pack("<I", (size << 3) | 0b010 | (not total))[:3] + b"\0"
    return bytes(blocks)


def refused_without_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            frame.decode(data, PATH)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_bomb_that_declares_gigabytes_is_refused() -> None:
    size = 8 << 30
    # Single segment, content size of 8 bytes.
    data = zstd_frame(0b1110_0000, struct.pack("<Q", size) + rle_blocks(1 << 20))
    refused_without_memory(craft(data, raw_size_bytes=size))
    refused_without_memory(craft(data, raw_size_bytes=10))


def test_a_bomb_that_declares_a_little_and_holds_more_is_refused() -> None:
    data = zstd_frame(0b1010_0000, struct.pack("<I", 100) + rle_blocks(100 << 20))
    refused_without_memory(craft(data, raw_size_bytes=100))


def test_a_bomb_that_declares_nothing_is_refused() -> None:
    # No content size at all, a window of 1 KiB.
    data = zstd_frame(0b0000_0000, b"\x00" + rle_blocks(100 << 20))
    refused_without_memory(craft(data, raw_size_bytes=100))
    refused_without_memory(craft(data, raw_size_bytes=100 << 20))


def test_a_frame_that_asks_for_a_huge_window_is_refused() -> None:
    # Exponent 21 of the window descriptor: 1 KiB << 21 = 2 GiB; content size of 4 bytes.
    data = zstd_frame(0b1000_0000, bytes([21 << 3]) + struct.pack("<I", 100) + rle_blocks(100))
    refused_without_memory(craft(data, raw_size_bytes=100))


def test_a_body_that_ends_early_is_refused() -> None:
    data = zstd_frame(0b1010_0000, struct.pack("<I", 100) + rle_blocks(60))
    with pytest.raises(FormatError):
        frame.decode(craft(data, raw_size_bytes=100), PATH)


def test_trailing_data_behind_the_frame_is_refused_though_it_is_under_the_checksum() -> None:
    data = zstandard.compress(b"body") + b"more"
    with pytest.raises(FormatError):
        frame.decode(craft(data, raw_size_bytes=4), PATH)
    data = zstandard.compress(b"body") + zstandard.compress(b"more")
    with pytest.raises(FormatError):
        frame.decode(craft(data, raw_size_bytes=4), PATH)


@pytest.mark.parametrize(
    "compressed",
    [
        zstandard.compress(b"") + b"more",
        zstd_frame(0b0010_0000, b"\x00" + rle_blocks(60)),  # declares none, holds 60
    ],
)
def test_an_empty_body_is_checked_as_well(compressed: bytes) -> None:
    with pytest.raises(FormatError):
        frame.decode(craft(compressed, raw_size_bytes=0), PATH)
