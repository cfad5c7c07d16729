"""What cannot be read back is refused before it is written; the session stays usable and opens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost import BatchMetrics, ItemStatus, SessionStatus, Store, StoreConfig
from milepost.model.events import BatchCompleted
from milepost.session.session import Policy, Session
from milepost.session.turn import Site
from milepost.session.writer import Settings, Writer
from milepost.storage.directory import LocalDirectory
from milepost.storage.syscalls import OperatingSystem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "processed": lambda session, batch: batch.update_progress(processed=2.5),
    "items_total": lambda session, batch: batch.update_progress(items_total=2.5),
    "phase": lambda session, batch: batch.update_progress(phase=3.4),
    "phase-number": lambda session, batch: batch.update_progress(phase=77),
    "too-many": lambda session, batch: batch.update_progress(processed=1 << 60),
    "counter": lambda session, batch: batch.count(rows=1 << 63),
    "start-total": lambda session, batch: session.start_batch("x", items_total="x"),
    "start-label": lambda session, batch: session.start_batch("x", label=5),
    "start-number": lambda session, batch: session.start_batch("x", number=1.0),
    "fail-type": lambda session, batch: batch.fail("x", type=99),
    "fail-type-text": lambda session, batch: batch.fail("x", type="network_error"),
    "fail-recoverable": lambda session, batch: batch.fail("x", recoverable="yes"),
    "fail-error": lambda session, batch: batch.fail(5),
    "item-error": lambda session, batch: batch.update_item("p", ItemStatus.FAILED, 5),
    "total": lambda session, batch: session.set_total_batches(2.5),
    "metrics": lambda session, batch: batch.complete(BatchMetrics(items_per_second="fast")),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # on purpose
    "checkpoint-name": lambda session, batch: session.save_checkpoint("batch_start", name="\ud800"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_value_of_the_wrong_kind_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str
) -> None:
    store = Store(tmp_path / "s")
    with store.session("places") as session:
        batch = session.start_batch("a")
        before = session.state.sequence
        with pytest.raises((TypeError, ValueError)):
            CALLS[name](session, batch)
        assert session.state.sequence == before
        batch.update_item("fine", ItemStatus.COMPLETED)
    view = store.view("places")
    assert view.state.total_items_processed == 1
    assert view.findings == []


def test_counters_never_add_up_to_more_than_a_reader_holds(tmp_path: Path) -> None:
    with Store(tmp_path / "s").session("places") as session:
        batch = session.start_batch("a")
        batch.count(rows=1 << 52)
        batch.count(rows=1 << 52)
        with pytest.raises(milepost.EncodingError, match="rows"):
            batch.count(rows=1)


@pytest.mark.parametrize("verdict", [None, ("network", True), 5, ()])
def test_a_classifier_that_answers_nonsense_costs_no_record(tmp_path: Path, verdict: Any) -> None:
    store = Store(tmp_path / "s", classifier=lambda _: verdict)
    with store.session("places") as session:
        session.start_batch("a").fail(TimeoutError())
    failed = store.load_progress("places").failed_batches[0]
    assert failed.error_type is milepost.BatchErrorType.TIMEOUT_ERROR


def test_a_session_with_batches_never_begun_is_not_completed(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    with store.session("places") as session:
        for batch in session.batches(["a", "b", "c"]):
            if batch.key == "a":
                continue
            break
        session.batch(1).complete()
        with pytest.raises(milepost.ConfigurationError, match="never begun"):
            session.complete()


def test_a_session_with_a_batch_put_back_is_not_completed(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    with store.session("places") as session:
        session.start_batch("by hand").fail("no")
        session.complete()
        store.retry("places")
        with pytest.raises(milepost.ConfigurationError, match=r"put back .*'by hand'"):
            session.complete()
    assert store.view("places").judgement.status is not SessionStatus.COMPLETED
    with store.session("places") as session:
        session.start_batch("by hand").complete()
        assert session.complete() is milepost.Outcome.COMPLETED


def nothing(batch: milepost.Batch) -> None:
    """A body without work."""


def test_loops_jobs_and_hands_do_not_take_each_others_sessions(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    with store.session("by hand", total_batches=5) as session:
        session.start_batch("r0").complete()
    with pytest.raises(milepost.ConfigurationError, match="not by a loop"):
        next(milepost.resume("ab", "by hand", store=store, progress=False))
    assert store.load_progress("by hand").total_batches == 5
    for _ in milepost.resume("ab", "loop", store=store, progress=False):
        pass
    with pytest.raises(milepost.ConfigurationError, match="not by a job"):
        milepost.job("loop", batches=["a"], store=store)(nothing).run(progress=False)


def test_one_foreign_lease_makes_no_session_unreadable(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    for name in ("a", "b"):
        with store.session(name) as session:
            session.start_batch(name).complete()
    sessions = tmp_path / "s" / "sessions"
    (sessions / "b/leases/2.json").write_bytes((sessions / "a/leases/2.json").read_bytes())
    assert store.load_progress("b").completed_batches[0].batch_id == "b"


def test_a_version_made_by_hand_is_kept_as_one_where_one_was_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", config=StoreConfig(max_state_history=2))
    with store.session("places") as session:
        session.start_batch("a")
    with store.session("places", execute=False) as session:
        version = session.snapshot()
    for n in range(6):
        with store.session("places") as session:
            session.start_batch(f"b{n}")
    assert store.load_progress("places", version).active_batches[0].batch_id == "a"


class Sync(OperatingSystem):
    """Syncs that something else happens during."""

    def __init__(self) -> None:
        self.meanwhile: Any = None

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()


def test_a_writer_superseded_during_a_sync_acknowledges_nothing(tmp_path: Path) -> None:
    system = Sync()
    store = Store(directory=LocalDirectory(str(tmp_path / "s"), system=system))
    session = store.session("places")
    batch = session.start_batch("a")
    session.flush()
    folder = tmp_path / "s" / "sessions" / "places" / "leases"
    mine = max(int(path.stem) for path in folder.glob("*.json"))
    system.meanwhile = (folder / f"{mine + 1}.json").touch
    with pytest.raises(milepost.SupersededError):
        batch.complete()
    session.close()


def test_a_failed_backup_is_no_second_copy_and_is_tried_again(tmp_path: Path) -> None:
    blocked = tmp_path / "other disk"
    blocked.write_text("in the way")
    clock = milepost.ManualClock()
    config = StoreConfig(max_state_history=1, backup_path=str(blocked))
    store = Store(tmp_path / "s", config=config, clock=clock)
    for n in range(4):
        store.save_state("settings", n)
        clock.advance(4_000)
    assert len(store.versions("settings")) == 2
    blocked.unlink()
    store.save_state("settings", 4)
    assert len(store.versions("settings")) == 1
    assert list(blocked.rglob("*.zst"))


def test_a_backup_is_of_what_its_snapshot_needs_whatever_came_after_it(tmp_path: Path) -> None:
    site = Site(LocalDirectory(str(tmp_path / "s/sessions/places")), "places", "places")
    store = Store(tmp_path / "s")
    store.session("places", execute=False).close()
    backup_root = LocalDirectory(str(tmp_path / "other disk"))
    writer = Writer(site, Settings(backup_root=backup_root))
    writer.open()
    with Session(writer, Policy(), execute=False) as session:
        with writer.lock:  # the keeper copies later
            session.ensure_plan(["a", "b"])
            session.save_checkpoint(milepost.CheckpointType.BATCH_START, {"page": 7})
            version = session.snapshot()
            needs = [part.path for part in session.state.plan]
            session.restart()
            writer.back_up()
        (copy,) = (tmp_path / "other disk").glob("*/places")
        assert needs
        for path in needs:
            assert (copy / path).exists()
        assert list((copy / "snapshots").glob(f"{version}.*"))
    for path in needs:
        (tmp_path / "s/sessions/places" / path).unlink()
    again = Store(tmp_path / "s", config=StoreConfig(backup_path=str(tmp_path / "other disk")))
    again.restore("places", version)
    assert [each.key for each in again.plan("places")] == ["a", "b"]


def test_an_event_that_cannot_have_happened_is_left_behind(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    with store.session("places") as session:
        batch = session.start_batch("a")
        batch.update_item("before", ItemStatus.COMPLETED)
        writer = session._writer
        with writer.lock, pytest.raises(ValueError, match="batch 99 is not active"):
            writer.ready()
            writer.commit(BatchCompleted(writer.next_sequence, writer.now_ns(), 99))
        batch.update_item("after", ItemStatus.COMPLETED)
    view = store.view("places")
    assert not view.is_lossy
    assert view.state.total_items_processed == 2
    with store.session("places") as session:
        assert session.start_batch("a").is_done("after")
