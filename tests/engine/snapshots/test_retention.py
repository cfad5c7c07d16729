"""What is kept, and why: decided from listed facts, never against the newest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from milepost.journal.record import JournalName
from milepost.snapshots.retention import (
    TRAIL_SECONDS_MAX,
    decide,
    decide_by_age,
    journals_to_remove,
)
from milepost.snapshots.versions import VersionInfo

SECOND_NS = 1_000_000_000
NOW_NS = 1_700_000_000 * SECOND_NS


def version(number: int, *, age_seconds: float = 100_000, **fields: object) -> VersionInfo:
    given: dict[str, object] = {
        "version": number,
        "sequence": number * 10,
        "epoch": 1,
        "created_ns": NOW_NS - int(age_seconds * SECOND_NS),
        "size_bytes": 1,
    }
    return VersionInfo(**(given | fields))  # type: ignore[arg-type]  # checked by the struct


@st.composite
def lists_of_versions(draw: st.DrawFn) -> list[VersionInfo]:
    found: list[VersionInfo] = []
    sequence, epoch = 0, 1
    for number in range(1, draw(st.integers(0, 25)) + 1):
        sequence += draw(st.integers(1, 50))
        epoch += draw(st.integers(0, 1))
        found.append(
            version(
                number,
                sequence=sequence,
                epoch=epoch,
                # Clocks may have been anywhere.
                age_seconds=draw(st.floats(-100, 10_000)),
                by_hand=draw(st.booleans()),
            )
        )
    return draw(st.permutations(found))


@given(lists_of_versions(), st.integers(1, 12))
def test_every_version_is_kept_or_not_with_a_reason(
    listed: list[VersionInfo], keep_last: int
) -> None:
    decision = decide(listed, keep_last=keep_last, now_ns=NOW_NS)
    assert decision.keep.keys() | decision.remove.keys() == {each.version for each in listed}
    assert not decision.keep.keys() & decision.remove.keys()
    assert all([*decision.keep.values(), *decision.remove.values()])


@given(lists_of_versions(), st.integers(1, 12), st.integers(-(10**15), 10**15))
def test_the_newest_is_never_removed(
    listed: list[VersionInfo], keep_last: int, older_than_ns: int
) -> None:
    if not listed:
        return
    newest = max(listed, key=lambda each: each.name)
    assert newest.version in decide(listed, keep_last=keep_last, now_ns=NOW_NS).keep
    by_age = decide_by_age(listed, older_than_ns=older_than_ns, now_ns=NOW_NS)
    assert by_age.keep[newest.version] == "the newest"


@given(lists_of_versions(), st.integers(1, 12))
def test_those_made_by_hand_are_counted_apart(listed: list[VersionInfo], keep_last: int) -> None:
    decision = decide(listed, keep_last=keep_last, now_ns=NOW_NS)
    for by_hand in (False, True):
        kind = sorted((each for each in listed if each.by_hand == by_hand), key=lambda v: v.name)
        assert {each.version for each in kind[-keep_last:]} <= decision.keep.keys()


@given(lists_of_versions(), st.integers(1, 12))
def test_deciding_again_removes_nothing_more(listed: list[VersionInfo], keep_last: int) -> None:
    first = decide(listed, keep_last=keep_last, now_ns=NOW_NS)
    left = [each for each in listed if each.version in first.keep]
    assert decide(left, keep_last=keep_last, now_ns=NOW_NS) == type(first)(first.keep, {})


@given(lists_of_versions(), st.integers(1, 12))
def test_no_more_is_kept_than_was_said(listed: list[VersionInfo], keep_last: int) -> None:
    decision = decide(listed, keep_last=keep_last, now_ns=NOW_NS)
    trail = TRAIL_SECONDS_MAX.bit_length() + 1
    assert len(decision.keep) <= 2 * keep_last + 1 + trail


def test_the_last_n_of_old_ones_are_kept() -> None:
    listed = [version(number) for number in range(1, 8)]
    decision = decide(listed, keep_last=3, now_ns=NOW_NS)
    assert sorted(decision.keep) == [5, 6, 7]
    assert decision.keep[7] == "the newest"
    assert decision.keep[5] == "one of the last 3"
    assert decision.remove[4] == "older than the last 3"


def test_order_is_by_epoch_and_sequence_and_never_by_clock() -> None:
    listed = [
        version(1, age_seconds=-(10**6)),
        version(2, age_seconds=10**6),
        version(3, epoch=2, sequence=5, age_seconds=10**7),
    ]
    kept = decide(listed, keep_last=1, now_ns=NOW_NS).keep
    assert kept[3] == "the newest"
    # One from the future has no age, and stands in the trail.
    assert sorted(kept) == [1, 3]


def test_a_version_made_by_hand_is_not_pushed_out_by_automatic_ones() -> None:
    listed = [version(1, by_hand=True), *(version(number) for number in range(2, 50))]
    decision = decide(listed, keep_last=1, now_ns=NOW_NS)
    assert sorted(decision.keep) == [1, 49]


def test_there_is_a_trail_of_one_per_doubling_of_age() -> None:
    listed = [version(number, age_seconds=4_000 - number) for number in range(1, 4_000)]
    decision = decide(listed, keep_last=1, now_ns=NOW_NS)
    ages = sorted(4_000 - number for number in decision.keep)
    assert ages == [1, 3, 7, 15, 31, 63, 127, 255, 511, 1_023, 2_047, 3_600]


def test_a_busy_writer_always_leaves_a_trail() -> None:
    # One snapshot a second for two hours, tidied up each time, with only the newest to keep.
    kept: list[VersionInfo] = []
    for second in range(1, 7_200):
        now_ns = NOW_NS + second * SECOND_NS
        kept.append(version(second, created_ns=now_ns))
        decision = decide(kept, keep_last=1, now_ns=now_ns)
        kept = [each for each in kept if each.version in decision.keep]
        assert len(kept) <= 14
        if second > 16:
            oldest = (now_ns - kept[0].created_ns) // SECOND_NS
            assert oldest >= min(second, TRAIL_SECONDS_MAX) // 4


@given(lists_of_versions(), st.integers(0, 10_000))
def test_age_removes_what_is_old_and_only_that(listed: list[VersionInfo], hours: int) -> None:
    older_than_ns = hours * SECOND_NS
    decision = decide_by_age(listed, older_than_ns=older_than_ns, now_ns=NOW_NS)
    assert decision.keep.keys() | decision.remove.keys() == {each.version for each in listed}
    for each in listed:
        if each.version in decision.remove:
            assert NOW_NS - each.created_ns > older_than_ns


def test_nothing_listed_is_nothing_decided() -> None:
    assert decide([], keep_last=1, now_ns=NOW_NS).keep == {}
    assert decide_by_age([], older_than_ns=0, now_ns=NOW_NS).remove == {}
    assert gone([], [], 1) == []


# Journals.


def gone(journals: list[JournalName], kept: list[VersionInfo], keep_last: int) -> list[JournalName]:
    return journals_to_remove(journals, kept, keep_last=keep_last, now_ns=NOW_NS)


def test_journals_since_the_oldest_kept_version_stay() -> None:
    journals = [JournalName(1, 2), JournalName(1, 11), JournalName(2, 21), JournalName(2, 31)]
    kept = [version(2), version(3)]  # at 20 and 30
    assert gone(journals, kept, 3) == [(1, 2), (1, 11)]
    assert gone(journals, [version(1), *kept], 3) == [(1, 2)]
    assert gone(journals, [version(9)], 3) == [(1, 2), (1, 11), (2, 21)]


def test_old_versions_hold_no_journals() -> None:
    journals = [JournalName(1, 2), JournalName(1, 11), JournalName(2, 21)]
    by_hand = [version(1, by_hand=True), version(2)]
    assert gone(journals, by_hand, 1) == [(1, 2), (1, 11)]
    assert gone(journals, by_hand, 2) == [(1, 2)]
    automatic = [version(1, age_seconds=4000), version(2, by_hand=True)]
    assert gone(journals, automatic, 1) == [(1, 2), (1, 11)]
    trail = [version(1, age_seconds=3000), version(2, by_hand=True)]
    assert gone(journals, trail, 1) == [(1, 2)]


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.lists(st.integers(0, 400), min_size=1, max_size=8),
    st.integers(1, 3),
)
def test_from_each_of_the_last_versions_the_journals_lead_to_the_end(
    lengths: list[int], places: list[int], per_epoch: int
) -> None:
    journals: list[JournalName] = []
    first = 2
    for index, length in enumerate(lengths):
        journals.append(JournalName(1 + index // per_epoch, first))
        first += length
    last = first - 1
    kept = [version(n + 1, sequence=1 + place % last) for n, place in enumerate(places)]
    removed = gone(journals, kept, len(kept))
    assert journals[-1] not in removed
    for each in kept:
        for sequence in range(each.sequence + 1, last + 1):
            holder = [journal for journal in journals if journal.first <= sequence][-1]
            assert holder not in removed
