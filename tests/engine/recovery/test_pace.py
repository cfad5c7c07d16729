"""When work is started again and when it is given up, for any sequence of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import milepost
from milepost.recovery.pace import WAIT_SECONDS_MAX, Pace, settled

if TYPE_CHECKING:
    from pathlib import Path

Marks = dict[str, int]

names = st.sampled_from(["a", "b", "c"])
configs = st.builds(
    milepost.RecoveryConfig,
    max_recovery_attempts=st.integers(1, 6),
    recovery_delay_seconds=st.floats(0, 5_000),
)


def waits(pace: Pace, runs: list[Marks]) -> list[float | None]:
    found: list[float | None] = []
    for marks in runs:
        found.append(pace.after_run(marks))
        if found[-1] is None:
            break
    return found


def delayed(limit: int = 3, delay: float = 10) -> Pace:
    config = milepost.RecoveryConfig(max_recovery_attempts=limit, recovery_delay_seconds=delay)
    return Pace(config)


def test_the_first_restart_is_at_once_and_repeated_ones_wait_longer_each_time() -> None:
    assert waits(delayed(limit=3), [{"a": 5}] * 9) == [0, 10, 20, 40, None]


def test_a_run_that_got_on_is_followed_at_once() -> None:
    runs = [{"a": 5}, {"a": 5}, {"a": 6}, {"a": 6}, {"a": 6}, {"a": 6}]
    assert waits(delayed(limit=2), runs) == [0, 10, 0, 10, 20, None]


def test_progress_in_any_session_counts() -> None:
    runs = [{"a": 5, "b": 1}, {"a": 5, "b": 2}, {"a": 5, "b": 3}, {"a": 5, "b": 4}]
    assert waits(delayed(limit=1), runs) == [0, 0, 0, 0]


def test_work_that_begins_itself_anew_each_time_comes_to_an_end() -> None:
    # It dies at another place each time, and never gets further than it once was.
    runs = [{"a": mark} for mark in (90, 0, 50, 89, 90, 12)]
    assert waits(delayed(), runs) == [0, 10, 20, 40, None]


def test_a_program_that_begins_another_session_each_time_comes_to_an_end() -> None:
    runs = [{f"s{each}": 10 for each in range(number + 1)} for number in range(9)]
    assert waits(delayed(), runs) == [0, 10, 20, 40, None]


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_poison_is_always_met_before_the_end(limit: int) -> None:
    # It died of several things at once, then of one alone until that was failed, again and again.
    # Each failure is progress, and the runs up to the next are one and so many deaths but the last.
    runs = [{"a": failed} for failed in range(9) for _ in range(1 + limit)]
    assert None not in waits(delayed(limit), runs)


def test_a_session_that_cannot_be_read_meanwhile_proves_nothing() -> None:
    assert waits(delayed(), [{"a": 5}, {}, {"a": 5}, {}, {"a": 5}]) == [0, 10, 20, 40, None]


@given(
    configs,
    st.dictionaries(names, st.integers(0, 50), min_size=1),
    st.lists(st.dictionaries(names, st.integers(0, 50)), min_size=7, max_size=12),
)
def test_without_progress_it_always_ends_and_every_wait_is_bounded(
    config: milepost.RecoveryConfig, first: Marks, later: list[Marks]
) -> None:
    capped = [
        {name: min(mark, first[name]) for name, mark in marks.items() if name in first}
        for marks in later
    ]
    found = waits(Pace(config), [first, *capped])
    assert len(found) == config.max_recovery_attempts + 2
    assert found[-1] is None
    timed = [wait for wait in found if wait is not None]
    assert timed == sorted(timed)
    assert timed[0] == 0
    assert all(wait <= max(WAIT_SECONDS_MAX, config.recovery_delay_seconds) for wait in timed)


@given(configs, st.lists(st.dictionaries(names, st.integers(0, 8)), max_size=200))
def test_runs_are_bounded_by_what_there_is_to_do(
    config: milepost.RecoveryConfig, runs: list[Marks]
) -> None:
    # Three sessions can get on eight times each.
    most = (1 + config.max_recovery_attempts) * (1 + 3 * 8) + 1
    assert len(waits(Pace(config), runs)) <= most


def test_a_great_number_of_runs_waits_no_longer_than_the_bound() -> None:
    pace = delayed(limit=5_000)
    assert [pace.after_run({"a": 1}) for _ in range(4_000)][-1] == WAIT_SECONDS_MAX


# What counts as progress.


@pytest.fixture
def store(tmp_path: Path) -> milepost.Store:
    return milepost.Store(tmp_path / "store")


def test_everything_that_is_finished_or_fails_for_good_is_progress(store: milepost.Store) -> None:
    with store.session("work") as session:
        seen = [settled(session.state)]

        def note() -> None:
            seen.append(settled(session.state))

        batch = session.start_batch("a")
        batch.update_item("x", milepost.ItemStatus.COMPLETED)
        note()
        batch.update_item("y", milepost.ItemStatus.SKIPPED)
        note()
        batch.update_item("z", milepost.ItemStatus.FAILED, ValueError("wrong for good"))
        note()
        batch.fail("no", recoverable=False)
        note()
        session.start_batch("b").complete()
        note()
    assert seen == [0, 1, 2, 3, 4, 5]


def test_a_failure_is_none_while_it_may_be_tried_again(store: milepost.Store) -> None:
    with store.session("work") as session:
        batch = session.start_batch("a")
        batch.update_item("x", milepost.ItemStatus.FAILED, ConnectionError("no network"))
        batch.fail("no", recoverable=True)
        assert settled(session.state) == 0
        session.put_back([0], {})
        assert settled(session.state) == 0
        again = session.start_batch("a")
        again.update_item("x", milepost.ItemStatus.COMPLETED)
        assert settled(session.state) == 1


def test_what_is_failed_as_poison_is_progress(store: milepost.Store) -> None:
    with store.session("work") as session:
        batch = session.start_batch("a")
        batch.update_item("x", milepost.ItemStatus.FAILED, ConnectionError("no network"))
        batch.update_item("x", milepost.ItemStatus.PROCESSING)
        batch.update_item("x", milepost.ItemStatus.FAILED, ValueError("it is poison"))
        assert settled(session.state) == 1
