"""Turns follow one another: a number is taken by one writer, and who lost it finds out."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

import milepost
from milepost.session.turn import Site, Turn
from milepost.storage import lease as leases
from milepost.storage.directory import LocalDirectory
from support.faults import Call, Faults
from support.hosts import Awakening, beat, host, out_of_reach, store_on
from support.workload import store_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from milepost.storage.host import HostIdentity

DONE = milepost.ItemStatus.COMPLETED
DESK, LAPTOP = host("desk"), host("laptop")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def work(path: Path) -> LocalDirectory:
    return LocalDirectory(str(path / "sessions" / "work"))


def turn_of(path: Path, who: HostIdentity) -> Turn:
    folder = work(path)
    site = Site(folder, "work", "work")
    turn = Turn(site, milepost.ManualClock(), lambda: who, stale_after_seconds=60.0)
    turn.follow(leases.newest_lease(folder))
    return turn


# Taking a turn.


def test_of_two_that_judged_the_same_writer_one_is_refused(path: Path) -> None:
    store_on(DESK, path).session("work").close()
    first, second = turn_of(path, DESK), turn_of(path, LAPTOP)
    first.take(2, "uid")
    with pytest.raises(milepost.AlreadyLockedError, match="process 4711 on desk"):
        second.take(2, "uid")
    assert second.epoch == 0
    assert leases.epochs(work(path)) == [1, 2, 3]
    first.check()
    first.release()


def test_a_writer_that_comes_while_the_one_before_is_watched_is_not_robbed(path: Path) -> None:
    """Both watched the same dead writer, over a share on which no lock is seen."""
    store_on(host("old"), path).session("work").supersede()
    quicker: list[milepost.Session] = []

    def take_it() -> None:
        if not quicker:
            quicker.append(out_of_reach(open_at_once()))

    def open_at_once() -> milepost.Session:
        os.unlink(path / "sessions" / "work" / "writer.lock")
        store_on(DESK, path).unlock("work")
        return store_on(DESK, path).session("work")

    clock = Awakening()
    store = store_on(LAPTOP, path, clock=clock)
    store.presence("work", note=True)
    clock.advance(60)
    clock.meanwhile = take_it
    with pytest.raises(milepost.AlreadyLockedError, match="process 4711 on desk"):
        store.session("work")
    quicker[0].flush()
    quicker[0].close()


def test_a_line_goes_on_in_its_folder(path: Path) -> None:
    found: list[str] = []
    for _ in range(3):
        with store_on(DESK, path).session("work") as session:
            found.append(session._writer.turn.lineage)
            assert session.notice == ""
    assert len(set(found)) == 1
    assert leases.epochs(work(path)) == [1, 2, 3, 4]


def test_making_a_session_is_a_turn_that_ended(path: Path) -> None:
    store_on(DESK, path).save_state("work", {"cursor": 1})
    assert leases.epochs(work(path)) == [1]
    assert work(path).read("leases/1.beat", size_bytes_max=20).split() == [b"ended"]
    clock = Awakening()
    store_on(LAPTOP, path, clock=clock).save_state("work", {"cursor": 2})
    assert clock.waited_seconds == 0


# Losing it.


def test_who_slept_until_the_successors_lease_was_let_go_of_finds_out(path: Path) -> None:
    sleeper = out_of_reach(store_on(DESK, path).session("work"))
    sleeper.start_batch("a").update_item("one", DONE)
    clock = Awakening()
    store = store_on(LAPTOP, path, clock=clock)
    store.unlock("work")
    for _ in range(4):
        with store.session("work") as session:
            session.set_data(clock.now_ns())
            session.snapshot()
        clock.advance(48 * 3600)
        store.cleanup()
    with milepost.Store(
        path,
        clock=clock,
        config=milepost.StoreConfig(max_state_history=1),
        identify=lambda: LAPTOP,
    ).session("work") as session:
        session.set_data("last")
        session.snapshot()
    left = leases.epochs(work(path))
    assert min(left) > sleeper.epoch + 1, "neither its own lease nor the next one is left"
    with pytest.raises(milepost.SupersededError, match=rf"laptop.*epoch {max(left)}"):
        sleeper.flush()
    sleeper.close()
    assert store.load_state("work") == "last"


LOOKS_BEFORE_IT_ACKNOWLEDGES: dict[str, Callable[[milepost.Session], object]] = {
    "flush": lambda session: session.flush(),
    "snapshot": lambda session: session.snapshot(),
    "data": lambda session: session.set_data("late"),
    "checkpoint": lambda session: session.save_checkpoint(milepost.CheckpointType.BATCH_START),
    "batch end": lambda session: session.batch(0).complete(),
    "pulse": beat,
}


@pytest.mark.parametrize("call", LOOKS_BEFORE_IT_ACKNOWLEDGES)
def test_a_superseded_writer_is_told_and_leaves_no_trace_in_its_successors_work(
    path: Path, call: str
) -> None:
    first = out_of_reach(store_on(DESK, path).session("work"))
    batch = first.start_batch("a")
    batch.update_item("one", DONE)
    store = store_on(LAPTOP, path)
    store.unlock("work")
    with store.session("work") as second:
        second.start_batch("a").update_item("two", DONE)
        batch.update_item("late", DONE)  # not durable, so it does not look
        with pytest.raises(milepost.SupersededError, match="process 4711 on laptop"):
            LOOKS_BEFORE_IT_ACKNOWLEDGES[call](first)
        first.close()
        second.batch(0).update_item("three", DONE)
    for _ in range(2):
        view = store.view("work")
        done = {key for key in ("one", "two", "three", "late") if _is_done(view.state, key)}
        assert done == {"one", "two", "three"}
        assert not view.is_lossy
        (tail,) = [each for each in view.findings if each.rule == "superseded-tail"]
        assert tail.path == "journal/2.2.journal"
        assert "a writer was superseded, or they had been dropped" in tail.message
        store.session("work").close()


def _is_done(state: milepost.SessionState, key: str) -> bool:
    return state.active_batches[0].is_done(key)


def test_a_superseded_writer_removes_nothing(path: Path) -> None:
    first = out_of_reach(store_on(DESK, path).session("work"))
    first.set_data(1)
    first.snapshot()
    first.set_data(2)
    store = store_on(LAPTOP, path)
    store.unlock("work")
    with store.session("work") as second:
        second.set_data(3)
    before = {each for each in path.rglob("*") if each.is_file()}
    archive = first._writer.archive
    with pytest.raises(milepost.SupersededError):
        archive.keep_house(first.live)
    first.close()
    assert {each for each in path.rglob("*") if each.is_file()} >= before


def test_what_is_written_after_an_unlock_is_left_out_before_anybody_goes_on(path: Path) -> None:
    first = out_of_reach(store_on(DESK, path).session("work"))
    batch = first.start_batch("a")
    batch.update_item("one", DONE)
    store = store_on(LAPTOP, path)
    store.unlock("work")
    batch.update_item("late", DONE)
    view = store.view("work")
    assert _is_done(view.state, "one")
    assert not _is_done(view.state, "late")
    assert [each.rule for each in view.findings] == ["superseded-tail"]
    first.close()


def test_whoever_comes_while_a_writer_mends_itself_keeps_the_turn(path: Path) -> None:
    system = Faults()
    first = out_of_reach(
        milepost.Store(
            directory=LocalDirectory(str(path), system=system),
            clock=milepost.ManualClock(),
            tracker=milepost.TrackerConfig(sync_interval_seconds=30.0),
            identify=lambda: DESK,
        ).session("work", durability="disk")
    )
    batch = first.start_batch("a")
    batch.update_item("one", DONE)
    first._writer._attention = True  # as an interruption leaves it
    store = store_on(LAPTOP, path)
    seconds: list[milepost.Session] = []

    def come(call: Call) -> int | None:
        if call.name == "truncate" and not seconds:  # it closes its journal to read it back
            store.unlock("work")
            seconds.append(store.session("work"))
        return None

    system.failing = come
    with pytest.raises(milepost.SupersededError):
        batch.update_item("late", DONE)
    (second,) = seconds
    second.flush()
    second.close()
    first.close()


def test_a_lease_that_somebody_removed_is_told(path: Path) -> None:
    session = store_on(DESK, path).session("work")
    (path / "sessions" / "work" / "leases" / "2.json").unlink()
    with pytest.raises(milepost.StorageError, match=r"lease of epoch 2.*removed"):
        session.flush()
    with pytest.raises(milepost.StorageError):
        session.close()


def test_a_further_lease_half_made_is_no_successors(path: Path) -> None:
    """A disk that fails while a writer heals itself: the pulse must not take that for an end."""
    system = Faults()
    store = store_at(str(path), system)
    session = store.session("work")
    batch = session.start_batch("a")
    batch.update_item("one", DONE)

    def no_sync(call: Call) -> int | None:
        return errno.EIO if call.name == "sync" else None

    system.failing = no_sync
    for _ in range(2):
        with pytest.raises(milepost.StorageError):
            session.flush()
    assert leases.epochs(work(path)) == [1, 2, 3], "the third is half made"
    beat(session)
    system.failing = None
    batch.update_item("two", DONE)
    assert session._writer.turn.epoch == 4
    session.close()
    assert store.load_progress("work").active_batches[0].is_done("two")


def test_a_folder_that_is_gone_cannot_be_followed(path: Path) -> None:
    store_on(DESK, path).session("work").close()
    folder = work(path)
    site = Site(folder, "work", "work")
    turn = Turn(site, milepost.ManualClock(), lambda: DESK, stale_after_seconds=60.0)
    os.rename(folder.root, f"{folder.root}-moved")
    with pytest.raises(milepost.StorageError, match="no longer at"):
        turn.follow(None)
