"""Which sessions want a look: few files are touched, and nothing that matters is missed."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

import milepost
from milepost.recovery.scanner import Scanner

if TYPE_CHECKING:
    from pathlib import Path


class Counting(milepost.Store):
    """A store that counts the looks into its sessions."""

    looks = 0

    def names(self) -> list[str]:
        self.looks += 1
        return super().names()

    def presence(self, name: str, *, note: bool = False) -> milepost.Presence:
        self.looks += 1
        return super().presence(name, note=note)


@pytest.fixture
def clock() -> milepost.ManualClock:
    return milepost.ManualClock(time.time_ns() + 60_000_000_000)


@pytest.fixture
def store(tmp_path: Path, clock: milepost.ManualClock) -> Counting:
    """A store whose clock is a minute ahead, so that all that happened is long ago."""
    store = Counting(tmp_path / "store", clock=clock)
    for name in ("a", "b"):
        store.session(name).close()
    return store


def test_all_sessions_are_new_at_first_and_none_is_later(store: Counting) -> None:
    scanner = Scanner(store)
    assert scanner.changed() == {"a", "b"} == scanner.names
    assert scanner.changed() == set()
    assert len(scanner.folders) == 2


def test_idle_sessions_are_not_looked_into(store: Counting) -> None:
    scanner = Scanner(store)
    scanner.changed()
    looks = store.looks
    assert scanner.changed() == set()
    assert scanner.ended() == set()
    assert store.looks == looks


def test_a_new_writer_is_seen_also_one_that_came_and_went(store: Counting) -> None:
    scanner = Scanner(store)
    scanner.changed()
    store.session("b").close()
    assert scanner.changed() == {"b"}


def test_a_change_within_the_grain_of_the_time_stamp_is_looked_at_again(
    store: Counting, clock: milepost.ManualClock
) -> None:
    scanner = Scanner(store)
    scanner.changed()
    folder = os.path.join(store.folder_of("b"), "leases")
    store.session("b").close()
    stamp = clock.now_ns() - 1
    os.utime(folder, ns=(stamp, stamp))
    assert scanner.changed() == {"b"}
    store.session("b").close()
    os.utime(folder, ns=(stamp, stamp))  # a coarse clock gives both changes one time
    assert scanner.changed() == {"b"}
    clock.advance(2)
    assert scanner.changed() == {"b"}
    assert scanner.changed() == set()


def test_sessions_come_and_go(store: Counting) -> None:
    scanner = Scanner(store)
    scanner.changed()
    store.session("c").close()
    assert scanner.changed() == {"c"}
    scanner.living.add("a")
    shutil.rmtree(store.folder_of("a"))
    scanner.changed()
    assert scanner.names == {"b", "c"}
    assert scanner.living == set()
    assert len(scanner.folders) == 2


def test_the_end_of_a_writer_is_seen_though_no_file_tells_of_it(store: Counting) -> None:
    scanner = Scanner(store)
    with store.session("a"):
        scanner.living.add("a")
        scanner.changed()
        assert scanner.ended() == set()
        assert "a" not in scanner.changed(), "its end is what is of interest"
    assert scanner.ended() == {"a"}
    assert scanner.ended() == set()


def test_a_living_session_that_cannot_be_looked_at_is_handed_on(store: Counting) -> None:
    scanner = Scanner(store)
    scanner.living.add("a")
    shutil.rmtree(store.folder_of("a"))
    assert scanner.ended() == {"a"}


def test_a_store_that_is_gone_is_an_error(store: Counting) -> None:
    scanner = Scanner(store)
    scanner.changed()
    scanner.living.add("a")
    shutil.rmtree(store.path)
    assert scanner.ended() == set(), "nothing is known of its sessions"
    with pytest.raises(milepost.StoreNotFoundError):
        scanner.changed()
