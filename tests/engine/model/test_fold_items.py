"""The fold of growing work, of items known by their position, of outputs and params."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.model import events as e
from milepost.model import fold
from milepost.model.arms.items import TAKEN_MAX
from milepost.model.consistency import check
from milepost.model.fold import FoldError
from milepost.model.state import ActiveBatch, OutputRows, SessionState
from milepost.types import ItemStatus, Outcome, RecoveryStrategy
from support.histories import Story

if TYPE_CHECKING:
    from collections.abc import Callable

PENDING, PROCESSING, COMPLETED, FAILED, SKIPPED = ItemStatus


def begun(*, item_cap: int = 10_000, items_total: int | None = None) -> tuple[Story, ActiveBatch]:
    story = Story(item_cap=item_cap)
    story.run()
    return story, story.start(items_total=items_total, keeps_items=True)


# Work found on the way.


def test_items_are_queued_in_order_and_once() -> None:
    story, batch = begun()
    story.add("b", 1)
    story.add("a", "b", "1", 1)
    assert list(batch.queued) == ["b", 1, "a", "1"]
    assert batch.items_added == 4
    assert [batch.status_of(key) for key in ("b", 1, "c")] == [PENDING, PENDING, None]
    assert not batch.is_done("b")


def test_what_was_ever_seen_is_not_queued() -> None:
    story, batch = begun(item_cap=0)
    story.items(("done", COMPLETED), ("skipped", SKIPPED), ("failed", FAILED), ("mine", PROCESSING))
    story.add("done", "skipped", "failed", "mine", "new")
    assert list(batch.queued) == ["new"]


def test_what_a_source_gave_is_found_where_it_is_and_once() -> None:
    story, batch = begun(item_cap=0)
    story.items(("done", COMPLETED), ("failed", FAILED), ("mine", PROCESSING))
    story.add("done", "failed", "mine", payloads=[None, {"depth": 1}, None])
    story.add("failed", payloads=[{"depth": 2}])
    assert not batch.queued
    assert batch.items_added == 2
    failed, mine = batch.open["failed"], batch.open["mine"]
    assert (failed.status, failed.attempts, failed.payload) == (FAILED, 1, {"depth": 1})
    assert (mine.status, mine.is_added, mine.payload) == (PROCESSING, True, None)
    assert [batch.is_addable(key) for key in ("done", "failed", "mine", "new")] == [
        False,
        False,
        False,
        True,
    ]


def test_an_item_that_is_taken_leaves_the_queue_with_its_payload() -> None:
    story, batch = begun()
    story.add("a", "b", payloads=[{"depth": 1}, None])
    story.finish(taken=["a"])
    assert list(batch.queued) == ["b"]
    assert (batch.open["a"].is_added, batch.open["a"].payload) == (True, {"depth": 1})
    # Put down by a death, it is still known what it was.
    story.die()
    story.run()
    story.start()
    assert (batch.open["a"].status, batch.open["a"].payload) == (PENDING, {"depth": 1})
    story.finish(taken=["a"])
    story.finish(("a", COMPLETED))
    assert (batch.finished["a"].is_added, batch.finished["a"].payload) == (True, None)
    assert batch.items_added == 2


def test_an_item_added_and_put_back_by_hand_is_still_what_it_was() -> None:
    story, batch = begun()
    story.add("a", payloads=[[1, 2]])
    story.finish(("a", FAILED))
    story.retry([], {0: ["a"]})
    item = batch.open["a"]
    assert (item.status, item.is_added, item.payload) == (PENDING, True, [1, 2])


def test_an_older_update_takes_from_the_queue_too() -> None:
    story, batch = begun()
    story.add("a", "b", "c")
    story.item(None, COMPLETED, taken="a")
    story.item("b", SKIPPED)
    story.done("c")
    assert not batch.queued
    assert (batch.items_processing, batch.items_skipped, batch.items_processed) == (1, 1, 1)
    assert batch.finished["b"].is_added


@pytest.mark.parametrize("payloads", [[], [1], [1, 2, 3]])
def test_payloads_are_as_many_as_keys(payloads: list[Any]) -> None:
    story, _ = begun()
    with pytest.raises(FoldError, match=rf"2 items came with {len(payloads)} payloads"):
        story.add("a", "b", payloads=payloads)


def test_the_counts_of_growing_work() -> None:
    story, batch = begun()
    assert (batch.is_growing, batch.items_expected) == (False, None)
    story.done("seed")
    story.add("a", "b", "c")
    assert (batch.is_growing, batch.items_expected, batch.items_pending) == (True, 4, 3)
    story.finish(("a", COMPLETED), taken=["b"])
    assert (batch.items_expected, batch.items_pending, batch.items_known) == (4, 1, 4)
    story.progress(items_total=3)
    assert (batch.items_expected, batch.items_pending) == (4, 1)
    story.progress(items_total=10)
    # What was found may be among the ten, so nobody can promise more than these.
    assert (batch.items_expected, batch.items_pending) == (10, 7)


def test_work_is_in_the_queue_through_every_turn_of_a_batch() -> None:
    story, _ = begun()
    story.add("a")
    for again in (story.give_up, story.end):
        again()
        batch = story.start()
        assert (list(batch.queued), batch.items_added) == (["a"], 1)
    story.end()
    story.recover(RecoveryStrategy.PARTIAL_RECOVERY, reset=[0])
    batch = story.start()
    assert (batch.queued, batch.items_added, batch.is_growing) == ({}, 0, False)


# Items that end.


def test_changes_come_first_then_what_is_taken() -> None:
    story, batch = begun()
    story.finish(("a", FAILED), ("b", COMPLETED), taken=["a", "c", "b"])
    assert batch.open["a"].status is PROCESSING
    assert batch.open["a"].attempts == 2
    assert batch.open["c"].status is PROCESSING
    assert batch.is_done("b")
    assert (batch.items_processing, batch.items_failed, batch.items_processed) == (2, 0, 1)


def test_a_change_tells_why() -> None:
    story, batch = begun()
    change = e.ItemChange("a", FAILED, "no", None, is_recoverable=False)
    story.happen(e.ItemsEnded, 0, [change])
    item = batch.open["a"]
    assert (item.error_message, item.is_recoverable, item.failed_runs) == ("no", False, 1)


def test_an_outage_costs_no_run() -> None:
    story, batch = begun()
    story.finish(("a", FAILED), ("b", FAILED))
    story.finish(("a", PENDING))
    item = batch.open["a"]
    assert (item.status, item.failed_runs, item.failed_in) == (PENDING, 0, 0)
    assert batch.open["b"].failed_runs == 1
    assert (batch.items_failed, story.state.session_statistics.total_items_failed) == (1, 1)
    # In the same run, it fails once more, and twice is once.
    story.finish(("a", FAILED))
    story.finish(("a", FAILED))
    assert item.failed_runs == 1


def test_the_runs_before_an_outage_stay_counted() -> None:
    story, batch = begun()
    story.finish(("a", FAILED))
    story.stop(Outcome.STOPPED)
    story.run()
    story.start()
    item = batch.open["a"]
    # Of this run it has no failure yet that could be taken back.
    story.finish(("a", PENDING))
    assert item.failed_runs == 1
    story.finish(("a", FAILED))
    assert item.failed_runs == 2
    story.finish(("a", PENDING))
    story.finish(("a", PENDING))
    assert item.failed_runs == 1


@pytest.mark.parametrize("update", ["item", "items"])
def test_an_update_by_hand_takes_no_run_back(update: str) -> None:
    """Histories of older releases fold to what they always did."""
    story, batch = begun()
    story.item("a", FAILED)
    if update == "item":
        story.item("a", PENDING)
    else:
        story.items(("a", PENDING))
    assert (batch.open["a"].status, batch.open["a"].failed_runs) == (PENDING, 1)


def test_putting_back_what_did_not_fail_changes_no_run() -> None:
    story, batch = begun()
    story.finish(taken=["a"])
    story.finish(("a", PENDING), ("new", PENDING))
    assert [batch.open[key].failed_runs for key in ("a", "new")] == [0, 0]


# Positions.


def test_positions_are_a_number_and_no_keys() -> None:
    story, batch = begun()
    story.advance(0, taken=3)
    assert batch.is_positional
    assert [batch.open[n].status for n in range(3)] == [PROCESSING] * 3
    story.advance(2, taken=2)
    assert (batch.position, batch.digested, batch.digest) == (2, 2, f"{2:032x}")
    assert sorted(batch.open) == [2, 3]
    story.advance(4)
    assert (batch.position, batch.items_processed, batch.items_known) == (4, 4, 4)
    assert (batch.open, batch.finished, batch.done) == ({}, {}, set())
    assert all(map(batch.is_done, range(4)))
    assert [batch.is_done(key) for key in (4, -1, "0")] == [False] * 3
    assert [batch.status_of(key) for key in (3, 4)] == [COMPLETED, None]


def test_the_prefix_settles_over_done_and_failed_ones() -> None:
    story, batch = begun()
    story.advance(0, taken=4)
    story.finish((1, COMPLETED), (3, SKIPPED))
    assert (batch.position, batch.done) == (0, {1, 3})
    story.finish((0, COMPLETED))
    assert (batch.position, batch.done) == (2, {3})
    story.finish((2, FAILED))
    assert (batch.position, batch.done, list(batch.open)) == (4, set(), [2])
    assert not batch.is_done(2)
    # Tried again, it is done within the prefix, and leaves nothing behind.
    story.finish(taken=[2])
    story.finish((2, COMPLETED))
    assert (batch.position, batch.done, batch.open) == (4, set(), {})
    assert batch.is_done(2)
    assert check(story.state) == []


def test_a_position_that_was_done_is_never_in_hand_again() -> None:
    story, batch = begun()
    story.advance(0, taken=3)
    story.finish((2, COMPLETED))
    story.advance(1)
    story.advance(1, taken=4)
    assert sorted(batch.open) == [1, 3, 4]
    story.finish((0, FAILED), taken=[0, 2])
    assert batch.items_processed == 2
    assert batch.items_failed == 0


_KNOWN_BY_KEYS: dict[str, Callable[[Story], SessionState]] = {
    "done": lambda story: story.done("a"),
    "in hand": lambda story: story.item(0, PROCESSING),
    "failed": lambda story: story.item(0, FAILED),
    "queued": lambda story: story.add(0),
}


@pytest.mark.parametrize("how", _KNOWN_BY_KEYS)
def test_items_known_by_keys_have_no_positions(how: str) -> None:
    story, _ = begun()
    _KNOWN_BY_KEYS[how](story)
    with pytest.raises(FoldError, match="known by keys"):
        story.advance(0, taken=1)


def test_items_known_by_position_are_not_added_to() -> None:
    story, _ = begun()
    story.advance(0, taken=1)
    with pytest.raises(FoldError, match="known by their position"):
        story.add("a")


@pytest.mark.parametrize(
    ("taken", "put", "through", "message"),
    [
        (0, (), 1, "item 0 of batch 0 is not in hand"),
        (2, (), 3, "item 2 of batch 0 is not in hand"),
        (2, ((0, PENDING),), 2, "item 0 of batch 0 is not in hand"),
        (2, ((1, COMPLETED),), 2, "item 1 of batch 0 is not in hand"),
        (2, (), 1 << 63, "item 2 of batch 0 is not in hand"),
        (2, (), -1, "from position -1 on"),
    ],
)
def test_only_what_is_in_hand_is_done_in_order(
    taken: int, put: tuple[tuple[int, ItemStatus], ...], through: int, message: str
) -> None:
    story, _ = begun()
    story.advance(0, taken)
    story.finish(*put)
    with pytest.raises(FoldError, match=message):
        story.advance(through)


@pytest.mark.parametrize("taken", [-1, TAKEN_MAX + 1, 1 << 63])
def test_no_more_is_taken_than_a_chunk_holds(taken: int) -> None:
    story, batch = begun()
    with pytest.raises(FoldError, match=f"{taken} items cannot be taken at once"):
        story.advance(0, taken=taken)
    assert not batch.open
    story.advance(0, taken=3)


def test_a_digest_of_fewer_items_than_are_done_is_kept() -> None:
    story, batch = begun()
    story.advance(0, taken=2)
    story.finish((0, COMPLETED), (1, COMPLETED))
    story.advance(1)
    assert (batch.position, batch.digested) == (2, 1)
    assert check(story.state) == []


_step = st.tuples(
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from(ItemStatus)), max_size=3),
    st.integers(0, 8),
    st.integers(0, 3),
)


@given(st.lists(_step, max_size=12))
def test_positions_say_the_same_as_keys_would(
    steps: list[tuple[list[tuple[int, ItemStatus]], int, int]],
) -> None:
    by_position, positions = begun()
    by_key, keys = begun()
    by_position.advance(0)
    for changes, most, taken in steps:
        by_position.finish(*changes)
        by_key.finish(*changes)
        start = through = positions.position
        while through < most and positions.status_of(through) is PROCESSING:
            through += 1
        by_position.advance(through, taken)
        done = [(key, COMPLETED) for key in range(start, through)]
        by_key.finish(*done, taken=range(through, through + taken))
        assert positions.done.isdisjoint(range(positions.position))
        assert positions.status_of(positions.position) in {None, PENDING, PROCESSING}
        for key in range(12):
            assert positions.is_done(key) == keys.is_done(key)
            found, wanted = positions.status_of(key), keys.status_of(key)
            assert found == wanted or {found, wanted} == {COMPLETED, SKIPPED}
        assert positions.open == keys.open
        assert by_position.state.session_statistics == by_key.state.session_statistics
        assert check(by_position.state) == check(by_key.state) == []


# Outputs and params.


def test_an_output_begins_behind_what_is_in_it() -> None:
    story, _ = begun()
    story.output("../rows.txt", 12)
    assert story.state.outputs == {"../rows.txt": OutputRows("../rows.txt", 12, 12, 0)}


def test_rows_follow_the_rows_before_them() -> None:
    story, _ = begun()
    story.output("a")
    story.output("b")
    story.advance(0, taken=2)
    story.advance(1, rows=[story.rows("a", 5)])
    story.finish((1, COMPLETED), rows=[story.rows("a", 2), story.rows("b", 3)])
    assert story.state.outputs == {
        "a": OutputRows("a", 5, 7, 2),
        "b": OutputRows("b", 0, 3, 3),
    }


@pytest.mark.parametrize(
    "rows",
    [
        OutputRows("other", 0, 5, 1),
        OutputRows("a", 0, 9, 1),
        OutputRows("a", 6, 9, 1),
        OutputRows("a", 5, 4, 1),
    ],
    ids=["never opened", "over others", "with a gap", "backwards"],
)
@pytest.mark.parametrize("event", [e.ItemsEnded, e.PositionsAdvanced])
def test_rows_that_cannot_have_been_written(event: type[e.BatchEvent], rows: OutputRows) -> None:
    story, _ = begun()
    story.output("a", 5)
    fields: tuple[Any, ...] = ([], [], [rows])
    if event is e.PositionsAdvanced:
        fields = (0, "", 0, [rows])
    with pytest.raises(FoldError, match=f"rows of {rows.path} do not follow"):
        story.happen(event, 0, *fields)


def test_params_are_kept_also_where_they_are_nothing() -> None:
    story = Story()
    assert (story.state.has_params, story.state.params) == (False, None)
    story.params(None)
    assert story.state.has_params
    story.params({"model": "big"})
    assert story.state.params == {"model": "big"}


@pytest.mark.parametrize("how", ["restart", "recover"])
def test_a_restart_forgets_outputs_and_params(how: str) -> None:
    story, _ = begun()
    story.params({"model": "big"})
    story.output("a", 5)
    if how == "restart":
        story.restart()
    else:
        story.recover(RecoveryStrategy.FULL_RESTART)
    assert story.state.outputs == {}
    assert (story.state.has_params, story.state.params) == (False, None)


def test_a_restored_state_has_the_outputs_of_its_time() -> None:
    """So that they are cut back to the rows of what was acknowledged then."""
    story, _ = begun()
    story.output("a")
    story.finish(("x", COMPLETED), rows=[story.rows("a", 5)])
    old = fold.copy(story.state)
    story.finish(("y", COMPLETED), rows=[story.rows("a", 5)])
    event = e.Restored(story.state.sequence + 1, story.now_ns, e.NO_BATCH, 2, old.sequence)
    restored = fold.restored(story.state, old, event)
    assert restored.outputs["a"].length_bytes == 5


@pytest.mark.parametrize(
    ("event", "fields"),
    [(e.ItemsAdded, (["a"],)), (e.ItemsEnded, ()), (e.PositionsAdvanced, (0, ""))],
)
def test_items_belong_to_a_batch_in_hand(
    event: Callable[..., Any], fields: tuple[Any, ...]
) -> None:
    story = Story()
    with pytest.raises(FoldError, match="batch 3 is not active"):
        story.happen(event, 3, *fields)
