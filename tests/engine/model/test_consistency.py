"""A state that cannot be right is told from one that can, by every rule at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from milepost.model.consistency import Finding, check
from milepost.model.state import (
    ActiveBatch,
    CompletedBatch,
    FailedBatch,
    ItemProgress,
    OutputRows,
    PlanPart,
    SessionState,
    Suspect,
)
from milepost.types import BatchErrorType, ItemStatus, Outcome
from support.histories import START_NS, UID, History, Story, folded, histories

if TYPE_CHECKING:
    from collections.abc import Callable


def sound() -> SessionState:
    """A state with something of everything."""
    story = Story(item_cap=2)
    story.run()
    story.plan(5)
    story.start(0, items_total=9)
    story.items(*(("abc"[n], ItemStatus.COMPLETED) for n in range(3)), ("d", ItemStatus.FAILED))
    story.item(None, ItemStatus.PENDING, taken="e")
    story.start(1)
    story.done("a", batch=1)
    story.end(1)
    story.start(2)
    story.items(("a", ItemStatus.FAILED), ("b", ItemStatus.SKIPPED), batch=2)
    story.give_up(2)
    story.start(3)
    story.give_up(3)
    story.retry([3])
    story.start(4, items_total=8)
    story.advance(0, 5, batch=4)
    story.output("../rows.txt", 3)
    story.finish((0, ItemStatus.FAILED), (3, ItemStatus.COMPLETED), batch=4)
    story.advance(2, rows=[story.rows("../rows.txt", 9)], batch=4)
    story.add("x", "y", batch=0)
    story.finish(taken=["x"], batch=0)
    return story.state


def rules(state: SessionState) -> set[str]:
    return {finding.rule for finding in check(state)}


def test_a_sound_state_has_no_findings() -> None:
    assert check(sound()) == []
    assert check(SessionState("crawl", UID)) == []


@given(histories())
def test_no_history_leads_to_an_error(history: History) -> None:
    # Clocks set back are in these histories, and are notices, never errors.
    for finding in check(folded(history.events)):
        assert not finding.is_error
        assert finding.rule in {"clock", "items-total", "batch-total"}


def batch_twice(state: SessionState) -> None:
    state.pending_batches[0] = ActiveBatch("b0", 0, START_NS, START_NS)


def batch_number(state: SessionState) -> None:
    state.active_batches[0].batch_number = 4


def batch_key(state: SessionState) -> None:
    state.active_batches[0].batch_id = "b1"


def batch_beyond(state: SessionState) -> None:
    state.active_batches[99] = ActiveBatch("b99", 99, START_NS, START_NS)


def batch_negative(state: SessionState) -> None:
    state.active_batches[-1] = ActiveBatch("b-1", -1, START_NS, START_NS)


def plan_gap(state: SessionState) -> None:
    state.plan.append(PlanPart("segments/plan.7-7.00.zst", 7, 1))


def plan_total(state: SessionState) -> None:
    state.total_batches = 4


def sum_of_batches(state: SessionState) -> None:
    state.session_statistics.total_batches_completed += 1


def sum_of_failures(state: SessionState) -> None:
    state.session_statistics.total_items_failed = 0


def sum_of_time(state: SessionState) -> None:
    state.session_statistics.total_batch_ns += 1


def negative_time(state: SessionState) -> None:
    state.session_statistics.active_ns = -1


def in_flight(state: SessionState) -> None:
    state.active_batches[0].items_processing = 0


def acknowledged(state: SessionState) -> None:
    state.active_batches[0].done.clear()


def failed_items(state: SessionState) -> None:
    state.failed_batches[2].partial_progress.open.clear()


def item_twice(state: SessionState) -> None:
    batch = state.active_batches[0]
    batch.open["a"] = ItemProgress("a", ItemStatus.PENDING)


def item_twice_done(state: SessionState) -> None:
    batch = state.active_batches[0]
    key = next(iter(batch.done))
    batch.finished[key] = ItemProgress(key, ItemStatus.COMPLETED)
    batch.items_processed += 1


def queued_twice(state: SessionState) -> None:
    state.active_batches[0].queued["d"] = None
    state.active_batches[0].items_added += 1


def queued_and_done(state: SessionState) -> None:
    batch = state.active_batches[0]
    batch.queued[next(iter(batch.done))] = None
    batch.items_added += 1


def done_within_the_prefix(state: SessionState) -> None:
    state.active_batches[4].done.add(1)
    state.active_batches[4].items_processed += 1
    state.session_statistics.total_items_processed += 1


def fewer_added_than_queued(state: SessionState) -> None:
    state.active_batches[0].items_added = 1


def position_ahead(state: SessionState) -> None:
    state.active_batches[4].position += 4


def position_behind(state: SessionState) -> None:
    state.active_batches[4].position -= 1


def digest_ahead(state: SessionState) -> None:
    state.active_batches[4].digested = state.active_batches[4].position + 1


def digest_negative(state: SessionState) -> None:
    state.active_batches[4].digested = -1


def position_with_keys(state: SessionState) -> None:
    state.active_batches[4].queued["x"] = None
    state.active_batches[4].items_added = 1


def position_of_keys(state: SessionState) -> None:
    state.active_batches[4].is_positional = False


def output_backwards(state: SessionState) -> None:
    state.outputs["../rows.txt"] = OutputRows("../rows.txt", 9, 3, 0)


def output_of_another_name(state: SessionState) -> None:
    state.outputs["../other.txt"] = state.outputs["../rows.txt"]


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (batch_twice, "batch-twice"),
        (batch_number, "batch-number"),
        (batch_key, "batch-key"),
        (batch_beyond, "batch-range"),
        (batch_negative, "batch-range"),
        (plan_gap, "plan-gap"),
        (plan_total, "plan-total"),
        (sum_of_batches, "sums"),
        (sum_of_failures, "sums"),
        (sum_of_time, "sums"),
        (negative_time, "time"),
        (in_flight, "items"),
        (acknowledged, "items"),
        (failed_items, "items"),
        (item_twice, "item-twice"),
        (item_twice_done, "item-twice"),
        (queued_twice, "item-twice"),
        (queued_and_done, "item-twice"),
        (done_within_the_prefix, "item-twice"),
        (fewer_added_than_queued, "items-added"),
        (position_ahead, "items"),
        (position_behind, "items"),
        (digest_ahead, "position"),
        (digest_negative, "position"),
        (position_with_keys, "position"),
        (position_of_keys, "position"),
        (output_backwards, "output"),
        (output_of_another_name, "output"),
    ],
)
def test_each_rule_finds_what_it_is_for(spoil: Callable[[SessionState], None], rule: str) -> None:
    state = sound()
    spoil(state)
    found = [finding for finding in check(state) if finding.rule == rule]
    assert found
    assert all(finding.is_error and finding.message for finding in found)


def ended() -> SessionState:
    """A session that has ended with everything done but one batch, which failed."""
    story = Story()
    story.run()
    story.plan(3)
    for number in (2, 0):
        story.start(number)
        story.end(number)
    story.start(1)
    story.give_up(1)
    story.complete()
    story.stop(Outcome.FAILED)
    assert check(story.state) == []
    return story.state


def lost_batch(state: SessionState) -> None:
    del state.completed_batches[2]
    state.session_statistics.total_batches_completed -= 1


def lost_batches(state: SessionState) -> None:
    state.plan.append(PlanPart("segments/plan.3-11.00.zst", 3, 9))
    state.total_batches = 12


def still_in_hand(state: SessionState) -> None:
    state.total_batches = 4
    state.active_batches[3] = ActiveBatch("b3", 3, START_NS, START_NS)


def still_waiting(state: SessionState) -> None:
    state.total_batches = 4
    state.pending_batches[3] = ActiveBatch("b3", 3, START_NS, START_NS)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lost_batch, "has ended, and batch 2 did not"),
        (lost_batches, "has ended, and batches 3, 4, 5, 6, 7 and 4 more did not"),
        (still_in_hand, "has ended, and batch 3 did not"),
        (still_waiting, "has ended, and batch 3 did not"),
    ],
)
def test_an_ended_session_has_every_number_completed_or_failed(
    spoil: Callable[[SessionState], None], message: str
) -> None:
    # There, numbers had to stand in the order in which the batches ended.
    state = ended()
    spoil(state)
    (finding,) = check(state)
    assert (finding.rule, finding.is_error) == ("batch-missing", True)
    assert finding.message.endswith(message)


def test_an_unfinished_session_may_miss_any_number() -> None:
    state = ended()
    lost_batch(state)
    state.outcome = None
    assert check(state) == []


def test_a_total_that_was_said_by_hand_and_not_reached_is_a_notice() -> None:
    story = Story()
    story.total(10**12)
    story.start(0)
    story.end(0)
    story.complete()
    (finding,) = check(story.state)
    assert (finding.rule, finding.is_error) == ("batch-total", False)
    assert "1 of 1,000,000,000,000 batches" in finding.message


def test_an_end_says_itself_whether_something_failed() -> None:
    state = ended()
    state.outcome = Outcome.COMPLETED
    assert rules(state) == {"outcome"}
    story = Story()
    story.complete()
    story.state.outcome = Outcome.FAILED
    assert rules(story.state) == {"outcome"}


def test_only_the_latest_run_can_be_without_an_end() -> None:
    story = Story()
    story.run()
    story.run()
    assert check(story.state) == []
    story.state.executions[0].ended_ns = None
    assert rules(story.state) == {"run-open"}


def test_a_suspect_that_is_not_in_hand_is_a_notice() -> None:
    state = sound()
    state.suspects = [Suspect(1, "a", 1)]
    (finding,) = check(state)
    assert (finding.rule, finding.is_error) == ("suspect", False)


def test_every_finding_is_told_and_not_only_the_first() -> None:
    state = sound()
    for spoil in (batch_number, sum_of_batches, in_flight, plan_gap):
        spoil(state)
    assert {"batch-number", "sums", "items", "plan-gap"} <= rules(state)


def test_a_clock_that_was_set_back_is_a_notice() -> None:
    story = Story()
    story.start()
    story.wait(-3_600)
    story.end()
    found = check(story.state)
    assert [finding.rule for finding in found] == ["clock"] * 2
    assert not any(finding.is_error for finding in found)
    story.start(1)
    assert any(
        "batch 1 was begun before the session was" in each.message for each in check(story.state)
    )


def test_more_items_than_were_announced_are_a_notice() -> None:
    story = Story()
    story.start(0, items_total=1)
    story.done("a", "b")
    story.start(1, items_total=1)
    story.progress(5, batch=1)
    found = check(story.state)
    assert [(finding.rule, finding.is_error) for finding in found] == [("items-total", False)] * 2


def test_batches_may_end_in_any_order_and_overlap() -> None:
    story = Story()
    for number in (3, 1, 2, 0):
        story.start(number)
        story.wait(1)
    for number in (1, 0, 3, 2):
        story.end(number)
    assert check(story.state) == []


def test_a_failed_batch_is_no_inconsistency() -> None:
    story = Story()
    story.total(2)
    story.start(0)
    story.items(("a", ItemStatus.COMPLETED), ("b", ItemStatus.FAILED))
    story.give_up(0)
    assert check(story.state) == []


def test_a_completed_batch_that_is_also_failed_is_found() -> None:
    state = sound()
    state.completed_batches[2] = CompletedBatch("b2", 2, START_NS, START_NS, 0)
    assert "batch-twice" in rules(state)
    state = sound()
    batch = ActiveBatch("b1", 1, START_NS, START_NS)
    kind = BatchErrorType.UNKNOWN_ERROR
    state.failed_batches[1] = FailedBatch("b1", 1, START_NS, "no", kind, 1, True, batch)
    assert "batch-twice" in rules(state)


def test_a_finding_is_plain_data() -> None:
    finding = Finding(rule="sums", message="they do not add up")
    assert (finding.path, finding.is_error) == ("", True)


def test_items_found_on_the_way_are_expected() -> None:
    story = Story()
    story.start(0, items_total=1)
    story.add("b", "c")
    story.done("a", "b", "c")
    assert check(story.state) == []
    story.done("d")  # while work grows, a total is what is known of at least
    assert check(story.state) == []


def test_more_items_than_there_should_be_are_told_of() -> None:
    story = Story()
    story.start(0, items_total=1)
    story.done("a", "b")
    (finding,) = check(story.state)
    assert (finding.rule, finding.is_error) == ("items-total", False)
    assert finding.message.endswith("finished 2 of 1 items")
