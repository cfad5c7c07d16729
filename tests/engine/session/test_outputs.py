"""Exact output in a living session: whose rows they are, and when they reach the file.

What a crash leaves is looked at in tests/format/test_outputs.py and tests/faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pickle
import shutil
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost.errors import (
    ClosedError,
    ConfigurationError,
    DamagedError,
    DurabilityLostError,
    EncodingError,
    StorageFullError,
    SupersededError,
)
from milepost.storage.directory import LocalDirectory
from support.faults import in_child
from support.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUIET = milepost.TrackerConfig(checkpoint_interval_seconds=1e9, sync_interval_seconds=1e6)
"""Nothing is synced and no snapshot is taken but where the program asks for it."""


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return tmp_path / "rows.txt"


def store_in(folder: Path, system: Recording | None = None) -> milepost.Store:
    place = LocalDirectory(str(folder / "store"), system=system)
    return milepost.Store(directory=place, tracker=QUIET)


def crawl(folder: Path, items: str) -> milepost.Items[str]:
    """A loop over these letters."""
    return milepost.resume(list(items), "crawl", store=store_in(folder), progress=False)


def test_rows_reach_the_file_with_their_acknowledgement(tmp_path: Path, rows: Path) -> None:
    items = crawl(tmp_path, "abc")
    out = items.open(rows)
    for item in items:
        before = rows.read_bytes()
        assert out.write(item) == 1
        assert out.write("\n") == 1
        out.flush()
        assert rows.read_bytes() == before
    assert rows.read_bytes() == b"a\nb\nc\n"


def test_text_and_bytes_are_taken_as_they_are(tmp_path: Path, rows: Path) -> None:
    items = crawl(tmp_path, "a")
    out = items.open(rows)
    for _ in items:
        out.writelines(["지역\n", b"\xff\r\n", "x"])
    assert rows.read_bytes() == "지역\n".encode() + b"\xff\r\nx"


def test_rows_are_text_or_bytes_of_an_item_in_hand(tmp_path: Path, rows: Path) -> None:
    items = crawl(tmp_path, "ab")
    out = items.open(rows)
    with pytest.raises(ClosedError, match="no item is in hand"):
        out.write("too early\n")
    for item in items:
        with pytest.raises(EncodingError, match="text or bytes, not dict"):
            out.write({"item": item})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match="return the rows from the function"):
            pickle.dumps(out)
    with pytest.raises(ClosedError, match="no item is in hand"):
        out.write("too late\n")
    assert rows.read_bytes() == b""


def test_what_is_not_completed_leaves_no_row(tmp_path: Path, rows: Path) -> None:
    items = crawl(tmp_path, "abcdef")
    out = items.open(rows)
    for item in items:
        with items.catching(ValueError):
            out.write(item)
            if item == "b":
                items.skip("no need")
            if item == "c":
                items.fail("no luck")
            if item == "d":
                raise ValueError
        if item == "f":
            break
    assert rows.read_bytes() == b"ae"
    with pytest.raises(ZeroDivisionError), crawl(tmp_path, "f") as items:
        out = items.open(rows)
        for item in items:
            out.write(item)
            raise ZeroDivisionError
    assert rows.read_bytes() == b"ae"


def test_several_files_and_one_that_the_batches_share(tmp_path: Path) -> None:
    @milepost.job("crawl", batches=["one", "two", "three"], workers=3, store=store_in(tmp_path))
    def job(batch: milepost.Batch) -> None:
        with batch.items(range(5)) as items:
            shared, own = items.open(tmp_path / "all"), items.open(tmp_path / batch.key)
            for item in items:
                shared.write(f"{batch.key} {item}\n")
                own.write(f"{item}\n")

    job.run(progress=False).raise_for_failures()
    lines = (tmp_path / "all").read_text().splitlines()
    assert sorted(lines) == sorted(
        f"{key} {n}" for key in ("one", "two", "three") for n in range(5)
    )
    for key in ("one", "two", "three"):
        assert (tmp_path / key).read_text() == "0\n1\n2\n3\n4\n"


# Whose rows they are.


def test_rows_that_a_function_writes_are_those_of_its_item(tmp_path: Path, rows: Path) -> None:
    tries: list[str] = []

    def fetch(item: str) -> None:
        tries.append(item)
        out.write(f"{item}1 ")
        if item == "b":
            raise ValueError("no luck")
        if item == "c":
            raise milepost.Skip("no need")
        if item == "d" and tries.count("d") == 1:
            raise milepost.Retry(after=0)
        out.write(f"{item}2 ")

    store = store_in(tmp_path)
    mapped = milepost.map(fetch, list("abcde"), "crawl", workers=4, store=store, progress=False)
    out = mapped.open(rows)
    for item, _ in mapped:
        out.write(f"{item}3\n")
        if item == "e":
            mapped.fail("not this one", key="e")
    assert sorted(rows.read_text().splitlines()) == ["a1 a2 a3", "d1 d2 d3"]


def test_rows_of_tasks_that_run_at_once_are_kept_apart(tmp_path: Path, rows: Path) -> None:
    opened: list[milepost.Output] = []

    async def part(item: int, number: int) -> None:
        await asyncio.sleep(0)
        opened[0].write(f"{item}.{number} ")

    async def fetch(item: int) -> None:
        opened[0].write(f"{item}: ")
        for number in range(3):
            await asyncio.gather(part(item, number))
        await asyncio.to_thread(opened[0].write, f"{item}.thread")
        if item % 2:
            raise ValueError("odd")

    async def main() -> None:
        store = store_in(tmp_path)
        mapped = milepost.map(fetch, range(8), "crawl", workers=8, store=store, progress=False)
        async with mapped:
            opened.append(mapped.open(rows))
            async for item, _ in mapped:
                opened[0].write(f" {item}\n")

    asyncio.run(main())
    assert sorted(rows.read_text().splitlines()) == [
        f"{n}: {n}.0 {n}.1 {n}.2 {n}.thread {n}" for n in (0, 2, 4, 6)
    ]


# The order of calls.


def test_rows_first_then_the_record_and_both_synced_in_that_order(tmp_path: Path) -> None:
    system = Recording(str(tmp_path))
    with store_in(tmp_path, system).session("crawl") as session:
        batch = session.start_batch("only")
        items = batch.items(["a", "b", "c"])
        out = items.open(tmp_path / "rows.txt")
        session.flush()
        system.calls.clear()
        for item in items:
            out.write(item)
            if item == "c":
                session.flush()
        batch.complete()
    calls = [call for call in system.calls if "rows.txt" in call or ".journal" in call]
    journal = next(call.split()[1] for call in calls if ".journal" in call)
    row, record = "write rows.txt", f"write {journal}"
    both = ["fsync rows.txt", f"fsync {journal}"]
    taken, acknowledged = [record], [row, record]
    mark = record  # what was synced is said at once
    assert calls[:9] == [*taken, *acknowledged, *acknowledged, *both, mark, row]
    assert [call for call in calls[9:] if "fsync" in call][:2] == both


def test_who_opens_syncs_what_a_killed_writer_left_before_it_builds_on_it(tmp_path: Path) -> None:
    def body(_tell: Callable[[bytes], None]) -> None:
        items = crawl(tmp_path, "abc")
        out = items.open(tmp_path / "rows.txt")
        for item in items:
            out.write(item)
            if item == "c":
                os._exit(0)

    assert in_child(body).code == 0
    system = Recording(str(tmp_path))
    store_in(tmp_path, system).session("crawl", execute=False).close()
    rows = system.calls.index("fsync rows.txt")
    snapshot = next(
        n for n, each in enumerate(system.calls) if "snapshots/" in each and "rename" in each
    )
    assert rows < snapshot
    assert "fsync-folder ." in system.calls[rows:snapshot]


# What goes wrong.


def test_on_a_full_disk_the_item_is_not_acknowledged(tmp_path: Path, rows: Path) -> None:
    system = Recording(str(tmp_path))
    session = store_in(tmp_path, system).session("crawl")
    with session:
        items = session.start_batch("only").items(["a", "b", "c"])
        out = items.open(rows)
        with pytest.raises(StorageFullError, match=r"rows\.txt"):
            for item in items:
                out.write(item * 1000)
                system.room = 10 if item == "b" else None
        system.room = None
        assert rows.read_bytes() == b"a" * 1000
    assert left(tmp_path, "abc") == ["b", "c"]
    assert rows.read_bytes() == b"a" * 1000 + b"bc"


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_rows_whose_record_fails_are_taken_back(
    tmp_path: Path, rows: Path, durability: milepost.Durability
) -> None:
    system = Recording(str(tmp_path))
    with store_in(tmp_path, system).session("crawl", durability=durability) as session:
        items = session.start_batch("only").items(["a", "b", "c"])
        out = items.open(rows)
        next(items)
        out.write("a")
        next(items)
        out.write("b")
        if durability == "process":
            system.room = 1  # the row has room, its record has not
            with pytest.raises(StorageFullError, match=r"\.journal"):
                next(items)
            system.room = None
        else:
            fail_one(system, "sync", ".journal", errno.EIO)
            with pytest.raises(DurabilityLostError):
                next(items)
            session.set_data("anything")  # it goes on without the record, and without the row
        assert rows.read_bytes() == b"a"
    assert left(tmp_path, "abc") == ["b", "c"]
    assert rows.read_bytes() == b"abc"


def left(folder: Path, items: str) -> list[str]:
    """Do what is left, a row for each; what it was."""
    seen: list[str] = []
    with store_in(folder).session("crawl") as session:
        batch = session.start_batch("only")
        work = batch.items(list(items))
        out = work.open(folder / "rows.txt")
        for item in work:
            seen.append(item)
            out.write(item)
    return seen


def test_after_a_failed_sync_nothing_is_acknowledged_until_it_is_run_again(
    tmp_path: Path, rows: Path
) -> None:
    system = Recording(str(tmp_path))
    session = store_in(tmp_path, system).session("crawl")
    batch = session.start_batch("only")
    items = batch.items(["a", "b", "c"])
    out = items.open(rows)
    out_of = iter(items)
    next(out_of)
    out.write("a")
    next(out_of)
    fail_one(system, "sync", "rows.txt", errno.EIO)
    with pytest.raises(DurabilityLostError, match=r"rows\.txt takes nothing more"):
        session.flush()
    leases = os.listdir(tmp_path / "store" / "sessions" / "crawl" / "leases")
    sequence = session.live.sequence
    out.write("b")
    for call in (lambda: next(out_of), session.flush, batch.complete, session.snapshot):
        with pytest.raises(DurabilityLostError, match="run the work again"):
            call()
    assert session.live.sequence == sequence
    assert os.listdir(tmp_path / "store" / "sessions" / "crawl" / "leases") == leases
    with pytest.raises(DurabilityLostError):
        session.close()
    assert left(tmp_path, "abc") == ["b", "c"]
    assert rows.read_bytes() == b"abc"


def fail_one(system: Recording, name: str, of: str, error: int) -> None:
    """The next call of this name that is about this file fails, and no other."""
    real = getattr(system, name)

    def call(descriptor: int, *args: Any) -> Any:
        if of in system._paths[descriptor]:
            setattr(system, name, real)
            raise OSError(error, os.strerror(error))
        return real(descriptor, *args)

    setattr(system, name, call)


def test_a_superseded_writer_writes_no_row(tmp_path: Path, rows: Path) -> None:
    session = store_in(tmp_path).session("crawl")
    items = session.start_batch("only").items(["a", "b", "c"])
    out = items.open(rows)
    next(items)
    out.write("a")
    next(items)
    out.write("b")
    # Where the OS lock does not reach, a higher lease is all that tells.
    lease = tmp_path / "store" / "sessions" / "crawl" / "leases" / f"{session.epoch + 1}.json"
    lease.touch()
    with pytest.raises(SupersededError):
        next(items)
    assert rows.read_bytes() == b"a"
    session.close()


def test_a_file_that_somebody_else_writes_is_not_written_on(tmp_path: Path, rows: Path) -> None:
    items = crawl(tmp_path, "abc")
    out = items.open(rows)
    with pytest.raises(DamagedError, match="somebody else writes it"):
        for item in items:
            out.write(item)
            if item == "b":
                rows.write_bytes(rows.read_bytes() + b"mine")
    assert rows.read_bytes() == b"amine"
    # What stands behind the acknowledged rows was never acknowledged, whoever wrote it.
    items = crawl(tmp_path, "abc")
    out = items.open(rows)
    for item in items:
        out.write(item)
    assert rows.read_bytes() == b"abc"


def test_two_sessions_on_one_file_are_noticed(tmp_path: Path, rows: Path) -> None:
    store = store_in(tmp_path)
    one = milepost.resume(["a", "b"], "one", store=store, progress=False)
    two = milepost.resume(["c", "d"], "two", store=store, progress=False)
    out_one, out_two = one.open(rows), two.open(rows)
    next(one)
    next(two)
    out_one.write("a")
    out_two.write("c")
    next(one)
    with pytest.raises(DamagedError, match="somebody else writes it"):
        next(two)
    one.close()
    assert rows.read_bytes() == b"a"
    with pytest.raises(ConfigurationError, match="did not write"):
        milepost.resume(["e"], "three", store=store, progress=False).open(rows)


def test_a_folder_and_another_drive_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def relpath(path: str, start: str) -> str:
        raise ValueError(f"path is on mount {path!r}, start on mount {start!r}")

    items = crawl(tmp_path, "a")
    with pytest.raises(ConfigurationError, match="is a folder"):
        items.open(tmp_path)
    monkeypatch.setattr(os.path, "relpath", relpath)
    with pytest.raises(ConfigurationError, match="on another drive") as caught:
        items.open(tmp_path / "rows.txt")
    assert "put both on one drive" in caught.value.hint
    assert not (tmp_path / "rows.txt").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_no_hold_on_it(tmp_path: Path, rows: Path) -> None:
    items = crawl(tmp_path, "ab")
    out = items.open(rows)
    next(items)
    out.write("a")

    def body(tell: Callable[[bytes], None]) -> None:
        with pytest.raises(milepost.MilepostError):
            next(items)
        for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:
            with contextlib.suppress(FileNotFoundError):  # the descriptor of this very listing
                assert os.readlink(f"/proc/self/fd/{name}") != str(rows)
        tell(b"done")

    ended = in_child(body)
    assert (ended.told, ended.code) == (b"done", 0)
    assert rows.read_bytes() == b""
    next(items)
    items.close()
    assert rows.read_bytes() == b"a"


# Taken up again, begun anew, moved.


def test_restore_cuts_the_rows_back(tmp_path: Path, rows: Path) -> None:
    store = store_in(tmp_path)
    versions: list[int] = []
    with store.session("crawl") as session:
        items = session.start_batch("only").items(["a", "b", "c", "d"])
        out = items.open(rows)
        for item in items:
            out.write(item)
            versions.append(session.snapshot())
    assert rows.read_bytes() == b"abcd"
    store.restore("crawl", versions[2])  # with `c` in hand
    assert left(tmp_path, "abcd") == ["c", "d"]
    assert rows.read_bytes() == b"abcd"


def test_a_restart_wants_the_old_rows_moved_away(tmp_path: Path, rows: Path) -> None:
    assert left(tmp_path, "ab") == ["a", "b"]
    store_in(tmp_path).restart("crawl")
    with pytest.raises(ConfigurationError, match="begun anew") as caught:
        left(tmp_path, "ab")
    assert "move the file away" in caught.value.hint
    assert rows.read_bytes() == b"ab"
    rows.rename(tmp_path / "old.txt")
    assert left(tmp_path, "ab") == ["a", "b"]
    assert rows.read_bytes() == b"ab"


def test_an_output_of_before_a_restart_takes_no_rows(tmp_path: Path, rows: Path) -> None:
    with store_in(tmp_path).session("crawl") as session:
        batch = session.start_batch("only")
        items = batch.items(["a", "b"])
        out = items.open(rows)
        next(items)
        out.write("a")
        next(items)
        session.restart()
        items = session.start_batch("only").items(["a", "b"])
        next(items)
        stale = items.open  # opening it again says what is wrong with it
        with pytest.raises(ConfigurationError, match="begun anew"):
            stale(rows)
    assert rows.read_bytes() == b"a"


def test_store_and_output_move_together(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "elsewhere" / "there"
    here.mkdir()
    items = crawl(here, "abc")
    out = items.open(here / "rows.txt")
    for item in items:
        out.write(item)
        if item == "c":
            break
    shutil.copytree(here, there)
    shutil.rmtree(here)
    items = crawl(there, "abc")
    out = items.open(there / "rows.txt")
    for item in items:
        out.write(item)
    assert (there / "rows.txt").read_bytes() == b"abc"


def test_a_store_that_moved_without_its_output_says_so(tmp_path: Path, rows: Path) -> None:
    assert left(tmp_path, "ab") == ["a", "b"]
    shutil.copytree(tmp_path / "store", tmp_path / "elsewhere" / "store")
    with pytest.raises(DamagedError, match=r"is gone, and 2 bytes .* were acknowledged"):
        left(tmp_path / "elsewhere", "abc")
    shutil.copy(rows, tmp_path / "elsewhere")
    assert left(tmp_path / "elsewhere", "abc") == ["c"]
