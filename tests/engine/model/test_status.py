"""One judge says where a session stands, and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.model import events as e
from milepost.model.arms import runs
from milepost.model.status import Judgement, Presence, SessionStatus, judge
from milepost.types import ItemStatus, Outcome, RecoveryStrategy, SessionKind
from support.histories import History, Story, folded, histories


def status(story: Story, *, presence: Presence = Presence.GONE) -> SessionStatus:
    return judge(story.state, presence).status


@given(history=histories(), presence=st.sampled_from(Presence))
def test_every_state_has_a_status_and_a_reason(history: History, *, presence: Presence) -> None:
    judgement = judge(folded(history.events), presence)
    assert judgement.reason
    assert (judgement.status is SessionStatus.RUNNING) == (
        presence in {Presence.ALIVE, Presence.UNKNOWN}
    )


def test_never_run() -> None:
    assert judge(Story().state, Presence.GONE) == Judgement(
        SessionStatus.PENDING, "it was never run"
    )


def test_running_while_its_lock_is_held() -> None:
    story = Story()
    story.run()
    assert status(story, presence=Presence.ALIVE) is SessionStatus.RUNNING


def test_death_is_told_by_the_end_that_is_missing() -> None:
    story = Story()
    story.run()
    story.start()
    story.item(None, ItemStatus.PENDING, taken="a")
    judgement = judge(story.state, Presence.GONE)
    assert judgement.status is SessionStatus.INTERRUPTED
    assert "process 4711 on laptop ended and could not record it" in judgement.reason


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome.STOPPED, SessionStatus.STOPPED),
        (Outcome.INTERRUPTED, SessionStatus.INTERRUPTED),
        (Outcome.COMPLETED, SessionStatus.PENDING),
        (Outcome.FAILED, SessionStatus.PENDING),
    ],
)
def test_an_unfinished_session_is_what_its_last_run_says(
    outcome: Outcome, expected: SessionStatus
) -> None:
    story = Story()
    story.run()
    story.stop(outcome)
    assert status(story) is expected


def test_an_interruption_says_what_it_was() -> None:
    story = Story()
    story.run()
    story.stop(Outcome.INTERRUPTED, "ValueError: no")
    assert judge(story.state, Presence.GONE).reason == "ValueError: no"


def test_an_ended_session_is_completed_or_failed_whatever_became_of_its_process() -> None:
    story = Story()
    story.run()
    story.complete()
    # Killed between the end of the work and the end of the process.
    assert status(story) is SessionStatus.COMPLETED
    story.stop(Outcome.COMPLETED)
    assert status(story) is SessionStatus.COMPLETED
    story.run()
    story.start()
    story.give_up()
    story.complete()
    story.stop(Outcome.FAILED)
    judgement = judge(story.state, Presence.GONE)
    assert judgement.status is SessionStatus.FAILED
    assert judgement.reason.startswith("1 ")


def test_work_put_back_is_pending() -> None:
    story = Story()
    story.run()
    story.start()
    story.give_up()
    story.complete()
    story.stop(Outcome.FAILED)
    story.retry([0])
    assert status(story) is SessionStatus.PENDING


def ended(story: Story, outcome: Outcome) -> None:
    if outcome in {Outcome.COMPLETED, Outcome.FAILED}:
        story.complete()
    story.stop(outcome)


@pytest.mark.parametrize("outcome", [*Outcome, None])
@pytest.mark.parametrize("by_recovery", [False, True])
def test_what_was_begun_anew_is_pending_until_it_is_run(
    outcome: Outcome | None, *, by_recovery: bool
) -> None:
    story = Story()
    for _ in range(2):
        story.run()
        if outcome is None:
            story.die()
        else:
            ended(story, outcome)
        if by_recovery:
            story.recover(RecoveryStrategy.FULL_RESTART)
        else:
            story.restart()
        judgement = judge(story.state, Presence.GONE)
        assert judgement.status is SessionStatus.PENDING
        assert judgement.reason == "it was begun anew and not run since"
        assert status(story, presence=Presence.ALIVE) is SessionStatus.RUNNING
        story.run()
        assert status(story) is SessionStatus.INTERRUPTED
        story.stop(Outcome.STOPPED)
        assert status(story) is SessionStatus.STOPPED


def test_a_recovery_that_leaves_what_was_done_is_no_new_beginning() -> None:
    story = Story()
    story.run()
    story.stop(Outcome.STOPPED)
    story.recover()
    assert status(story) is SessionStatus.STOPPED


def test_what_an_older_writer_began_anew_is_what_its_last_run_says() -> None:
    story = Story()
    story.run()
    story.stop(Outcome.STOPPED)
    story.happen(e.Restarted, e.NO_BATCH)
    assert status(story) is SessionStatus.STOPPED


def test_runs_that_are_no_longer_listed_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "EXECUTIONS_LISTED", 1)
    story = Story()
    for _ in range(3):
        story.run()
        story.stop(Outcome.STOPPED)
    story.restart()
    assert status(story) is SessionStatus.PENDING
    story.run()
    story.stop(Outcome.STOPPED)
    assert status(story) is SessionStatus.STOPPED


def test_data_alone_is_never_unfinished() -> None:
    story = Story(kind=SessionKind.DATA)
    assert status(story) is SessionStatus.COMPLETED


def test_status_words_are_what_people_and_programs_read() -> None:
    assert {each.value for each in SessionStatus} == {
        *("pending", "running", "stopped", "interrupted", "stale", "completed", "failed")
    }
