"""What the two earlier systems got wrong, and this one must not; a test for each mistake.

Only those that lie in the model: the others are tested in the rooms that could make them.
"""

from __future__ import annotations

from milepost.model import fold
from milepost.model.consistency import check
from milepost.model.estimate import progress, remaining_ns
from milepost.model.status import Presence, SessionStatus, judge
from milepost.types import BatchStatus, ItemStatus, Outcome
from support.histories import SECOND_NS, Story

FAILED = ItemStatus.FAILED


def test_a_progress_update_does_not_reset_the_clock_of_saving() -> None:
    # There it reset the very time by which it was decided whether to save.
    story = Story()
    story.run()
    story.start()
    saved = story.now_ns
    story.state.last_snapshot_ns = saved
    before = story.state.last_checkpoint
    for number in range(5):
        story.wait(20)
        story.progress(number)
        story.progress(phase="fetching")
    assert story.state.last_snapshot_ns == saved
    assert story.state.last_checkpoint == before
    assert story.state.last_updated != before


def test_a_resumed_batch_keeps_its_item_records() -> None:
    story = Story()
    story.run()
    story.start(items_total=4)
    story.items(("a", ItemStatus.COMPLETED), ("b", FAILED), ("c", ItemStatus.SKIPPED))
    before = fold.copy_batch(story.state.active_batches[0])
    story.wait(1_000)
    story.run()
    batch = story.start(items_total=4)
    assert (batch.finished, batch.open) == (before.finished, before.open)
    assert [batch.status_of(key) for key in "abc"] == [
        ItemStatus.COMPLETED,
        FAILED,
        ItemStatus.SKIPPED,
    ]


def test_an_interrupted_batch_is_there_to_be_taken_up() -> None:
    story = Story()
    story.run()
    story.plan(3)
    story.start(0)
    # Killed. It stays processing, is found by its number, and can be begun again.
    story.run()
    assert story.state.batch_status(0) is BatchStatus.PROCESSING
    assert story.state.active_batches[0].resumed_ns == 0
    assert story.start(0).resumed_ns == story.now_ns


def test_the_retry_counts_rise_so_that_a_limit_can_bite() -> None:
    story = Story()
    for run in (1, 2, 3):
        story.run()
        story.start()
        story.item(None, ItemStatus.PENDING, taken="a")
        story.item("a", FAILED)
        story.give_up()
        failed = story.state.failed_batches[0]
        assert failed.retry_count == run
        assert failed.partial_progress.open["a"].failed_runs == run
        assert failed.partial_progress.open["a"].retry_count == run - 1


def test_a_batch_begun_again_leaves_the_list_of_failed_ones() -> None:
    story = Story()
    story.run()
    story.start()
    story.give_up()
    story.start()
    assert story.state.failed_batches == {}
    assert story.state.session_statistics.total_batches_failed == 0
    story.end()
    assert list(story.state.completed_batches) == [0]
    assert check(story.state) == []


def test_a_failed_batch_is_consistent_and_the_session_ends_and_is_not_stale() -> None:
    story = Story()
    story.run()
    story.plan(2)
    story.start(0)
    story.end(0)
    story.start(1)
    story.give_up(1)
    assert check(story.state) == []
    story.complete()
    story.stop(Outcome.FAILED)
    assert check(story.state) == []
    assert story.state.outcome is Outcome.FAILED
    assert judge(story.state, Presence.GONE).status is SessionStatus.FAILED
    assert progress(story.state) == 1.0


def test_the_total_of_items_is_a_sum_and_not_a_maximum() -> None:
    story = Story()
    for number in range(3):
        story.start(number)
        story.done("a", "b", batch=number)
    story.end(0)
    story.give_up(1)
    assert story.state.total_items_processed == 6


def test_failures_reach_the_statistics_and_skipped_items_are_counted() -> None:
    story = Story()
    story.start()
    story.items(("a", FAILED), ("b", ItemStatus.SKIPPED), ("c", ItemStatus.COMPLETED))
    sums = story.state.session_statistics
    assert (sums.total_items_failed, sums.total_items_skipped) == (1, 1)
    story.start(1)
    story.progress(4, 3, batch=1)
    story.give_up(1)
    assert (sums.total_items_failed, sums.total_batches_failed) == (4, 1)
    assert sums.success_rate == 5 / 9


def test_there_is_one_success_rate_and_nothing_is_not_a_number() -> None:
    story = Story()
    story.start()
    batch = story.state.active_batches[0]
    sums = story.state.session_statistics
    assert batch.success_rate is None
    assert sums.success_rate is None
    story.items(("a", ItemStatus.SKIPPED))
    assert batch.success_rate is None
    story.items(("b", ItemStatus.COMPLETED), ("c", FAILED))
    assert batch.success_rate == sums.success_rate == 0.5
    story.end()
    assert story.state.completed_batches[0].success_rate == 0.5


def test_the_forecast_does_not_wait_for_failures_and_sees_active_work() -> None:
    story = Story()
    story.run()
    story.plan(4)
    story.start(0)
    story.wait(10)
    story.give_up(0)
    story.start(1, items_total=10)
    assert remaining_ns(story.state) == 30 * SECOND_NS
    story.wait(5)
    story.done(*range(5), batch=1)
    # One batch and a half in 15 seconds: two and a half are left, not four, and not three.
    assert remaining_ns(story.state) == 25 * SECOND_NS


def test_no_share_is_above_the_whole() -> None:
    story = Story()
    story.run()
    story.plan(2)
    for number in (0, 1):
        story.start(number, items_total=1)
        story.done("a", "b", "c", batch=number)
        assert (progress(story.state) or 0) <= 1.0
        story.end(number)
    assert progress(story.state) == 1.0


def test_a_young_session_with_little_progress_is_one_to_carry_on() -> None:
    story = Story()
    story.run()
    story.plan(1_000)
    story.start(0)
    story.item(None, ItemStatus.PENDING, taken="a")
    assert judge(story.state, Presence.GONE).status is SessionStatus.INTERRUPTED
