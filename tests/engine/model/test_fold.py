"""The fold: every event does what it says, the same events always give the same state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from milepost.journal import record
from milepost.model import events as e
from milepost.model import fold
from milepost.model.consistency import check
from milepost.model.fold import EXECUTIONS_LISTED, FoldError
from milepost.model.state import BatchMetrics, Retrying, SessionState
from milepost.types import (
    BatchErrorType,
    BatchPhase,
    BatchStatus,
    CheckpointType,
    ItemStatus,
    Outcome,
    SessionKind,
)
from support.histories import SECOND_NS, START_NS, UID, History, Story, folded, histories

if TYPE_CHECKING:
    import random

PENDING, PROCESSING, COMPLETED, FAILED, SKIPPED = ItemStatus


# Properties of every history.


@given(histories(), st.randoms(use_true_random=False))
def test_a_replay_from_any_snapshot_gives_the_same_state(
    history: History, chance: random.Random
) -> None:
    whole = folded(history.events)
    cut = chance.randrange(1, len(history.events) + 1)
    # A snapshot is what a copy goes through as well: encoded and read back.
    state = fold.copy(folded(history.events[:cut]))
    for event in history.events[cut:]:
        state = fold.apply(state, event)
    assert state == whole


@given(histories())
def test_the_order_of_items_is_the_same_after_a_snapshot(history: History) -> None:
    # What is forgotten first depends on it.
    state = folded(history.events)
    again = fold.copy(state)
    for number, batch in state.active_batches.items():
        assert list(again.active_batches[number].finished) == list(batch.finished)
        assert list(again.active_batches[number].open) == list(batch.open)
    assert list(again.completed_batches) == list(state.completed_batches)


@given(histories())
def test_a_replay_of_what_the_journal_holds_gives_the_same_state(history: History) -> None:
    read = [record.decode_payload(record.encode_payload(event)) for event in history.events]
    assert read == history.events
    assert folded(history.events) == folded(read)


@given(histories())
def test_folding_changes_no_event(history: History) -> None:
    before = [record.encode_payload(event) for event in history.events]
    folded(history.events)
    assert [record.encode_payload(event) for event in history.events] == before


@given(histories())
def test_the_counts_are_right_after_every_event(history: History) -> None:
    first = history.events[0]
    assert isinstance(first, e.SessionCreated)
    state = fold.new_state(first)
    for event in history.events[1:]:
        state = fold.apply(state, event)
        assert [finding for finding in check(state) if finding.is_error] == []


@given(histories())
def test_what_was_acknowledged_stays_so(history: History) -> None:
    state = folded(history.events)
    for number, keys in history.done.items():
        batch = state.active_batches.get(number) or state.pending_batches.get(number)
        if batch is None and number in state.failed_batches:
            batch = state.failed_batches[number].partial_progress
        if batch is None:
            # Completed: only a batch that may grow keeps its keys.
            assert number in state.completed_batches
            batch = state.completed_batches[number].progress
            if batch is None:
                continue
        for key in keys:
            assert batch.is_done(key)
            assert batch.status_of(key) in {COMPLETED, SKIPPED}
            assert key not in batch.open


@given(histories())
def test_details_are_kept_up_to_the_cap(history: History) -> None:
    # A batch that was put aside while the cap was lowered is cut with its next finished item.
    assume(not any(isinstance(event, e.ItemCapChanged) for event in history.events))
    state = folded(history.events)
    for batch in state.active_batches.values():
        assert len(batch.finished) <= state.item_cap
        # What is unfinished or failed is never cut.
        assert batch.items_failed + batch.items_processing <= len(batch.open) or batch.is_counted


@given(histories())
def test_a_state_shares_nothing_with_its_copy(history: History) -> None:
    state = folded(history.events)
    before = fold.copy(state)
    other = fold.copy(state)
    for batch in other.active_batches.values():
        batch.counters["x"] = 1
        batch.open.clear()
        batch.done.add("x")
    other.checkpoints.clear()
    other.completed_batches.clear()
    other.session_statistics.total_items_processed += 1
    assert state == before


def test_every_event_has_an_arm_or_is_never_folded() -> None:
    assert set(get_args(e.BatchEvent)) == {*fold._ARMS, e.Restored}


def test_every_tag_is_its_own_and_none_is_reserved() -> None:
    tags = [kind.__struct_config__.tag for kind in get_args(e.BatchEvent)]
    assert len(set(tags)) == len(tags)
    assert all(isinstance(tag, int) and 10 <= tag < 60 for tag in tags)


# Order.


@pytest.mark.parametrize("sequence", [0, 1, 3, -1, 2**40])
def test_an_event_out_of_sequence_cannot_have_happened(sequence: int) -> None:
    event = e.TotalBatchesSet(sequence, START_NS, e.NO_BATCH, 4)
    with pytest.raises(FoldError, match=f"event {sequence} cannot follow event 1"):
        fold.apply(Story().state, event)


def test_clocks_order_nothing() -> None:
    story = Story()
    story.wait(-10_000)
    state = story.total(4)
    assert state.sequence == 2
    assert state.updated_ns < state.created_ns


def impossible(batch: int = 0) -> list[e.BatchEvent]:
    head = (2, START_NS, batch)
    return [
        e.SessionCreated(*head, "crawl", UID, SessionKind.WORK, 10),
        e.Restored(*head, 1, 1),
        e.ProgressUpdated(*head, 4),
        e.ItemUpdated(*head, "a", COMPLETED),
        e.ItemsUpdated(*head, [e.ItemChange("a", COMPLETED)]),
        e.CountersAdded(*head, {"pages": 1}),
        e.BatchAttemptFailed(*head, "no", BatchErrorType.UNKNOWN_ERROR, 0),
        e.BatchCompleted(*head),
        e.BatchFailed(*head, "no", BatchErrorType.UNKNOWN_ERROR, is_recoverable=True),
        e.Retried(*head, [0], {}),
        e.Retried(*head, [], {0: ["a"]}),
        e.PlanSealed(*head, "segments/plan.5-6.00.zst", 5, 2),
    ]


@pytest.mark.parametrize("event", impossible(), ids=lambda event: type(event).__name__)
def test_what_does_not_fit_the_state_is_refused(event: e.BatchEvent) -> None:
    with pytest.raises(FoldError):
        fold.apply(Story().state, event)


def test_a_completed_batch_that_kept_no_items_is_not_begun_again() -> None:
    story = Story()
    story.start()
    story.end()
    with pytest.raises(FoldError, match="completed"):
        story.start()


def test_only_failed_items_are_put_back() -> None:
    story = Story()
    story.start()
    story.done("a")
    with pytest.raises(FoldError, match="not failed"):
        story.retry([], {0: ["a"]})


# Items.


def test_an_item_from_taken_to_done() -> None:
    story = Story()
    story.start()
    story.item(None, PENDING, taken="a")
    batch = story.state.active_batches[0]
    assert batch.open["a"].status is PROCESSING
    assert batch.items_processing == 1
    assert batch.open["a"].started_ns == story.now_ns
    story.wait(2)
    # One record: this one done, that one taken.
    story.item("a", COMPLETED, taken="b")
    assert batch.is_done("a")
    item = batch.finished["a"]
    assert (item.attempts, item.retry_count) == (1, 0)
    assert item.ended_ns is not None
    assert item.started_ns is not None
    assert item.ended_ns - item.started_ns == 2 * SECOND_NS
    assert item.start_time is not None
    assert item.end_time is not None
    assert batch.open["b"].status is PROCESSING
    assert (batch.items_processed, batch.items_processing) == (1, 1)
    assert story.state.total_items_processed == 1


def test_an_item_may_be_reported_without_having_been_taken() -> None:
    story = Story()
    story.start()
    story.items(("a", COMPLETED), ("b", FAILED), ("c", SKIPPED))
    batch = story.state.active_batches[0]
    assert batch.finished["a"].attempts == 1
    assert batch.finished["a"].started_ns is None
    assert batch.open["b"].attempts == 1
    assert (batch.items_processed, batch.items_failed, batch.items_skipped) == (1, 1, 1)
    assert batch.items_finished == 3


def test_acknowledging_again_changes_nothing() -> None:
    story = Story(item_cap=1)
    story.start()
    story.done("a", "b", "a")
    batch = story.state.active_batches[0]
    before = fold.copy_batch(batch)
    for status in ItemStatus:
        story.items(("a", status), ("b", status))
        story.item("a", status, taken="b")
    assert (before.items_processed, before.done, list(before.finished)) == (2, {"a"}, ["b"])
    batch.updated_ns = before.updated_ns
    assert batch == before


def test_one_and_the_text_one_are_two_items() -> None:
    story = Story()
    story.start()
    story.done(1)
    batch = story.state.active_batches[0]
    assert batch.is_done(1)
    assert not batch.is_done("1")
    again = fold.copy_batch(batch)
    assert again.is_done(1)
    assert not again.is_done("1")


def test_every_attempt_is_counted() -> None:
    story = Story()
    story.start()
    for _ in range(3):
        story.item(None, PENDING, taken="a")
        story.happen(e.ItemUpdated, 0, "a", PENDING, None, "429", BatchErrorType.NETWORK_ERROR)
    item = story.state.active_batches[0].open["a"]
    assert (item.attempts, item.retry_count) == (3, 2)
    assert (item.error_message, item.error_type) == ("429", BatchErrorType.NETWORK_ERROR)
    assert item.started_ns == START_NS
    story.item(None, PENDING, taken="a")
    story.item("a", COMPLETED)
    item = story.state.active_batches[0].finished["a"]
    assert (item.attempts, item.error_message) == (4, None)


def test_runs_in_which_an_item_failed_are_counted_once_each() -> None:
    story = Story()
    for run in (1, 2, 3):
        story.run()
        story.start()
        story.item("a", FAILED)
        story.item("a", FAILED)
        item = story.state.active_batches[0].open["a"]
        assert (item.failed_runs, item.failed_in) == (run, run)
        assert story.state.session_statistics.total_items_failed == 1
    assert item.attempts == 6


def test_a_failed_item_that_is_done_later_is_no_failure_any_more() -> None:
    story = Story()
    story.start()
    story.item("a", FAILED)
    assert story.state.session_statistics.total_items_failed == 1
    story.item("a", COMPLETED)
    batch = story.state.active_batches[0]
    assert (batch.items_failed, batch.items_processed) == (0, 1)
    assert story.state.session_statistics.total_items_failed == 0
    assert story.state.session_statistics.total_items_processed == 1
    assert batch.finished["a"].error_message is None


def test_beyond_the_cap_the_oldest_finished_keep_only_their_keys() -> None:
    story = Story(item_cap=4)
    story.start()
    story.items(("bad", FAILED), ("new", PENDING))
    story.item(None, PENDING, taken="now")
    story.done("a")
    batch = story.state.active_batches[0]
    assert list(batch.finished) == ["a"]
    story.done("b")
    assert (batch.done, list(batch.finished)) == ({"a"}, ["b"])
    story.done("c", "d")
    assert (batch.done, list(batch.finished)) == ({"a", "b", "c"}, ["d"])
    # What is unfinished or failed keeps its detail, whatever the cap.
    assert list(batch.open) == ["bad", "new", "now"]
    assert batch.open["bad"].error_message is None
    assert batch.items_processed == 4
    assert [batch.status_of(key) for key in ("a", "d", "bad", "now", "x")] == [
        COMPLETED,
        COMPLETED,
        FAILED,
        PROCESSING,
        None,
    ]


def test_the_cap_never_touches_what_is_open() -> None:
    story = Story(item_cap=2)
    story.start()
    story.items(*((f"bad-{n}", FAILED) for n in range(20)))
    story.done(*range(20))
    batch = story.state.active_batches[0]
    assert len(batch.open) == 20
    assert not batch.finished
    assert batch.done == set(range(20))
    assert check(story.state) == []


def test_many_items_stay_within_the_cap_and_none_is_lost() -> None:
    story = Story(item_cap=100)
    story.start()
    for first in range(0, 1_000, 10):
        story.done(*range(first, first + 10))
        assert len(story.state.active_batches[0].finished) <= 100
    batch = story.state.active_batches[0]
    assert batch.done | batch.finished.keys() == set(range(1_000))
    # The youngest are the ones with details.
    assert sorted(map(int, batch.done)) == list(range(len(batch.done)))
    assert batch.items_processed == 1_000


def test_lowering_the_cap_is_an_event_and_works_at_once() -> None:
    story = Story(item_cap=10)
    story.start()
    story.done(*range(10))
    story.happen(e.ItemCapChanged, e.NO_BATCH, 3)
    batch = story.state.active_batches[0]
    assert len(batch.finished) == 3
    assert story.state.item_cap == 3
    story.happen(e.ItemCapChanged, e.NO_BATCH, 0)
    assert not batch.finished
    assert batch.done == set(range(10))
    assert check(story.state) == []


# Counted batches.


def test_progress_in_numbers_is_absolute() -> None:
    story = Story()
    story.start(items_total=80)
    story.progress(10, 1)
    story.progress(30, phase=BatchPhase.DATA_SAVING)
    story.progress(failed=2, items_total=90)
    batch = story.state.active_batches[0]
    assert batch.is_counted
    assert (batch.items_processed, batch.items_failed, batch.items_total) == (30, 2, 90)
    assert batch.current_phase is BatchPhase.DATA_SAVING
    assert batch.items_pending == 58
    sums = story.state.session_statistics
    assert (sums.total_items_processed, sums.total_items_failed) == (30, 2)


def test_progress_that_begins_again_from_zero_takes_its_count_back() -> None:
    story = Story()
    story.run()
    story.start(items_total=80)
    story.progress(50)
    story.run()
    story.start(items_total=80)
    story.progress(0)
    story.progress(20)
    story.stop(Outcome.STOPPED)
    assert story.state.total_items_processed == 20
    first, second = story.state.executions
    assert first.items_processed == 50
    assert second.items_processed >= 0


def test_a_phase_may_be_any_text() -> None:
    story = Story()
    story.start()
    story.progress(phase="우편번호")
    assert not story.state.active_batches[0].is_counted
    assert fold.copy(story.state).active_batches[0].current_phase == "우편번호"


def test_counters_add_up() -> None:
    story = Story()
    story.start()
    story.happen(e.CountersAdded, 0, {"pages": 2, "network_requests": 1})
    story.happen(e.CountersAdded, 0, {"pages": 3})
    assert story.state.active_batches[0].counters == {"pages": 5, "network_requests": 1}


# Batches.


def test_a_batch_from_begun_to_completed() -> None:
    story = Story()
    story.run()
    story.total(2)
    story.start(label="종로구", payload={"code": "11110"}, items_total=2)
    assert story.state.batch_status(0) is BatchStatus.PROCESSING
    assert story.state.current_batch is story.state.active_batches[0]
    story.wait(3)
    story.done("a", "b")
    metrics = BatchMetrics(items_per_second=0.5)
    story.happen(e.BatchCompleted, 0, metrics)
    batch = story.state.completed_batches[0]
    assert (batch.batch_id, batch.batch_number, batch.label) == ("b0", 0, "종로구")
    assert batch.duration_ms == 3_000
    assert batch.end_time > batch.start_time
    assert batch.updated_at == batch.end_time
    assert batch.success_rate == 1.0
    assert batch.performance_metrics == metrics
    assert batch.progress is None
    assert story.state.batch_status(0) is BatchStatus.COMPLETED
    assert story.state.current_batch is None
    sums = story.state.session_statistics
    assert sums.total_batches_completed == 1
    assert sums.average_batch_duration_ms == 3_000


def test_several_batches_are_active_at_once() -> None:
    story = Story()
    story.run()
    for number in (4, 0, 2):
        story.start(number)
    story.done("a", batch=4)
    story.done("a", "b", batch=2)
    assert sorted(story.state.active_batches) == [0, 2, 4]
    assert story.state.current_batch is None
    story.end(2)
    story.give_up(4)
    assert story.state.current_batch is story.state.active_batches[0]
    assert list(story.state.completed_batches) == [2]
    assert list(story.state.failed_batches) == [4]
    assert story.state.total_items_processed == 3
    assert check(story.state) == []


def test_a_batch_that_is_taken_up_again_continues_inside() -> None:
    story = Story()
    story.run()
    story.start(items_total=3)
    story.item(None, PENDING, taken="a")
    story.item("a", COMPLETED, taken="b")
    story.wait(10)
    # Killed here: the next run begins without an end of this one.
    story.wait(100_000)
    story.run()
    batch = story.state.active_batches[0]
    assert batch.open["b"].status is PENDING
    assert batch.items_processing == 0
    story.start()
    assert story.state.active_batches[0] is batch
    assert batch.is_done("a")
    assert batch.items_total == 3
    assert batch.attempts == 1
    story.item(None, PENDING, taken="b")
    assert batch.open["b"].attempts == 2


def test_a_batch_given_up_keeps_what_it_had_and_goes_on_from_there() -> None:
    story = Story()
    story.run()
    story.start()
    story.items(("a", COMPLETED), ("b", FAILED))
    story.item(None, PENDING, taken="c")
    story.give_up(is_recoverable=False)
    failed = story.state.failed_batches[0]
    assert (failed.error_message, failed.error_type) == ("it broke", BatchErrorType.NETWORK_ERROR)
    assert (failed.retry_count, failed.is_recoverable) == (1, False)
    assert failed.partial_progress.is_done("a")
    assert failed.partial_progress.open["c"].status is PENDING
    assert failed.updated_at == failed.failure_time
    assert story.state.batch_status(0) is BatchStatus.FAILED
    assert story.state.session_statistics.total_batches_failed == 1
    story.run()
    batch = story.start()
    assert batch.is_done("a")
    assert batch.retry_count == 1
    assert not story.state.failed_batches
    assert story.state.session_statistics.total_batches_failed == 0
    story.give_up()
    assert story.state.failed_batches[0].retry_count == 2


def test_tries_in_one_run_are_recorded() -> None:
    story = Story()
    story.run()
    batch = story.start()
    story.progress(phase=BatchPhase.DATA_SAVING)
    story.item(None, PENDING, taken="a")
    story.attempt_failed()
    assert batch.current_phase == Retrying(BatchPhase.DATA_SAVING)
    assert (batch.error_message, batch.error_type) == ("too slow", BatchErrorType.TIMEOUT_ERROR)
    assert batch.open["a"].status is PENDING
    story.attempt_failed()
    assert batch.current_phase == Retrying(BatchPhase.DATA_SAVING)
    assert fold.copy(story.state) == story.state
    again = story.start()
    assert again is batch
    assert again.current_phase is BatchPhase.DATA_SAVING
    assert batch.attempts == 2
    assert batch.retry_count == 0
    story.end()
    assert story.state.completed_batches[0].items_processed == 0


def test_a_batch_that_keeps_its_items_can_grow_after_its_end() -> None:
    story = Story()
    story.run()
    story.start(keeps_items=True)
    story.done("a")
    story.wait(4)
    story.end()
    kept = story.state.completed_batches[0].progress
    assert kept is not None
    assert kept.is_done("a")
    story.complete()
    story.start()
    batch = story.state.active_batches[0]
    assert batch.is_done("a")
    assert story.state.outcome is None
    assert story.state.completed_batches == {}
    sums = story.state.session_statistics
    assert (sums.total_batches_completed, sums.total_batch_ns) == (0, 0)
    assert sums.total_items_processed == 1
    story.done("b")
    story.end()
    assert sums.total_batch_ns == 4 * SECOND_NS
    assert check(story.state) == []


def test_put_back_by_hand_the_attempts_are_fresh() -> None:
    story = Story()
    story.run()
    story.start()
    story.items(("a", COMPLETED), ("b", FAILED), ("c", FAILED))
    story.give_up()
    story.complete()
    assert story.state.outcome is Outcome.FAILED
    story.retry([0], {0: ["b"]})
    batch = story.state.pending_batches[0]
    assert batch.retry_count == 0
    assert (batch.open["b"].status, batch.open["b"].attempts) == (PENDING, 0)
    assert batch.open["b"].error_message is not None or batch.open["b"].failed_runs == 0
    assert batch.open["c"].status is FAILED
    assert story.state.outcome is None
    assert story.state.ended_ns is None
    assert story.state.batch_status(0) is BatchStatus.PENDING
    sums = story.state.session_statistics
    assert (sums.total_batches_failed, sums.total_items_failed) == (0, 1)
    story.run()
    assert story.start().is_done("a")
    assert not story.state.pending_batches


# The session.


def test_a_session_with_failed_batches_still_ends() -> None:
    story = Story()
    story.run()
    for number in (0, 1):
        story.start(number)
    story.end(0)
    story.give_up(1)
    story.complete()
    assert story.state.outcome is Outcome.FAILED
    assert story.state.ended_ns == story.now_ns
    story = Story()
    story.complete()
    assert story.state.outcome is Outcome.COMPLETED


def test_data_checkpoints_and_their_end() -> None:
    story = Story()
    assert not story.state.has_data
    story.happen(e.DataSet, e.NO_BATCH, None)
    assert story.state.has_data
    story.happen(e.DataSet, e.NO_BATCH, {"cursor": [41]})
    assert story.state.data == {"cursor": [41]}
    story.start(3)
    kind = CheckpointType.BATCH_PROGRESS
    story.happen(e.CheckpointSaved, 3, "a" * 32, kind, "half")
    story.happen(e.CheckpointSaved, e.NO_BATCH, "b" * 32, CheckpointType.SESSION_START, None)
    first, second = story.state.checkpoints
    assert (first.id, first.checkpoint_type, first.name) == ("a" * 32, kind, "half")
    assert (first.batch_number, second.batch_number) == (3, None)
    assert first.sequence == story.state.sequence - 1
    assert first.created_at.tzinfo is not None
    story.happen(e.CheckpointsRemoved, e.NO_BATCH, ["a" * 32, "never there"])
    assert [each.id for each in story.state.checkpoints] == ["b" * 32]


def test_the_plan_grows_by_parts_and_the_total_with_it() -> None:
    story = Story()
    story.plan(2)
    assert (story.state.planned, story.state.total_batches) == (2, 2)
    story.complete()
    story.plan(3)
    assert (story.state.planned, story.state.total_batches) == (5, 5)
    assert story.state.outcome is None
    assert story.state.batch_status(4) is BatchStatus.PENDING
    assert story.state.batch_status(5) is None
    story.plan(0)
    assert story.state.planned == 5
    assert check(story.state) == []


def test_a_batch_beyond_the_total_raises_it() -> None:
    story = Story()
    story.total(2)
    story.start(6)
    assert story.state.total_batches == 7
    assert check(story.state) == []


def test_a_run_that_ends_by_itself() -> None:
    story = Story()
    story.run()
    story.start()
    story.wait(5)
    story.items(("a", COMPLETED), ("b", FAILED))
    story.item(None, PENDING, taken="c")
    story.wait(5)
    story.stop(Outcome.INTERRUPTED, "SIGTERM")
    run = story.state.executions[0]
    assert (run.outcome, run.error_message) == (Outcome.INTERRUPTED, "SIGTERM")
    assert (run.items_processed, run.items_failed) == (1, 1)
    assert run.in_flight == [(0, "c")]
    assert run.end_time is not None
    assert (run.end_time - run.start_time).total_seconds() == 10
    assert story.state.execution is None
    assert story.state.session_statistics.active_ns == 10 * SECOND_NS


def test_a_run_that_died_is_closed_by_the_next_with_what_it_had_in_hand() -> None:
    story = Story()
    story.run()
    for number in (0, 1):
        story.start(number)
        story.item(None, PENDING, taken=f"item-{number}", batch=number)
    story.wait(7)
    story.done("x")
    assert story.state.execution is story.state.executions[0]
    story.wait(50_000)
    story.run()
    died = story.state.executions[0]
    assert died.outcome is None
    assert died.ended_ns is not None
    assert died.ended_ns - died.started_ns == 7 * SECOND_NS
    assert sorted(died.in_flight) == [(0, "item-0"), (1, "item-1")]
    assert (died.host, died.pid, died.boot_id, died.program) == ("laptop", 4711, "boot", "crawl.py")
    # The night between is nobody's working time.
    assert story.state.session_statistics.active_ns == 7 * SECOND_NS
    assert story.state.active_batches[0].active_ns == 7 * SECOND_NS


def test_old_runs_are_counted_and_no_longer_listed() -> None:
    story = Story()
    for _ in range(EXECUTIONS_LISTED + 5):
        story.run()
        story.stop(Outcome.STOPPED)
    assert len(story.state.executions) == EXECUTIONS_LISTED
    assert story.state.executions_forgotten == 5
    assert story.state.executions[-1].epoch == EXECUTIONS_LISTED + 5


def test_running_a_data_session_makes_it_one_of_work() -> None:
    story = Story(kind=SessionKind.DATA)
    assert story.state.kind is SessionKind.DATA
    assert story.run().kind is SessionKind.WORK


def test_a_restart_forgets_the_work_and_keeps_runs_and_marks() -> None:
    story = Story(item_cap=7)
    story.run()
    story.plan(2)
    story.start()
    story.item(None, PENDING, taken="a")
    story.item("a", FAILED)
    story.give_up()
    story.happen(e.DataSet, e.NO_BATCH, 41)
    kind = CheckpointType.SESSION_START
    story.happen(e.CheckpointSaved, e.NO_BATCH, "a" * 32, kind, None)
    story.stop(Outcome.FAILED)
    state = story.restart()
    assert (state.session_id, state.uid, state.item_cap) == ("crawl", UID, 7)
    assert state.sequence == len(story.events)
    assert state.created_ns == START_NS
    assert (state.failed_batches, state.active_batches, state.plan) == ({}, {}, [])
    assert not state.has_data
    assert state.outcome is None
    assert state.total_batches is None
    assert len(state.executions) == len(state.checkpoints) == 1
    assert state.session_statistics.total_items_failed == 0
    assert state.restarts == 1
    assert check(state) == []


# Restoring, which is no event of the fold.


def test_a_restored_state_is_the_old_work_with_the_present_runs() -> None:
    story = Story()
    story.run()
    story.start()
    story.done("a")
    old = fold.copy(story.state)
    story.done("b")
    story.end()
    story.stop(Outcome.COMPLETED)
    kind = CheckpointType.SESSION_COMPLETE
    story.happen(e.CheckpointSaved, e.NO_BATCH, "a" * 32, kind, None)
    before = fold.copy(old)
    event = e.Restored(story.state.sequence + 1, story.now_ns, e.NO_BATCH, 1, old.sequence)
    state = fold.restored(fold.copy(story.state), old, event)
    assert old == before
    assert state.sequence == event.sequence
    assert state.active_batches[0].is_done("a")
    assert not state.active_batches[0].is_done("b")
    assert state.active_batches[0].resumed_ns == 0
    assert len(state.executions) == 1
    assert state.executions[0].outcome is Outcome.COMPLETED
    assert len(state.checkpoints) == 1
    assert check(state) == []
    with pytest.raises(FoldError):
        fold.restored(fold.copy(story.state), old, e.Restored(2, 0, e.NO_BATCH, 1, 1))


@given(histories(most=25), st.randoms(use_true_random=False))
def test_whatever_is_restored_makes_sense_and_goes_on(
    history: History, chance: random.Random
) -> None:
    cut = chance.randrange(1, len(history.events) + 1)
    old = folded(history.events[:cut])
    now = folded(history.events)
    event = e.Restored(now.sequence + 1, START_NS, e.NO_BATCH, 1, old.sequence)
    state = fold.restored(now, old, event)
    assert [finding for finding in check(state) if finding.is_error] == []
    again = e.ExecutionStarted(state.sequence + 1, START_NS, -1, 99, "h", 1, "", "", "", "")
    fold.apply(state, again)
    assert [finding for finding in check(state) if finding.is_error] == []


# The format: what is written today is read for good.


def plain(value: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))


def test_events_are_arrays_of_tag_sequence_time_batch_and_fields() -> None:
    event = e.ItemUpdated(7, 8, 9, "a", COMPLETED, 1)
    assert plain(event) == [22, 7, 8, 9, "a", 2, 1, None, None, True]
    assert plain(e.BatchCompleted(7, 8, 9)) == [26, 7, 8, 9, None]
    assert plain(e.PlanSealed(7, 8, -1, "p", 0, 3)) == [13, 7, 8, -1, "p", 0, 3]


def test_fields_added_at_the_end_are_stepped_over_and_missing_ones_have_defaults() -> None:
    longer = msgspec.msgpack.encode([26, 7, 8, 9, None, "from a newer milepost"])
    assert record.decode_payload(longer) == e.BatchCompleted(7, 8, 9)
    shorter = msgspec.msgpack.encode([26, 7, 8, 9])
    assert record.decode_payload(shorter) == e.BatchCompleted(7, 8, 9)


def test_a_state_with_fields_from_a_newer_milepost_is_read() -> None:
    state = Story().state
    longer = [*plain(state), "added"]
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(longer), type=SessionState)
    assert read == state
