"""A session and its batches, driven by hand."""

from __future__ import annotations

import gc
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost import (
    Batch,
    BatchErrorType,
    BatchPhase,
    BatchStatus,
    ItemStatus,
    ManualClock,
    Outcome,
    SessionStatus,
    Store,
    TrackerConfig,
    Verdict,
)

if TYPE_CHECKING:
    from pathlib import Path

DONE = ItemStatus.COMPLETED


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "s")


def reopened(store: Store, name: str = "places") -> milepost.SessionState:
    return Store(store.path).load_progress(name)


# Batches.


def test_batches_are_started_once_and_found_again_by_key(store: Store) -> None:
    with store.session("places", total_batches=3) as session:
        assert not session.is_done("a")
        first = session.start_batch("a", number=0, items_total=80, label="A", payload={"x": 1})
        assert (first.key, first.number, first.label, first.payload) == ("a", 0, "A", {"x": 1})
        assert first.status is BatchStatus.PROCESSING
        second = session.start_batch("b")
        assert second.number == 1
        with pytest.raises(milepost.ConfigurationError, match="begun already"):
            session.start_batch("a")
        with pytest.raises(milepost.ConfigurationError, match="belongs to 'a'"):
            session.start_batch("c", number=0)
        with pytest.raises(milepost.ConfigurationError, match="number 0, not 2"):
            session.start_batch("a", number=2)
        assert first.complete() is BatchStatus.COMPLETED
        assert session.is_done("a")
        with pytest.raises(milepost.ConfigurationError, match="completed"):
            session.start_batch("a")
        with pytest.raises(milepost.ClosedError, match="completed"):
            first.update_item("p", DONE)
        assert list(session.state.active_batches) == [1]
        assert session.state.current_batch is not None


def test_an_interrupted_batch_goes_on_with_its_items(store: Store) -> None:
    with store.session("places") as session:
        batch = session.start_batch("a", items_total=3)
        batch.update_item("p-1", DONE)
        batch.update_item("p-2", ItemStatus.FAILED, "HTTP 420")
        batch.update_item("p-3", ItemStatus.PROCESSING)
    with store.session("places") as session:
        batch = session.start_batch("a")
        assert batch.is_done("p-1")
        assert batch.status_of("p-2") is ItemStatus.FAILED
        assert batch.status_of("p-3") is ItemStatus.PENDING
        assert batch.status_of("p-4") is None
        assert batch.progress.open["p-3"].attempts == 1


def test_several_batches_are_active_at_once(store: Store) -> None:
    with store.session("places") as session:
        batches = [session.start_batch(key) for key in "abc"]
        for number, batch in enumerate(batches):
            batch.update_items([(n, DONE) for n in range(number + 1)])
        state = session.state
        assert [each.items_processed for each in state.active_batches.values()] == [1, 2, 3]
        assert state.current_batch is None
        assert state.total_items_processed == 6
        assert milepost.check(state) == []


def test_items_and_counts_do_not_mix(store: Store) -> None:
    with store.session("places") as session:
        counted, tracked = session.start_batch("a"), session.start_batch("b")
        counted.update_progress(processed=5, failed=1, phase=BatchPhase.DATA_SAVING, items_total=9)
        with pytest.raises(ValueError, match="reports counts"):
            counted.update_item("p", DONE)
        tracked.update_item("p", DONE)
        with pytest.raises(ValueError, match="one by one"):
            tracked.update_progress(processed=1)
        tracked.update_progress(phase="uploading")
        with pytest.raises(ValueError, match="processed"):
            counted.update_progress(processed=-1)
        counted.update_progress(processed=8)
        state = session.state
        assert state.active_batches[0].current_phase is BatchPhase.DATA_SAVING
        assert state.active_batches[1].current_phase == "uploading"
        assert (state.total_items_processed, state.session_statistics.total_items_failed) == (9, 1)
        counted.complete()


def test_an_item_that_is_done_stays_so(store: Store) -> None:
    with store.session("places") as session:
        batch = session.start_batch("a")
        batch.update_item("p", DONE)
        batch.update_item("p", ItemStatus.FAILED, "too late")
        assert batch.status_of("p") is DONE
        batch.update_item("q", ItemStatus.SKIPPED)
        batch.update_item("q", DONE)
        assert batch.status_of("q") is ItemStatus.SKIPPED
        assert session.state.session_statistics.total_items_skipped == 1


def test_errors_are_judged_and_the_judge_can_be_replaced(tmp_path: Path) -> None:
    def harsh(error: BaseException, /) -> Verdict:
        return Verdict(BatchErrorType.VALIDATION_ERROR, is_recoverable=False)

    store = Store(tmp_path / "s", classifier=harsh)
    with store.session("places") as session:
        batch = session.start_batch("a")
        batch.update_item("p", ItemStatus.FAILED, ConnectionError("down"))
        item = batch.progress.open["p"]
        assert item.error_type is BatchErrorType.VALIDATION_ERROR
        assert not item.is_recoverable
        batch.fail(OSError("disk"), type=BatchErrorType.DATABASE_ERROR, recoverable=True)
        failed = session.state.failed_batches[0]
        assert failed.error_type is BatchErrorType.DATABASE_ERROR
        assert failed.is_recoverable
        assert failed.error_message == "OSError: disk"


def test_a_classifier_that_raises_costs_no_record(tmp_path: Path) -> None:
    def broken(error: BaseException, /) -> Verdict:
        raise RuntimeError("a bug of its own")

    with Store(tmp_path / "s", classifier=broken).session("places") as session:
        session.start_batch("a").fail(TimeoutError())
        assert session.state.failed_batches[0].error_type is BatchErrorType.TIMEOUT_ERROR


def test_counters_and_metrics(tmp_path: Path) -> None:
    clock = ManualClock()
    with Store(tmp_path / "s", clock=clock).session("places") as session:
        batch = session.start_batch("a")
        batch.count(network_requests=2, rows=5)
        batch.count(network_requests=1, database_operations=4)
        batch.update_items([(n, DONE) for n in range(8)])
        clock.advance(4)
        batch.complete()
        metrics = session.state.completed_batches[0].performance_metrics
        assert metrics is not None
        assert metrics.items_per_second == 2.0
        assert (metrics.network_requests_count, metrics.database_operations_count) == (3, 4)
        assert metrics.counters == {"rows": 5}
        assert metrics.error_rate == 0.0
        assert session.state.completed_batches[0].duration_ms == 4_000
        with pytest.raises(TypeError, match="rows"):
            session.start_batch("b").count(rows="many")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # on purpose


def test_metrics_are_left_out_on_request(tmp_path: Path) -> None:
    tracker = TrackerConfig(enable_performance_metrics=False)
    with Store(tmp_path / "s", tracker=tracker).session("places") as session:
        session.start_batch("a").complete()
        assert session.state.completed_batches[0].performance_metrics is None


def test_without_item_tracking_items_are_still_not_done_twice(tmp_path: Path) -> None:
    tracker = TrackerConfig(enable_item_tracking=False)
    store = Store(tmp_path / "s", tracker=tracker)
    with store.session("places") as session:
        batch = session.start_batch("a")
        batch.update_item("p", DONE)
        batch.update_item("q", ItemStatus.FAILED, "no")
        assert batch.progress.finished == {}
        assert batch.progress.done == {"p"}
        assert batch.progress.open["q"].error_message == "no"
    with store.session("places") as session:
        assert session.start_batch("a").is_done("p")


def test_a_changed_item_cap_is_an_event(tmp_path: Path) -> None:
    with Store(tmp_path / "s").session("places") as session:
        session.start_batch("a").update_items([(n, DONE) for n in range(50)])
    tracker = TrackerConfig(max_detailed_progress_items=10)
    with Store(tmp_path / "s", tracker=tracker).session("places") as session:
        batch = session.start_batch("a")
        assert len(batch.progress.finished) == 10
        assert len(batch.progress.done) == 40
        assert all(batch.is_done(n) for n in range(50))
    assert reopened(Store(tmp_path / "s")).item_cap == 10


@pytest.mark.parametrize("key", [None, 1.5, True, ("a",), 1 << 64, "\ud800"])
def test_keys_that_are_none_are_refused_before_anything_is_written(store: Store, key: Any) -> None:
    with store.session("places") as session:
        batch = session.start_batch("a")
        before = session.state.sequence
        with pytest.raises(milepost.EncodingError):
            batch.update_item(key, DONE)
        with pytest.raises(milepost.EncodingError):
            batch.update_items([("fine", DONE), (key, DONE)])
        assert session.state.sequence == before
        batch.update_item("fine", DONE)
        assert session.state.total_items_processed == 1


# A job's loop without a job.


def test_batches_are_completed_when_the_loop_asks_for_the_next(store: Store) -> None:
    seen: list[str] = []

    def run(*, raise_on: str) -> None:
        with store.session("places") as session:
            for batch in session.batches(["a", "b", "c"]):
                seen.append(batch.key)
                if batch.key == raise_on:
                    raise RuntimeError("the body failed")
            session.complete()

    with pytest.raises(RuntimeError):
        run(raise_on="b")
    state = reopened(store)
    assert [each.batch_id for each in state.completed_batches.values()] == ["a"]
    assert [each.batch_id for each in state.active_batches.values()] == ["b"]
    assert state.executions[-1].error_message == "RuntimeError: the body failed"
    run(raise_on="")
    assert seen == ["a", "b", "b", "c"]
    assert reopened(store).outcome is Outcome.COMPLETED


def test_leaving_without_complete_leaves_the_session_unfinished(store: Store) -> None:
    with store.session("places"):
        pass
    assert store.view("places").judgement.status is SessionStatus.STOPPED

    def crash() -> None:
        with store.session("places"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()
    assert store.view("places").judgement.status is SessionStatus.INTERRUPTED
    with (
        pytest.raises(milepost.ConfigurationError, match="not ended"),
        store.session("places") as s,
    ):
        s.start_batch("a")
        s.complete()


def test_after_the_end_every_call_says_closed(store: Store) -> None:
    with store.session("places") as session:
        batch = session.start_batch("a")
    session.close()
    calls: list[Any] = [
        lambda: batch.update_item("p", DONE),
        lambda: batch.update_items([("p", DONE)]),
        batch.complete,
        lambda: batch.fail("x"),
        lambda: session.start_batch("b"),
        lambda: session.set_data(1),
        session.snapshot,
        session.flush,
        session.complete,
        lambda: session.save_checkpoint(milepost.CheckpointType.BATCH_START),
    ]
    for call in calls:
        with pytest.raises(milepost.ClosedError):
            call()


# State, data, snapshots, subscriptions.


def test_the_state_is_a_frozen_copy(store: Store) -> None:
    with store.session("places") as session:
        batch = session.start_batch("a")
        before = session.state
        batch.update_item("p", DONE)
        assert before.total_items_processed == 0
        before.active_batches.clear()
        assert session.state.total_items_processed == 1
        assert session.statistics.total_items_processed == 1


def test_the_statistics_know_of_the_run_that_goes_on(tmp_path: Path) -> None:
    clock = milepost.ManualClock()
    with Store(tmp_path / "s", clock=clock).session("places") as session:
        batch = session.start_batch("a")
        clock.advance(10)
        batch.update_items([(number, DONE) for number in range(20)])
        assert session.statistics.average_items_per_second == 2


def test_data_is_replaced_as_a_whole_and_not_shared(store: Store) -> None:
    with store.session("places") as session:
        assert session.data is None
        mine: Any = {"cursor": [1]}
        session.set_data(mine)
        mine["cursor"].append(2)
        copied: Any = session.data
        copied["cursor"].append(3)
        assert session.data == {"cursor": [1]}
        assert store.save_state("places", {"cursor": [9]}) > 1  # through the open session
        assert session.data == {"cursor": [9]}
    assert store.load_state("places") == {"cursor": [9]}


def test_snapshots_on_demand_and_never_two_of_one_sequence(store: Store) -> None:
    with store.session("places") as session:
        first = session.snapshot()
        assert session.snapshot() == first
        session.start_batch("a")
        assert session.snapshot() == first + 1
    sequences = [each.sequence for each in store.versions("places")]
    assert len(sequences) == len(set(sequences))


def test_a_snapshot_is_taken_when_the_interval_has_passed_and_something_changed(
    tmp_path: Path,
) -> None:
    tracker = TrackerConfig(checkpoint_interval_seconds=0.05, sync_interval_seconds=0.02)
    store = Store(tmp_path / "s", tracker=tracker)
    with store.session("places") as session:
        batch = session.start_batch("a")
        before = store.versions("places")[0].version
        deadline = time.monotonic() + 20
        while store.versions("places")[0].version == before:
            batch.update_item("p", DONE)
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.2)
        settled = store.versions("places")[0].version
        time.sleep(0.3)
        assert store.versions("places")[0].version == settled  # nothing changed, nothing saved


def test_a_journal_that_grows_long_is_ended_by_a_snapshot(tmp_path: Path) -> None:
    tracker = TrackerConfig(checkpoint_interval_seconds=100_000, sync_interval_seconds=0.02)
    store = Store(tmp_path / "s", tracker=tracker)
    with store.session("places") as session:
        batch = session.start_batch("a")
        before = store.versions("places")[0].version
        for _ in range(18):
            batch.update_progress(phase="x" * (1 << 20))
        deadline = time.monotonic() + 20
        while store.versions("places")[0].version == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_subscribers_see_what_the_journal_holds(store: Store) -> None:
    with store.session("places") as session:
        subscription = session.subscribe()
        small = session.subscribe(maxlen=2)
        batch = session.start_batch("a")
        batch.update_item("p", DONE)
        session.save_checkpoint(milepost.CheckpointType.BATCH_PROGRESS)
        batch.complete()
        names = [type(event).__name__ for event in subscription.drain()]
        assert names == ["BatchStarted", "ItemUpdated", "CheckpointSaved", "BatchCompleted"]
        assert small.dropped == 2
        with pytest.raises(milepost.ClosedError):
            batch.update_item("q", DONE)
        assert subscription.drain() == []  # what did not happen is told nobody
    assert [type(event).__name__ for event in subscription] == ["ExecutionEnded"]
    logged = [type(event).__name__ for event in store.events("places")]
    assert logged[-5:] == [*names, "ExecutionEnded"]


def test_executions_are_recorded_at_start_and_end(store: Store) -> None:
    for count in (1, 2):
        with store.session("places") as session:
            batch = session.start_batch(f"b{count}")
            batch.update_items([(n, DONE) for n in range(count)])
            batch.complete()
    first, second = reopened(store).executions
    assert (first.pid, second.pid) == (os.getpid(), os.getpid())
    assert (first.items_processed, second.items_processed) == (1, 2)
    assert first.outcome is Outcome.STOPPED
    assert first.end_time is not None
    assert first.end_time >= first.start_time
    assert second.epoch > first.epoch
    assert second.host


def test_a_session_that_is_forgotten_gives_its_lock_back(store: Store) -> None:
    session: Any = store.session("places")
    session.start_batch("a")
    del session
    gc.collect()
    with store.session("places"):
        pass


def test_a_second_session_in_the_same_thread_supersedes_the_first(store: Store) -> None:
    old = store.session("places")
    batch = old.start_batch("a")
    batch.update_item("p", DONE)
    with store.session("places") as new:
        assert new.start_batch("a").is_done("p")
        with pytest.raises(milepost.SupersededError):
            batch.update_item("q", DONE)
    old.close()


def test_the_store_folder_moved_while_in_use(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    session = store.session("places")
    batch = session.start_batch("a")
    (tmp_path / "s").rename(tmp_path / "moved")
    with pytest.raises(milepost.StorageError, match="no longer"):
        batch.complete()
    with pytest.raises(milepost.StorageError):
        session.save_checkpoint(milepost.CheckpointType.BATCH_START)
    with pytest.raises(milepost.StorageError):
        session.close()
    assert not (tmp_path / "s").exists()
    with Store(tmp_path / "moved").session("places") as again:
        assert again.start_batch("a").status is BatchStatus.PROCESSING


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork to be careful with")
def test_use_after_fork_is_an_error_and_the_parent_keeps_its_lock(store: Store) -> None:
    with store.session("places") as session:
        batch = session.start_batch("a")
        batch.update_item("p", DONE)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover  # runs in the child
            try:
                batch.update_item("q", DONE)
                told = b"written"
            except milepost.ClosedError:
                told = b"refused"
            except BaseException as error:
                told = repr(error).encode()
            os.write(writing, told)
            os._exit(0)
        os.close(writing)
        told = os.read(reading, 100)
        os.close(reading)
        os.waitpid(child, 0)
        assert told == b"refused"
        assert store.view("places").judgement.status is SessionStatus.RUNNING
        batch.update_item("r", DONE)
    state = reopened(store)
    assert state.total_items_processed == 2


@pytest.mark.parametrize("durability", ["buffered", "process", "disk"])
def test_every_durability_keeps_what_was_closed(tmp_path: Path, durability: Any) -> None:
    store = Store(tmp_path / "s")
    with store.session("places", durability=durability) as session:
        batch = session.start_batch("a")
        for n in range(300):
            batch.update_item(n, DONE)
    assert reopened(store).total_items_processed == 300
    assert reopened(store).session_statistics.total_items_processed == 300
    with pytest.raises(milepost.ConfigurationError, match="durability"):
        store.session("places", durability="hopeful")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # on purpose


def test_errors_carry_their_hint_into_a_traceback(store: Store) -> None:
    with pytest.raises(milepost.StoreNotFoundError) as caught:
        store.sessions()
    assert caught.value.hint
    assert any("hint:" in note for note in caught.value.__notes__)


def test_a_batch_tells_what_it_is(store: Store) -> None:
    with store.session("places") as session:
        batch: Batch = session.start_batch("a")
        assert repr(batch) == "<Batch 0 'a' of 'places': processing>"
        assert batch.session is session
        assert batch.updated_at is not None
        assert "places" in repr(session)
    assert sys.getrefcount(session) > 0
