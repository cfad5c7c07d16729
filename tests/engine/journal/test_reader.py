"""Whatever became of a journal's bytes, a prefix of what was written is read, and no more."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import UnsupportedVersionError
from milepost.journal import record
from milepost.journal.reader import Replay, Tail, replay
from milepost.journal.record import JournalName, JournalOpened, SyncedThrough
from milepost.model import events as e
from support.histories import UID, History, histories

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

NAME = JournalName(epoch=3, first=2)


class Journal:
    """A journal's bytes, made record by record.

    Attributes:
        data: The bytes.
        ends: Where each record ends.
        marks: Where each "synced through" begins, and what it says.
    """

    def __init__(self, name: JournalName = NAME, uid: str = UID) -> None:
        self.name = name
        self.uid = uid
        self.data = record.file_header()
        self.ends: list[int] = []
        self.marks: dict[int, int] = {}
        self._chain = record.first_seed(self.data)
        self.add(JournalOpened("crawl", uid, name.epoch, name.first))

    def add(self, *payloads: record.Record) -> Journal:
        for payload in payloads:
            framed, self._chain = record.frame(record.encode_payload(payload), self._chain)
            self.data += framed
            self.ends.append(len(self.data))
        return self

    def mark(self, through: int) -> Journal:
        self.marks[len(self.data)] = through
        return self.add(SyncedThrough(through, record.synced_proof(through, self.name, self.uid)))

    def read(self, data: bytes | None = None, *, through: int | None = None) -> Replay:
        return replay(self.data if data is None else data, self.name, self.uid, through=through)


def totals(first: int, last: int) -> list[e.BatchEvent]:
    return [e.TotalBatchesSet(n, 5, e.NO_BATCH, n) for n in range(first, last + 1)]


def written(events: Iterable[e.BatchEvent], chance: random.Random) -> Journal:
    """A journal of the events, with marks at random places, as a writer would set them."""
    journal = Journal()
    for event in events:
        journal.add(event)
        if chance.random() < 0.3:
            journal.mark(event.sequence)
    return journal


SMALL = Journal().add(*totals(2, 4)).mark(4).add(*totals(5, 6)).mark(6).add(*totals(7, 8))


# Whole journals.


@given(histories(), st.randoms(use_true_random=False))
def test_a_whole_journal(history: History, chance: random.Random) -> None:
    events = history.events[1:]
    journal = written(events, chance)
    found = journal.read()
    assert found.events == events
    assert found.tail is Tail.CLEAN
    assert (found.size_bytes, found.tail_bytes) == (len(journal.data), 0)
    assert found.last == len(history.events)
    assert found.synced_through == max(journal.marks.values(), default=0)
    assert found.opened == JournalOpened("crawl", UID, 3, 2)


def test_a_journal_without_events_ends_before_its_first() -> None:
    found = Journal(JournalName(4, 100)).read()
    assert found.events == []
    assert found.last == 99
    assert found.tail is Tail.CLEAN


def test_the_chain_value_is_what_the_next_record_is_chained_to() -> None:
    journal = Journal().add(*totals(2, 4))
    found = journal.read()
    framed, _ = record.frame(record.encode_payload(totals(5, 5)[0]), found.chain)
    assert journal.read(journal.data + framed).last == 5


def test_a_successor_may_have_gone_on_behind_the_last_event_and_each_mark_after_it() -> None:
    journal = Journal().add(*totals(2, 4)).mark(4).add(*totals(5, 6))
    event, chain = len(journal.data), journal.read().chain
    assert journal.read().ends == {event: chain}
    journal.mark(5).mark(6)
    *_, first, second = journal.ends
    found = journal.read()
    assert list(found.ends) == [event, first, second]
    assert found.ends[event] == chain
    assert found.ends[second] == found.chain
    assert journal.add(*totals(7, 7)).read(through=6).ends == found.ends
    assert list(journal.read().ends) == [journal.ends[-1]]


# Cuts.


@given(histories(most=15), st.randoms(use_true_random=False))
def test_any_prefix_of_the_bytes_is_a_prefix_of_the_events(
    history: History, chance: random.Random
) -> None:
    events = history.events[1:]
    journal = written(events, chance)
    for length in range(len(journal.data) + 1):
        found = journal.read(journal.data[:length])
        assert found.events == events[: len(found.events)]
        whole = [end for end in journal.ends if end <= length]
        assert found.size_bytes == (whole[-1] if whole else 0)
        if length in {0, *journal.ends}:
            assert found.tail is Tail.CLEAN
        elif journal.data[found.size_bytes : length].strip(b"\0"):
            assert found.tail is Tail.TORN
            assert 0 < found.tail_bytes <= length - found.size_bytes
        if whole:
            marks = [n for start, n in journal.marks.items() if start < found.size_bytes]
            assert found.synced_through == max(marks, default=0)


@given(st.integers(0, 5_000))
def test_a_tail_of_zeros_is_a_clean_end(zeros: int) -> None:
    found = SMALL.read(SMALL.data + bytes(zeros))
    assert found.tail is Tail.CLEAN
    assert found.last == 8
    assert found.size_bytes == len(SMALL.data)
    assert found.tail_bytes == 0


def test_a_torn_record_before_zeros_is_torn() -> None:
    for cut in range(SMALL.ends[-2] + 1, SMALL.ends[-1]):
        found = SMALL.read(SMALL.data[:cut] + bytes(4_096))
        assert found.last == 7
        assert found.tail is Tail.TORN
        assert found.tail_bytes <= cut - SMALL.ends[-2]


@given(st.binary(min_size=1, max_size=100))
def test_garbage_behind_the_end_is_a_torn_tail(garbage: bytes) -> None:
    found = SMALL.read(SMALL.data + garbage)
    assert found.last == 8
    assert found.tail is (Tail.TORN if garbage.strip(b"\0") else Tail.CLEAN)


# Flips.


def test_any_flipped_bit_is_noticed_and_no_wrong_event_is_ever_read() -> None:
    events = SMALL.read().events
    for position in range(len(SMALL.data)):
        for bit in range(8):
            damaged = bytearray(SMALL.data)
            damaged[position] ^= 1 << bit
            found = SMALL.read(bytes(damaged))
            assert found.events == events[: len(found.events)]
            assert found.tail in {Tail.TORN, Tail.DAMAGED}
            assert found.tail_bytes > 0
            # All that stands before the damaged record is read.
            sure = [end for end in SMALL.ends if end <= position]
            assert found.size_bytes == (sure[-1] if sure else 0)


@given(histories(), st.randoms(use_true_random=False), st.data())
def test_any_damage_leaves_a_prefix(
    history: History, chance: random.Random, data: st.DataObject
) -> None:
    events = history.events[1:]
    journal = written(events, chance)
    start = data.draw(st.integers(0, len(journal.data) - 1))
    patch = data.draw(st.binary(min_size=1, max_size=30))
    damaged = journal.data[:start] + patch + journal.data[start + len(patch) :]
    found = journal.read(damaged)
    if damaged[: len(journal.data)] == journal.data:
        assert found.events == events
        return
    assert found.events == events[: len(found.events)]
    assert found.tail is not Tail.BEYOND
    if found.tail is Tail.CLEAN:
        # Zeros to the very end, as a disk leaves what it never wrote.
        assert not damaged[found.size_bytes :].strip(b"\0")


def test_damage_before_a_mark_is_damage_and_behind_it_a_torn_tail() -> None:
    # Records: the opening, events 2 to 4, mark 4, events 5 and 6, mark 6, events 7 and 8.
    last_before = [1, 1, 2, 3, 4, 4, 5, 6, 6, 7]
    marks = {4: 4, 7: 6}
    for index, end in enumerate(SMALL.ends):
        damaged = bytearray(SMALL.data)
        damaged[end - 1] ^= 1
        found = SMALL.read(bytes(damaged))
        promised = max(through for place, through in marks.items() if place != index)
        assert found.last == last_before[index]
        assert found.synced_through == promised
        assert found.tail is (Tail.DAMAGED if promised > found.last else Tail.TORN)


def test_a_hole_before_a_mark_is_damage() -> None:
    for start, end in zip(SMALL.ends[:3], SMALL.ends[1:4], strict=True):
        holed = SMALL.data[:start] + bytes(end - start) + SMALL.data[end:]
        found = SMALL.read(holed)
        assert found.tail is Tail.DAMAGED
        assert found.synced_through == 6
        assert found.size_bytes == start


def test_a_mark_that_only_looks_like_one_proves_nothing() -> None:
    journal = Journal().add(*totals(2, 3))
    forged = [
        SyncedThrough(9, 12345),
        SyncedThrough(9, record.synced_proof(9, JournalName(3, 9), UID)),
        SyncedThrough(9, record.synced_proof(9, NAME, "another session")),
        SyncedThrough(9, record.synced_proof(8, NAME, UID)),
    ]
    for mark in forged:
        framed, _ = record.frame(record.encode_payload(mark), 999)
        found = journal.read(journal.data + b"torn" + framed)
        assert found.tail is Tail.TORN
        assert found.synced_through == 0
    true = SyncedThrough(9, record.synced_proof(9, NAME, UID))
    framed, _ = record.frame(record.encode_payload(true), 999)
    found = journal.read(journal.data + b"torn" + framed)
    assert found.tail is Tail.DAMAGED
    assert found.synced_through == 9


def test_a_mark_with_a_wrong_proof_in_the_chain_ends_it() -> None:
    journal = Journal().add(*totals(2, 3)).add(SyncedThrough(3, 1)).add(*totals(4, 4))
    found = journal.read()
    assert found.last == 3
    assert found.tail is Tail.TORN


def test_bytes_that_open_like_a_mark_are_looked_at_without_harm() -> None:
    for tail in (b"\x93\x01", b"\x93\x01" * 50, b"\x00" * 8 + b"\x93\x01\xa1\xff\xff", b"\x93"):
        framed = struct.pack("<II", 0, 5) + tail
        found = SMALL.read(SMALL.data + framed)
        assert found.tail is Tail.TORN
        assert found.last == 8


# Whose it is.


def test_a_journal_under_another_name_counts_as_empty() -> None:
    for name in (JournalName(3, 5), JournalName(4, 2)):
        found = replay(SMALL.data, name, UID)
        assert found.opened is None
        assert found.events == []
        assert found.tail is Tail.TORN
        assert found.last == name.first - 1


def test_a_journal_of_another_session_counts_as_empty() -> None:
    found = replay(SMALL.data, NAME, "f" * 32)
    assert found.opened is None
    assert found.events == []
    assert found.tail is not Tail.CLEAN


def test_the_leftovers_of_another_journal_are_not_believed() -> None:
    # The same blocks, used before by an older journal: its records are sure by themselves.
    old = Journal(JournalName(2, 2)).add(*totals(2, 30)).mark(30)
    new = Journal().add(*totals(2, 5))
    for cut in (len(new.data), *old.ends[5:8]):
        found = new.read(new.data + old.data[cut:])
        assert found.last == 5
        assert found.tail is Tail.TORN
        assert found.synced_through == 0


def test_a_damaged_first_record_empties_the_journal() -> None:
    damaged = bytearray(SMALL.data)
    damaged[record.FILE_HEADER_BYTES + 10] ^= 1
    found = SMALL.read(bytes(damaged))
    assert found.opened is None
    assert (found.events, found.size_bytes, found.chain) == ([], 0, 0)
    assert found.tail is Tail.DAMAGED  # its marks are found all the same
    assert found.synced_through == 6


def test_a_second_first_record_is_not_believed() -> None:
    journal = Journal().add(*totals(2, 3)).add(JournalOpened("crawl", UID, 3, 2))
    found = journal.add(*totals(4, 4)).read()
    assert found.last == 3
    assert found.tail is Tail.TORN


def test_an_event_before_the_first_record_is_not_believed() -> None:
    header = record.file_header()
    framed, _ = record.frame(record.encode_payload(totals(2, 2)[0]), record.first_seed(header))
    found = replay(header + framed, NAME, UID)
    assert found.opened is None
    assert found.events == []


@pytest.mark.parametrize("sequence", [2, 3, 5, 1])
def test_a_gap_or_a_repetition_in_the_numbers_ends_the_journal(sequence: int) -> None:
    journal = Journal().add(*totals(2, 3)).add(*totals(sequence, sequence))
    assert journal.read().last == 3
    assert journal.read().tail is Tail.TORN


def test_no_file_at_all_is_an_empty_journal() -> None:
    for data in (b"", bytes(16), bytes(4_096)):
        found = replay(data, NAME, UID)
        assert (found.opened, found.events, found.tail) == (None, [], Tail.CLEAN)


@given(st.binary(max_size=200))
def test_whatever_the_bytes_are_nothing_is_made_up(data: bytes) -> None:
    found = replay(data, NAME, UID)
    assert found.events == []
    assert found.opened is None


# Newer ones.


def newer(version: int) -> bytes:
    start = struct.pack("<8sI", record.MAGIC, version)
    return start + struct.pack("<I", zlib.crc32(start)) + SMALL.data[16:]


def test_a_newer_format_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedVersionError) as caught:
        replay(newer(2), NAME, UID)
    assert (caught.value.found, caught.value.supported) == (2, 1)
    assert caught.value.path == "journal/2.3.journal"
    assert caught.value.hint


def test_a_damaged_version_is_damage_and_not_the_future() -> None:
    damaged = bytearray(SMALL.data)
    damaged[8] ^= 2
    assert SMALL.read(bytes(damaged)).opened is None


def test_an_event_of_a_newer_milepost_is_refused_and_never_dropped() -> None:
    journal = Journal().add(*totals(2, 3))
    chain = journal.read().chain
    framed, _ = record.frame(b"\x94\x3f\x04\x05\xff", chain)  # tag 63
    with pytest.raises(UnsupportedVersionError, match=r"journal/2.3.journal"):
        journal.read(journal.data + framed)


# What successors accepted.


@given(st.integers(1, 12))
def test_what_no_successor_accepted_is_reported_and_never_read(through: int) -> None:
    found = SMALL.read(through=through)
    assert found.last == min(through, 8)
    if through >= 8:
        assert (found.tail, found.tail_bytes) == (Tail.CLEAN, 0)
    else:
        assert found.tail is Tail.BEYOND
        assert found.size_bytes + found.tail_bytes == len(SMALL.data)


def test_zeros_are_no_part_of_what_was_not_accepted() -> None:
    found = SMALL.read(SMALL.data + bytes(4_096), through=5)
    assert found.tail_bytes == len(SMALL.data) - found.size_bytes


def test_damage_behind_what_was_accepted_lost_nothing() -> None:
    # A superseded writer went on, synced, and its disk then lost some of it.
    damaged = bytearray(SMALL.data)
    damaged[SMALL.ends[6] - 1] ^= 1  # event 6, before the mark that says 6
    assert SMALL.read(bytes(damaged)).tail is Tail.DAMAGED
    found = SMALL.read(bytes(damaged), through=5)
    assert found.last == 5
    assert found.tail is Tail.TORN
    assert SMALL.read(bytes(damaged), through=6).tail is Tail.DAMAGED
