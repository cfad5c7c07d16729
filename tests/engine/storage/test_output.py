"""An output file: where it ends, and what others may have done to it."""

from __future__ import annotations

import errno
import os
import zlib
from typing import TYPE_CHECKING

import pytest

from milepost.errors import DamagedError, DurabilityLostError, StorageError, StorageFullError
from milepost.storage.output import OutputFile, lacks_rows
from milepost.storage.syscalls import OperatingSystem
from support.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typing_extensions import Buffer

ROWS = b"one\ntwo\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.txt"


@pytest.fixture
def system(tmp_path: Path) -> Recording:
    return Recording(str(tmp_path))


@pytest.fixture
def file(path: Path, system: Recording) -> Iterator[OutputFile]:
    opened = OutputFile(str(path), system)
    yield opened
    opened.close()


def test_rows_are_written_one_behind_the_other(file: OutputFile, path: Path) -> None:
    file.append(b"one\n")
    assert file.length_bytes == 4
    file.append(b"two\n")
    assert path.read_bytes() == ROWS
    assert file.length_bytes == len(ROWS)


def test_its_bytes_and_its_name_are_synced_once(file: OutputFile, system: Recording) -> None:
    file.append(ROWS)
    file.sync()
    assert system.calls[-2:] == ["fsync rows.txt", "fsync-folder ."]
    file.sync()
    assert system.calls[-1] == "fsync-folder .", "nothing was written since"
    file.append(ROWS)
    file.sync()
    assert system.calls[-2:] == ["write rows.txt", "fsync rows.txt"]


def test_the_name_of_a_file_that_is_there_may_not_be_on_the_disk(
    path: Path, system: Recording
) -> None:
    path.write_bytes(ROWS)
    file = OutputFile(str(path), system)
    file.sync()
    assert system.calls == ["open-output rows.txt", "fsync rows.txt", "fsync-folder ."]
    file.close()


def test_the_folder_of_a_link_s_file_is_synced(tmp_path: Path, system: Recording) -> None:
    for name in ("links", "real", "real/deep"):
        (tmp_path / name).mkdir()
    (tmp_path / "links" / "rows.txt").symlink_to("../real/deep/rows.txt")
    file = OutputFile(str(tmp_path / "links" / "rows.txt"), system)
    file.append(ROWS)
    file.sync()
    assert system.calls[-1] == "fsync-folder real/deep"
    file.append(ROWS)  # under a link, it has its name all the same
    assert (tmp_path / "real" / "deep" / "rows.txt").read_bytes() == ROWS * 2
    file.close()


def test_what_is_written_while_a_sync_runs_is_synced_by_the_next(path: Path) -> None:
    class Slow(OperatingSystem):
        syncs = 0

        def sync(self, descriptor: int) -> None:
            self.syncs += 1
            if self.syncs == 1:
                output.append(b"meanwhile\n")  # as another thread may
            super().sync(descriptor)

    system = Slow()
    output = OutputFile(str(path), system)
    output.append(ROWS)
    output.sync()
    output.sync()
    assert system.syncs == 2
    output.close()


def test_two_syncs_at_once_both_wait_for_the_disk(path: Path) -> None:
    class Twice(OperatingSystem):
        syncs = 0

        def sync(self, descriptor: int) -> None:
            self.syncs += 1
            if self.syncs == 1:
                # Another thread asks before this one is through: nothing may tell it that all is
                # on the disk. (The file lets one sync at a time through, so it is looked at here.)
                assert output._changes_synced != output._changes
            super().sync(descriptor)

    system = Twice()
    output = OutputFile(str(path), system)
    output.append(ROWS)
    output.sync()
    assert system.syncs == 1
    assert output._changes_synced == output._changes
    output.close()


@pytest.mark.parametrize("tail", [b"", b"x", b"three\nfour\n"])
def test_what_stands_behind_the_known_rows_is_cut_off(
    path: Path, system: Recording, tail: bytes
) -> None:
    path.write_bytes(ROWS + tail)
    file = OutputFile(str(path), system)
    assert file.cut_back(4, 8, zlib.crc32(b"two\n"), may_be_ours=lambda: True) == len(tail)
    file.append(b"three\n")
    assert path.read_bytes() == ROWS + b"three\n"
    file.close()


def test_what_cannot_be_ours_is_not_cut_off(path: Path, system: Recording) -> None:
    path.write_bytes(ROWS + b"mine\n")
    file = OutputFile(str(path), system)
    with pytest.raises(DamagedError, match="has 5 bytes behind the 8 that were") as caught:
        file.cut_back(4, 8, zlib.crc32(b"two\n"), may_be_ours=lambda: False)
    assert "cut this one to 8 bytes" in caught.value.hint
    assert path.read_bytes() == ROWS + b"mine\n"
    os.truncate(path, 8)  # as the hint says
    assert file.cut_back(4, 8, zlib.crc32(b"two\n"), may_be_ours=lambda: False) == 0
    file.close()


@pytest.mark.parametrize(
    ("found", "reason"),
    [(b"one\n", "has 4 bytes, and 8"), (b"one\nTWO\n", "bytes 4 to 8 are different")],
)
def test_a_file_that_is_not_what_it_was_is_left_alone(
    path: Path, system: Recording, found: bytes, reason: str
) -> None:
    path.write_bytes(found)
    file = OutputFile(str(path), system)
    with pytest.raises(DamagedError, match=reason) as caught:
        file.cut_back(4, 8, zlib.crc32(b"two\n"), may_be_ours=lambda: True)
    assert caught.value.hint.startswith("put the file back")
    assert path.read_bytes() == found
    file.close()


def test_a_full_disk_leaves_it_as_it_was(file: OutputFile, path: Path, system: Recording) -> None:
    file.append(b"one\n")
    system.room = 2
    with pytest.raises(StorageFullError, match="no room"):
        file.append(b"two\n")
    assert path.read_bytes() == b"one\n"
    system.room = None
    file.append(b"two\n")
    assert path.read_bytes() == ROWS


def test_after_a_failed_sync_it_takes_nothing_more(file: OutputFile, system: Recording) -> None:
    file.append(ROWS)
    system.failing["fsync"] = errno.EIO
    with pytest.raises(DurabilityLostError, match="takes nothing more") as caught:
        file.sync()
    assert "run the work again" in caught.value.hint
    system.failing.clear()
    # A second sync that succeeds would prove nothing.
    for call in (file.sync, file.refuse_poisoned, lambda: file.append(b"x")):
        with pytest.raises(DurabilityLostError):
            call()


def test_a_folder_that_cannot_be_synced_is_asked_again(file: OutputFile, system: Recording) -> None:
    system.failing["fsync-folder"] = errno.EIO
    with pytest.raises(StorageError):
        file.sync()
    system.failing.clear()
    file.sync()
    assert system.calls[-1] == "fsync-folder ."


def _append_to(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"mine\n")


def _truncate(path: Path) -> None:
    os.truncate(path, 2)


def _replace(path: Path) -> None:
    (path.parent / "new").write_bytes(path.read_bytes())
    os.replace(path.parent / "new", path)


def _move(path: Path) -> None:
    path.rename(path.with_suffix(".1"))


def _rotate(path: Path) -> None:
    _move(path)
    path.touch()


def _hide(path: Path) -> None:
    _move(path)
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_append_to, "somebody else writes it"),
        (_truncate, "somebody else writes it"),
        (os.unlink, "moved, deleted or replaced"),
        (_replace, "moved, deleted or replaced"),
        (_move, "moved, deleted or replaced"),
        (_rotate, "moved, deleted or replaced"),
        (_hide, "moved, deleted or replaced"),
    ],
    ids=["appended to", "truncated", "deleted", "replaced", "moved", "rotated", "hidden"],
)
def test_what_others_do_to_it_is_noticed(
    file: OutputFile, path: Path, change: Callable[[Path], None], reason: str
) -> None:
    file.append(ROWS)
    change(path)
    left = path.read_bytes() if path.exists() else None
    with pytest.raises(DamagedError, match=reason):
        file.append(b"three\n")
    # The rows whose acknowledgement fails for that are taken back; nobody else's bytes are.
    file.take_back(len(ROWS))
    assert (path.read_bytes() if path.exists() else None) == left


def test_rows_are_taken_back_also_where_an_interruption_hid_them(path: Path) -> None:
    class Interrupted(OperatingSystem):
        def pwrite(self, descriptor: int, data: Buffer, offset: int, /) -> int:
            super().pwrite(descriptor, data, offset)
            raise KeyboardInterrupt

    file = OutputFile(str(path), Interrupted())
    with pytest.raises(KeyboardInterrupt):
        file.append(ROWS)
    assert path.read_bytes() == ROWS
    assert file.length_bytes == 0
    file.take_back(0)
    assert path.read_bytes() == b""
    file.close()


def test_what_was_taken_back_is_off_the_disk(file: OutputFile, system: Recording) -> None:
    file.append(ROWS)
    file.sync()
    file.take_back(4)
    assert [each for each in system.calls if "folder" not in each][-2:] == [
        "truncate rows.txt",
        "fsync rows.txt",
    ]
    assert file.length_bytes == 4


def test_whether_a_file_lacks_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (4, 8, zlib.crc32(b"two\n"))
    assert not lacks_rows(str(path), *rows), "a file that is gone was not taken by a power cut"
    path.mkdir()
    assert not lacks_rows(str(path), *rows)
    path.rmdir()
    path.write_bytes(ROWS)
    assert not lacks_rows(str(path), *rows)
    assert lacks_rows(str(path), 4, 9, zlib.crc32(b"two\n"))
    assert lacks_rows(str(path), 0, 8, zlib.crc32(b"two\n"))
    path.write_bytes(b"")
    assert lacks_rows(str(path), *rows)

    def fail(descriptor: int, size: int, offset: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("milepost.storage.output._read_at", fail)
    assert not lacks_rows(str(path), *rows), "what cannot be read is not known to be missing"
