"""The recovery service over real stores: who is found, in which order, and what is done."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import milepost
from milepost import (
    NoRecoveryNeeded,
    RecoveryConfig,
    RecoveryPriority,
    RecoveryReason,
    RecoveryService,
    RecoveryStrategy,
    RequiresRecovery,
    Store,
    Unrecoverable,
)
from milepost.model import events as e
from support.commands import tree
from support.faults import die, in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="a death in the middle needs a forked process"
)

COMPLETED, FAILED = milepost.ItemStatus.COMPLETED, milepost.ItemStatus.FAILED
LOW, MEDIUM, HIGH = RecoveryPriority


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def service(store: Store) -> RecoveryService:
    return RecoveryService(store)


def killed(store: Store, name: str, work: Callable[[milepost.Session], object]) -> None:
    """A session whose process was killed after this."""

    def body(tell: Callable[[bytes], None]) -> None:
        session = store.session(name)
        work(session)
        die()

    assert in_child(body).signal == 9


def batch_with(done: int, total: int = 10) -> Callable[[milepost.Session], object]:
    def work(session: milepost.Session) -> None:
        batch = session.start_batch("b", items_total=total)
        batch.update_items([(number, COMPLETED) for number in range(done)])

    return work


def counted_with(done: int, total: int = 10) -> Callable[[milepost.Session], object]:
    return lambda session: session.start_batch("b").update_progress(
        processed=done, items_total=total
    )


def failed(store: Store, name: str, *, times: int = 1) -> None:
    """A session that ended with one failed batch, tried so many times."""
    for _ in range(times):
        with store.session(name) as session:
            session.set_total_batches(1)
            batch = session.start_batch("b")
            batch.update_item("done", COMPLETED)
            batch.update_item("not done", FAILED, "HTTP 503")
            batch.fail("HTTP 503")
            session.complete()


def want(status: milepost.RecoveryStatus) -> RequiresRecovery:
    assert isinstance(status, RequiresRecovery)
    return status


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def snapshots(store: Store, name: str) -> list[Path]:
    from pathlib import Path

    return sorted(Path(store.folder_of(name), "snapshots").glob("*.zst"))


# The scan.


def test_recovery_goes_in_the_order_of_the_priorities(store: Store) -> None:
    killed(store, "a low", batch_with(0))
    killed(store, "b high", batch_with(9))
    failed(store, "c medium")
    killed(store, "d high", batch_with(6))
    killed(store, "e medium", batch_with(3))
    store.save_state("f data", 1)
    report = RecoveryService(store).detect_and_recover()
    names = [each.session_id for each in report.recovery_details]
    assert names == ["b high", "d high", "c medium", "e medium", "a low"]
    assert list(report.statuses) == [*names, "f data"]
    assert (report.healthy_sessions, report.sessions_requiring_recovery) == (1, 5)
    assert (report.successful_recoveries, report.failed_recoveries) == (5, 0)


def test_one_unreadable_session_never_stops_the_scan(store: Store, tmp_path: Path) -> None:
    # There, the first that could not be read ended it.
    bare = Store(tmp_path / "store", config=milepost.StoreConfig(backup_enabled=False))
    killed(bare, "a", batch_with(1))
    killed(bare, "b unreadable", batch_with(1))
    killed(bare, "c of another name", batch_with(1))
    killed(bare, "d", batch_with(1))
    for path in snapshots(bare, "b unreadable"):
        spoil(path)
    os.rename(bare.folder_of("c of another name"), bare.folder_of("renamed"))
    report = RecoveryService(bare).detect_and_recover()
    assert [each.session_id for each in report.recovery_details] == ["a", "d"]
    assert report.unrecoverable_sessions == 1
    assert "holds session 'c of another name'" in report.failures["renamed"]
    status = report.statuses["b unreadable"]
    assert isinstance(status, Unrecoverable)
    assert [path for path, _ in status.tried] == ["snapshots/1.1.1.zst"]
    assert status.hint


def test_a_session_without_any_snapshot_says_what_was_tried(tmp_path: Path) -> None:
    bare = Store(tmp_path / "store", config=milepost.StoreConfig(backup_enabled=False))
    killed(bare, "work", batch_with(1))
    for path in snapshots(bare, "work"):
        path.unlink()
    status = RecoveryService(bare).analyze("work")
    assert isinstance(status, Unrecoverable)
    assert status.tried
    with pytest.raises(milepost.UnrecoverableError):
        RecoveryService(bare).recover("work")


def test_what_only_the_backup_still_has_is_recovered(store: Store) -> None:
    with store.session("work") as session:
        batch_with(4)(session)
    killed(store, "work", batch_with(5))
    for path in snapshots(store, "work"):
        spoil(path)
    service = RecoveryService(store)
    status = want(service.analyze("work"))
    assert (status.reason, status.is_held) == (RecoveryReason.DAMAGED, False)
    service.recover("work")
    assert store.load_progress("work").active_batches[0].items_processed == 5
    assert want(service.analyze("work")).reason is not RecoveryReason.DAMAGED


def test_lost_work_is_held_until_somebody_accepts_it(store: Store) -> None:
    from pathlib import Path

    def work(session: milepost.Session) -> None:
        batch_with(4)(session)
        session.flush()

    killed(store, "work", work)
    for path in Path(store.folder_of("work"), "journal").iterdir():
        path.unlink()
    service = RecoveryService(store)
    status = want(service.analyze("work"))
    assert (status.reason, status.is_held) == (RecoveryReason.DAMAGED, True)
    report = service.detect_and_recover()
    assert (report.sessions_requiring_recovery, report.recovery_details) == (1, [])
    for strategy in (None, RecoveryStrategy.FULL_RESTART):
        with pytest.raises(milepost.RecoveryError, match="left alone"):
            service.recover("work", strategy=strategy)
    store.restore("work")
    service.recover("work")


def test_nothing_is_changed_where_only_a_report_is_wanted(store: Store, tmp_path: Path) -> None:
    killed(store, "work", batch_with(3))
    failed(store, "failed")
    before = tree(tmp_path)
    report = RecoveryService(store).detect_and_recover(dry_run=True)
    assert report.recovery_details == []
    assert set(report.proposals) == {"work", "failed"}
    config = RecoveryConfig(auto_recovery_enabled=False)
    again = RecoveryService(store, config).detect_and_recover()
    assert again.proposals == report.proposals
    assert tree(tmp_path).keys() == before.keys()
    assert {path: size for path, (size, _) in tree(tmp_path).items()} == {
        path: size for path, (size, _) in before.items()
    }


# Held back.


def break_sums(session: milepost.Session) -> None:
    session._writer.state.session_statistics.total_items_failed += 5


def test_a_state_that_does_not_add_up_is_left_alone(store: Store) -> None:
    with store.session("work") as session:
        batch_with(3)(session)
        break_sums(session)
        session.end(milepost.Outcome.INTERRUPTED)
    status = want(RecoveryService(store).analyze("work"))
    assert status.is_held
    assert status.reason is RecoveryReason.INTERRUPTED_BATCH
    assert status.hint == f"look at it: milepost show work --store {store.path}"
    with pytest.raises(milepost.RecoveryError, match="does not add up"):
        RecoveryService(store).recover("work")
    # Who forces a strategy has looked.
    RecoveryService(store).recover("work", strategy=RecoveryStrategy.FULL_RESTART)
    assert milepost.check(store.load_progress("work")) == []


def test_the_check_can_be_switched_off(store: Store) -> None:
    with store.session("work") as session:
        batch_with(3)(session)
        break_sums(session)
        session.end(milepost.Outcome.INTERRUPTED)
    config = RecoveryConfig(consistency_check_enabled=False)
    assert not RecoveryService(store, config).recover("work").was_ready


def test_a_snapshot_that_is_not_what_the_journal_says_is_held_back(store: Store) -> None:
    with store.session("work") as session:
        batch_with(3)(session)
        # Whatever made it wrong: in itself it adds up.
        session._writer.state.active_batches[0].retry_count = 7
        session.end(milepost.Outcome.INTERRUPTED)
    status = want(RecoveryService(store).analyze("work"))
    assert status.is_held
    assert "differ in active_batches" in status.detail


# One session.


def test_the_work_goes_on_inside_the_interrupted_batch(store: Store) -> None:
    killed(store, "work", batch_with(3))
    detail = RecoveryService(store).recover("work", cause="killed by SIGKILL")
    assert detail.session_id == "work"
    assert detail.recovery_reason is RecoveryReason.INTERRUPTED_BATCH
    assert detail.recovery_strategy is RecoveryStrategy.RESUME_CURRENT_BATCH
    assert detail.recovery_result == milepost.ResumedBatch(batches={"b": 3})
    state = store.load_progress("work")
    assert state.executions[-1].error_message == "killed by SIGKILL"
    assert state.recovery is not None
    assert state.recovery.recovered_at == detail.recovered_at
    with store.session("work") as session:
        batch = session.start_batch("b")
        assert [batch.is_done(number) for number in range(4)] == [True] * 3 + [False]


def test_a_second_recovery_finds_nothing_left_to_do(store: Store) -> None:
    killed(store, "work", batch_with(3))
    service = RecoveryService(store)
    first = service.recover("work")
    state = store.load_progress("work")
    second = service.recover("work")
    assert (first.was_ready, second.was_ready) == (False, True)
    assert second.recovered_at == first.recovered_at
    assert second.recovery_result == first.recovery_result
    assert store.load_progress("work") == state


@pytest.mark.parametrize(
    ("strategy", "result"),
    [
        (None, milepost.RestartedFailedBatches(batch_numbers=[0])),
        (
            RecoveryStrategy.RESTART_FAILED_BATCHES,
            milepost.RestartedFailedBatches(batch_numbers=[0]),
        ),
        (RecoveryStrategy.FULL_RESTART, milepost.FullRestart(total_batches=1)),
    ],
)
def test_what_was_done_a_moment_ago_is_not_done_again(
    store: Store, strategy: RecoveryStrategy | None, result: milepost.BatchRecoveryResult
) -> None:
    failed(store, "work")
    service = RecoveryService(store)
    first = service.recover("work", strategy=strategy)
    state = store.load_progress("work")
    second = service.recover("work", strategy=strategy)
    assert (second.was_ready, second.recovery_result) == (True, result)
    assert second.recovery_strategy is first.recovery_strategy
    assert second.recovery_reason is first.recovery_reason
    assert store.load_progress("work") == state


def test_a_recovery_changes_no_setting_of_the_session(tmp_path: Path) -> None:
    small = milepost.TrackerConfig(max_detailed_progress_items=2)
    killed(Store(tmp_path / "store", tracker=small), "work", batch_with(3))
    other = Store(tmp_path / "store")
    before = other.load_progress("work")
    RecoveryService(other).recover("work")
    after = other.load_progress("work")
    assert (before.item_cap, after.item_cap) == (2, 2)
    assert len(after.active_batches[0].finished) == len(before.active_batches[0].finished)
    assert len(after.executions) == 1


def test_failed_batches_wait_again_and_the_limit_bites(store: Store) -> None:
    # There, a retry was never counted, and so never came to an end.
    service = RecoveryService(store)
    for run in range(3):
        failed(store, "work")
        if run < 2:
            detail = service.recover("work")
            assert detail.recovery_result == milepost.RestartedFailedBatches(batch_numbers=[0])
            waiting = store.load_progress("work").pending_batches[0]
            assert waiting.retry_count == run + 1
            assert waiting.is_done("done")
    status = service.analyze("work")
    assert isinstance(status, NoRecoveryNeeded)
    assert f"milepost retry work --store {store.path}" in status.detail
    with pytest.raises(milepost.RecoveryError, match="needs no recovery"):
        service.recover("work")


def test_few_counts_begin_anew_and_many_are_kept(store: Store) -> None:
    killed(store, "few", counted_with(1))
    killed(store, "many", counted_with(9))
    service = RecoveryService(store)
    few, many = service.recover("few"), service.recover("many")
    assert few.recovery_result == milepost.PartialRecovery(
        completed_batches=0, restart_from_batch=0, remaining_batches=None
    )
    assert store.load_progress("few").pending_batches[0].items_finished == 0
    assert many.recovery_strategy is RecoveryStrategy.RESUME_CURRENT_BATCH
    assert store.load_progress("many").active_batches[0].items_finished == 9
    assert service.recover("few").was_ready


def test_from_a_batch_on(store: Store) -> None:
    with store.session("work") as session:
        for batch in session.batches(["a", "b", "c"]):
            batch.update_item(1, COMPLETED)
        session.complete()
    detail = RecoveryService(store).recover("work", from_batch=1)
    assert detail.recovery_reason is RecoveryReason.REQUESTED
    state = store.load_progress("work")
    assert (list(state.completed_batches), sorted(state.pending_batches)) == ([0], [1, 2])
    with store.session("work") as session:
        assert [batch.key for batch in session.batches([])] == ["b", "c"]
        session.complete()


def test_a_full_restart_is_a_new_version_and_the_history_stays(store: Store) -> None:
    killed(store, "work", batch_with(3))
    RecoveryService(store).recover("work", strategy=RecoveryStrategy.FULL_RESTART)
    state = store.load_progress("work")
    assert (state.items_finished, state.restarts, len(state.executions)) == (0, 1, 1)
    newest, before, *_ = store.versions("work")
    assert newest.sequence == state.sequence
    old = store.load_progress("work", before.version)
    assert old.active_batches[0].items_processed == 3
    with store.session("work") as session:
        session.ensure_plan(["x", "y"])
        assert list(session.to_do()) == [0, 1]


def test_a_session_that_goes_on_after_a_full_restart_knows_nothing_of_before(store: Store) -> None:
    with store.session("work", execute=False) as session:
        session.ensure_plan(["a", "b"])
        assert list(session.to_do()) == [0, 1]
        session.record_recovery(
            RecoveryReason.REQUESTED,
            LOW,
            RecoveryStrategy.FULL_RESTART,
            batches=[],
            reset=[],
            from_batch=None,
            duration_ms=0,
            result=milepost.FullRestart(total_batches=2),
        )
        assert list(session.to_do()) == []
        session.ensure_plan(["b", "c", "d"])
        assert [session.batch(number).key for number in session.to_do()] == ["b", "c", "d"]


def test_what_died_alone_too_often_is_failed_and_told(store: Store) -> None:
    for _ in range(3):
        killed(
            store,
            "work",
            lambda session: session.start_batch("b").update_item(
                "p-1", milepost.ItemStatus.PROCESSING
            ),
        )
    service = RecoveryService(store)
    assert want(service.analyze("work")).reason is RecoveryReason.POISONED
    detail = service.recover("work", cause="killed by SIGKILL, at most 90 MiB")
    (line,) = detail.poisoned
    assert "item 'p-1' of batch 'b' is failed" in line
    assert "at most 90 MiB" in line
    assert want(service.analyze("work")).reason is RecoveryReason.INTERRUPTED_BATCH


def test_the_limit_is_the_services_own(store: Store) -> None:
    killed(store, "work", lambda session: session.start_batch("b"))
    config = RecoveryConfig(max_recovery_attempts=1)
    (line,) = RecoveryService(store, config).recover("work").poisoned
    assert "batch 'b' is failed" in line


# Who is there.


def test_a_living_session_is_never_touched_whoever_asks(store: Store) -> None:
    service = RecoveryService(store)
    with store.session("work") as session:
        session.start_batch("b")
        for forced in ({}, {"strategy": RecoveryStrategy.FULL_RESTART}, {"from_batch": 0}):
            arguments: dict[str, Any] = dict(forced)
            with pytest.raises(milepost.AlreadyLockedError, match="lives"):
                service.recover("work", **arguments)
        report = service.detect_and_recover()
        assert (report.healthy_sessions, report.recovery_details) == (1, [])
        assert not session.closed
        session.snapshot()


def test_data_alone_is_not_begun_anew_either(store: Store) -> None:
    store.save_state("settings", {"a": 1})
    with pytest.raises(milepost.RecoveryError, match="data alone"):
        RecoveryService(store).recover("settings", strategy=RecoveryStrategy.FULL_RESTART)
    assert store.load_state("settings") == {"a": 1}


class Meanwhile(Store):
    """A store in which somebody else is quicker between the look and the lock."""

    quicker: Callable[[], object] | None = None

    def session(self, name: str, **arguments: Any) -> milepost.Session:
        quicker, self.quicker = self.quicker, None
        if quicker is not None:
            quicker()
        return super().session(name, **arguments)


def test_what_somebody_else_took_up_meanwhile_is_left_to_them(tmp_path: Path) -> None:
    store = Meanwhile(tmp_path / "store")
    other = Store(tmp_path / "store")
    killed(other, "work", batch_with(3))
    sequence = 0

    def carry_on() -> None:
        nonlocal sequence
        with other.session("work") as session:
            session.start_batch("b").complete()
            session.complete()
        sequence = other.load_progress("work").sequence

    store.quicker = carry_on
    report = RecoveryService(store).detect_and_recover()
    assert report.recovery_details == []
    assert (report.healthy_sessions, report.failed_recoveries) == (1, 0)
    assert store.load_progress("work").sequence == sequence


def test_an_unknown_session_is_said_to_be_so(service: RecoveryService, store: Store) -> None:
    store.save_state("settings", 1)
    for call in (service.analyze, service.recover, service.monitor):
        with pytest.raises(milepost.SessionNotFoundError):
            call("nothing")
    assert store.names() == ["settings"]


def test_two_recoveries_of_two_sessions_do_not_mix(store: Store) -> None:
    # There, one tracker was overwritten by each recovery in turn.
    killed(store, "one", batch_with(3))
    killed(store, "two", batch_with(7))
    RecoveryService(store).detect_and_recover()
    assert store.load_progress("one").active_batches[0].items_processed == 3
    assert store.load_progress("two").active_batches[0].items_processed == 7


def test_how_it_goes_is_seen_from_any_process(store: Store) -> None:
    killed(store, "work", batch_with(3))
    RecoveryService(store).recover("work")

    def body(tell: Callable[[bytes], None]) -> None:
        session = store.session("work")
        session.start_batch("b").update_items([(7, COMPLETED), (8, COMPLETED)])
        die()

    assert not RecoveryService(store).monitor("work").recovery_successful
    in_child(body)
    result = RecoveryService(store).monitor("work")
    assert (result.items_since_recovery, result.recovery_successful) == (2, True)
    assert result.current_batch_progress == 0.5


def test_what_was_decided_stands_in_the_history(store: Store) -> None:
    killed(store, "work", batch_with(3))
    RecoveryService(store).recover("work", cause="killed by SIGKILL")
    *_, died, recovered = store.events("work")
    assert isinstance(died, e.ExecutionDied)
    assert isinstance(recovered, e.Recovered)
    assert recovered.result == milepost.ResumedBatch(batches={"b": 3})
    assert recovered.report is None, "it was no part of a scan"


class Failing(Store):
    """A store in which one session cannot be taken up."""

    fails = ""

    def session(self, name: str, **arguments: Any) -> milepost.Session:
        if name == self.fails:
            raise milepost.StorageFullError("no space left", operation="write", path="journal")
        return super().session(name, **arguments)


def test_each_recovery_keeps_how_the_scan_stood(tmp_path: Path) -> None:
    store = Failing(tmp_path / "store", config=milepost.StoreConfig(backup_enabled=False))
    for name, done in (("a", 9), ("b fails", 8), ("c", 3), ("d gone", 3)):
        killed(store, name, batch_with(done))
    for path in snapshots(store, "d gone"):
        spoil(path)
    store.save_state("settings", 1)
    store.fails = "b fails"
    report = RecoveryService(store).detect_and_recover()
    kept = [
        event.report
        for name in ("a", "c")
        for event in store.events(name)
        if isinstance(event, e.Recovered)
    ]
    first = milepost.RecoverySums(
        healthy_sessions=1,
        sessions_requiring_recovery=3,
        successful_recoveries=1,
        failed_recoveries=0,
        unrecoverable_sessions=1,
    )
    last = msgspec.structs.replace(first, successful_recoveries=2, failed_recoveries=1)
    assert kept == [first, last]
    assert last == milepost.RecoverySums(
        **{name: getattr(report, name) for name in last.__struct_fields__}
    ), "the last one kept what the caller was told"


# By progress.


def test_by_progress_the_thresholds_decide_where_somebody_asks_for_it(store: Store) -> None:
    killed(store, "work", batch_with(2))
    service = RecoveryService(store)
    assert service.propose("work")[1] == milepost.ResumedBatch(batches={"b": 2})
    partial = milepost.PartialRecovery(
        completed_batches=0, restart_from_batch=0, remaining_batches=None
    )
    assert service.propose("work", by_progress=True)[1] == partial
    detail = service.recover("work", by_progress=True)
    assert (detail.recovery_result, detail.was_ready) == (partial, False)
    state = store.load_progress("work")
    assert state.pending_batches[0].items_finished == 0
    again = service.recover("work", by_progress=True)
    assert (again.recovery_result, again.was_ready) == (partial, True)
    assert service.propose("work", by_progress=True)[1] == partial, "not everything anew"
    assert store.load_progress("work") == state


def test_by_progress_is_somebodys_decision_as_a_strategy_is(store: Store) -> None:
    with store.session("stopped", total_batches=2) as session:
        session.start_batch("b", items_total=10).update_item(0, COMPLETED)
    service = RecoveryService(store)
    with pytest.raises(milepost.RecoveryError, match="needs no recovery"):
        service.recover("stopped")
    detail = service.recover("stopped", by_progress=True)
    assert detail.recovery_reason is RecoveryReason.REQUESTED
    assert detail.recovery_strategy is RecoveryStrategy.PARTIAL_RECOVERY


@pytest.mark.parametrize(
    "forced", [{"strategy": RecoveryStrategy.RESUME_CURRENT_BATCH}, {"from_batch": 0}]
)
def test_by_progress_with_another_choice_is_refused_before_anything_is_done(
    store: Store, forced: dict[str, Any]
) -> None:
    killed(store, "work", batch_with(2))
    before = store.load_progress("work")
    service = RecoveryService(store)
    for call in (service.recover, service.propose):
        with pytest.raises(milepost.ConfigurationError, match="no strategy and no from_batch"):
            call("work", by_progress=True, **forced)
    assert store.load_progress("work") == before
