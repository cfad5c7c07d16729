"""Deaths in the fold: what was alone in hand is blamed, neighbours never are."""

from __future__ import annotations

import pytest
from hypothesis import given

from milepost.model import fold
from milepost.model.arms.deaths import suspects_after_death
from milepost.model.fold import FoldError
from milepost.model.state import Suspect
from milepost.types import ItemStatus, Key, Outcome
from support.histories import SECOND_NS, History, Story, folded, histories

PENDING, PROCESSING, COMPLETED, FAILED, SKIPPED = ItemStatus


def running(*batches: int) -> Story:
    """A run with these batches in hand."""
    story = Story()
    story.run()
    for number in batches:
        story.start(number)
    return story


def again(story: Story, *batches: int) -> None:
    """The next run takes these batches up."""
    story.run()
    for number in batches:
        story.start(number)


def deaths(story: Story) -> dict[tuple[int, Key | None], int]:
    return {(each.batch, each.key): each.deaths for each in story.state.suspects}


def test_a_death_ends_the_run_at_its_last_sign_of_life_and_says_why() -> None:
    story = running(0)
    story.item(None, PENDING, taken="a")
    last = story.now_ns
    story.wait(30_000)
    story.die("killed by SIGKILL")
    (run,) = story.state.executions
    assert (run.ended_ns, run.outcome, run.error_message) == (last, None, "killed by SIGKILL")
    assert run.in_flight == [(0, "a")]
    assert story.state.execution is None
    assert story.state.active_batches[0].open["a"].status is PENDING
    assert story.state.session_statistics.active_ns < 30_000 * SECOND_NS


def test_what_ended_cannot_die() -> None:
    story = running(0)
    story.stop(Outcome.STOPPED)
    with pytest.raises(FoldError, match="without an end"):
        story.die()


def test_an_item_alone_in_hand_is_blamed_for_each_death_in_a_row() -> None:
    story = running(0)
    for count in (1, 2, 3):
        story.item(None, PENDING, taken="a")
        story.die(f"death {count}")
        assert story.state.suspects == [Suspect(0, "a", count, 0, f"death {count}")]
        again(story, 0)


def test_of_several_in_hand_none_is_blamed_and_all_are_suspects() -> None:
    story = running(0, 1, 2)
    story.item(None, PENDING, taken="a", batch=0)
    story.item(None, PENDING, taken="b", batch=1)
    story.die("killed")
    assert deaths(story) == {(0, "a"): 0, (1, "b"): 0, (2, None): 0}
    assert {each.last_death for each in story.state.suspects} == {""}


def test_several_items_of_one_batch_are_several_suspects() -> None:
    story = running(0)
    story.items(("a", PROCESSING), ("b", PROCESSING), ("c", COMPLETED))
    story.die()
    assert deaths(story) == {(0, "a"): 0, (0, "b"): 0}


def test_a_death_together_takes_no_blame_back() -> None:
    story = running(0)
    story.item(None, PENDING, taken="a")
    story.die("alone")
    again(story, 0, 1)
    story.item(None, PENDING, taken="a")
    story.die("together")
    assert deaths(story) == {(0, "a"): 1, (1, None): 0}
    assert story.state.suspects[0].last_death == "alone"


def test_a_batch_without_an_item_in_hand_is_blamed_as_a_whole() -> None:
    story = running(4)
    story.progress(7, batch=4)
    story.die("killed")
    assert story.state.suspects == [Suspect(4, None, 1, 7, "killed")]


def test_a_batch_that_nobody_took_up_is_not_in_hand() -> None:
    story = running(0, 1)
    story.die()
    again(story, 0)  # 1 is active and waits
    story.die("alone")
    assert deaths(story) == {(0, None): 1, (1, None): 0}


def test_between_the_items_of_a_loop_nothing_is_blamed() -> None:
    story = Story()
    story.run()
    story.start(0, keeps_items=True)
    story.done("a")
    story.die()
    assert story.state.suspects == []


def test_a_batch_that_got_on_between_its_deaths_did_not_die_in_a_row() -> None:
    story = running(0)
    for processed, count in ((3, 1), (3, 2), (4, 1), (2, 2), (4, 3), (5, 1)):
        story.progress(processed)
        story.die()
        assert deaths(story) == {(0, None): count}, processed
        again(story, 0)


def test_a_batch_that_got_on_before_a_death_together_begins_its_row_anew() -> None:
    story = running(0)
    story.progress(3)
    story.die()
    again(story, 0, 1)
    story.progress(6)
    story.die()
    again(story, 0)
    story.die()
    assert deaths(story)[0, None] == 1


def test_a_power_cut_is_nobodys_fault() -> None:
    story = running(0)
    story.item(None, PENDING, taken="a")
    story.die(is_blamed=False)
    assert story.state.suspects == []
    assert story.state.executions[0].in_flight == [(0, "a")]
    again(story, 0)
    story.item(None, PENDING, taken="a")
    story.die()
    again(story, 0)
    story.item(None, PENDING, taken="a")
    story.die(is_blamed=False)
    assert deaths(story) == {(0, "a"): 1}, "it takes no blame back either"


@pytest.mark.parametrize("status", [COMPLETED, FAILED, SKIPPED])
def test_an_item_that_ended_is_no_suspect(status: ItemStatus) -> None:
    story = running(0)
    story.items(("a", PROCESSING), ("b", PROCESSING))
    story.die()
    again(story, 0)
    story.item("a", status)
    assert deaths(story) == {(0, "b"): 0}


def test_an_item_that_is_taken_again_stays_a_suspect() -> None:
    story = running(0)
    story.item(None, PENDING, taken="a")
    story.die()
    again(story, 0)
    story.item("a", PENDING)
    story.item(None, PENDING, taken="a")
    assert deaths(story) == {(0, "a"): 1}


@pytest.mark.parametrize("end", [Story.end, Story.give_up])
def test_a_batch_that_ended_clears_all_that_is_in_it(end: object) -> None:
    story = running(0, 1)
    story.item(None, PENDING, taken="a", batch=0)
    story.die()
    again(story, 0)
    assert callable(end)
    end(story, 0)
    assert deaths(story) == {(1, None): 0}


def test_a_try_that_failed_clears_nothing() -> None:
    story = running(0)
    story.die()
    again(story, 0)
    story.attempt_failed(0)
    assert deaths(story) == {(0, None): 1}


def test_a_run_that_ended_by_itself_leaves_the_suspects() -> None:
    story = running(0)
    story.item(None, PENDING, taken="a")
    story.die()
    again(story, 0)
    story.stop(Outcome.STOPPED)
    assert deaths(story) == {(0, "a"): 1}


def test_what_is_begun_anew_is_no_suspect() -> None:
    story = running(0)
    story.die()
    story.restart()
    assert story.state.suspects == []


def test_a_retry_of_what_was_poisoned_has_fresh_deaths() -> None:
    story = running(0)
    for _ in range(3):
        story.item(None, PENDING, taken="a")
        story.die()
        again(story, 0)
    story.item("a", FAILED)
    story.give_up(0)
    story.retry([0], {0: ["a"]})
    assert story.state.pending_batches[0].open["a"].attempts == 0
    again(story, 0)
    story.item(None, PENDING, taken="a")
    story.die()
    assert deaths(story) == {(0, "a"): 1}


def test_looking_ahead_to_a_death_says_the_same_and_changes_nothing() -> None:
    story = running(0, 1)
    story.item(None, PENDING, taken="a")
    story.die("one")
    again(story, 0)
    story.item(None, PENDING, taken="a")
    before = fold.copy(story.state)
    ahead = suspects_after_death(story.state, "two")
    assert story.state == before
    story.die("two")
    assert story.state.suspects == ahead


@given(histories())
def test_suspects_are_always_of_batches_in_hand_and_each_is_one_thing(history: History) -> None:
    state = folded(history.events)
    for suspect in state.suspects:
        batch = state.active_batches[suspect.batch]
        assert suspect.key is None or not batch.is_done(suspect.key)
        assert suspect.key is None or batch.status_of(suspect.key) is not FAILED
    assert len({(each.batch, each.key) for each in state.suspects}) == len(state.suspects)
