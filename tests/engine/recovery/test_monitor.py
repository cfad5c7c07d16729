"""How the work goes since a recovery, counted from the state alone."""

from __future__ import annotations

from hypothesis import given

from milepost.recovery.monitor import measure
from milepost.types import ItemStatus, Outcome, RecoveryStrategy
from support.histories import SECOND_NS, START_NS, History, Story, folded, histories

COMPLETED, FAILED, SKIPPED = ItemStatus.COMPLETED, ItemStatus.FAILED, ItemStatus.SKIPPED


def recovered() -> Story:
    """Two of four batches are done and half of the third, when it is recovered."""
    story = Story()
    story.run()
    story.plan(4)
    for number in (0, 1):
        story.start(number)
        story.done("a", "b", batch=number)
        story.end(number)
    story.start(2, items_total=4)
    story.items(("a", COMPLETED), ("b", FAILED), batch=2)
    story.die()
    story.wait(60)
    story.recover()
    return story


def test_right_after_a_recovery_nothing_was_done_since() -> None:
    # There, it was nearly always "successful", because all progress counted.
    result = measure(recovered().state)
    assert result.session_id == "crawl"
    assert result.overall_progress == 2.5 / 4
    assert result.current_batch_progress == 0.5
    assert (result.items_since_recovery, result.batches_since_recovery) == (0, 0)
    assert not result.recovery_successful
    assert result.recovered_at is not None
    assert result.recovered_at.timestamp() == (START_NS + 60 * SECOND_NS) / 1e9


def test_what_is_acknowledged_since_is_counted() -> None:
    story = recovered()
    story.run()
    story.start(2)
    assert not measure(story.state).recovery_successful, "to begin is not to get on"
    story.items(("c", COMPLETED), ("d", SKIPPED), batch=2)
    result = measure(story.state)
    assert (result.items_since_recovery, result.recovery_successful) == (2, True)
    story.items(("b", COMPLETED), batch=2)
    story.end(2)
    result = measure(story.state)
    assert (result.items_since_recovery, result.batches_since_recovery) == (3, 1)
    assert result.overall_progress == 0.75
    assert result.current_batch_progress is None


def test_a_failure_since_is_something_that_was_acknowledged() -> None:
    story = recovered()
    story.run()
    story.start(2)
    story.items(("c", FAILED), batch=2)
    assert measure(story.state).items_since_recovery == 1


def test_failures_that_are_put_back_take_nothing_back() -> None:
    story = recovered()
    story.run()
    story.start(2)
    story.items(("b", ItemStatus.PROCESSING), ("c", COMPLETED), batch=2)
    result = measure(story.state)
    assert (result.items_since_recovery, result.recovery_successful) == (1, True)


def test_batches_that_complete_without_items_count() -> None:
    story = recovered()
    story.run()
    story.start(3)
    story.end(3)
    result = measure(story.state)
    assert (result.items_since_recovery, result.batches_since_recovery) == (0, 1)
    assert result.recovery_successful


def test_without_a_recovery_all_counts_from_the_beginning() -> None:
    story = Story()
    story.run()
    story.start(0, items_total=2)
    story.done("a")
    result = measure(story.state)
    assert result.recovered_at is None
    assert (result.items_since_recovery, result.recovery_successful) == (1, True)
    assert result.overall_progress is None, "nobody knows how many batches there will be"
    assert result.current_batch_progress == 0.5


def test_growing_work_is_measured_by_what_is_known_of_it() -> None:
    story = Story()
    story.run()
    story.start(0)
    story.add(*"abcd")
    story.done("a")
    assert measure(story.state).current_batch_progress == 0.25


def test_a_batch_in_hand_beyond_its_size_is_whole_and_no_more() -> None:
    # There, it could say over 100 %.
    story = Story()
    story.run()
    story.plan(2)
    for number in (0, 1):
        story.start(number, items_total=2)
        story.done(*range(5), batch=number)
    result = measure(story.state)
    assert (result.overall_progress, result.current_batch_progress) == (1.0, 1.0)


def test_when_it_should_be_done_is_seen_from_its_pace() -> None:
    story = Story()
    story.run()
    story.plan(4)
    story.start(0)
    story.wait(10)
    story.end(0)
    found = measure(story.state).estimated_completion
    assert found is not None
    assert found.timestamp() == START_NS / 1e9 + 40


def test_what_has_ended_is_whole() -> None:
    story = recovered()
    story.run()
    for number in (2, 3):
        story.start(number)
        story.end(number)
    story.complete()
    story.stop(Outcome.COMPLETED)
    assert measure(story.state).overall_progress == 1.0


def test_a_partial_recovery_counts_from_what_it_left() -> None:
    story = recovered()
    story.recover(RecoveryStrategy.PARTIAL_RECOVERY, reset=[1, 2])
    result = measure(story.state)
    assert result.items_since_recovery == result.batches_since_recovery == 0
    assert result.overall_progress == 0.25
    story.run()
    story.start(1)
    story.done("a", batch=1)
    assert measure(story.state).items_since_recovery == 1


@given(histories())
def test_no_share_is_ever_beyond_the_whole_and_no_count_below_nothing(history: History) -> None:
    result = measure(folded(history.events))
    for share in (result.overall_progress, result.current_batch_progress):
        assert share is None or 0.0 <= share <= 1.0
    assert result.items_since_recovery >= 0
    assert result.batches_since_recovery >= 0
    done = result.items_since_recovery + result.batches_since_recovery
    assert result.recovery_successful == (done > 0)
