"""One judge of life: on one boot the lock, elsewhere silence, and nothing else."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest

import milepost
from milepost.model.status import Presence
from milepost.session.presence import TWO_BEATS_SECONDS
from milepost.storage.directory import LocalDirectory
from milepost.storage.lease import newest_lease
from support.commands import tree
from support.faults import Faults
from support.hosts import Awakening, beat, host, out_of_reach, store_on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from milepost.storage.host import HostIdentity

DONE = milepost.ItemStatus.COMPLETED
DESK = host("desk", pid=17)
LAPTOP = host("laptop")
STALE = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def writer(path: Path) -> Iterator[milepost.Session]:
    """A session that the desk writes, over a share on which its lock is not seen."""
    session = out_of_reach(store_on(DESK, path).session("work"))
    batch = session.start_batch("a")
    batch.update_item("one", DONE)
    beat(session)
    yield session
    session.close()


def killed(path: Path, who: HostIdentity = DESK) -> None:
    """A session as kill -9 leaves it: its counter stands still and nobody says that it ended."""
    session = store_on(who, path).session("work")
    session.start_batch("a").update_item("one", DONE)
    beat(session)
    session.supersede()


def copied(path: Path, who: HostIdentity = DESK) -> Path:
    """The same in a copy of the folder."""
    killed(path, who)
    return shutil.copytree(path, path.parent / "copy")


def lineage(path: Path) -> str:
    lease = newest_lease(LocalDirectory(str(path / "sessions" / "work")))
    assert lease is not None
    return lease.lineage


# A copy.


def test_a_copy_opens_after_two_beats_as_a_line_of_its_own(path: Path) -> None:
    copy = copied(path)
    (journal,) = (copy / "sessions" / "work" / "journal").iterdir()
    os.truncate(journal, journal.stat().st_size - 3)
    clock = Awakening()
    with store_on(LAPTOP, copy, clock=clock).session("work") as session:
        assert clock.waited_seconds == pytest.approx(TWO_BEATS_SECONDS)
        assert "copy of the session that process 17 wrote on desk" in session.notice
        assert [each.rule for each in session.findings] == ["torn-tail"]
        assert not session.live.active_batches[0].is_done("one")
        assert session.live.suspects == []  # nothing is known of how the other one ended
    assert lineage(copy) != lineage(path)
    # It is the copy's own now: nobody waits for the desk again.
    clock = Awakening()
    with store_on(host("third"), copy, clock=clock).session("work") as session:
        assert clock.waited_seconds == 0
        assert session.notice == ""


def test_a_snapshot_that_a_copy_missed_is_told_and_no_damage(path: Path) -> None:
    session = store_on(DESK, path).session("work")
    session.set_data(1)
    version = session.snapshot()
    session.set_data(2)
    session.snapshot()
    session.supersede()
    copy = shutil.copytree(path, path.parent / "copy")
    for place, is_error in ((copy, False), (path, True)):
        (missed,) = (place / "sessions" / "work" / "snapshots").glob(f"{version}.*")
        missed.unlink()
        store = milepost.Store(place, config=milepost.StoreConfig(backup_enabled=False))
        found = store.view("work").findings
        assert [(each.rule, each.is_error) for each in found] == [("missing-snapshot", is_error)]
        assert store.load_state("work") == 2


def test_a_copy_whose_counter_moves_is_no_copy(path: Path) -> None:
    copy = copied(path)
    clock = Awakening()
    counter = copy / "sessions" / "work" / "leases" / "2.beat"
    counts = iter(range(7, 99))
    clock.meanwhile = lambda: counter.write_text(f"{next(counts):>19}\n")
    store = store_on(LAPTOP, copy, clock=clock)
    with pytest.raises(milepost.AlreadyLockedError, match=r"process 17 on desk.*moves") as caught:
        store.session("work")
    assert caught.value.holder is not None
    assert caught.value.holder["host"] == "desk"
    assert caught.value.holder["epoch"] == 2
    assert clock.waited_seconds <= 1


def test_a_writer_that_ends_while_it_is_watched_is_waited_for_no_longer(path: Path) -> None:
    copy = copied(path)
    clock = Awakening()
    counter = copy / "sessions" / "work" / "leases" / "2.beat"
    clock.meanwhile = lambda: counter.write_text(f"{'ended':>19}\n")
    store_on(LAPTOP, copy, clock=clock).session("work").close()
    assert clock.waited_seconds <= 1


@pytest.mark.parametrize("reader", [DESK, host("desk", boot="later"), LAPTOP])
def test_a_writer_that_ended_costs_no_wait(path: Path, reader: HostIdentity) -> None:
    store_on(DESK, path).session("work").close()
    copy = shutil.copytree(path, path.parent / "copy")
    for place in (path, copy):
        clock = Awakening()
        store = store_on(reader, place, clock=clock)
        assert store.presence("work") is Presence.GONE
        store.session("work").close()
        assert clock.waited_seconds == 0


def test_an_opening_that_failed_ended_too(path: Path) -> None:
    killed(path)
    (journal,) = (path / "sessions" / "work" / "journal").iterdir()
    journal.unlink()
    here = store_on(DESK, path)
    with pytest.raises(milepost.DamagedError):
        here.session("work")
    there = store_on(LAPTOP, path)
    assert there.presence("work") is Presence.GONE
    with pytest.raises(milepost.DamagedError):
        there.session("work")


def test_on_one_boot_the_lock_alone_decides(path: Path) -> None:
    copy = copied(path)
    for place in (path, copy):
        clock = Awakening()
        store = store_on(host("desk", pid=18, started="2"), place, clock=clock)
        assert store.presence("work") is Presence.GONE
        with store.session("work") as session:
            assert clock.waited_seconds == 0
            assert session.live.active_batches[0].is_done("one")
            assert store.presence("work") is Presence.ALIVE
            assert ("copy" in session.notice) == (place == copy)


def test_a_container_with_another_name_is_on_the_same_boot(path: Path) -> None:
    killed(path, host("desk", boot="kernel"))
    clock = Awakening()
    store_on(host("pod-7", boot="kernel"), path, clock=clock).session("work").close()
    assert clock.waited_seconds == 0


def test_where_boots_have_no_number_the_name_decides(path: Path) -> None:
    killed(path, host("desk", boot=""))
    with pytest.raises(milepost.AlreadyLockedError, match="process 4711 on desk"):
        store_on(host("laptop", boot=""), path).session("work")
    clock = Awakening()
    store_on(host("desk", boot=""), path, clock=clock).session("work").close()
    assert clock.waited_seconds == 0


def test_a_pid_that_is_used_again_decides_nothing(path: Path) -> None:
    # The number of the dead writer belongs to a living process: this one.
    killed(path, host("desk", pid=os.getpid()))
    store = store_on(host("desk", pid=os.getpid(), started="later"), path)
    assert store.presence("work") is Presence.GONE
    store.session("work").close()


# The same host, started anew.


def test_after_a_reboot_two_beats_are_waited_for_and_nothing_is_blamed(path: Path) -> None:
    killed(path)
    clock = Awakening()
    store = store_on(host("desk", boot="later", pid=17), path, clock=clock)
    assert store.presence("work") is Presence.GONE
    assert store.view("work").judgement.status is milepost.SessionStatus.INTERRUPTED
    with store.session("work") as session:
        assert clock.waited_seconds == pytest.approx(TWO_BEATS_SECONDS)
        assert session.live.suspects == []
        assert session.notice == ""
        assert session.was_dead


def test_a_look_that_remembers_saves_the_wait(path: Path) -> None:
    """After a reboot a thousand sessions are carried on, and not one after another's two beats."""
    killed(path)
    clock = Awakening()
    store = store_on(host("desk", boot="later"), path, clock=clock)
    assert store.presence("work", note=True) is Presence.GONE
    clock.advance(TWO_BEATS_SECONDS - 1)
    store.session("work").close()
    assert clock.waited_seconds == pytest.approx(1)


# A folder that is shared.


def test_a_writer_elsewhere_is_left_alone_until_it_was_silent_long_enough(
    path: Path, writer: milepost.Session
) -> None:
    clock = Awakening()
    for waited, left in ((0, STALE), (20, STALE - 20), (39, STALE - 59)):
        clock.advance(waited)
        # A process of its own each time: what was seen is remembered in the folder.
        store = store_on(host("laptop", pid=waited), path, clock=clock)
        with pytest.raises(milepost.AlreadyLockedError) as caught:
            store.session("work")
        assert clock.waited_seconds == 0
        holder = caught.value.holder
        assert holder is not None
        assert (holder["host"], holder["pid"], holder["epoch"]) == ("desk", 17, 2)
        assert holder["since"].isoformat() == "2023-11-14T22:13:20+00:00"
        assert (holder["until"].timestamp() - clock.now_ns() / 1e9) == pytest.approx(left)
        message = str(caught.value)
        assert "process 17 on desk since 2023-11-14 22:13:20 UTC" in message
        assert f"until {holder['until']:%H:%M:%S} UTC ({left:.0f} s from now)" in message
        assert f"milepost unlock work --store {path}" in caught.value.hint
    clock.advance(1)
    with store_on(LAPTOP, path, clock=clock).session("work") as session:
        assert clock.waited_seconds == pytest.approx(TWO_BEATS_SECONDS)
        assert "process 17 on desk" in session.notice
        assert "silent for 60 s" in session.notice
        assert session.live.active_batches[0].is_done("one")
        assert lineage(path) == newest_lineage_of(writer)
        with pytest.raises(milepost.SupersededError, match="process 4711 on laptop"):
            writer.flush()


def newest_lineage_of(session: milepost.Session) -> str:
    return session._writer.turn.lineage


def test_a_living_one_is_never_taken(path: Path, writer: milepost.Session) -> None:
    clock = Awakening()
    store = store_on(LAPTOP, path, clock=clock)
    for _ in range(10):
        beat(writer)
        with pytest.raises(milepost.AlreadyLockedError, match=r"60 s from now"):
            store.session("work")
        clock.advance(STALE - 1)
    writer.flush()


def test_two_machines_that_slept_together_do_not_rob_each_other(
    path: Path, writer: milepost.Session
) -> None:
    """The observer's clock ran while both were asleep, so the silence looks long enough."""
    clock = Awakening()
    store = store_on(LAPTOP, path, clock=clock)
    with pytest.raises(milepost.AlreadyLockedError):
        store.session("work")
    clock.advance(8 * 3600)
    clock.meanwhile = lambda: beat(writer)  # it wakes up as well
    with pytest.raises(milepost.AlreadyLockedError, match="heartbeat moves"):
        store.session("work")
    writer.flush()


def test_a_wall_clock_that_jumps_changes_nothing(path: Path, writer: milepost.Session) -> None:
    clock = Awakening()
    store = store_on(LAPTOP, path, clock=clock)
    start = clock.now_ns()
    for jump_ns in (0, 10**18, -(10**18), 3600 * 10**9):
        clock.set_wall(start + jump_ns)
        with pytest.raises(milepost.AlreadyLockedError):
            store.session("work")
        assert store.presence("work", note=True) is Presence.UNKNOWN
    clock.advance(STALE)
    clock.set_wall(1)
    assert store.presence("work") is Presence.SILENT
    store.session("work").close()


def test_an_observer_that_was_started_anew_begins_to_watch_anew(
    path: Path, writer: milepost.Session
) -> None:
    clock = Awakening()
    clock.advance(1000)
    with pytest.raises(milepost.AlreadyLockedError):
        store_on(LAPTOP, path, clock=clock).session("work")
    for boot, seconds in (("later", 9000.0), ("boot of laptop", 5.0)):
        # Its monotonic clock says something else now, or is behind what was noted.
        clock = Awakening()
        clock.advance(seconds)
        store = store_on(host("laptop", boot=boot), path, clock=clock)
        with pytest.raises(milepost.AlreadyLockedError, match="60 s from now"):
            store.session("work")
    assert not writer.closed


def test_what_is_seen_from_outside(path: Path, writer: milepost.Session) -> None:
    clock = Awakening()
    store = store_on(LAPTOP, path, clock=clock)

    def seen() -> tuple[Presence, milepost.SessionStatus, milepost.SessionStatus | None, bool]:
        before = tree(path)
        view = store.view("work")
        (info,) = store.sessions()
        found = store.presence("work"), view.judgement.status, info.status
        assert tree(path) == before, "looking writes nothing"
        assert clock.waited_seconds == 0
        assert view.writer is not None
        return *found, view.writer["alive"]

    running = milepost.SessionStatus.RUNNING
    stale = milepost.SessionStatus.STALE
    interrupted = milepost.SessionStatus.INTERRUPTED
    assert seen() == (Presence.UNKNOWN, running, running, True)
    clock.advance(1000)
    assert seen() == (Presence.UNKNOWN, running, running, True)  # nobody had watched
    store.presence("work", note=True)
    clock.advance(STALE)
    assert seen() == (Presence.SILENT, stale, stale, False)
    beat(writer)
    assert seen() == (Presence.UNKNOWN, running, running, True)
    writer.supersede()
    store.unlock("work")
    assert seen() == (Presence.GONE, interrupted, interrupted, False)


def test_an_old_writer_without_any_beat_counts_as_one_that_is_silent(path: Path) -> None:
    killed(path)
    (path / "sessions" / "work" / "leases" / "2.beat").unlink()
    clock = Awakening()
    store = store_on(LAPTOP, path, clock=clock)
    with pytest.raises(milepost.AlreadyLockedError):
        store.session("work")
    clock.advance(STALE)
    store.session("work").close()
    assert clock.waited_seconds == pytest.approx(TWO_BEATS_SECONDS)


GARBAGE = [
    b"",
    b"\xff" * 20,
    b"ended" * 900,
    b"[]",
    b"{",
    b'{"boot of laptop":["1",-1e300]}',
    b'{"boot of laptop":["1",1e308]}',
    b'{"boot of laptop":[1,"1"]}',
    b'{"boot of laptop":["1"]}',
    b"[" * 60_000,
]


@pytest.mark.parametrize("data", GARBAGE)
@pytest.mark.parametrize("kind", ["beat", "seen"])
def test_garbage_beside_a_lease_is_never_believed_beyond_a_wait(
    path: Path, writer: milepost.Session, kind: str, data: bytes
) -> None:
    (path / "sessions" / "work" / "leases" / f"2.{kind}").write_bytes(data)
    clock = Awakening()
    clock.advance(5)
    clock.meanwhile = lambda: beat(writer)
    store = store_on(LAPTOP, path, clock=clock)
    assert store.presence("work") in {Presence.UNKNOWN, Presence.SILENT}
    with pytest.raises(milepost.AlreadyLockedError):
        store.session("work")
    clock.advance(STALE)
    with pytest.raises(milepost.AlreadyLockedError):
        store.session("work")
    writer.flush()
    clock.meanwhile = lambda: None
    store.presence("work", note=True)
    clock.advance(STALE)
    store.session("work").close()


def test_what_observers_remember_is_kept_apart(path: Path, writer: milepost.Session) -> None:
    clock = Awakening()
    for name in ("laptop", "tower"):
        clock.advance(10)
        store_on(host(name), path, clock=clock).presence("work", note=True)
    seen = (path / "sessions" / "work" / "leases" / "2.seen").read_bytes()
    assert msgspec.json.decode(seen) == {
        "boot of laptop": ["1", 10.0],
        "boot of tower": ["1", 20.0],
    }
    assert not writer.closed


def test_a_share_that_cannot_be_written_can_be_looked_at(
    path: Path, writer: milepost.Session
) -> None:
    system = Faults()
    system.failing = lambda _: errno.EROFS
    before = tree(path)
    store = milepost.Store(
        clock=milepost.ManualClock(),
        directory=LocalDirectory(str(path), system=system),
        identify=lambda: LAPTOP,
    )
    assert store.presence("work", note=True) is Presence.UNKNOWN
    assert system.calls, "it tried to remember"
    assert tree(path) == before
    assert not writer.closed
