"""Signs of life: what they say, how silence is measured, and whose turn it is."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import StorageError, SupersededError
from milepost.storage.directory import LocalDirectory
from milepost.storage.heartbeat import (
    Beat,
    Heartbeat,
    mark_ended,
    read_beat,
    seen_path,
    silent_seconds,
)
from milepost.storage.lease import epochs, lease_path
from support.hosts import host

if TYPE_CHECKING:
    from pathlib import Path

LAPTOP = host("laptop")


@pytest.fixture
def folder(tmp_path: Path) -> LocalDirectory:
    made = LocalDirectory(str(tmp_path / "session"))
    made.make_folders("leases")
    return made


def of(folder: LocalDirectory, epoch: int) -> Heartbeat:
    folder.create_whole(lease_path(epoch), b"")
    status = folder.stat()
    assert status is not None
    return Heartbeat(folder, epoch, status.inode)


# What a sign says.


def test_a_beat_is_a_counter_and_in_the_end_a_word(folder: LocalDirectory) -> None:
    heartbeat = of(folder, 3)
    assert read_beat(folder, 3) == Beat("", has_ended=False)
    heartbeat.beat()
    heartbeat.beat()
    assert read_beat(folder, 3) == Beat("2", has_ended=False)
    assert folder.read("leases/3.beat", size_bytes_max=20) == b"                  2\n"
    heartbeat.end()
    assert read_beat(folder, 3) == Beat("ended", has_ended=True)
    assert folder.read("leases/3.beat", size_bytes_max=20) == b"              ended\n"
    heartbeat.close()


def test_a_turn_can_be_marked_as_ended_by_its_number(folder: LocalDirectory) -> None:
    mark_ended(folder, 1)
    assert read_beat(folder, 1).has_ended


def test_a_beat_of_format_1_before_there_were_ends_is_a_counter(folder: LocalDirectory) -> None:
    folder.create_whole("leases/2.beat", b"                 41\n")
    assert read_beat(folder, 2) == Beat("41", has_ended=False)


@given(data=st.binary(max_size=64))
def test_any_bytes_are_a_sign_or_none(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = LocalDirectory(str(tmp_path_factory.mktemp("any")))
    folder.make_folder("leases")
    folder.create_whole("leases/2.beat", data)
    folder.create_whole("leases/2.seen", data)
    assert read_beat(folder, 2).has_ended == (data[:20].strip() == b"ended")
    assert silent_seconds(folder, 2, LAPTOP, 10.0, note=True) == 0.0
    assert silent_seconds(folder, 2, LAPTOP, 15.0, note=False) == 5.0


def test_what_got_into_a_beat_file_does_not_hide_the_next_beat(folder: LocalDirectory) -> None:
    heartbeat = of(folder, 3)
    heartbeat.beat()
    with open(folder.full("leases/3.beat"), "ab") as file:
        file.write(b"x" * 1000)
    heartbeat.beat()
    assert read_beat(folder, 3).shown == "2"
    heartbeat.close()


# Silence.


def test_silence_is_measured_from_the_first_look_that_remembers(folder: LocalDirectory) -> None:
    heartbeat = of(folder, 3)
    heartbeat.beat()

    def silent(now: float, *, note: bool) -> float:
        return silent_seconds(folder, 3, LAPTOP, now, note=note)

    assert silent(10, note=False) == 0
    assert silent(20, note=False) == 0, "nobody had remembered anything"
    assert not folder.exists(seen_path(3))
    assert silent(30, note=True) == 0
    assert silent(40, note=False) == 10
    assert silent(50, note=True) == 20, "remembering again does not begin anew"
    heartbeat.beat()
    assert silent(60, note=False) == 0
    assert silent(60, note=True) == 0
    assert silent(61, note=True) == 1
    heartbeat.close()


def test_each_boot_of_an_observer_remembers_for_itself(folder: LocalDirectory) -> None:
    again, tower = host("laptop", boot="later"), host("tower", boot="")
    for observer, now in ((LAPTOP, 1000.0), (again, 5.0), (tower, 70.0)):
        assert silent_seconds(folder, 3, observer, now, note=True) == 0
    for observer, now in ((LAPTOP, 1060.0), (again, 65.0), (tower, 130.0)):
        assert silent_seconds(folder, 3, observer, now, note=False) == 60


def test_a_monotonic_clock_that_is_behind_is_another_boots(folder: LocalDirectory) -> None:
    nameless = host("laptop", boot="")
    assert silent_seconds(folder, 3, nameless, 1000.0, note=True) == 0
    assert silent_seconds(folder, 3, nameless, 20.0, note=True) == 0
    assert silent_seconds(folder, 3, nameless, 80.0, note=True) == 60


# Whose turn it is.


@pytest.mark.parametrize("later", [4, 5, 40])
def test_a_higher_lease_wherever_it_stands_ends_the_turn(
    folder: LocalDirectory, later: int
) -> None:
    heartbeat = of(folder, 3)
    heartbeat.check()
    folder.create_whole(lease_path(later), b"")
    with pytest.raises(SupersededError, match=f"another process.*epoch {later}"):
        heartbeat.check()
    folder.remove(lease_path(3))
    with pytest.raises(SupersededError):
        heartbeat.check()


def test_a_further_lease_of_ones_own_does_not(folder: LocalDirectory) -> None:
    heartbeat = of(folder, 3)
    folder.create_whole(lease_path(4), b"")
    heartbeat.check(claimed=4)
    heartbeat.check(claimed=4)
    with pytest.raises(SupersededError):
        heartbeat.check(claimed=5)


def test_lower_leases_and_strangers_do_not_either(folder: LocalDirectory) -> None:
    heartbeat = of(folder, 3)
    for name in ("1.json", "2.beat", "9.seen", "x.json", "10", ".11.json", "12.json.tmp"):
        folder.create_whole(f"leases/{name}", b"")
    heartbeat.check()
    assert epochs(folder) == [1, 2, 3]


def test_leases_that_are_gone_are_told_from_a_successor(folder: LocalDirectory) -> None:
    heartbeat = of(folder, 3)
    folder.remove(lease_path(3))
    with pytest.raises(StorageError, match=r"lease of epoch 3.*was removed"):
        heartbeat.check()
    folder.remove_folder("leases")
    with pytest.raises(StorageError, match="was removed"):
        heartbeat.check()


def test_leases_that_cannot_be_listed_are_not_said_to_be_gone(
    folder: LocalDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    heartbeat = of(folder, 3)

    def fail(_: object) -> list[str]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(StorageError, match=r"cannot list .*Too many open files"):
        heartbeat.check()
    monkeypatch.undo()
    heartbeat.check()
