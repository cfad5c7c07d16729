"""`unlock` takes what nobody here can say the life of, and nothing else."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

import milepost
from milepost.model.status import Presence
from support.commands import tree
from support.hosts import Awakening, beat, host, out_of_reach, store_on

if TYPE_CHECKING:
    from pathlib import Path

    from milepost.storage.host import HostIdentity

DONE = milepost.ItemStatus.COMPLETED
DESK, LAPTOP = host("desk", pid=17), host("laptop")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def killed(path: Path) -> None:
    session = store_on(DESK, path).session("work")
    session.start_batch("a").update_item("one", DONE)
    beat(session)
    session.supersede()


def test_a_silent_writer_elsewhere_is_taken_at_once(path: Path) -> None:
    killed(path)
    clock = Awakening()
    store = store_on(LAPTOP, path, clock=clock)
    with pytest.raises(milepost.AlreadyLockedError, match="milepost unlock work") as caught:
        store.session("work")
    assert "if it is surely gone" in caught.value.hint
    assert store.unlock("work")
    assert store.presence("work") is Presence.GONE
    assert not store.unlock("work")
    with store.session("work") as session:
        assert session.live.active_batches[0].is_done("one")
        assert session.was_dead
    assert clock.waited_seconds == 0


def test_a_living_one_elsewhere_is_told_if_its_user_was_wrong(path: Path) -> None:
    writer = out_of_reach(store_on(DESK, path).session("work"))
    store_on(LAPTOP, path).unlock("work")
    with pytest.raises(milepost.SupersededError, match="laptop"):
        writer.flush()
    writer.close()


@pytest.mark.parametrize("who", [DESK, host("desk", pid=18)])
def test_a_living_one_here_is_named_and_kept(path: Path, who: HostIdentity) -> None:
    with store_on(DESK, path).session("work") as session:
        with pytest.raises(milepost.AlreadyLockedError, match="process 17 on desk"):
            store_on(who, path).unlock("work")
        session.flush()


@pytest.mark.parametrize("who", [DESK, host("desk", pid=18)])
def test_what_is_surely_dead_needs_no_unlocking(path: Path, who: HostIdentity) -> None:
    killed(path)
    before = tree(path)
    assert not store_on(who, path).unlock("work")
    assert tree(path) == before


def test_a_copy_and_a_reboot_are_unlocked_without_the_wait(path: Path) -> None:
    killed(path)
    copy = shutil.copytree(path, path.parent / "copy")
    for who, place in ((LAPTOP, copy), (host("desk", boot="later"), path)):
        clock = Awakening()
        store = store_on(who, place, clock=clock)
        assert store.unlock("work")
        store.session("work").close()
        assert clock.waited_seconds == 0


def test_a_damaged_session_is_unlocked_for_its_repair(path: Path) -> None:
    killed(path)
    (journal,) = (path / "sessions" / "work" / "journal").iterdir()
    journal.unlink()
    store = store_on(LAPTOP, path)
    with pytest.raises(milepost.AlreadyLockedError):
        store.restore("work")
    with pytest.raises(milepost.DamagedError):
        store.unlock("work")
    store.restore("work")  # not refused any more


def test_nothing_can_be_unlocked_that_is_not_there(path: Path) -> None:
    with pytest.raises(milepost.StoreNotFoundError):
        store_on(LAPTOP, path).unlock("work")
    killed(path)
    with pytest.raises(milepost.SessionNotFoundError):
        store_on(LAPTOP, path).unlock("other")
