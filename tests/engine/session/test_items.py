"""The items of a batch: what a loop over them tells the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import milepost
from milepost import ItemStatus, Store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_how_many_there_are_is_recorded_where_it_is_known(store: Store) -> None:
    with store.session("s", total_batches=3) as session:
        counted = session.start_batch("counted")
        for _ in counted.items(["a", "b", "c", "d"]):
            assert counted.progress.items_total == 4
        told = session.start_batch("told")
        for _ in told.items(iter("xyz"), total=3):
            assert told.progress.items_total == 3
        unknown = session.start_batch("unknown")
        for _ in unknown.items(iter("xyz")):
            assert unknown.progress.items_total is None
        assert milepost.progress(session.live) == pytest.approx(2 / 3)
        assert milepost.batch_remaining_ns(told.progress) == 0


def test_what_is_done_already_counts_too_when_work_goes_on(store: Store) -> None:
    with store.session("s") as session:
        for item in session.start_batch("a").items([1, 2, 3]):
            if item == 3:
                break
    with store.session("s") as session:
        batch = session.start_batch("a")
        sequence = session.live.sequence
        assert list_by_loop(batch.items([1, 2, 3])) == [3]
        assert batch.progress.items_total == 3
        # It was known and did not change, so nothing was written about it: taken, then done.
        assert session.live.sequence == sequence + 2
        assert list_by_loop(batch.items([1, 2, 3, 4, 5])) == [4, 5]
        assert batch.progress.items_total == 5


def list_by_loop(items: milepost.Items[int]) -> list[int]:
    found: list[int] = []
    for item in items:
        found.append(item)
    return found


def test_a_loop_inside_another_puts_down_what_is_its_own(store: Store) -> None:
    with store.session("s") as session:
        batch = session.start_batch("a")
        for page in batch.items(["page"]):
            for _ in batch.items(["picture 1", "picture 2"]):
                break
            assert batch.status_of("picture 1") is ItemStatus.PENDING
            assert batch.status_of(page) is ItemStatus.PROCESSING
            for _ in batch.map(str.upper, ["film 1", "film 2"]):
                break
            assert batch.status_of("film 1") is ItemStatus.PENDING
            assert batch.status_of("film 2") is ItemStatus.PENDING
            assert batch.status_of(page) is ItemStatus.PROCESSING
        assert batch.is_done("page")
