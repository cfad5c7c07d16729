"""One writer at a time: the lock on one host, numbered leases everywhere."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import (
    AlreadyLockedError,
    ChecksumMismatchError,
    FormatError,
    StorageError,
    SupersededError,
    UnsupportedVersionError,
)
from milepost.storage import lease as lease_room
from milepost.storage.directory import LocalDirectory
from milepost.storage.heartbeat import Heartbeat
from milepost.storage.lease import (
    LEASE_BYTES_MAX,
    LOCK_NAME,
    Lease,
    WriterLock,
    decode_lease,
    encode_lease,
    epochs,
    lease_path,
    newest_lease,
    read_lease,
)

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

PATIENCE_SECONDS = 60.0

HOLD = """
import sys
from milepost.storage.directory import LocalDirectory
from milepost.storage.lease import WriterLock
lock = WriterLock(LocalDirectory(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
lock.release()
"""

RACE = """
import sys
from milepost.storage.directory import LocalDirectory
from milepost.storage.lease import lease_path
folder = LocalDirectory(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
won = [n for n in range(1, 41) if folder.create_whole(lease_path(n), sys.argv[2].encode())]
print(*won)
"""


@pytest.fixture
def folder(tmp_path: Path) -> LocalDirectory:
    made = LocalDirectory(str(tmp_path / "session"))
    made.make_folders("leases")
    return made


@contextmanager
def another_process(script: str, *arguments: str) -> Generator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def lease(epoch: int = 1, **fields: Any) -> Lease:
    given: dict[str, Any] = {
        "session": "지역-수집",
        "session_uid": "u" * 32,
        "lineage": "l" * 32,
        "host": "laptop",
        "boot_id": "b",
        "pid": 4711,
        "process_started": "123",
        "folder_inode": 9,
        "taken_at_ns": 1_700_000_000_000_000_000,
    }
    return Lease(epoch=epoch, **(given | fields))


def take(folder: LocalDirectory, epoch: int, **fields: Any) -> None:
    assert folder.create_whole(lease_path(epoch), encode_lease(lease(epoch, **fields)))


def inode(folder: LocalDirectory) -> int:
    status = folder.stat()
    assert status is not None
    return status.inode


# The file.


@given(
    st.builds(
        Lease,
        epoch=st.integers(1, 2**40),
        session=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
        session_uid=st.text("0123456789abcdef", max_size=32),
        lineage=st.text("0123456789abcdef", max_size=32),
        host=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
        boot_id=st.text("0123456789abcdef-", max_size=36),
        pid=st.integers(0, 2**31),
        process_started=st.text("0123456789", max_size=20),
        folder_inode=st.integers(0, 2**64 - 1),
        taken_at_ns=st.integers(0, 2**63 - 1),
    )
)
def test_a_lease_comes_back_as_it_was(given: Lease) -> None:
    assert decode_lease(encode_lease(given), lease_path(given.epoch)) == given


def test_a_lease_is_json_for_people() -> None:
    data = encode_lease(lease(3))
    assert data.endswith(b"}\n")
    read = json.loads(data)
    assert read["lease"]["session"] == "지역-수집"
    assert set(read["lease"]) == {
        *("epoch", "session", "session_uid", "lineage", "host", "boot_id", "pid"),
        *("process_started", "folder_inode", "taken_at_ns", "format"),
    }
    assert len(read["checksum"]) == 32


def test_every_flipped_bit_of_a_lease_is_noticed() -> None:
    data = encode_lease(lease(3))
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(FormatError) as caught:
                decode_lease(bytes(damaged), lease_path(3))
            assert caught.value.path == "leases/3.json"


def test_every_cut_of_a_lease_is_noticed() -> None:
    data = encode_lease(lease(3))
    for length in range(len(data)):
        with pytest.raises(FormatError):
            decode_lease(data[:length], lease_path(3))
    with pytest.raises(FormatError):
        decode_lease(data + b"\n", lease_path(3))


@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_whatever_a_lease_file_holds_the_error_is_ours(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_lease(data, lease_path(3))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"lease":1,"checksum":2}',
        b'{"lease":{},"checksum":"\xff"}',
        b'{"lease":{},"checksum":"\\ud800"}',
        b'{"lease":' + b"[" * 50_000,
        b'{"lease":' + b"[" * 50_000 + b"]" * 50_000 + b',"checksum":""}',
        b'{"lease":{"epoch":' + b"9" * 5_000 + b"}}",
    ],
)
def test_a_damaged_lease_is_never_a_traceback(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_lease(data, lease_path(3))


def test_a_lease_under_another_name_is_not_believed() -> None:
    with pytest.raises(FormatError, match="holds the lease of epoch 3"):
        decode_lease(encode_lease(lease(3)), lease_path(4))


def test_a_newer_lease_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedVersionError) as caught:
        decode_lease(encode_lease(lease(3, format=2)), lease_path(3))
    assert (caught.value.found, caught.value.supported) == (2, 1)


def test_a_checksum_that_does_not_fit_is_named() -> None:
    data = encode_lease(lease(3)).replace(b'"pid":4711', b'"pid":4712')
    with pytest.raises(ChecksumMismatchError):
        decode_lease(data, lease_path(3))


# Epochs.


def test_epochs_are_the_numbers_in_names_readable_or_not(folder: LocalDirectory) -> None:
    take(folder, 1)
    take(folder, 3)
    assert folder.create_whole("leases/4.json", b"half a lea")
    assert folder.create_whole("leases/7.beat", b"")
    for stranger in ("x.json", "5.txt", "٣.json", "-1.json", "8.json.bak.tmp", ".9.json"):
        folder.create_whole(f"leases/{stranger}", b"")
    assert epochs(folder) == [1, 3, 4, 7]
    newest = newest_lease(folder)
    assert newest is not None
    assert newest.epoch == 3
    assert read_lease(folder, 1).epoch == 1
    with pytest.raises(FormatError):
        read_lease(folder, 4)
    with pytest.raises(StorageError):
        read_lease(folder, 2)


def test_no_lease_at_all_is_no_error(tmp_path: Path) -> None:
    empty = LocalDirectory(str(tmp_path))
    assert epochs(empty) == []
    assert newest_lease(empty) is None


def test_a_lease_larger_than_any_lease_is_not_read(folder: LocalDirectory) -> None:
    take(folder, 1)
    assert folder.create_whole("leases/2.json", b" " * (LEASE_BYTES_MAX + 1))
    newest = newest_lease(folder)
    assert newest is not None
    assert newest.epoch == 1


def test_racing_processes_take_every_epoch_exactly_once(folder: LocalDirectory) -> None:
    with (
        another_process(RACE, folder.root, "a") as one,
        another_process(RACE, folder.root, "b") as two,
        another_process(RACE, folder.root, "c") as three,
    ):
        racers = [one, two, three]
        assert [first_line(each) for each in racers] == ["ready"] * 3
        for each in racers:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        won = [first_line(each).split() for each in racers]
        assert [each.wait(PATIENCE_SECONDS) for each in racers] == [0, 0, 0]
    assert sorted(int(number) for each in won for number in each) == list(range(1, 41))
    for name, numbers in zip("abc", won, strict=True):
        for number in numbers:
            data = folder.read(lease_path(int(number)), size_bytes_max=9)
            assert data == name.encode()


# The lock.


def test_another_process_is_refused_and_told_who_writes(folder: LocalDirectory) -> None:
    take(folder, 1)
    take(folder, 2, pid=123, host="desk")
    with another_process(HOLD, folder.root) as holder:
        assert first_line(holder) == "held"
        lock = WriterLock(folder)
        assert lock.held_elsewhere()
        with pytest.raises(AlreadyLockedError) as caught:
            lock.acquire()
        assert caught.value.holder is not None
        assert caught.value.holder["host"] == "desk"
        assert caught.value.holder["pid"] == 123
        assert caught.value.holder["epoch"] == 2
        assert caught.value.holder["since"].isoformat() == "2023-11-14T22:13:20+00:00"
        assert re.search(r"'지역-수집'.*process 123 on desk since 2023-11-14", str(caught.value))
        lock.release()
        holder.kill()
        holder.wait(PATIENCE_SECONDS)
        # It ends with its process, however that ends.
        assert not lock.held_elsewhere()
        lock.acquire(patience_seconds=PATIENCE_SECONDS)
        lock.release()


def test_who_holds_a_lock_without_a_lease_is_not_known(folder: LocalDirectory) -> None:
    holder = WriterLock(folder)
    holder.acquire()
    with pytest.raises(AlreadyLockedError) as caught:
        WriterLock(folder).acquire(patience_seconds=0)
    assert caught.value.holder is None
    holder.release()


def test_two_locks_of_one_process_exclude_each_other(folder: LocalDirectory) -> None:
    one, other = WriterLock(folder), WriterLock(folder)
    one.acquire()
    assert other.held_elsewhere()
    assert not one.held_elsewhere()
    with pytest.raises(AlreadyLockedError):
        other.acquire(patience_seconds=0)
    one.release()
    one.release()
    other.acquire()
    other.release()


def test_a_look_takes_nothing_away(folder: LocalDirectory) -> None:
    lock = WriterLock(folder)
    assert not lock.held_elsewhere()
    assert not folder.exists(LOCK_NAME)  # looking leaves no trace
    lock.acquire()
    lock.release()
    assert folder.exists(LOCK_NAME)
    for _ in range(3):
        assert not lock.held_elsewhere()
    lock.acquire(patience_seconds=0)
    lock.release()


def test_the_lock_file_is_never_deleted(folder: LocalDirectory) -> None:
    lock = WriterLock(folder)
    lock.acquire()
    before = os.stat(folder.full(LOCK_NAME)).st_ino
    lock.release()
    lock.acquire()
    assert os.stat(folder.full(LOCK_NAME)).st_ino == before
    lock.release()


def test_a_lock_file_that_somebody_deleted_lets_a_second_in_who_then_wins(
    folder: LocalDirectory,
) -> None:
    first = WriterLock(folder)
    first.acquire()
    take(folder, 1)
    beat = Heartbeat(folder, 1, inode(folder))
    beat.check()
    os.unlink(folder.full(LOCK_NAME))
    second = WriterLock(folder)
    assert not second.held_elsewhere()
    second.acquire()
    take(folder, 2)
    # The lock does not exclude any more, but the epochs do: the first finds out.
    with pytest.raises(SupersededError, match="process 4711 on laptop"):
        beat.check()
    second.release()
    first.release()


def test_a_folder_that_is_gone_cannot_be_locked(folder: LocalDirectory) -> None:
    shutil.rmtree(folder.root)
    with pytest.raises(StorageError):
        WriterLock(folder).acquire()
    assert not os.path.exists(folder.root)
    assert not WriterLock(folder).held_elsewhere()


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere"
)
def test_a_folder_that_cannot_be_written_says_so(folder: LocalDirectory) -> None:
    os.chmod(folder.root, 0o500)
    try:
        with pytest.raises(StorageError, match="cannot lock") as caught:
            WriterLock(folder).acquire()
        assert "read-only media can be read" in caught.value.hint
    finally:
        os.chmod(folder.root, 0o700)


def test_a_folder_where_the_lock_belongs_says_so(folder: LocalDirectory) -> None:
    folder.make_folder(LOCK_NAME)
    with pytest.raises(StorageError, match="cannot lock"):
        WriterLock(folder).acquire()
    assert not WriterLock(folder).held_elsewhere()


# The heartbeat.


def test_the_counter_goes_up_beside_the_lease(folder: LocalDirectory) -> None:
    take(folder, 5)
    beat = Heartbeat(folder, 5, inode(folder))
    seen: list[int] = []
    for _ in range(3):
        beat.beat()
        seen.append(int(folder.read("leases/5.beat", size_bytes_max=64)))
        beat.check()
    beat.close()
    assert seen == [1, 2, 3]
    assert epochs(folder) == [5]


def test_a_disk_that_refuses_a_beat_stops_nobody(folder: LocalDirectory) -> None:
    take(folder, 5)
    folder.create_whole("leases/5.beat", b"in the way")
    beat = Heartbeat(folder, 5, inode(folder))
    beat.beat()
    beat.check()
    beat.close()


@pytest.mark.parametrize("data", [None, b"", b"damaged"])
def test_a_successor_is_noticed_even_by_a_damaged_lease(
    folder: LocalDirectory, data: bytes | None
) -> None:
    take(folder, 5)
    beat = Heartbeat(folder, 5, inode(folder))
    beat.check()
    folder.create_whole(lease_path(6), encode_lease(lease(6, pid=99)) if data is None else data)
    with pytest.raises(SupersededError, match="in epoch 6") as caught:
        beat.check()
    assert ("process 99" in str(caught.value)) == (data is None)
    assert caught.value.hint


def test_a_moved_or_deleted_or_replaced_folder_is_noticed(folder: LocalDirectory) -> None:
    take(folder, 5)
    beat = Heartbeat(folder, 5, inode(folder))
    beat.beat()
    os.rename(folder.root, folder.root + "-moved")
    with pytest.raises(StorageError, match="no longer at"):
        beat.check()
    shutil.copytree(folder.root + "-moved", folder.root)
    with pytest.raises(StorageError, match="no longer at"):
        beat.check()
    shutil.rmtree(folder.root)
    with pytest.raises(StorageError, match="no longer at"):
        beat.check()
    beat.beat()
    assert not os.path.exists(folder.root)
    beat.close()


def test_a_lease_with_a_field_that_is_not_known_is_read() -> None:
    # Fields are only added, with a default: what a newer release adds is stepped over.
    body = msgspec.json.encode({**msgspec.to_builtins(lease(3)), "added": 1})
    checksum = hashlib.blake2b(body, digest_size=16).hexdigest().encode()
    data = b'{"lease":' + body + b',"checksum":"' + checksum + b'"}\n'
    assert decode_lease(data, lease_path(3)) == lease(3)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no shared locks")
def test_looks_never_refuse_a_starter(folder: LocalDirectory) -> None:
    """Looks that overlap all the time, for longer than a starter waits for another writer."""
    lock = WriterLock(folder)
    lock.acquire()
    lock.release()
    looking = os.open(folder.full(LOCK_NAME), os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    assert not lock.held_elsewhere(), "one look is no writer to another"
    end = threading.Timer(3 * lease_room.PATIENCE_SECONDS, os.close, (looking,))
    end.start()
    lock.acquire()
    lock.release()
    end.join()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no shared locks")
def test_a_look_that_was_stopped_in_the_middle_is_told_in_the_end(
    folder: LocalDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_room, "LOOKS_SECONDS_MAX", 0.1)
    lock = WriterLock(folder)
    lock.acquire()
    lock.release()
    looking = os.open(folder.full(LOCK_NAME), os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    with pytest.raises(AlreadyLockedError, match="only looks") as caught:
        lock.acquire(patience_seconds=0)
    assert caught.value.hint
    os.close(looking)
    lock.acquire(patience_seconds=0)
    lock.release()
