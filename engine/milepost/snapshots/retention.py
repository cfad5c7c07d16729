"""Which versions to keep: a decision from listed facts, carried out elsewhere.

- The newest is always kept. The last N automatic ones and the last N made by hand count apart.
- A thin trail of older ones (one per doubling of age, to an hour) stays, with all journals since
  the oldest of them, so that a copy under way finds one whole chain.
- Every version gets its reason, kept or not.

Source: FORMAT.md, "Retention".
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from milepost.snapshots.versions import VersionInfo

J = TypeVar("J", bound=tuple[int, int])

TRAIL_SECONDS_MAX: Final = 3600


class Decision(msgspec.Struct, frozen=True):
    """What stays and what goes.

    Attributes:
        keep: Version to the reason why it stays.
        remove: Version to the reason why it goes.
    """

    keep: dict[int, str]
    remove: dict[int, str]


def decide(versions: Iterable[VersionInfo], *, keep_last: int, now_ns: int) -> Decision:
    """Choose among the versions of one session.

    Units: ages are wall time; a version from the future (a clock set back) has age 0.
    """
    ordered = sorted(versions, key=lambda each: each.name, reverse=True)
    keep: dict[int, str] = {}
    automatic = [each for each in ordered if not each.by_hand]
    by_hand = [each for each in ordered if each.by_hand]
    if ordered:
        keep[ordered[0].version] = "the newest"
    for each in automatic[:keep_last]:
        keep.setdefault(each.version, f"one of the last {keep_last}")
    for each in by_hand[:keep_last]:
        keep.setdefault(each.version, f"one of the last {keep_last} made by hand")
    for each, seconds in _trail(automatic, now_ns):
        keep.setdefault(each.version, f"the trail: oldest within {seconds} s")
    remove = {
        each.version: f"older than the last {keep_last}"
        for each in ordered
        if each.version not in keep
    }
    return Decision(keep, remove)


def _trail(automatic: list[VersionInfo], now_ns: int) -> list[tuple[VersionInfo, int]]:
    """The oldest version within each doubling of age, so that it can grow into the next one."""
    chosen: dict[int, VersionInfo] = {}
    for each in automatic:
        age = _age_seconds(each, now_ns)
        if age <= TRAIL_SECONDS_MAX:
            chosen[age.bit_length()] = each
    return [(each, (1 << bits) - 1) for bits, each in chosen.items()]


def decide_by_age(versions: Iterable[VersionInfo], *, older_than_ns: int, now_ns: int) -> Decision:
    """For the age clean-up: everything too old goes, but the newest."""
    ordered = sorted(versions, key=lambda each: each.name, reverse=True)
    keep: dict[int, str] = {}
    remove: dict[int, str] = {}
    for index, each in enumerate(ordered):
        if index == 0:
            keep[each.version] = "the newest"
        elif now_ns - each.created_ns > older_than_ns:
            remove[each.version] = "too old"
        else:
            keep[each.version] = "not old enough"
    return Decision(keep, remove)


def journals_to_remove(
    journals: Iterable[J], kept: Iterable[VersionInfo], *, keep_last: int, now_ns: int
) -> list[J]:
    """Journals that nothing joins any more.

    From each of the last N versions of either kind, and from the trail, journals lead on without
    a gap. Older versions stand alone: each holds all that it says.

    Shape: a journal is a pair of its epoch and the sequence number of its first event.
    """
    ordered = sorted(kept, key=lambda each: each.name, reverse=True)
    joined = [
        each.sequence
        for rank, each in enumerate(ordered)
        if rank < keep_last
        or (not each.by_hand and _age_seconds(each, now_ns) <= TRAIL_SECONDS_MAX)
    ]
    base = min(joined, default=0)
    return [
        journal
        for journal, (_, first_after) in itertools.pairwise(sorted(journals))
        if first_after - 1 <= base
    ]


def _age_seconds(version: VersionInfo, now_ns: int) -> int:
    return max(0, now_ns - version.created_ns) // 1_000_000_000
