"""Whether a session wants to be recovered, why, how urgently: from what was read of it alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from milepost.model.arms.deaths import suspects_after_death
from milepost.model.consistency import Finding, check
from milepost.model.status import Presence, judge
from milepost.recovery.analysis import (
    Judged,
    NoRecoveryNeeded,
    RequiresRecovery,
    analyze,
    hold_back,
)
from milepost.session.view import View
from milepost.types import (
    ItemStatus,
    Outcome,
    RecoveryConfig,
    RecoveryPriority,
    RecoveryReason,
    SessionKind,
)
from support.histories import SECOND_NS, History, Story, folded, histories

if TYPE_CHECKING:
    from milepost.model.state import SessionState

LOW, MEDIUM, HIGH = RecoveryPriority
STORE = "/no/such/store"
CONFIG = RecoveryConfig(stalled_after_seconds=600)


def seen(
    state: SessionState,
    presence: Presence = Presence.GONE,
    *,
    findings: tuple[Finding, ...] = (),
    is_lossy: bool = False,
) -> View:
    has_died = state.execution is not None and presence is not Presence.ALIVE
    return View(
        state=state,
        judgement=judge(state, presence),
        findings=list(findings),
        is_lossy=is_lossy,
        version=1,
        writer=None,
        backup_error="",
        suspects=suspects_after_death(state) if has_died else state.suspects,
    )


def judged(
    story: Story, presence: Presence = Presence.GONE, *, config: RecoveryConfig = CONFIG
) -> Judged:
    return analyze(seen(story.state, presence), config, store=STORE, now_ns=story.now_ns)


def wanted(story: Story, presence: Presence = Presence.GONE) -> RequiresRecovery:
    found = judged(story, presence)
    assert isinstance(found, RequiresRecovery)
    return found


def planned(batches: int = 3) -> Story:
    story = Story()
    story.run()
    story.plan(batches)
    return story


# What needs nothing.


@pytest.mark.parametrize("presence", [Presence.ALIVE, Presence.UNKNOWN])
def test_a_session_that_lives_is_left_alone(presence: Presence) -> None:
    story = planned()
    story.start(0)
    found = judged(story, presence)
    assert isinstance(found, NoRecoveryNeeded)
    assert "writes it" in found.detail or "writing it" in found.detail


def test_what_was_stopped_on_purpose_stays_so() -> None:
    story = planned()
    story.start(0)
    story.stop(Outcome.STOPPED)
    assert judged(story) == NoRecoveryNeeded(detail="it was stopped on purpose")


def test_what_is_complete_needs_nothing() -> None:
    story = planned(1)
    story.start(0)
    story.end(0)
    story.complete()
    # Also where it was killed before it could say that its run ended.
    assert judged(story) == NoRecoveryNeeded(detail="all work is done")


def test_data_alone_is_never_judged() -> None:
    assert isinstance(judged(Story(kind=SessionKind.DATA)), NoRecoveryNeeded)


def test_failures_that_trying_again_cannot_help_are_left_with_the_command_for_them() -> None:
    story = planned(1)
    story.start(0)
    story.give_up(0, is_recoverable=False)
    story.complete()
    story.stop(Outcome.FAILED)
    found = judged(story)
    assert isinstance(found, NoRecoveryNeeded)
    assert found.detail.endswith("to try again: milepost retry crawl --store /no/such/store")


# Why, and how urgent.


@pytest.mark.parametrize(
    ("done", "priority"), [(0, LOW), (9, LOW), (10, MEDIUM), (50, MEDIUM), (51, HIGH), (100, HIGH)]
)
def test_a_batch_in_hand_is_as_urgent_as_it_is_far(done: int, priority: RecoveryPriority) -> None:
    # There, one with little progress in a young session was called unrecoverable.
    story = planned()
    story.start(0, items_total=100)
    story.progress(done)
    found = wanted(story)
    assert (found.reason, found.priority) == (RecoveryReason.INTERRUPTED_BATCH, priority)
    assert not found.is_held
    assert "process 4711 on laptop" in found.detail


def test_the_fullest_batch_decides() -> None:
    story = planned()
    for number, done in enumerate((1, 6)):
        story.start(number, items_total=10)
        story.progress(done, batch=number)
    assert wanted(story).priority is HIGH


def test_more_than_was_announced_is_the_whole() -> None:
    story = planned()
    story.start(0, items_total=1)
    story.done("a", "b", "c")
    assert wanted(story).priority is HIGH


def test_growing_work_is_as_far_as_what_is_known_of_it() -> None:
    story = planned()
    story.start(0)
    story.done("a")
    story.add(*"bcd")
    assert wanted(story).priority is MEDIUM
    story.done("b", "c")
    assert wanted(story).priority is HIGH
    story.add(*"efghijk")
    assert wanted(story).priority is MEDIUM


def test_the_threshold_of_the_settings_decides_between_low_and_medium() -> None:
    story = planned()
    story.start(0, items_total=100)
    story.progress(30)
    config = RecoveryConfig(partial_recovery_threshold=0.31)
    found = judged(story, config=config)
    assert isinstance(found, RequiresRecovery)
    assert found.priority is LOW


def test_interrupted_between_batches() -> None:
    story = planned()
    story.start(0)
    story.end(0)
    found = wanted(story)
    assert (found.reason, found.priority) == (RecoveryReason.INTERRUPTED_BETWEEN_BATCHES, MEDIUM)


def test_interrupted_before_the_first() -> None:
    for story in (Story(), planned()):
        found = wanted(story)
        assert (found.reason, found.priority) == (RecoveryReason.INTERRUPTED_BEFORE_FIRST, LOW)


def test_an_exception_or_a_signal_that_ended_it_is_an_interruption() -> None:
    story = planned()
    story.start(0)
    story.stop(Outcome.INTERRUPTED, "OSError: gone")
    found = wanted(story)
    assert (found.reason, found.detail) == (RecoveryReason.INTERRUPTED_BATCH, "OSError: gone")


def test_failures_that_may_be_tried_again() -> None:
    story = planned(2)
    for number in (0, 1):
        story.start(number)
        story.give_up(number, is_recoverable=number == 0)
    story.complete()
    story.stop(Outcome.FAILED)
    found = wanted(story)
    assert (found.reason, found.priority) == (RecoveryReason.RECOVERABLE_FAILURES, MEDIUM)
    assert found.detail == "2 batches failed, 1 of them may be tried again"


def test_a_writer_elsewhere_that_is_silent_too_long() -> None:
    story = planned()
    story.start(0)
    found = wanted(story, Presence.SILENT)
    assert (found.reason, found.priority) == (RecoveryReason.STALE_SESSION, LOW)


def test_a_session_that_lives_and_gets_nowhere_is_told_and_held() -> None:
    story = planned()
    story.wait(599)
    now_ns = story.now_ns
    assert isinstance(judged(story, Presence.ALIVE), NoRecoveryNeeded)
    found = analyze(
        seen(story.state, Presence.ALIVE), CONFIG, store=STORE, now_ns=now_ns + SECOND_NS
    )
    assert isinstance(found, RequiresRecovery)
    assert (found.reason, found.priority) == (RecoveryReason.STALLED, LOW)
    assert found.is_held
    assert "nothing has happened in it for 10 minutes" in found.detail


def test_a_session_that_is_open_and_runs_nothing_is_not_stalled() -> None:
    story = Story()
    story.wait(10_000)
    assert isinstance(judged(story, Presence.ALIVE), NoRecoveryNeeded)


def test_a_death_that_is_one_too_many_says_what_is_poison() -> None:
    story = planned()
    for _ in range(CONFIG.max_recovery_attempts - 1):
        story.start(1)
        story.item(None, ItemStatus.PENDING, taken="p-1", batch=1)
        story.die()
        story.run()
    story.start(1)
    assert wanted(story).reason is RecoveryReason.INTERRUPTED_BATCH
    story.item(None, ItemStatus.PENDING, taken="p-1", batch=1)
    # Its death is not recorded yet: nobody opened it since.
    found = wanted(story)
    assert (found.reason, found.priority) == (RecoveryReason.POISONED, HIGH)
    assert "item 'p-1' of batch 'b1' killed its process 3 times in a row, alone" in found.detail


def test_damage_that_a_second_copy_made_good_is_recovered() -> None:
    story = planned()
    story.start(0, items_total=10)
    story.progress(9)
    finding = Finding(rule="from-backup", message="snapshots/2.zst was read from its backup")
    view = seen(story.state, findings=(finding,))
    found = analyze(view, CONFIG, store=STORE, now_ns=story.now_ns)
    assert isinstance(found, RequiresRecovery)
    assert (found.reason, found.priority, found.is_held) == (RecoveryReason.DAMAGED, HIGH, False)


def test_a_torn_tail_is_no_damage() -> None:
    story = planned()
    finding = Finding(rule="torn-tail", message="a tail was dropped", is_error=False)
    view = seen(story.state, findings=(finding,))
    found = analyze(view, CONFIG, store=STORE, now_ns=story.now_ns)
    assert isinstance(found, RequiresRecovery)
    assert found.reason is RecoveryReason.INTERRUPTED_BEFORE_FIRST


@pytest.mark.parametrize("end", [None, Outcome.STOPPED, Outcome.COMPLETED])
def test_where_acknowledged_work_is_missing_somebody_has_to_accept_it(end: Outcome | None) -> None:
    story = planned(0)
    if end is Outcome.COMPLETED:
        story.complete()
    if end is not None:
        story.stop(end)
    finding = Finding(rule="gap", message="events 3 to 9 are missing")
    view = seen(story.state, findings=(finding,), is_lossy=True)
    found = analyze(view, CONFIG, store=STORE, now_ns=story.now_ns)
    assert isinstance(found, RequiresRecovery)
    assert (found.reason, found.priority, found.is_held) == (RecoveryReason.DAMAGED, HIGH, True)
    assert found.detail == "events 3 to 9 are missing"
    assert found.hint.endswith("milepost restore crawl --store /no/such/store")


# Held back.


def status() -> RequiresRecovery:
    return RequiresRecovery(
        reason=RecoveryReason.INTERRUPTED_BATCH, priority=HIGH, detail="it was killed"
    )


def test_a_state_that_does_not_add_up_is_held_back_with_the_command_to_look_at_it() -> None:
    story = planned()
    story.state.session_statistics.total_items_processed = 7
    story.state.session_statistics.active_ns = -1
    found = hold_back(status(), check(story.state), session="crawl", store=STORE)
    assert found.is_held
    assert (found.reason, found.priority) == (RecoveryReason.INTERRUPTED_BATCH, HIGH)
    assert "total_items_processed is 7" in found.detail
    assert "negative" in found.detail
    assert found.hint == "look at it: milepost show crawl --store /no/such/store"


def test_notices_hold_nothing_back() -> None:
    notice = Finding(rule="clock", message="the clock was set back", is_error=False)
    assert hold_back(status(), [notice], session="crawl", store=STORE) == status()


@given(histories())
def test_every_history_can_be_judged_and_no_hint_needs_to_be_filled_in(history: History) -> None:
    state = folded(history.events)
    for presence in Presence:
        found = analyze(
            seen(state, presence), CONFIG, store=STORE, now_ns=state.updated_ns + SECOND_NS
        )
        assert found.detail
        assert "NAME" not in str(found)
        if presence in {Presence.ALIVE, Presence.UNKNOWN}:
            assert isinstance(found, NoRecoveryNeeded) or found.is_held
