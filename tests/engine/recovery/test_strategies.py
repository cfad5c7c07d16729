"""What is done to make a session ready: by default nothing that was acknowledged is done again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import milepost
from milepost.model.consistency import check
from milepost.model.recoveries import (
    FullRestart,
    PartialRecovery,
    RestartedFailedBatches,
    ResumedBatch,
)
from milepost.recovery.strategies import Decision, decide
from milepost.types import ItemStatus, RecoveryConfig, RecoveryReason, RecoveryStrategy
from support.histories import History, Story, folded, histories

COMPLETED, FAILED = ItemStatus.COMPLETED, ItemStatus.FAILED
RESUME, RESTART_FAILED, PARTIAL, FULL = RecoveryStrategy
INTERRUPTED = RecoveryReason.INTERRUPTED_BATCH
CONFIG = RecoveryConfig()


def counted(processed: int, total: int | None = 100) -> Story:
    """Batch 0 is completed; batch 1 only reported counts when its process died."""
    story = Story()
    story.run()
    story.plan(4)
    story.start(0)
    story.end(0)
    story.start(1, items_total=total)
    story.progress(processed, batch=1)
    story.die()
    return story


def with_failures() -> Story:
    """Batches 0 to 3 failed in one run: once, too often, for good, and once again."""
    story = Story()
    for run in range(3):
        story.run()
        for number in range(4):
            if number == 1 or run == 2:
                story.start(number)
                story.items(("a", COMPLETED), ("b", FAILED), batch=number)
                story.give_up(number, is_recoverable=number != 2)
    return story


@pytest.mark.parametrize("done", [0, 1, 5, 9])
def test_where_items_are_recorded_the_batch_is_resumed_whatever_its_progress(done: int) -> None:
    story = Story()
    story.run()
    story.start(0, items_total=10)
    story.done(*range(done))
    story.die()
    found = decide(story.state, INTERRUPTED, CONFIG)
    assert found == Decision(RESUME, ResumedBatch(batches={"b0": done}), [], [], None)


@pytest.mark.parametrize(
    ("processed", "strategy"),
    [(0, RESUME), (1, PARTIAL), (9, PARTIAL), (10, PARTIAL), (20, PARTIAL), (21, RESUME)],
)
def test_where_only_counts_were_recorded_little_of_a_batch_begins_anew(
    processed: int, strategy: RecoveryStrategy
) -> None:
    found = decide(counted(processed).state, INTERRUPTED, CONFIG)
    assert found.strategy is strategy
    if strategy is PARTIAL:
        assert found.reset == [1]
        assert found.result == PartialRecovery(
            completed_batches=1, restart_from_batch=1, remaining_batches=3
        )
    else:
        assert found.reset == []


def test_what_is_worth_it_can_be_set() -> None:
    config = RecoveryConfig(partial_recovery_threshold=0.5)
    assert decide(counted(49).state, INTERRUPTED, config).strategy is PARTIAL
    assert decide(counted(50).state, INTERRUPTED, config).strategy is RESUME


def test_counts_of_a_batch_of_unknown_size_are_kept() -> None:
    assert decide(counted(1, total=None).state, INTERRUPTED, CONFIG).strategy is RESUME


def test_completed_batches_stay_so_also_in_a_stale_session_with_little_done() -> None:
    # There, it was begun anew as a whole when less than half of it was done.
    found = decide(counted(50).state, RecoveryReason.STALE_SESSION, CONFIG)
    assert (found.strategy, found.reset) == (RESUME, [])


def test_a_batch_with_items_is_kept_beside_one_that_only_counted() -> None:
    story = counted(5)
    story.run()
    story.start(1)
    story.start(2)
    story.done("a", batch=2)
    story.die()
    found = decide(story.state, INTERRUPTED, CONFIG)
    assert (found.strategy, found.reset) == (PARTIAL, [1])


def test_failed_batches_are_tried_again_where_that_can_help() -> None:
    found = decide(with_failures().state, RecoveryReason.RECOVERABLE_FAILURES, CONFIG)
    assert found == Decision(
        RESTART_FAILED, RestartedFailedBatches(batch_numbers=[0, 3]), [0, 3], [], None
    )


def test_the_limit_bites_after_as_many_recoveries_as_it_says() -> None:
    story = Story()
    story.run()
    story.start(0)
    story.give_up(0)
    for _ in range(CONFIG.max_recovery_attempts - 1):
        found = decide(story.state, RecoveryReason.RECOVERABLE_FAILURES, CONFIG)
        story.recover(found.strategy, batches=found.batches)
        story.run()
        story.start(0)
        story.give_up(0)
    with pytest.raises(milepost.ConfigurationError, match="no failed batch") as caught:
        decide(story.state, None or RecoveryReason.REQUESTED, CONFIG, strategy=RESTART_FAILED)
    assert "retry" in caught.value.hint


# Forced.


def test_resuming_can_be_forced_where_only_counts_were_recorded() -> None:
    assert decide(counted(5).state, INTERRUPTED, CONFIG, strategy=RESUME).reset == []


def test_a_batch_to_begin_from_means_all_that_was_begun_from_it_on() -> None:
    story = with_failures()
    story.plan(0)
    story.start(5)
    story.end(5)
    found = decide(story.state, INTERRUPTED, CONFIG, from_batch=2)
    assert (found.strategy, found.reset, found.from_batch) == (PARTIAL, [2, 3, 5], 2)
    assert found == decide(story.state, INTERRUPTED, CONFIG, strategy=PARTIAL, from_batch=2)


def test_a_batch_to_begin_from_need_not_be_begun() -> None:
    found = decide(counted(5).state, INTERRUPTED, CONFIG, from_batch=3)
    assert (found.reset, found.from_batch) == ([], 3)
    assert found.result == PartialRecovery(
        completed_batches=1, restart_from_batch=3, remaining_batches=3
    )


@pytest.mark.parametrize(("number", "hint"), [(-1, "from 0 to 3"), (4, "from 0 to 3")])
def test_a_batch_that_there_is_not_is_refused(number: int, hint: str) -> None:
    with pytest.raises(milepost.ConfigurationError, match=f"has no batch {number}") as caught:
        decide(counted(5).state, INTERRUPTED, CONFIG, from_batch=number)
    assert hint in caught.value.hint


def test_a_session_without_batches_has_none_to_begin_from() -> None:
    with pytest.raises(milepost.ConfigurationError, match="has no batch 0"):
        decide(Story().state, INTERRUPTED, CONFIG, from_batch=0)


def test_partial_recovery_begins_at_the_first_batch_that_is_not_completed() -> None:
    # There, it was the number of completed batches, which is another one in most orders.
    story = Story()
    story.run()
    story.plan(5)
    for number in (0, 3, 4):
        story.start(number)
        story.end(number)
    story.start(2)
    found = decide(story.state, INTERRUPTED, CONFIG, strategy=PARTIAL)
    assert (found.from_batch, found.reset) == (1, [2, 3, 4])


def test_where_all_is_completed_the_batch_must_be_named() -> None:
    story = Story()
    story.plan(1)
    story.start(0)
    story.end(0)
    with pytest.raises(milepost.ConfigurationError, match="are completed"):
        decide(story.state, INTERRUPTED, CONFIG, strategy=PARTIAL)


def test_a_batch_to_begin_from_goes_with_partial_recovery_alone() -> None:
    with pytest.raises(milepost.ConfigurationError, match="partial recovery alone"):
        decide(counted(5).state, INTERRUPTED, CONFIG, strategy=FULL, from_batch=1)


def test_a_full_restart_says_how_much_there_was() -> None:
    found = decide(counted(5).state, INTERRUPTED, CONFIG, strategy=FULL)
    assert found == Decision(FULL, FullRestart(total_batches=4), [], [], None)


# By progress.


def in_hand(done: int, *, completed: int = 1, total: int | None = 4) -> Story:
    """So many batches are completed, and so many items of ten of the one in hand."""
    story = Story()
    story.run()
    if total is not None:
        story.total(total)
    for number in range(completed):
        story.start(number)
        story.end(number)
    story.start(completed, items_total=10)
    story.done(*range(done), batch=completed)
    story.die()
    return story


def by_progress(story: Story, config: RecoveryConfig = CONFIG) -> Decision:
    return decide(story.state, INTERRUPTED, config, by_progress=True)


@pytest.mark.parametrize(
    ("done", "strategy"), [(0, FULL), (1, PARTIAL), (2, PARTIAL), (3, RESUME), (9, RESUME)]
)
def test_by_progress_the_share_of_the_batch_in_hand_decides(
    done: int, strategy: RecoveryStrategy
) -> None:
    story = in_hand(done)
    assert decide(story.state, INTERRUPTED, CONFIG).strategy is RESUME, "nobody asked for more"
    found = by_progress(story)
    assert found.strategy is strategy
    assert found.reset == ([1] if strategy is PARTIAL else [])


def test_by_progress_the_fullest_batch_in_hand_counts() -> None:
    story = in_hand(0)
    story.run()
    story.start(2, items_total=10)
    story.done(*range(3), batch=2)
    story.die()
    assert by_progress(story).strategy is RESUME


def test_by_progress_what_is_worth_it_can_be_set() -> None:
    assert by_progress(in_hand(3), RecoveryConfig(partial_recovery_threshold=0.4)).strategy is FULL
    assert by_progress(in_hand(0), RecoveryConfig(partial_recovery_threshold=0)).strategy is PARTIAL


def test_by_progress_growing_work_is_as_far_as_what_is_known_of_it() -> None:
    story = Story()
    story.run()
    story.start(0)
    story.done("a")
    assert by_progress(story).strategy is RESUME
    story.add(*range(99))
    assert by_progress(story).strategy is FULL


def test_by_progress_a_batch_of_unknown_size_is_kept() -> None:
    story = Story()
    story.run()
    story.start(0)
    assert by_progress(story).strategy is FULL, "nothing of it is done"
    story.done("a")
    assert by_progress(story).strategy is RESUME


@pytest.mark.parametrize(
    ("completed", "total", "strategy"),
    [
        (0, 4, FULL),
        (1, 4, FULL),
        (2, 4, FULL),
        (3, 5, PARTIAL),
        (0, None, FULL),
        (1, None, PARTIAL),
    ],
)
def test_by_progress_half_of_the_session_decides_where_no_batch_is_worth_it(
    completed: int, total: int | None, strategy: RecoveryStrategy
) -> None:
    found = by_progress(in_hand(0, completed=completed, total=total))
    assert found.strategy is strategy
    if strategy is PARTIAL:
        assert (found.from_batch, found.reset) == (completed, [completed])
        assert found.result == PartialRecovery(
            completed_batches=completed,
            restart_from_batch=completed,
            remaining_batches=None if total is None else total - completed,
        )
    else:
        assert found.result == FullRestart(total_batches=total)


def test_by_progress_between_two_batches_of_nobody_knows_how_many_nothing_is_lost() -> None:
    story = in_hand(0, completed=2, total=None)
    story.run()
    story.start(2)
    story.end(2)
    story.die()
    found = by_progress(story)
    assert (found.strategy, found.from_batch, found.reset) == (PARTIAL, 3, [])
    assert found == decide(story.state, INTERRUPTED, CONFIG, strategy=PARTIAL)


def test_by_progress_failures_alone_are_tried_again() -> None:
    story = with_failures()
    assert by_progress(story) == decide(story.state, INTERRUPTED, CONFIG, strategy=RESTART_FAILED)
    story.start(4, items_total=10)
    story.done(*range(3), batch=4)
    assert by_progress(story).strategy is RESUME, "something is in hand as well"


def test_by_progress_work_that_is_done_is_not_begun_anew() -> None:
    story = Story()
    story.start(0)
    story.end(0)
    story.complete()
    with pytest.raises(milepost.ConfigurationError, match="are completed"):
        by_progress(story)


@pytest.mark.parametrize("forced", [{"strategy": RESUME}, {"from_batch": 1}])
def test_by_progress_goes_with_nothing_else_that_is_forced(forced: dict[str, Any]) -> None:
    with pytest.raises(milepost.ConfigurationError, match="no strategy and no from_batch"):
        decide(in_hand(1).state, INTERRUPTED, CONFIG, by_progress=True, **forced)


# Done before.


def recovered(story: Story, found: Decision) -> Story:
    story.recover(found.strategy, batches=found.batches, reset=found.reset, result=found.result)
    return story


@pytest.mark.parametrize(
    ("story", "strategy"),
    [
        (in_hand(0), FULL),
        (in_hand(1), PARTIAL),
        (in_hand(5), RESUME),
        (with_failures(), RESTART_FAILED),
    ],
)
def test_by_progress_a_second_look_finds_it_done(story: Story, strategy: RecoveryStrategy) -> None:
    first = by_progress(story)
    recovered(story, first)
    again = by_progress(story)
    assert (again.strategy, again.result) == (strategy, first.result)
    assert again.done_by == story.state.recovery
    assert (again.batches, again.reset) == ([], [])


def test_by_progress_looks_anew_where_it_was_made_ready_by_resuming() -> None:
    story = in_hand(1)
    recovered(story, decide(story.state, INTERRUPTED, CONFIG))
    found = by_progress(story)
    assert (found.strategy, found.reset, found.done_by) == (PARTIAL, [1], None)


def test_what_an_older_writer_noted_no_result_of_is_done_again() -> None:
    story = in_hand(3)
    story.recover(RESUME)
    found = decide(story.state, INTERRUPTED, CONFIG)
    assert (found.result, found.done_by) == (ResumedBatch(batches={"b1": 3}), None)
    recovered(story, found)
    assert decide(story.state, INTERRUPTED, CONFIG).done_by == story.state.recovery
    story.run()
    assert decide(story.state, INTERRUPTED, CONFIG).done_by is None, "something happened since"


def test_another_strategy_or_a_batch_to_begin_from_is_not_done_yet() -> None:
    story = in_hand(3)
    recovered(story, decide(story.state, INTERRUPTED, CONFIG))
    for forced in ({"strategy": FULL}, {"strategy": PARTIAL}, {"from_batch": 1}):
        arguments: dict[str, Any] = dict(forced)
        assert decide(story.state, INTERRUPTED, CONFIG, **arguments).done_by is None


# All of them.


@given(
    histories(),
    st.sampled_from([None, *RecoveryStrategy]),
    st.none() | st.integers(0, 9),
    st.booleans(),
)
def test_every_decision_can_be_carried_out(
    history: History, strategy: RecoveryStrategy | None, from_batch: int | None, by_progress: bool
) -> None:
    story = Story()
    story.state = folded(history.events)
    wanted: dict[str, Any] = {"strategy": strategy, "from_batch": from_batch}
    if by_progress:
        wanted = {"by_progress": True}
    try:
        found = decide(story.state, INTERRUPTED, CONFIG, **wanted)
    except milepost.ConfigurationError:
        return
    after = story.recover(found.strategy, batches=found.batches, reset=found.reset)
    assert [each for each in check(after) if each.is_error] == []


@given(histories())
def test_by_default_no_acknowledged_item_is_ever_done_again(history: History) -> None:
    state = folded(history.events)
    reasons = [INTERRUPTED, RecoveryReason.STALE_SESSION]
    if milepost.RecoveryConfig().max_recovery_attempts and _has_recoverable(state):
        reasons.append(RecoveryReason.RECOVERABLE_FAILURES)
    for reason in reasons:
        found = decide(state, reason, CONFIG)
        assert found.strategy is not FULL
        assert not state.completed_batches.keys() & set(found.reset)
        for number in found.reset:
            assert state.active_batches[number].is_counted


def _has_recoverable(state: milepost.SessionState) -> bool:
    limit = CONFIG.max_recovery_attempts
    return any(f.is_recoverable and f.retry_count < limit for f in state.failed_batches.values())
