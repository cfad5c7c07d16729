"""The store as its users see it: sessions, versions, data, checkpoints, clean-up."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import unicodedata
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import milepost
from milepost import (
    BatchErrorType,
    CheckpointType,
    ItemStatus,
    ManualClock,
    SessionStatus,
    Store,
    StoreConfig,
)
from milepost.storage.directory import LocalDirectory
from support.faults import Faults

if TYPE_CHECKING:
    from pathlib import Path

    from support.faults import Call


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# Versioned data.


def test_data_has_versions(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    assert [store.save_state("settings", {"cursor": n}) for n in (41, 42, 43)] == [1, 2, 3]
    assert store.load_state("settings") == {"cursor": 43}
    assert store.load_state("settings", version=1) == {"cursor": 41}
    assert [each.version for each in store.versions("settings")] == [3, 2, 1]
    view = store.view("settings")
    assert view.state.kind is milepost.SessionKind.DATA
    assert view.judgement.status is SessionStatus.COMPLETED


def test_data_as_a_type_and_defaults(tmp_path: Path) -> None:
    @dataclasses.dataclass
    class Cursor:
        page: int

    store = Store(tmp_path / "s")
    store.save_state("settings", Cursor(page=7))
    assert store.load_state("settings") == {"page": 7}
    with pytest.raises(milepost.SchemaError, match="settings"):
        store.load_state("settings", type=list)
    assert store.load_state("settings", type=dict[str, int]) == {"page": 7}
    assert store.load_state("unknown", default={}) == {}
    assert store.load_state("settings", version=99, default=None) is None
    with pytest.raises(milepost.SessionNotFoundError, match="unknown"):
        store.load_state("unknown")
    with pytest.raises(milepost.SnapshotNotFoundError, match="99"):
        store.load_state("settings", version=99)
    assert Store(tmp_path / "no store").load_state("settings", default=1) == 1


def test_what_cannot_be_stored_is_named_before_anything_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    with pytest.raises(milepost.EncodingError, match=r"data\['a'\]\[1\]"):
        store.save_state("settings", {"a": [1, object()]})
    assert not (tmp_path / "s").exists()
    store.save_state("settings", 1)
    before = tree(tmp_path)
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(milepost.RecordTooLargeError, match="deep"):
        store.save_state("settings", deep)
    with pytest.raises(milepost.RecordTooLargeError, match="bytes"):
        store.save_state("settings", b"x" * (65 << 20))
    assert tree(tmp_path) == before


def test_only_the_last_versions_are_kept_and_numbers_are_never_used_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", config=StoreConfig(max_state_history=3))
    for n in range(12):
        assert store.save_state("settings", n) == n + 1
    kept = [each.version for each in store.versions("settings")]
    assert kept[:3] == [12, 11, 10]
    assert len(kept) <= 4
    with pytest.raises(milepost.ConfigurationError, match="max_state_history"):
        StoreConfig(max_state_history=0)


def test_raw_blocks_without_compression(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", config=StoreConfig(enable_compression=False))
    store.save_state("settings", "abc" * 50_000)
    size = max(path.stat().st_size for path in (tmp_path / "s" / "sessions").rglob("*.zst"))
    assert size > 150_000
    assert store.load_state("settings") == "abc" * 50_000


# Sessions.


def fill(store: Store, name: str = "places", *, complete: bool = True) -> None:
    with store.session(name, total_batches=2) as session:
        for key in ("11110", "11140"):
            batch = session.start_batch(key, items_total=2)
            batch.update_item("p-1", ItemStatus.COMPLETED)
            if key == "11140" and not complete:
                batch.update_item("p-2", ItemStatus.FAILED, TimeoutError("HTTP 504"))
            else:
                batch.update_item("p-2", ItemStatus.COMPLETED)
            batch.complete()
        session.complete()


def test_sessions_are_listed_and_an_unreadable_one_stops_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    for name in ("place", "지역-수집", "a/b", "CON"):
        fill(store, name)
    assert sorted(store.names()) == sorted(["place", "지역-수집", "a/b", "CON"])
    for path in (tmp_path / "s" / "sessions" / "place").rglob("*.zst"):
        path.write_bytes(b"not what it was")
    for path in (tmp_path / "s" / "backups").rglob("*.zst"):
        path.write_bytes(b"not what it was")
    listed = {info.session_id: info for info in store.sessions()}
    assert listed["place"].status is None
    assert "no snapshot" in listed["place"].reason
    assert listed["a/b"].status is SessionStatus.COMPLETED
    assert listed["a/b"].state_count >= 2


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "x" * 2_000, "\ud800", 3])
def test_names_that_cannot_be(tmp_path: Path, name: Any) -> None:
    with pytest.raises(milepost.ConfigurationError):
        Store(tmp_path / "s").session(name)
    assert not (tmp_path / "s").exists()


def test_a_folder_that_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(milepost.StoreNotFoundError, match="other things"):
        Store(tmp_path).session("x")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(milepost.StoreNotFoundError):
        Store(tmp_path / "none").sessions()
    (tmp_path / "file").write_text("")
    with pytest.raises(milepost.MilepostError):
        Store(tmp_path / "file").session("x")


def test_sessions_without_a_marker_are_a_damaged_store_and_not_a_new_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", config=StoreConfig(backup_enabled=False))
    fill(store)
    (tmp_path / "s" / "MILEPOST").unlink()
    with pytest.raises(milepost.NotAMilepostFileError, match="MILEPOST"):
        store.session("places")
    assert not (tmp_path / "s" / "MILEPOST").exists()


def test_with_backups_a_lost_marker_can_be_copied_back(tmp_path: Path) -> None:
    fill(Store(tmp_path / "s"))
    mark = tmp_path / "s" / "MILEPOST"
    good = mark.read_bytes()
    for lose in (mark.unlink, lambda: mark.write_bytes(b"not what it was")):
        lose()
        with pytest.raises(milepost.FormatError) as caught:
            Store(tmp_path / "s").session("places")
        copy = tmp_path / "s" / "backups" / "MILEPOST"
        assert str(copy) in caught.value.hint
        shutil.copy(copy, mark)
        assert mark.read_bytes() == good
        assert len(Store(tmp_path / "s").sessions()) == 1


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    from milepost.storage.marker import marker_checksum

    fill(Store(tmp_path / "s"))
    marker = tmp_path / "s" / "MILEPOST"
    text = marker.read_text().partition("checksum")[0].replace("format: 1", "format: 2")
    marker.write_text(f"{text}checksum: {marker_checksum(text)}\n")
    with pytest.raises(milepost.UnsupportedVersionError, match="format 2"):
        Store(tmp_path / "s").sessions()


def test_a_session_folder_under_another_name_is_not_believed(tmp_path: Path) -> None:
    fill(Store(tmp_path / "s"), "one")
    sessions = tmp_path / "s" / "sessions"
    shutil.copytree(sessions / "one", sessions / "two")
    with pytest.raises(milepost.FormatError, match="'two' holds session 'one'"):
        Store(tmp_path / "s").view("two")
    with pytest.raises(milepost.FormatError, match="'two' holds session 'one'"):
        Store(tmp_path / "s").session("two")


def test_a_file_of_another_session_is_not_believed(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", config=StoreConfig(backup_enabled=False))
    fill(store, "one")
    fill(store, "two")
    sessions = tmp_path / "s" / "sessions"
    newest = store.versions("one")[0].name.path
    foreign = (sessions / "one" / newest).read_bytes()
    (sessions / "two" / newest).write_bytes(foreign)
    view = store.view("two")
    assert view.state.session_id == "two"
    assert any(finding.is_error for finding in view.findings)


def test_links_are_not_followed(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", config=StoreConfig(backup_enabled=False))
    fill(store, "one")
    snapshots = tmp_path / "s" / "sessions" / "one" / "snapshots"
    moved = tmp_path / "elsewhere"
    snapshots.rename(moved)
    snapshots.symlink_to(moved)
    with pytest.raises(milepost.MilepostError):
        store.view("one")


def test_reading_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    fill(store)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    store.sessions()
    store.view("places")
    store.versions("places")
    assert len(list(store.events("places"))) > 5
    store.load_progress("places")
    for path in (tmp_path / "s").rglob("*.zst"):
        assert list(store.read_file(path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_reading_works_while_another_thread_writes(tmp_path: Path) -> None:
    tracker = milepost.TrackerConfig(checkpoint_interval_seconds=0.02, sync_interval_seconds=0.01)
    store = Store(tmp_path / "s", tracker=tracker, config=StoreConfig(max_state_history=1))
    stop = threading.Event()
    failures: list[BaseException] = []
    seen: list[int] = []

    def read() -> None:
        reader = Store(tmp_path / "s")
        try:
            while not stop.is_set():
                view = reader.view("places")
                assert not view.is_lossy, view.findings
                seen.append(view.state.total_items_processed)
        except BaseException as error:
            failures.append(error)

    with store.session("places") as session:
        batch = session.start_batch("a")
        batch.update_item(0, ItemStatus.COMPLETED)
        thread = threading.Thread(target=read)
        thread.start()
        for n in range(1, 4_000):
            batch.update_item(n, ItemStatus.COMPLETED)
            if n % 100 == 0:
                session.snapshot()
        stop.set()
        thread.join()
    assert not failures
    assert seen == sorted(seen)


def test_a_second_process_is_refused_by_host_pid_and_since(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                f"""
                import milepost, sys
                session = milepost.Store({str(tmp_path / "s")!r}).session("places")
                print("ready", flush=True)
                sys.stdin.read()
                session.close()
                """
            ),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    try:
        with pytest.raises(milepost.AlreadyLockedError, match=str(holder.pid)) as caught:
            Store(tmp_path / "s").session("places")
        assert caught.value.holder is not None
        assert caught.value.holder["pid"] == holder.pid
        assert caught.value.holder["host"]
        assert caught.value.holder["since"].tzinfo is not None
        assert Store(tmp_path / "s").view("places").judgement.status is SessionStatus.RUNNING
    finally:
        holder.communicate(timeout=30)
    with Store(tmp_path / "s").session("places"):
        pass


# Retry, restart, restore.


def test_retry_by_key_by_type_and_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    fill(store, complete=False)
    assert store.view("places").judgement.status is SessionStatus.FAILED
    with pytest.raises(LookupError, match="p-9"):
        store.retry("places", keys=["p-9"])
    nothing = store.retry("places", error_type=BatchErrorType.DATABASE_ERROR)
    assert (nothing.batches, nothing.items) == ([], 0)
    put_back = store.retry("places", error_type=BatchErrorType.TIMEOUT_ERROR)
    assert (put_back.batches, put_back.items) == (["11140"], 1)
    state = store.load_progress("places")
    assert state.pending_batches[1].items_processed == 1
    assert state.pending_batches[1].open["p-2"].attempts == 0
    assert milepost.check(state) == []
    with store.session("places") as session:
        batch = session.start_batch("11140")
        assert batch.is_done("p-1")
        batch.update_item("p-2", ItemStatus.COMPLETED)
        batch.complete()
        assert session.complete() is milepost.Outcome.COMPLETED
    assert store.view("places").judgement.status is SessionStatus.COMPLETED


def test_restart_is_a_new_version_and_history_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    fill(store)
    before = store.versions("places")[0].version
    after = store.restart("places")
    assert after > before
    assert store.load_progress("places").completed_batches == {}
    assert len(store.load_progress("places", before).completed_batches) == 2
    assert store.view("places").judgement.status is SessionStatus.PENDING


def test_restore_makes_an_older_version_the_state_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    with store.session("places", total_batches=2) as session:
        session.start_batch("a").complete()
        kept = session.snapshot()
        session.start_batch("b").complete()
        session.complete()
    version = store.restore("places", kept)
    info = store.versions("places")[0]
    assert (info.version, info.restored_from) == (version, kept)
    state = store.load_progress("places")
    assert list(state.completed_batches) == [0]
    assert state.outcome is None
    assert len(state.executions) == 1
    with store.session("places") as again:
        again.start_batch("b").complete()
        again.complete()
    assert len(store.load_progress("places").completed_batches) == 2
    with pytest.raises(milepost.SnapshotNotFoundError):
        store.restore("places", 999)


# Checkpoints.


def test_checkpoints_are_typed_and_newest_first(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    with store.session("places") as session:
        batch = session.start_batch("a")
        first = session.save_checkpoint(CheckpointType.BATCH_PROGRESS, {"page": 7}, batch=batch)
        second = session.save_checkpoint("session_start", [1], name="by hand")
    third = store.save_checkpoint("places", CheckpointType.SESSION_COMPLETE)
    listed = store.checkpoints("places")
    assert [each.id for each in listed] == [third, second, first]
    assert [each.name for each in listed] == [None, "by hand", None]
    assert listed[-1].batch_number == 0
    assert store.load_checkpoint(first) == {"page": 7}
    assert store.load_checkpoint(first, type=dict[str, int]) == {"page": 7}
    assert store.load_checkpoint(third) is None
    with pytest.raises(milepost.SchemaError):
        store.load_checkpoint(second, type=dict[str, int])


def test_unknown_types_sessions_and_ids_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    fill(store)
    with pytest.raises(milepost.ConfigurationError, match="batch_progress"):
        store.save_checkpoint("places", "bogus", {})
    with pytest.raises(milepost.SessionNotFoundError):
        store.save_checkpoint("unknown", CheckpointType.BATCH_START, {})
    for bad in ("0" * 32, "../../etc/passwd", "", None):
        with pytest.raises(milepost.CheckpointNotFoundError):
            store.load_checkpoint(bad)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # on purpose


def test_a_damaged_checkpoint_is_read_from_its_backup(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    with store.session("places") as session:
        mark = session.save_checkpoint(CheckpointType.BATCH_START, {"page": 7})
    path = tmp_path / "s" / "sessions" / "places" / "checkpoints" / f"{mark}.zst"
    path.write_bytes(path.read_bytes()[:-1])
    assert store.load_checkpoint(mark) == {"page": 7}
    shutil.rmtree(tmp_path / "s" / "backups")
    with pytest.raises(milepost.FormatError):
        store.load_checkpoint(mark)


# Backups.


def test_backups_are_real_copies_and_keep_their_own_last_n(tmp_path: Path) -> None:
    config = StoreConfig(backup_path=str(tmp_path / "other disk"), max_state_history=2)
    store = Store(tmp_path / "s", config=config)
    for n in range(6):
        store.save_state("settings", n)
    copies = sorted((tmp_path / "other disk").rglob("*.zst"))
    assert [path.name.split(".")[0] for path in copies] == ["5", "6"]
    own = tmp_path / "s" / "sessions" / "settings" / "snapshots" / copies[-1].name
    assert own.read_bytes() == copies[-1].read_bytes()
    assert own.stat().st_ino != copies[-1].stat().st_ino
    for path in own.parent.iterdir():
        path.unlink()
    assert store.load_state("settings") == 5
    assert any(finding.rule == "from-backup" for finding in store.view("settings").findings)
    assert store.save_state("settings", "healed") == 8  # 7 is the snapshot that healed it
    assert not any(finding.is_error for finding in store.view("settings").findings)


def test_a_failing_backup_is_seen_and_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("in the way")
    config = StoreConfig(backup_path=str(tmp_path / "a file"))
    store = Store(tmp_path / "s", config=config)
    fill(store)
    view = store.view("places")
    assert view.judgement.status is SessionStatus.COMPLETED
    assert "a file" in view.backup_error or "Not a directory" in view.backup_error


# Clean-up by age.


def test_clean_up_never_touches_the_newest_nor_anything_unfinished(tmp_path: Path) -> None:
    clock = ManualClock()
    store = Store(tmp_path / "s", clock=clock)
    for _ in range(3):
        fill_once(store, "done", ends=True)
        fill_once(store, "open", ends=False)
        store.save_state("settings", 1)
        clock.advance(3600)
    marks = len(store.checkpoints("done"))
    open_before = [each.version for each in store.versions("open")]
    clock.advance(48 * 3600)
    result = store.cleanup()
    assert result.deleted_states > 0
    assert result.deleted_checkpoints == marks - 1
    assert len(store.checkpoints("done")) == 1
    assert store.load_checkpoint(store.checkpoints("done")[0].id) == {"n": 1}
    assert store.load_state("settings") == 1
    assert len(store.versions("settings")) == 1
    assert [each.version for each in store.versions("open")] == open_before
    assert milepost.check(store.load_progress("done")) == []
    assert store.cleanup(older_than=timedelta(days=1)).deleted_states == 0


def fill_once(store: Store, name: str, *, ends: bool) -> None:
    with store.session(name) as session:
        session.save_checkpoint(CheckpointType.BATCH_START, {"n": 1})
        if ends:
            session.complete()


def test_clean_up_runs_by_itself_once_per_interval(tmp_path: Path) -> None:
    clock = ManualClock(start_ns=4_000_000_000_000_000_000)
    store = Store(tmp_path / "s", clock=clock)
    for n in range(3):
        store.save_state("settings", n)
    with store.session("work"):
        pass
    stamp = tmp_path / "s" / "cleaned"
    assert stamp.exists()
    assert len(store.versions("settings")) == 3
    clock.advance(30 * 3600)
    old = (clock.now_ns() - int(25 * 3600e9)) / 1e9
    os.utime(stamp, (old, old))
    with store.session("work"):
        pass
    assert len(store.versions("settings")) == 1
    assert store.load_state("settings") == 2


def test_clean_up_removes_what_is_left_of_sessions_that_were_never_made(tmp_path: Path) -> None:
    system = Faults()
    store = Store(directory=LocalDirectory(str(tmp_path / "s"), system=system))
    store.save_state("settings", 1)
    sessions = tmp_path / "s" / "sessions"
    system.failing = lambda call: errno.EIO if call.path == str(sessions / "work") else None
    for _ in range(2):
        with pytest.raises(milepost.StorageError):
            store.session("work")
    old, young = sorted(sessions.glob(".*.tmp"))
    for stranger in (sessions / "mine.tmp", sessions / ".mine.tmp"):
        stranger.mkdir()
    for folder in sessions.iterdir():
        if folder != young:
            os.utime(folder, (0, 0))
    store.cleanup()
    assert not old.exists()
    # It may be in the making: no age that is asked for is too young for that.
    store.cleanup(older_than=timedelta(0))
    assert young.is_dir()
    left = {each.name for each in sessions.iterdir()}
    assert left == {"settings", "mine.tmp", ".mine.tmp", young.name}
    assert store.load_state("settings") == 1


def test_what_clean_up_removes_is_out_of_its_makers_reach_first(tmp_path: Path) -> None:
    """Else one that was only slow could give its name to half a session."""
    system = Faults()
    store = Store(directory=LocalDirectory(str(tmp_path / "s"), system=system))
    store.save_state("settings", 1)
    old = tmp_path / "s" / "sessions" / f".{'0' * 32}.tmp"
    (old / "leases").mkdir(parents=True)
    (old / "leases" / "1.json").touch()
    os.utime(old, (0, 0))
    in_reach: list[bool] = []

    def look(call: Call) -> None:
        if call.name.startswith("remove"):
            in_reach.append(old.exists())

    system.failing = look
    store.cleanup()
    assert in_reach == [False, False, False]
    assert [each.name for each in old.parent.iterdir()] == ["settings"]


# Where the store is.


def test_the_store_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "project" / "deep" / "er"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    monkeypatch.delenv("MILEPOST_STORE", raising=False)
    assert milepost.resolve_path() == str(below / ".milepost")
    (tmp_path / "project" / ".milepost").mkdir()
    assert milepost.resolve_path() == str(tmp_path / "project" / ".milepost")
    monkeypatch.setenv("MILEPOST_STORE", "elsewhere")
    assert milepost.resolve_path() == str(below / "elsewhere")
    assert milepost.resolve_path("given") == str(below / "given")


def test_an_old_state_can_be_read_by_its_own_format(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    fill(store)
    newest = store.versions("places")[0].name.path
    parts = list(store.read_file(tmp_path / "s" / "sessions" / "places" / newest))
    assert parts[0]["header"]["kind"] == "snapshot"
    assert parts[1]["body"]["session_id"] == "places"
    assert msgspec.json.encode(parts)


def test_restore_without_a_version_goes_on_from_what_is_sure(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", config=StoreConfig(backup_enabled=False))
    session = store.session("places", durability="disk")
    batch = session.start_batch("a")
    for n in range(20):
        batch.update_item(n, ItemStatus.COMPLETED)
    folder = tmp_path / "copy"
    shutil.copytree(tmp_path / "s", folder)
    session.close()
    copy = Store(folder, config=StoreConfig(backup_enabled=False))
    (journal,) = (folder / "sessions" / "places" / "journal").iterdir()
    data = bytearray(journal.read_bytes())
    at = len(data.rstrip(b"\0")) // 2
    data[at] ^= 1
    journal.write_bytes(data)
    sure = copy.view("places").state.total_items_processed
    assert 0 < sure < 20
    assert copy.view("places").is_lossy
    with pytest.raises(milepost.DamagedError, match="damaged"):
        copy.session("places")
    copy.restore("places")
    assert copy.view("places").state.total_items_processed == sure
    assert not copy.view("places").is_lossy
    with copy.session("places") as again:
        assert again.start_batch("a").is_done(0)


def test_a_version_file_of_another_session_is_not_believed(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", config=StoreConfig(backup_enabled=False))
    for name in ("one", "two"):
        for n in range(3):
            store.save_state(name, f"{name} {n}")
    sessions = tmp_path / "s" / "sessions"
    path = next(each.name.path for each in store.versions("one") if each.version == 2)
    (sessions / "two" / path).write_bytes((sessions / "one" / path).read_bytes())
    with pytest.raises(milepost.FormatError):
        store.load_state("two", version=2)


def test_a_session_whose_folder_name_was_taken_apart_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.save_state("지역", 1)
    sessions = tmp_path / "s" / "sessions"
    (sessions / "지역").rename(sessions / unicodedata.normalize("NFD", "지역"))
    assert store.names() == ["지역"]
    assert store.load_state("지역") == 1
    store.save_state("지역", 2)
    assert len(list(sessions.iterdir())) == 1
