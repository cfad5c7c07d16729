"""The line that says how far the work is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import milepost
from milepost import ItemStatus

if TYPE_CHECKING:
    from pathlib import Path

SECOND_NS = 1_000_000_000


def test_what_is_known_from_the_beginning_is_told_as_it_is(tmp_path: Path) -> None:
    clock = milepost.ManualClock()
    with milepost.Store(tmp_path / "s", clock=clock).session("crawl", total_batches=1) as session:
        batch = session.start_batch("b", items_total=4)
        clock.advance(60)
        batch.update_item("a", ItemStatus.COMPLETED)
        line = milepost.progress_line(session)
    assert line == "crawl ·  25% · 1 items · 0.0/s · 3m00s left"


def test_while_work_grows_it_is_the_least_that_it_is(tmp_path: Path) -> None:
    clock = milepost.ManualClock()
    with milepost.Store(tmp_path / "s", clock=clock).session("crawl", total_batches=1) as session:
        batch = session.start_batch("b")
        clock.advance(60)
        batch.update_item("a", ItemStatus.COMPLETED)
        assert "at least" not in milepost.progress_line(session)
        batch.add_many("bcd")
        line = milepost.progress_line(session)
    assert line == "crawl · at most 25% · 1 of at least 4 items · 0.0/s · at least 3m00s left"
