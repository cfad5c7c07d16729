"""Recoveries in the fold: what waits again, what begins anew, and what is kept."""

from __future__ import annotations

import pytest
from hypothesis import given

from milepost.model import fold
from milepost.model.consistency import check
from milepost.model.fold import FoldError
from milepost.model.recoveries import (
    BatchRecoveryResult,
    FullRestart,
    PartialRecovery,
    RestartedFailedBatches,
    ResumedBatch,
)
from milepost.model.state import RecoveryMark
from milepost.types import (
    BatchStatus,
    ItemStatus,
    Outcome,
    RecoveryPriority,
    RecoveryReason,
    RecoveryStrategy,
)
from support.histories import History, Story, folded, histories

PENDING, PROCESSING, COMPLETED, FAILED, SKIPPED = ItemStatus
RESUME, RESTART_FAILED, PARTIAL, FULL = RecoveryStrategy


def worked() -> Story:
    """Batch 0 completed, 1 failed, 2 in hand when its process died, 3 waiting in the plan."""
    story = Story(item_cap=7)
    story.run()
    story.plan(4)
    story.start(0)
    story.done("a", "b")
    story.end(0)
    story.start(1)
    story.items(("c", COMPLETED), ("d", FAILED), batch=1)
    story.give_up(1)
    story.start(2, items_total=9)
    story.items(("e", COMPLETED), ("f", SKIPPED), batch=2)
    story.item(None, PENDING, taken="g", batch=2)
    story.die()
    return story


def test_resuming_changes_nothing_but_the_mark() -> None:
    story = worked()
    before = fold.copy(story.state)
    story.wait(5)
    result = ResumedBatch(batches={"b2": 2})
    after = story.recover(result=result)
    mark = after.recovery
    assert mark == RecoveryMark(
        story.now_ns,
        after.sequence,
        RecoveryReason.INTERRUPTED_BATCH,
        RecoveryPriority.MEDIUM,
        RESUME,
        batches_completed=1,
        items_done=5,
        items_failed=1,
        result=result,
    )
    before.sequence, before.updated_ns, before.recovery = after.sequence, story.now_ns, mark
    assert after == before


def test_failed_batches_wait_again_with_their_items_and_the_runs_they_had() -> None:
    story = worked()
    failed = fold.copy_batch(story.state.failed_batches[1].partial_progress)
    after = story.recover(RESTART_FAILED, batches=[1])
    assert after.failed_batches == {}
    assert after.pending_batches[1] == failed
    assert after.pending_batches[1].retry_count == 1
    assert after.session_statistics.total_batches_failed == 0
    assert check(after) == []
    story.run()
    assert story.start(1).is_done("c")
    story.give_up(1)
    assert story.state.failed_batches[1].retry_count == 2, "so that the limit bites"


def test_an_ended_session_is_unfinished_where_something_waits_again() -> None:
    story = worked()
    story.run()
    story.start(2)
    story.end(2)
    story.start(3)
    story.end(3)
    story.complete()
    assert story.state.outcome is Outcome.FAILED
    assert story.recover().outcome is Outcome.FAILED
    after = story.recover(RESTART_FAILED, batches=[1])
    assert (after.outcome, after.ended_ns) == (None, None)


def test_from_a_batch_on_everything_begins_anew() -> None:
    story = worked()
    after = story.recover(PARTIAL, reset=[1, 2])
    assert list(after.completed_batches) == [0]
    for number in (1, 2):
        batch = after.pending_batches[number]
        assert after.batch_status(number) is BatchStatus.PENDING
        assert not batch.open
        assert not batch.finished
        assert (batch.items_finished, batch.retry_count, batch.attempts) == (0, 0, 0)
    assert after.pending_batches[2].items_total == 9, "what it is about is known still"
    sums = after.session_statistics
    assert (sums.total_items_processed, sums.total_items_skipped) == (2, 0)
    assert (sums.total_items_failed, sums.total_batches_failed) == (0, 0)
    assert after.suspects == []
    assert check(after) == []


def test_a_completed_batch_can_begin_anew() -> None:
    story = worked()
    story.wait(1)
    after = story.recover(PARTIAL, reset=[0])
    assert after.completed_batches == {}
    assert after.session_statistics.total_batches_completed == 0
    assert after.session_statistics.total_batch_ns == 0
    assert check(after) == []


def test_a_full_restart_keeps_what_the_session_is_and_its_runs() -> None:
    story = worked()
    before = fold.copy(story.state)
    after = story.recover(FULL)
    assert (after.session_id, after.uid, after.item_cap) == ("crawl", before.uid, 7)
    assert after.executions == before.executions
    assert after.restarts == 1
    assert (after.plan, after.total_batches, after.items_finished) == ([], None, 0)
    assert not after.completed_batches
    assert not after.active_batches
    assert not after.failed_batches
    assert not after.suspects
    assert after.recovery is not None
    assert after.recovery.batches_completed == 0


@pytest.mark.parametrize(
    ("strategy", "result"),
    [
        (RESUME, ResumedBatch(batches={"b2": 2})),
        (RESTART_FAILED, RestartedFailedBatches(batch_numbers=[])),
        (
            PARTIAL,
            PartialRecovery(completed_batches=1, restart_from_batch=3, remaining_batches=None),
        ),
        (FULL, FullRestart(total_batches=4)),
    ],
)
def test_what_a_recovery_came_to_stays_with_its_mark(
    strategy: RecoveryStrategy, result: BatchRecoveryResult
) -> None:
    story = worked()
    story.recover(strategy, result=result)
    after = story.run()
    assert after.recovery is not None
    assert after.recovery.result == result
    assert fold.copy(after) == after, "a snapshot holds it too"
    story.recover()
    assert story.state.recovery is not None
    assert story.state.recovery.result is None, "the latest recovery counts"


@pytest.mark.parametrize("batches", [[0], [2], [3], [9]])
def test_only_what_failed_waits_again(batches: list[int]) -> None:
    with pytest.raises(FoldError, match="is not failed"):
        worked().recover(RESTART_FAILED, batches=batches)


def test_only_what_was_begun_begins_anew() -> None:
    with pytest.raises(FoldError, match="batch 3 was never begun"):
        worked().recover(PARTIAL, reset=[3])


@given(histories())
def test_a_recovery_never_changes_what_shapes_the_state(history: History) -> None:
    state = folded(history.events)
    cap, runs = state.item_cap, state.executions_forgotten + len(state.executions)
    for strategy in RecoveryStrategy:
        story = Story()
        story.state = fold.copy(state)
        after = story.recover(strategy)
        assert (after.item_cap, after.executions_forgotten + len(after.executions)) == (cap, runs)
        assert [each for each in check(after) if each.is_error] == []
