"""Counts and forecasts are safe for nothing, no time, and a clock that was set back."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.model import events as e
from milepost.model.estimate import (
    active_ns,
    batch_active_ns,
    batch_counts,
    batch_remaining_ns,
    is_growing,
    item_counts,
    items_waiting,
    percent,
    progress,
    remaining_ns,
)
from milepost.model.state import ActiveBatch, SessionState, SessionStatistics, success_rate
from milepost.types import BatchErrorType, ItemStatus, Outcome
from support.histories import SECOND_NS, START_NS, UID, History, Story, folded, histories

HOUR_NS = 3_600 * SECOND_NS


@given(histories(), st.integers(-10 * HOUR_NS, 10 * HOUR_NS))
def test_no_number_is_ever_negative_infinite_or_above_the_whole(
    history: History, later: int
) -> None:
    state = folded(history.events)
    for now_ns in (None, state.updated_ns + later):
        left = remaining_ns(state, now_ns)
        assert left is None or left >= 0
        assert active_ns(state, now_ns) >= 0
        for batch in state.active_batches.values():
            left = batch_remaining_ns(batch, now_ns)
            assert left is None or left >= 0
            assert batch_active_ns(batch, now_ns) >= 0
    share = progress(state)
    assert share is None or 0 <= share <= 1
    for counts in (batch_counts(state), item_counts(state)):
        for name in counts.__struct_fields__:
            assert getattr(counts, name) >= 0
    sums = state.session_statistics
    for rate in (sums.success_rate, *(b.success_rate for b in state.completed_batches.values())):
        assert rate is None or 0 <= rate <= 1
    speed = sums.average_items_per_second
    assert speed is None or (speed > 0 and math.isfinite(speed))
    mean = sums.average_batch_duration_ms
    assert mean is None or mean >= 0
    assert state.estimated_completion is None or state.estimated_completion.tzinfo is not None


@given(histories())
def test_batches_are_counted_once_each(history: History) -> None:
    state = folded(history.events)
    counts = batch_counts(state)
    assert counts.completed == state.session_statistics.total_batches_completed
    assert counts.failed == state.session_statistics.total_batches_failed
    if state.total_batches is not None:
        whole = counts.pending + counts.processing + counts.completed + counts.failed
        assert whole == state.total_batches


def test_a_session_of_nothing() -> None:
    state = SessionState("crawl", UID)
    assert remaining_ns(state) is None
    assert progress(state) is None
    assert active_ns(state) == 0
    assert state.estimated_completion is None
    sums = state.session_statistics
    assert sums.success_rate is None
    assert sums.average_items_per_second is None
    assert sums.average_batch_duration_ms is None
    assert sums.last_updated is None


def test_a_session_of_no_batches_is_no_division() -> None:
    story = Story()
    story.run()
    story.plan(0)
    assert progress(story.state) is None
    assert remaining_ns(story.state) is None
    story.complete()
    assert progress(story.state) == 1.0
    assert remaining_ns(story.state) == 0


def test_no_time_at_all_is_no_speed() -> None:
    story = Story()
    story.run()
    story.total(4)
    story.start(items_total=4)
    story.done("a", "b")
    assert remaining_ns(story.state) is None
    assert batch_remaining_ns(story.state.active_batches[0]) is None
    assert story.state.session_statistics.average_items_per_second is None
    story.end()
    assert story.state.completed_batches[0].duration_ms == 0
    assert story.state.session_statistics.average_batch_duration_ms == 0


def test_a_batch_is_forecast_at_its_own_pace() -> None:
    story = Story()
    story.run()
    batch = story.start(items_total=10)
    assert batch_remaining_ns(batch) is None
    story.wait(4)
    story.done("a", "b")
    assert batch_remaining_ns(batch) == 16 * SECOND_NS
    # Seen from later, the same two items took longer.
    assert batch_remaining_ns(batch, story.now_ns + 4 * SECOND_NS) == 32 * SECOND_NS


def test_failed_and_skipped_items_are_finished() -> None:
    story = Story()
    story.run()
    batch = story.start(items_total=8)
    story.wait(4)
    story.items(("a", ItemStatus.COMPLETED), ("b", ItemStatus.FAILED), ("c", ItemStatus.SKIPPED))
    story.done("d")
    assert batch.items_finished == 4
    assert batch.items_pending == 4
    assert batch_remaining_ns(batch) == 4 * SECOND_NS


def test_batches_given_up_are_not_waited_for() -> None:
    story = Story()
    story.run()
    story.total(4)
    for number in (0, 1):
        story.start(number)
        story.wait(10)
        story.give_up(number)
    assert remaining_ns(story.state) == 20 * SECOND_NS
    assert progress(story.state) == 0.5


def test_an_active_batch_counts_as_the_share_of_it_that_is_finished() -> None:
    story = Story()
    story.run()
    story.total(3)
    story.start(0, items_total=2)
    story.wait(10)
    story.done("a", "b")
    story.end(0)
    story.start(1, items_total=4)
    story.wait(5)
    story.done("a", "b", batch=1)
    # 15 seconds for a batch and a half; as much is left.
    assert remaining_ns(story.state) == 15 * SECOND_NS
    assert progress(story.state) == 0.5
    assert story.state.estimated_completion is not None
    assert story.state.estimated_completion - story.state.last_updated == timedelta(seconds=15)


def test_more_items_than_announced_are_not_more_than_all() -> None:
    story = Story()
    story.run()
    story.total(2)
    batch = story.start(items_total=2)
    story.wait(1)
    story.done(*range(50))
    assert progress(story.state) == 0.5
    assert batch_remaining_ns(batch) == 0
    assert batch.items_pending == 0


def test_one_batch_is_counted_in_items() -> None:
    story = Story()
    story.run()
    story.total(1)
    story.start(items_total=10)
    story.wait(6)
    story.items(("a", ItemStatus.COMPLETED), ("b", ItemStatus.FAILED))
    story.item(None, ItemStatus.PENDING, taken="c")
    assert remaining_ns(story.state) == 24 * SECOND_NS


def test_items_whose_number_nobody_knows_are_not_forecast() -> None:
    story = Story()
    story.run()
    story.start()
    story.wait(6)
    story.done("a")
    assert remaining_ns(story.state) is None
    assert progress(story.state) is None


def test_dead_time_is_left_out() -> None:
    story = Story()
    story.run()
    story.total(2)
    story.start(0, items_total=4)
    story.wait(10)
    story.done("a", "b")
    story.wait(0)
    # Killed; the machine is off for a day.
    story.wait(86_400)
    story.run()
    batch = story.start(0)
    assert batch.resumed_ns == story.now_ns
    assert active_ns(story.state) == 10 * SECOND_NS
    assert batch_remaining_ns(batch) == 10 * SECOND_NS
    assert remaining_ns(story.state) == 30 * SECOND_NS
    story.wait(10)
    story.done("c", "d")
    story.end(0)
    story.stop(Outcome.STOPPED)
    assert story.state.completed_batches[0].active_ns == 20 * SECOND_NS
    assert story.state.session_statistics.average_items_per_second == 4 / 20
    # And a stop on purpose, with a night behind it.
    story.wait(86_400)
    assert active_ns(story.state, story.now_ns) == 20 * SECOND_NS


def test_a_clock_that_was_set_back_takes_nothing_back() -> None:
    story = Story()
    story.run()
    story.total(2)
    story.start(0, items_total=2)
    story.wait(10)
    story.done("a")
    story.wait(-7_200)
    story.done("b")
    story.end(0)
    assert story.state.completed_batches[0].active_ns == 0
    assert active_ns(story.state) == 0
    assert remaining_ns(story.state) is None
    story.stop(Outcome.STOPPED)
    assert story.state.session_statistics.active_ns == 0


def test_a_session_that_has_ended_has_nothing_left() -> None:
    story = Story()
    story.run()
    story.total(5)
    story.start(0)
    story.wait(3)
    story.give_up(0)
    story.complete()
    assert remaining_ns(story.state) == 0
    assert progress(story.state) == 1.0


def test_a_forecast_beyond_the_calendar_is_none() -> None:
    story = Story()
    story.run()
    story.total(1)
    story.start(items_total=10**12)
    story.wait(3_600)
    story.done("a")
    left = remaining_ns(story.state)
    assert left is not None
    assert left > 10**12 * SECOND_NS
    # A hundred million years from now there is no date to show.
    assert story.state.estimated_completion is None


@pytest.mark.parametrize(
    ("completed", "failed", "rate"), [(0, 0, None), (3, 1, 0.75), (0, 2, 0.0), (5, 0, 1.0)]
)
def test_there_is_one_success_rate(completed: int, failed: int, rate: float | None) -> None:
    assert success_rate(completed, failed) == rate
    sums = SessionStatistics(
        total_items_processed=completed, total_items_failed=failed, total_items_skipped=7
    )
    assert sums.success_rate == rate
    batch = ActiveBatch("b0", 0, START_NS, START_NS)
    batch.items_processed, batch.items_failed, batch.items_skipped = completed, failed, 7
    assert batch.success_rate == rate


def test_items_of_all_batches_are_summed() -> None:
    story = Story()
    story.start(0, items_total=5)
    story.items(("a", ItemStatus.COMPLETED), ("b", ItemStatus.SKIPPED))
    story.item(None, ItemStatus.PENDING, taken="c")
    story.start(1)
    story.items(("a", ItemStatus.FAILED), ("b", ItemStatus.PENDING), batch=1)
    story.give_up(1)
    counts = item_counts(story.state)
    assert (counts.completed, counts.failed, counts.skipped) == (1, 1, 1)
    assert (counts.processing, counts.pending) == (1, 3)


def test_growing_work_is_forecast_by_what_is_known_of_it() -> None:
    story = Story()
    story.run()
    story.total(1)
    batch = story.start()
    story.wait(4)
    story.done("seed")
    assert not is_growing(story.state)
    assert (remaining_ns(story.state), progress(story.state)) == (None, None)
    story.add("a", "b", "c")
    assert is_growing(story.state)
    # Three more of four seconds each, at the least.
    assert remaining_ns(story.state) == batch_remaining_ns(batch) == 12 * SECOND_NS
    assert progress(story.state) == 0.25
    assert item_counts(story.state).pending == 3
    story.finish(("a", ItemStatus.COMPLETED), taken=["b"])
    assert (item_counts(story.state).pending, item_counts(story.state).processing) == (1, 1)
    assert progress(story.state) == 0.5


def test_what_was_found_on_the_way_comes_on_top_of_the_source() -> None:
    story = Story()
    story.run()
    story.start(items_total=2)
    story.wait(2)
    story.done("a", "b")
    assert remaining_ns(story.state) == 0
    story.add("c", "d")
    assert remaining_ns(story.state) == 2 * SECOND_NS


def test_work_grows_also_while_it_waits_and_not_when_it_ended() -> None:
    story = Story()
    story.run()
    story.total(2)
    story.start()
    story.add("a")
    story.give_up()
    assert not is_growing(story.state)
    story.retry([0])
    assert is_growing(story.state)
    story.start()
    story.done("a")
    story.end()
    assert not is_growing(story.state)


def test_items_known_by_position_are_counted_like_others() -> None:
    story = Story()
    story.run()
    story.total(1)
    story.start(items_total=10)
    story.wait(4)
    story.advance(0, 4)
    story.advance(2, 2)
    assert (item_counts(story.state).pending, item_counts(story.state).processing) == (6, 2)
    assert progress(story.state) == 0.2
    assert remaining_ns(story.state) == 16 * SECOND_NS
    assert not is_growing(story.state)


def tried(story: Story, key: int, error: str | None = "Retry: busy") -> None:
    """An item was taken, and put down again."""
    story.item(key, ItemStatus.PROCESSING)
    story.happen(e.ItemUpdated, 0, key, ItemStatus.PENDING, None, error)


def test_where_much_waits_to_be_tried_again_there_is_no_forecast() -> None:
    story = Story()
    story.run()
    story.total(1)
    batch = story.start(items_total=40)
    story.wait(4)
    story.done(*range(10))
    tried(story, 10, None)  # put down, and nothing was wrong with it
    for key in (11, 12, 13):
        tried(story, key)
    assert items_waiting(story.state) == 3
    assert remaining_ns(story.state) == batch_remaining_ns(batch) == 12 * SECOND_NS
    tried(story, 14)  # more than a tenth of the 30 that are left
    assert items_waiting(story.state) == 4
    assert (remaining_ns(story.state), batch_remaining_ns(batch)) == (None, None)
    story.item(14, ItemStatus.PROCESSING)
    assert remaining_ns(story.state) == 12 * SECOND_NS, "it is in hand again"
    story.item(15, ItemStatus.FAILED)
    assert items_waiting(story.state) == 3, "what failed waits for nothing in this run"


def test_batches_that_wait_to_be_tried_again_hold_up_the_session() -> None:
    story = Story()
    story.run()
    story.total(3)
    story.start(0)
    story.wait(4)
    story.end(0)
    assert remaining_ns(story.state) == 8 * SECOND_NS
    story.start(1)
    story.happen(e.BatchAttemptFailed, 1, "busy", BatchErrorType.NETWORK_ERROR, 60_000)
    assert remaining_ns(story.state) is None
    story.start(1)
    assert remaining_ns(story.state) == 8 * SECOND_NS


def test_a_batch_of_unknown_size_is_no_share_of_itself() -> None:
    story = Story()
    story.run()
    story.total(1)
    story.start()
    story.done(*range(23))
    assert progress(story.state) is None
    story.total(2)
    story.start(1)
    story.end(1)
    assert progress(story.state) == 0.5, "one of the two batches has ended"
    story.total(1)
    story.end(0)
    assert progress(story.state) == 1.0


@pytest.mark.parametrize(
    ("share", "told"),
    [(0.0, "0%"), (0.29, "29%"), (0.4199, "41%"), (300 / 301, "99%"), (1.0, "100%")],
)
def test_only_all_of_it_is_100_percent(share: float, told: str) -> None:
    assert percent(share) == told
