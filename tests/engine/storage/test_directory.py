"""A folder is changed in the one right order, and what fails leaves what was there before."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import DurabilityLostError, StorageError, StorageFullError
from milepost.storage.directory import LocalDirectory
from support.recording import Recording

READ_MAX = 1 << 20
needs_posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")


@pytest.fixture
def system(tmp_path: Path) -> Recording:
    return Recording(str(tmp_path))


@pytest.fixture
def folder(tmp_path: Path, system: Recording) -> LocalDirectory:
    return LocalDirectory(str(tmp_path), system=system)


def files(folder: LocalDirectory) -> list[str]:
    """Everything below the folder, temporary files too."""
    root = Path(folder.root)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


# Publishing.


def test_a_file_is_published_in_the_full_order(folder: LocalDirectory, system: Recording) -> None:
    os.mkdir(folder.full("snapshots"))
    folder.publish("snapshots/1.1.1.zst", b"whole")
    assert system.calls == [
        "open TMP",
        "write TMP",
        "fsync TMP",
        "rename TMP snapshots/1.1.1.zst",
        "fsync-folder snapshots",
    ]
    assert folder.read("snapshots/1.1.1.zst", size_bytes_max=READ_MAX) == b"whole"


def test_the_temporary_file_is_in_the_same_folder(
    folder: LocalDirectory, system: Recording
) -> None:
    os.mkdir(folder.full("snapshots"))
    system.failing["remove"] = errno.EIO  # so that it stays
    system.failing["fsync"] = errno.EIO
    with pytest.raises(StorageError):
        folder.publish("snapshots/1.1.1.zst", b"whole")
    assert len(folder.temporaries("snapshots")) == 1
    assert folder.names("snapshots") == []


@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename", "fsync-folder"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES])
def test_a_publish_that_fails_leaves_nothing(
    folder: LocalDirectory, system: Recording, call: str, number: int
) -> None:
    system.failing[call] = number
    with pytest.raises(StorageError) as caught:
        folder.publish("1.1.1.zst", b"whole")
    assert isinstance(caught.value.__cause__, OSError)
    if number == errno.ENOSPC and call != "fsync":
        assert isinstance(caught.value, StorageFullError)
        assert caught.value.hint
    assert files(folder) == []
    system.failing.clear()
    folder.publish("1.1.1.zst", b"whole")
    assert files(folder) == ["1.1.1.zst"]


def test_a_published_file_is_never_replaced(folder: LocalDirectory) -> None:
    folder.publish("1.1.1.zst", b"first")
    with pytest.raises(StorageError, match="there already"):
        folder.publish("1.1.1.zst", b"second")
    assert folder.read("1.1.1.zst", size_bytes_max=READ_MAX) == b"first"
    assert files(folder) == ["1.1.1.zst"]


def test_a_dangling_link_is_in_the_way_too(folder: LocalDirectory, tmp_path: Path) -> None:
    os.symlink(tmp_path / "nowhere", tmp_path / "1.1.1.zst")
    with pytest.raises(StorageError, match="there already"):
        folder.publish("1.1.1.zst", b"second")
    assert not (tmp_path / "nowhere").exists()


def test_what_is_derived_is_replaced_whole(folder: LocalDirectory, system: Recording) -> None:
    folder.publish_derived("manifest.json", b"first")
    folder.publish_derived("manifest.json", b"second")
    assert folder.read("manifest.json", size_bytes_max=READ_MAX) == b"second"
    assert system.calls[:3] == ["open TMP", "write TMP", "rename TMP manifest.json"]
    system.failing["rename"] = errno.EIO
    with pytest.raises(StorageError):
        folder.publish_derived("manifest.json", b"third")
    assert files(folder) == ["manifest.json"]
    assert folder.read("manifest.json", size_bytes_max=READ_MAX) == b"second"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_a_file_system_without_folder_fsync_is_tolerated_by_name(
    folder: LocalDirectory,
    system: Recording,
    number: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    system.failing["fsync-folder"] = number
    with caplog.at_level(logging.DEBUG, "milepost.storage"):
        folder.publish("1.1.1.zst", b"whole")
        folder.make_folders("a/b")
    assert "no folder fsync" in caplog.text
    assert files(folder) == ["1.1.1.zst"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EBADF, errno.EROFS])
def test_any_other_failure_of_a_folder_fsync_is_told(
    folder: LocalDirectory, system: Recording, number: int
) -> None:
    system.failing["fsync-folder"] = number
    with pytest.raises(StorageError) as caught:
        folder.sync_folder()
    assert caught.value.operation == "fsync"


def test_a_file_fsync_that_is_not_supported_is_no_excuse(
    folder: LocalDirectory, system: Recording
) -> None:
    system.failing["fsync"] = errno.EINVAL
    with pytest.raises(DurabilityLostError):
        folder.publish("1.1.1.zst", b"whole")


# Folders.


def test_new_folders_are_durable_from_the_top(folder: LocalDirectory, system: Recording) -> None:
    folder.make_folders("a/b")
    assert system.calls == ["mkdir a", "fsync-folder .", "mkdir a/b", "fsync-folder a"]
    system.calls.clear()
    folder.make_folders("a/b")
    assert system.calls == []


def test_one_folder_is_made_only_below_one_that_is_there(
    folder: LocalDirectory, system: Recording
) -> None:
    folder.make_folder("a")
    assert system.calls == ["mkdir a", "fsync-folder ."]
    folder.make_folder("a")
    with pytest.raises(StorageError):
        folder.make_folder("gone/b")
    assert not os.path.exists(folder.full("gone"))


@pytest.mark.parametrize("make", ["make_folder", "make_folders"])
def test_a_file_where_a_folder_belongs_is_told(
    folder: LocalDirectory, tmp_path: Path, make: str
) -> None:
    (tmp_path / "journal").write_bytes(b"")
    with pytest.raises(StorageError):
        getattr(folder, make)("journal")


def test_a_finished_folder_is_renamed_durably(folder: LocalDirectory, system: Recording) -> None:
    folder.make_folders("sessions/new.tmp")
    folder.publish("sessions/new.tmp/lease", b"1")
    system.calls.clear()
    assert folder.rename_folder("sessions/new.tmp", "sessions/crawl")
    assert system.calls == ["rename TMP sessions/crawl", "fsync-folder sessions"]
    folder.make_folders("sessions/late.tmp")
    folder.publish("sessions/late.tmp/lease", b"2")
    assert not folder.rename_folder("sessions/late.tmp", "sessions/crawl")
    assert folder.read("sessions/crawl/lease", size_bytes_max=9) == b"1"


def test_removing_a_folder_takes_all_of_it(folder: LocalDirectory) -> None:
    folder.make_folders("a/b")
    folder.publish("a/1", b"")
    folder.publish("a/b/2", b"")
    folder.remove_folder("a")
    assert folder.stat("a") is None
    folder.remove_folder("a")


# Appending.


def test_appending_keeps_one_write_a_call(folder: LocalDirectory, system: Recording) -> None:
    file = folder.create("1.1.journal")
    file.append(b"one", 3)
    file.append(bytearray(b"two"), 3)
    file.sync()
    file.close()
    assert system.calls == [
        "open 1.1.journal",
        "write 1.1.journal",
        "write 1.1.journal",
        "fsync 1.1.journal",
    ]
    assert folder.read("1.1.journal", size_bytes_max=READ_MAX) == b"onetwo"
    assert file.size_bytes == 6


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.integers(1, 7))
def test_short_writes_are_carried_on(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], at_most: int
) -> None:
    root = str(tmp_path_factory.mktemp("short"))
    system = Recording(root)
    system.at_most = at_most
    folder = LocalDirectory(root, system=system)
    file = folder.create("1.1.journal")
    for part in parts:
        file.append(part, len(part))
    file.close()
    assert folder.read("1.1.journal", size_bytes_max=READ_MAX) == b"".join(parts)


def test_a_write_that_takes_nothing_is_an_error_and_no_endless_loop(
    folder: LocalDirectory, system: Recording
) -> None:
    file = folder.create("1.1.journal")
    file.append(b"one", 3)
    system.at_most = 0
    with pytest.raises(StorageError):
        file.append(b"two", 3)
    assert file.size_bytes == 3
    file.close()


@pytest.mark.parametrize("preallocate", [False, True])
@given(room=st.integers(0, 30))
def test_a_full_disk_leaves_the_last_good_length(
    tmp_path_factory: pytest.TempPathFactory, room: int, *, preallocate: bool
) -> None:
    root = str(tmp_path_factory.mktemp("full"))
    system = Recording(root)
    folder = LocalDirectory(root, system=system)
    file = folder.create("1.1.journal", preallocate=preallocate)
    system.room = room
    good = b""
    with pytest.raises(StorageFullError) as caught:
        while True:
            file.append(b"0123456", 7)
            good += b"0123456"
    assert caught.value.operation == "write"
    assert len(good) == room // 7 * 7
    assert file.size_bytes == len(good)
    assert folder.read("1.1.journal", size_bytes_max=2 << 20).rstrip(b"\0") == good
    # There is room again: the same call goes through.
    system.room = None
    file.append(b"again", 5)
    file.sync()
    file.trim()
    file.close()
    assert folder.read("1.1.journal", size_bytes_max=2 << 20) == good + b"again"


def test_a_write_error_is_not_a_full_disk(folder: LocalDirectory, system: Recording) -> None:
    file = folder.create("1.1.journal")
    system.failing["write"] = errno.EIO
    with pytest.raises(StorageError) as caught:
        file.append(b"one", 3)
    assert not isinstance(caught.value, StorageFullError)
    assert not file.poisoned
    system.failing.clear()
    file.append(b"one", 3)
    file.close()
    assert folder.read("1.1.journal", size_bytes_max=READ_MAX) == b"one"


def test_a_tail_that_cannot_be_cut_back_poisons(folder: LocalDirectory, system: Recording) -> None:
    file = folder.create("1.1.journal")
    file.append(b"one", 3)
    system.failing = {"truncate": errno.EIO}
    system.room = 1
    with pytest.raises(StorageFullError):
        file.append(b"two", 3)
    assert file.poisoned
    system.failing.clear()
    system.room = None
    with pytest.raises(DurabilityLostError, match="cut back"):
        file.append(b"three", 5)
    with pytest.raises(DurabilityLostError):
        file.sync()
    file.close()


def test_a_failed_fsync_poisons_the_file_for_good(
    folder: LocalDirectory, system: Recording
) -> None:
    file = folder.create("1.1.journal")
    file.append(b"one", 3)
    system.failing["fsync"] = errno.EIO
    with pytest.raises(DurabilityLostError) as caught:
        file.sync()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.hint
    system.failing.clear()
    system.calls.clear()
    # The kernel may have dropped the bytes: a second fsync that succeeds would prove nothing.
    with pytest.raises(DurabilityLostError):
        file.sync()
    with pytest.raises(DurabilityLostError):
        file.append(b"two", 3)
    assert system.calls == []
    assert file.poisoned
    file.close()
    other = folder.create("2.2.journal")
    other.append(b"one", 3)
    other.sync()
    other.close()


def test_preallocation_is_given_back_and_reads_as_zeros_meanwhile(folder: LocalDirectory) -> None:
    file = folder.create("1.1.journal", preallocate=True)
    file.append(b"one", 3)
    before = folder.read("1.1.journal", size_bytes_max=4 << 20)
    assert before[:3] == b"one"
    assert len(before) > 3
    assert not before[3:].strip(b"\0")
    file.append(b"two", 3)
    file.trim()
    file.close()
    assert folder.read("1.1.journal", size_bytes_max=READ_MAX) == b"onetwo"


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSPC, errno.EINVAL])
def test_a_file_system_without_preallocation_does_without(
    folder: LocalDirectory, system: Recording, number: int
) -> None:
    system.failing["allocate"] = number
    file = folder.create("1.1.journal", preallocate=True)
    file.append(b"one", 3)
    file.append(b"two", 3)
    assert system.calls.count("allocate 1.1.journal") == 1
    file.close()
    assert folder.read("1.1.journal", size_bytes_max=READ_MAX) == b"onetwo"


def test_a_write_larger_than_what_is_allocated_ahead(folder: LocalDirectory) -> None:
    file = folder.create("1.1.journal", preallocate=True)
    large = os.urandom(3 << 20)
    file.append(b"one", 3)
    file.append(large, len(large))
    file.append(b"two", 3)
    file.trim()
    file.close()
    assert folder.read("1.1.journal", size_bytes_max=4 << 20) == b"one" + large + b"two"


def test_nothing_goes_through_a_closed_file(folder: LocalDirectory) -> None:
    file = folder.create("1.1.journal")
    file.close()
    file.close()
    with pytest.raises(DurabilityLostError, match="closed"):
        file.append(b"one", 3)
    with pytest.raises(DurabilityLostError, match="closed"):
        file.sync()
    file.overwrite(b"a heartbeat that comes late is no error")
    assert folder.read("1.1.journal", size_bytes_max=READ_MAX) == b""


def test_overwriting_stays_at_the_start(folder: LocalDirectory) -> None:
    file = folder.create("1.beat")
    file.overwrite(b"1\n")
    file.overwrite(b"2\n")
    file.close()
    assert folder.read("1.beat", size_bytes_max=READ_MAX) == b"2\n"


def test_a_file_for_appending_is_always_new(folder: LocalDirectory, tmp_path: Path) -> None:
    (tmp_path / "1.1.journal").write_bytes(b"somebody else's")
    with pytest.raises(StorageError):
        folder.create("1.1.journal")
    os.symlink(tmp_path / "elsewhere", tmp_path / "2.1.journal")
    with pytest.raises(StorageError):
        folder.create("2.1.journal")
    assert not (tmp_path / "elsewhere").exists()


def test_exactly_one_creates_a_small_file(folder: LocalDirectory, system: Recording) -> None:
    assert folder.create_whole("7.json", b"mine")
    assert system.calls == ["open 7.json", "write 7.json", "fsync 7.json", "fsync-folder ."]
    assert not folder.create_whole("7.json", b"yours")
    assert folder.read("7.json", size_bytes_max=9) == b"mine"


def test_creating_where_nothing_can_be_created_is_no_answer(
    folder: LocalDirectory, system: Recording
) -> None:
    system.failing["open"] = errno.EROFS
    with pytest.raises(StorageError):
        folder.create_whole("7.json", b"mine")


# Reading.


def test_a_file_that_is_too_large_is_refused_before_it_is_read(
    folder: LocalDirectory, tmp_path: Path
) -> None:
    with open(tmp_path / "huge.zst", "wb") as file:
        file.truncate(50 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(StorageError, match="more than the 1,048,576") as caught:
            folder.read("huge.zst", size_bytes_max=READ_MAX)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    assert caught.value.path == "huge.zst"


def test_reading_takes_memory_for_the_file_and_not_for_the_bound(folder: LocalDirectory) -> None:
    folder.publish("small", b"x" * 1_000)
    tracemalloc.start()
    try:
        assert len(folder.read("small", size_bytes_max=1 << 31)) == 1_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_file_of_just_the_bound_is_read(folder: LocalDirectory) -> None:
    folder.publish("small", b"12345")
    assert folder.read("small", size_bytes_max=5) == b"12345"
    with pytest.raises(StorageError):
        folder.read("small", size_bytes_max=4)


def test_the_head_of_a_file(folder: LocalDirectory) -> None:
    folder.publish("small", b"12345")
    assert folder.read_head("small", 2) == (b"12", 5)
    assert folder.read_head("small", 9) == (b"12345", 5)


@pytest.mark.parametrize("read", ["read", "read_head"])
def test_what_is_missing_or_no_file_is_told(folder: LocalDirectory, read: str) -> None:
    def look(path: str) -> None:
        if read == "read":
            folder.read(path, size_bytes_max=9)
        else:
            folder.read_head(path, 9)

    folder.make_folders("a")
    for path in ("missing", "a/missing", "missing/deep", "a"):
        with pytest.raises(StorageError) as caught:
            look(path)
        assert caught.value.operation == "read"
        assert caught.value.path == path
        assert isinstance(caught.value.__cause__, OSError)


@needs_posix
def test_a_pipe_in_a_store_stops_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.1.1.zst")
    script = (
        "import sys\n"
        "from milepost.errors import StorageError\n"
        "from milepost.storage.directory import LocalDirectory\n"
        "folder = LocalDirectory(sys.argv[1])\n"
        "for look in (lambda: folder.read('1.1.1.zst', size_bytes_max=9),"
        " lambda: folder.read_head('1.1.1.zst', 9)):\n"
        "    try:\n"
        "        look()\n"
        "    except StorageError as error:\n"
        "        print(error)\n"
    )
    # In a process of its own: opening a pipe waits for a writer that never comes.
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.count("no plain file") == 2


def test_names_leave_out_what_was_never_published(folder: LocalDirectory, tmp_path: Path) -> None:
    for name in ("b", "a", ".a.1234.tmp", ".DS_Store"):
        (tmp_path / name).write_bytes(b"")
    assert folder.names() == [".DS_Store", "a", "b"]
    assert folder.temporaries() == [".a.1234.tmp"]
    assert folder.names("missing") == []
    assert folder.temporaries("missing") == []
    with pytest.raises(StorageError):
        folder.names("a")


def test_what_is_known_without_opening(folder: LocalDirectory) -> None:
    folder.publish("a", b"123")
    status = folder.stat("a")
    assert status is not None
    assert (status.size_bytes, status.is_folder) == (3, False)
    root = folder.stat()
    assert root is not None
    assert root.is_folder
    assert root.inode == os.stat(folder.root).st_ino
    assert folder.stat("missing") is None
    assert folder.stat("a/below-a-file") is None
    assert folder.exists("a")
    assert not folder.exists("missing")


def test_removing_what_is_gone_is_fine(folder: LocalDirectory, system: Recording) -> None:
    folder.remove("missing")
    folder.publish("a", b"")
    system.failing["remove"] = errno.EACCES
    with pytest.raises(StorageError) as caught:
        folder.remove("a")
    assert caught.value.operation == "remove"


# Paths cannot leave, links are not followed.


@pytest.mark.parametrize(
    "path",
    ["..", "../a", "a/../../b", "a/..", "/etc/passwd", "a//b", "a/", ".", "./a", "a\\..\\b", "a\0"],
)
def test_no_path_leaves_the_store(folder: LocalDirectory, path: str) -> None:
    for attempt in (
        lambda: folder.full(path),
        lambda: folder.read(path, size_bytes_max=9),
        lambda: folder.publish(path, b""),
        lambda: folder.create(path),
        lambda: folder.remove(path),
        lambda: folder.remove_folder(path),
        lambda: folder.names(path),
        lambda: folder.stat(path),
        lambda: folder.make_folders(path),
        lambda: folder.folder(path),
        lambda: folder.rename_folder("a", path),
    ):
        with pytest.raises(ValueError, match="not a path inside a store"):
            attempt()


@given(st.text(alphabet="./\\a\0", max_size=8))
def test_whatever_the_path_it_stays_inside(path: str) -> None:
    folder = LocalDirectory("/srv/store")
    try:
        full = folder.full(path)
    except ValueError:
        return
    assert os.path.commonpath(["/srv/store", os.path.normpath(full)]) == "/srv/store"


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("outside")
    (place / "secret").write_bytes(b"do not touch")
    return place


def test_a_linked_file_is_not_followed(
    folder: LocalDirectory, tmp_path: Path, outside: Path
) -> None:
    os.symlink(outside / "secret", tmp_path / "1.1.1.zst")
    with pytest.raises(StorageError):
        folder.read("1.1.1.zst", size_bytes_max=READ_MAX)
    with pytest.raises(StorageError):
        folder.read_head("1.1.1.zst", 9)
    status = folder.stat("1.1.1.zst")
    assert status is not None
    assert status.size_bytes != len(b"do not touch")
    folder.remove("1.1.1.zst")
    assert (outside / "secret").read_bytes() == b"do not touch"


@pytest.mark.parametrize("linked", ["snapshots", "a/snapshots"])
def test_a_linked_folder_is_not_followed(
    folder: LocalDirectory, tmp_path: Path, outside: Path, linked: str
) -> None:
    (tmp_path / "a").mkdir()
    os.symlink(outside, tmp_path / linked, target_is_directory=True)
    for attempt in (
        lambda: folder.names(linked),
        lambda: folder.read(f"{linked}/secret", size_bytes_max=READ_MAX),
        lambda: folder.read_head(f"{linked}/secret", 9),
        lambda: folder.publish(f"{linked}/new", b""),
        lambda: folder.publish_derived(f"{linked}/new", b""),
        lambda: folder.create(f"{linked}/new"),
        lambda: folder.create_whole(f"{linked}/new", b""),
        lambda: folder.make_folder(f"{linked}/below"),
        lambda: folder.make_folders(f"{linked}/below"),
        lambda: folder.make_folders(linked),
        lambda: folder.remove(f"{linked}/secret"),
    ):
        with pytest.raises(StorageError, match="link"):
            attempt()
    assert os.listdir(outside) == ["secret"]


def test_removing_a_folder_removes_links_and_not_what_they_lead_to(
    folder: LocalDirectory, tmp_path: Path, outside: Path
) -> None:
    (tmp_path / "a").mkdir()
    os.symlink(outside, tmp_path / "a" / "linked", target_is_directory=True)
    os.symlink(outside / "secret", tmp_path / "a" / "file")
    folder.remove_folder("a")
    assert not (tmp_path / "a").exists()
    os.symlink(outside, tmp_path / "b", target_is_directory=True)
    folder.remove_folder("b")
    assert not os.path.lexists(tmp_path / "b")
    assert (outside / "secret").read_bytes() == b"do not touch"


def test_a_link_in_the_users_own_path_is_theirs(tmp_path: Path, outside: Path) -> None:
    os.symlink(outside, tmp_path / "mine", target_is_directory=True)
    folder = LocalDirectory(str(tmp_path / "mine"))
    assert folder.read("secret", size_bytes_max=READ_MAX) == b"do not touch"
    assert folder.root == str(tmp_path / "mine")
