"""How records are framed, chained and told apart."""

from __future__ import annotations

import struct
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import UnsupportedVersionError
from milepost.journal import record
from milepost.journal.record import JournalName, JournalOpened, SyncedThrough
from milepost.model import events as e
from support.histories import History, histories

NAME = JournalName(epoch=3, first=17)
PATH = NAME.path


def chained(payloads: list[bytes]) -> bytes:
    """A journal's bytes: the header and the payloads, one after the other."""
    data = record.file_header()
    chain = record.first_seed(data)
    for payload in payloads:
        framed, chain = record.frame(payload, chain)
        data += framed
    return data


def read(data: bytes) -> list[record.Record]:
    start = record.FILE_HEADER_BYTES
    found = record.records(data, start, record.first_seed(data), path=PATH)
    return [payload for payload, _, _ in found]


@given(st.integers(0, 2**63 - 1), st.integers(1, 2**63 - 1))
def test_a_name_says_first_sequence_and_epoch(epoch: int, first: int) -> None:
    name = JournalName(epoch, first)
    assert name.name == f"{first}.{epoch}.journal"
    assert name.path == f"journal/{first}.{epoch}.journal"
    assert record.parse_name(name.name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".journal",
        "17.journal",
        "17.3",
        "17.3.journal.tmp",
        "17.3.1.journal",
        "017.3.journal",
        "17.03.journal",
        "-17.3.journal",
        "17.x.journal",
        "17. 3.journal",
        "\uff11\uff17.\uff13.journal",
        "²7.3.journal",
        ".17.3.journal",
        "17.3.JOURNAL",
    ],
)
def test_a_strangers_name_is_none(name: str) -> None:
    assert record.parse_name(name) is None


def test_journals_sort_by_epoch_first() -> None:
    names = [JournalName(2, 5), JournalName(1, 9), JournalName(2, 1), JournalName(1, 1)]
    assert sorted(names) == [(1, 1), (1, 9), (2, 1), (2, 5)]


def test_the_opening_16_bytes() -> None:
    header = record.file_header()
    assert len(header) == record.FILE_HEADER_BYTES == 16
    magic, version, checksum = struct.unpack("<8sII", header)
    assert (magic, version) == (b"MPJOURNL", 1)
    assert checksum == zlib.crc32(header[:12])
    assert record.read_file_header(header) == 1


def test_a_header_with_any_wrong_bit_is_no_header() -> None:
    header = record.file_header()
    for position in range(len(header)):
        for bit in range(8):
            damaged = bytearray(header)
            damaged[position] ^= 1 << bit
            assert record.read_file_header(bytes(damaged)) is None
    for length in range(len(header)):
        assert record.read_file_header(header[:length]) is None


def test_a_header_of_a_newer_format_says_so() -> None:
    start = struct.pack("<8sI", b"MPJOURNL", 9)
    assert record.read_file_header(start + struct.pack("<I", zlib.crc32(start))) == 9


def test_a_record_is_checksum_length_payload() -> None:
    payload = b"\x93\x01\x07\x00"
    framed, chain = record.frame(payload, 1234)
    checksum, length = struct.unpack_from("<II", framed)
    assert length == len(payload)
    assert framed[8:] == payload
    assert checksum == chain == zlib.crc32(framed[4:], 1234)


@given(histories())
def test_all_events_come_back_in_order(history: History) -> None:
    data = chained([record.encode_payload(event) for event in history.events])
    assert read(data) == history.events


@given(st.integers(0, 2**63 - 1), st.text(max_size=40))
def test_the_journals_own_records_come_back(sequence: int, uid: str) -> None:
    own: list[record.Record] = [
        JournalOpened("crawl", uid, 3, 17, "1.2.journal", 99, 5),
        SyncedThrough(sequence, record.synced_proof(sequence, NAME, uid)),
    ]
    assert read(chained([record.encode_payload(each) for each in own])) == own


def test_a_mark_is_short_and_opens_so_that_it_can_be_found() -> None:
    for sequence in (0, 1, 127, 128, 2**32, 2**63 - 1):
        proof = record.synced_proof(sequence, NAME, "u" * 32)
        encoded = record.encode_payload(SyncedThrough(sequence, proof))
        assert encoded.startswith(b"\x93\x01")
        assert len(encoded) <= 16


def test_a_proof_is_of_one_number_one_journal_one_session() -> None:
    proofs = {
        record.synced_proof(sequence, JournalName(epoch, first), uid)
        for sequence in (1, 2)
        for epoch in (1, 2)
        for first in (1, 2)
        for uid in ("a" * 32, "b" * 32)
    }
    assert len(proofs) == 16


EVENTS = [e.TotalBatchesSet(17 + n, 5, e.NO_BATCH, n) for n in range(4)]
PAYLOADS = [record.encode_payload(event) for event in EVENTS]


def sizes() -> list[int]:
    return [record.RECORD_HEADER.size + len(payload) for payload in PAYLOADS]


def test_a_record_that_was_lost_breaks_the_chain() -> None:
    data = chained(PAYLOADS)
    first, second = sizes()[:2]
    start = record.FILE_HEADER_BYTES + first
    assert read(data[:start] + data[start + second :]) == EVENTS[:1]


def test_a_record_that_is_repeated_breaks_the_chain() -> None:
    data = chained(PAYLOADS[:2])
    last = data[-sizes()[1] :]
    assert read(data + last) == EVENTS[:2]


def test_records_that_were_swapped_break_the_chain() -> None:
    data = chained(PAYLOADS)
    size = sizes()[0]
    start = record.FILE_HEADER_BYTES
    one, two = data[start : start + size], data[start + size : start + 2 * size]
    assert read(data[:start] + two + one + data[start + 2 * size :]) == []


def test_a_record_of_another_chain_is_none_of_this_one() -> None:
    other, _ = record.frame(PAYLOADS[2], 4321)
    assert read(chained(PAYLOADS[:2]) + other) == EVENTS[:2]


@pytest.mark.parametrize("length", [0, record.RECORD_BYTES_MAX + 1, 2**32 - 1])
def test_an_impossible_length_is_the_end(length: int) -> None:
    data = chained(PAYLOADS[:1])
    assert read(data + struct.pack("<II", 0, length) + bytes(100)) == EVENTS[:1]


@given(st.binary(max_size=60))
def test_whatever_stands_behind_nothing_of_it_is_read(rest: bytes) -> None:
    assert read(chained(PAYLOADS) + rest) == EVENTS


@pytest.mark.parametrize(
    "payload",
    [
        msgspec.msgpack.encode([63, 18, 5, -1, "an event of the future"]),
        msgspec.msgpack.encode([1]),
        msgspec.msgpack.encode({"a": "map"}),
        b"\xc1",
        b"\x94\x0a\x01\x01\xa1\xff",
        b"\x91" * 60_000 + b"\xc0",
    ],
)
def test_a_sure_record_of_an_unknown_kind_is_refused_by_name(payload: bytes) -> None:
    # The checksum holds: to take it for a torn tail would drop acknowledged work.
    data = chained([*PAYLOADS[:1], payload, *PAYLOADS[1:]])
    with pytest.raises(UnsupportedVersionError) as caught:
        read(data)
    assert caught.value.path == PATH
    assert caught.value.offset == record.FILE_HEADER_BYTES + sizes()[0]
