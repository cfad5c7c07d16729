"""Exact output in a living session: whose rows they are, and when they reach the file.

What a crash leaves is looked at in tests/format/test_outputs.py and tests/faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import pickle
import shutil
import sys
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost.errors import (
    ClosedError,
    ConfigurationError,
    DamagedError,
    DurabilityLostError,
    EncodingError,
    OutputError,
    StorageFullError,
    SupersededError,
)
from milepost.model.state import Execution, SessionState
from milepost.session.aside import is_held_here, wait_for_left
from milepost.session.outputs import Slip, all_ended, in_function
from milepost.session.writer import Writer
from milepost.storage import output
from milepost.storage.directory import AppendedFile, LocalDirectory
from milepost.types import Outcome
from support.faults import in_child
from support.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


def test_an_item_that_is_acknowledged_takes_no_more_rows(tmp_path: Path, rows: Path) -> None:
    items = crawl(tmp_path, "ab")
    out = items.open(rows)
    next(items)
    slip = Slip(items.session.outputs)
    token = in_function.set(slip)
    try:
        out.write("in time\n")
        slip.close()
        with pytest.raises(ClosedError, match=r"is acknowledged or given up already: .*rows\.txt"):
            out.write("too late\n")
    finally:
        in_function.reset(token)
    items.close()


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


def test_rows_of_a_loop_in_a_function_are_those_of_its_own_items(
    tmp_path: Path, rows: Path
) -> None:
    with store_in(tmp_path).session("crawl") as session:
        sites = session.start_batch("sites")
        work: Any = None

        def crawl_site(site: str) -> None:
            batch = session.start_batch(site)
            pages = batch.items(range(3))
            out, of_sites = pages.open(rows), work.open(tmp_path / "sites.txt")
            of_sites.write(f"{site} begins\n")
            for page in pages:
                out.write(f"{site}{page}\n")
            for page, text in batch.map(str, range(3, 5)):
                of_sites.write(f"{site} has {page}\n")
                assert text == str(page)
            out.write(f"{site} is done\n")  # no page is in hand: it is the site's
            batch.complete()
            if site == "b":
                raise ValueError("after all pages were done")

        work = sites.map(crawl_site, ["a", "b"], workers=2)
        assert [site for site, _ in work] == ["a"]
        assert session.statistics.total_items_processed == 1 + 2 * 5
    assert sorted(rows.read_text().splitlines()) == [
        *("a is done", "a0", "a1", "a2", "b0", "b1", "b2")
    ]
    assert (tmp_path / "sites.txt").read_text() == "a begins\na has 3\na has 4\n"


def test_rows_of_an_async_loop_in_a_function_are_those_of_its_own_items(
    tmp_path: Path, rows: Path
) -> None:
    async def crawl_site(site: str) -> None:
        batch = await asyncio.to_thread(sessions[0].start_batch, site)
        pages = batch.items(range(3))
        out = await pages.aopen(rows)
        async for page in pages:
            await asyncio.gather(write(out, f"{site}{page}\n"))
        raise milepost.Skip("nothing else to do here")

    async def write(out: milepost.Output, row: str) -> None:
        await asyncio.to_thread(out.write, row)

    async def main() -> None:
        sites = sessions[0].start_batch("sites")
        assert [each async for each in sites.map(crawl_site, ["a", "b"], workers=2)] == []

    with store_in(tmp_path).session("crawl") as session:
        sessions = [session]
        asyncio.run(main())
        assert session.statistics.total_items_processed == 2 * 3
    assert sorted(rows.read_text().split()) == ["a0", "a1", "a2", "b0", "b1", "b2"]


@pytest.mark.parametrize("same", [True, False], ids=["same session", "another session"])
def test_a_map_in_a_function_or_a_body_gives_rows_to_its_innermost_item(
    tmp_path: Path, rows: Path, same: bool
) -> None:
    """Of the output's own session: another session acknowledges none of its rows."""
    store = store_in(tmp_path)
    with store.session("crawl") as session, store.session("other") as other:
        inner = session if same else other

        def page(number: int) -> None:
            out.write(f"{number} ")
            if number % 2:
                raise ValueError("odd")

        def site(name: str) -> None:
            for _ in inner.start_batch(name).map(page, range(4), workers=2):
                pass
            if name == "b":
                raise ValueError("after its pages")

        # `out` is of the outer loop: the pages run in the function of its items, then in its body.
        sites = session.start_batch("sites").map(site, ["b", "a"], workers=1)
        out = sites.open(rows)
        for name, _ in sites:
            out.write(f"{name}. ")
            site(f"body of {name}")
    found = rows.read_text().split()
    if same:
        assert sorted(found) == ["0", "0", "0", "2", "2", "2", "a."]
    else:  # 0 to 3 of the function for "a", and of the body; of "b", which failed, none
        assert sorted(found) == ["0", "0", "1", "1", "2", "2", "3", "3", "a."]


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


@pytest.mark.parametrize("end", ["close", "give_way"])
def test_a_worker_that_was_left_behind_writes_no_row_behind_the_end(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    session = store_in(tmp_path).session("crawl")
    items = session.start_batch("only").items(["a", "b", "c"])
    out = items.open(rows)
    next(items)
    out.write("a")
    next(items)
    out.write("b")
    name = "close" if end == "close" else "supersede"
    plain = getattr(Writer, name)
    late: list[object] = []

    def closed(writer: Writer) -> None:
        # Its end is recorded, and it is not closed: now the worker comes.
        assert writer.state.executions[-1].outcome is not None
        for call in (lambda: items.open(tmp_path / "more.txt"), lambda: next(items)):
            with pytest.raises(ClosedError, match="the run has ended"):
                call()
            late.append(call)
        plain(writer)

    monkeypatch.setattr(Writer, name, closed)
    getattr(session, end)()
    monkeypatch.undo()
    assert len(late) == 2
    assert rows.read_bytes() == b"a"
    assert not (tmp_path / "more.txt").exists()
    if end == "give_way":
        session.close()
    assert left(tmp_path, "abc") == ["b", "c"]
    assert rows.read_bytes() == b"abc"


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


def test_rows_are_taken_back_where_beginning_their_journal_is_interrupted(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    session = store_in(tmp_path).session("crawl")
    items = session.start_batch("only").items(["a", "b", "c"])
    out = items.open(rows)
    next(items)
    out.write("a")
    next(items)
    out.write("b")
    session.snapshot()  # the next record begins a journal
    monkeypatch.setattr("milepost.session.archive.Archive.write_manifest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(items)
    session.close()
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
    # The run ended by itself, so what stands behind its rows is still not ours.
    with pytest.raises(DamagedError, match="has 4 bytes behind the 1 that were acknowledged"):
        crawl(tmp_path, "abc").open(rows)
    assert rows.read_bytes() == b"amine"
    os.truncate(rows, 1)
    items = crawl(tmp_path, "abc")
    out = items.open(rows)
    for item in items:
        out.write(item)
    assert rows.read_bytes() == b"abc"


def some(folder: Path, rows: Path, most: int, *, kill: bool = False) -> None:
    """Acknowledge some of the letters, and stop; or be killed with a row more in the file."""

    def body(_tell: Callable[[bytes], None]) -> None:
        items = crawl(folder, "abcdefgh")
        out = items.open(rows)
        for done, item in enumerate(items):
            if done == most and kill:
                rows.write_bytes(rows.read_bytes() + b"torn")
                os._exit(0)
            if done == most:
                break
            out.write(item)
        items.close()

    assert in_child(body).code == 0


@pytest.mark.parametrize(
    ("loss", "named"),
    [
        ("rows", r"rows\.txt"),
        ("journal within b", "the last event is"),
        ("journal after b", r"what was recorded after event \d+ is not there"),
    ],
)
def test_what_went_missing_under_a_session_is_named(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch, loss: str, named: str
) -> None:
    """After a call that was interrupted half way the next one believes the disk alone."""
    session = store_in(tmp_path).session("crawl")
    items = session.start_batch("only").items("abc")
    out = items.open(rows)
    keeps = {"rows": 0}
    journal = rows
    for item in items:
        if item == "c":
            break
        out.write(item)
        journal = next((tmp_path / "store").rglob("*.journal"))
        keeps[f"journal after {item}"] = journal.stat().st_size

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Writer, "_fold", interrupted)
        session.set_total_batches(3)
    keeps["journal within b"] = keeps["journal after b"] - 1
    os.truncate(rows if loss == "rows" else journal, keeps[loss])
    with pytest.raises(DamagedError, match=f"is damaged: .*{named}"):
        session.set_total_batches(3)
    with contextlib.suppress(DamagedError):
        session.close()


def test_a_file_that_is_closed_while_all_are_synced_is_no_lost_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A background thread may have it in its list still."""
    items = crawl(tmp_path, "ab")
    sync = AppendedFile.sync
    closed: list[bool] = []

    def late(file: AppendedFile) -> None:
        monkeypatch.undo()
        for number in range(1, 65):
            items.open(tmp_path / f"rows{number}.txt")
        closed.append(file.poisoned)
        sync(file)

    for item in items:
        if item == "b":
            gc.collect()
            monkeypatch.setattr(AppendedFile, "sync", late)
            items.session._writer.sync_behind()
        else:
            items.open(tmp_path / "rows0.txt").write(item)
    assert closed == [True]
    assert (tmp_path / "rows0.txt").read_bytes() == b"a"


def test_what_is_refused_stays_refused_in_the_same_program(tmp_path: Path, rows: Path) -> None:
    def run() -> None:
        items = crawl(tmp_path, "ab")
        out = items.open(rows)
        for item in items:
            out.write(item)

    run()
    rows.write_text("ab somebody's")
    for _ in range(3):
        with pytest.raises(DamagedError, match="behind the 2 that were acknowledged"):
            run()
        # Nobody holds on to the session, though the error was caught.
        state = store_in(tmp_path).view("crawl").state
        assert state.executions[-1].outcome is not None
    assert rows.read_text() == "ab somebody's"


def test_a_refusal_that_was_dealt_with_is_no_error_of_the_run(tmp_path: Path, rows: Path) -> None:
    rows.write_text("somebody's")
    items = crawl(tmp_path, "ab")
    with pytest.raises(milepost.OutputError):
        items.open(rows)
    out = items.open(tmp_path / "another.txt")
    for item in items:
        out.write(item)
        if item == "b":
            break
    items.close()
    run = store_in(tmp_path).view("crawl").state.executions[-1]
    assert (run.outcome, run.error_message) == (Outcome.STOPPED, None)


def test_a_run_that_a_later_one_takes_the_place_of_leaves_no_doubt(
    tmp_path: Path, rows: Path
) -> None:
    # As in a notebook: names live on when the body raised, and the cell is run again.
    first = crawl(tmp_path, "abc")
    out = first.open(rows)
    with contextlib.suppress(ValueError):
        for item in first:
            out.write(item)
            if item == "b":
                raise ValueError("the body")
    rows.write_text("a somebody's")
    with pytest.raises(DamagedError, match="behind the 1 that were acknowledged"):
        crawl(tmp_path, "abc").open(rows)
    assert rows.read_text() == "a somebody's"
    runs = store_in(tmp_path).view("crawl").state.executions
    assert runs[0].outcome is Outcome.INTERRUPTED
    with pytest.raises(SupersededError):
        next(first)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_what_somebody_appended_between_two_runs_is_not_cut_off(tmp_path: Path, rows: Path) -> None:
    some(tmp_path, rows, 2)
    some(tmp_path, rows, 1)
    assert rows.read_bytes() == b"abc"
    rows.write_bytes(b"abc, a note")
    items = crawl(tmp_path, "abcdefgh")
    with pytest.raises(DamagedError, match="has 8 bytes behind the 3 that were") as caught:
        items.open(rows)
    assert "cut this one to 3 bytes" in caught.value.hint
    items.close()
    assert rows.read_bytes() == b"abc, a note"
    rows.write_bytes(b"abc")
    some(tmp_path, rows, 9)
    assert rows.read_bytes() == b"abcdefgh"


def test_a_session_that_only_opened_a_file_does_not_cut_off_anothers_rows(
    tmp_path: Path, rows: Path
) -> None:
    store = store_in(tmp_path)
    one = milepost.resume("abc", "one", store=store, progress=False)
    one.open(rows)
    one.close()
    two = milepost.resume("def", "two", store=store, progress=False)
    out = two.open(rows)
    for item in two:
        out.write(item)
    one = milepost.resume("abc", "one", store=store, progress=False)
    with pytest.raises(DamagedError, match="has 3 bytes behind the 0 that were") as caught:
        one.open(rows)
    assert caught.value.hint == "move the file away, or use another name"
    assert rows.read_bytes() == b"def"


def _retry(store: milepost.Store) -> None:
    store.retry("crawl")


def _nothing(store: milepost.Store) -> None:
    pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("between", [_nothing, _retry])
@pytest.mark.parametrize("runs", [0, 1])
def test_what_a_kill_left_is_cut_off_also_by_a_later_run(
    tmp_path: Path, rows: Path, between: Callable[[milepost.Store], None], runs: int
) -> None:
    some(tmp_path, rows, 2)
    some(tmp_path, rows, 1, kill=True)
    assert rows.read_bytes() == b"abctorn"
    between(store_in(tmp_path))
    for _ in range(runs):  # one that ends by itself and never opens the file
        items = crawl(tmp_path, "abcdefgh")
        next(items)
        items.close()
    some(tmp_path, rows, 9)
    assert rows.read_bytes() == b"abcdefgh"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_what_a_restore_left_is_cut_off_also_by_a_later_run(tmp_path: Path, rows: Path) -> None:
    store = store_in(tmp_path)
    some(tmp_path, rows, 2)
    version = max(each.version for each in store.versions("crawl"))
    some(tmp_path, rows, 2)
    store.restore("crawl", version)
    items = crawl(tmp_path, "abcdefgh")  # it does not open the file
    next(items)
    items.close()
    assert rows.read_bytes() == b"abcd"
    some(tmp_path, rows, 9)
    assert rows.read_bytes() == b"abcdefgh"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_what_a_restore_of_this_turn_left_is_cut_off(tmp_path: Path, rows: Path) -> None:
    store = store_in(tmp_path)
    some(tmp_path, rows, 2)
    version = max(each.version for each in store.versions("crawl"))
    some(tmp_path, rows, 2)
    with store.session("crawl", execute=False) as session:
        store.restore("crawl", version)
        session.open_output(rows, lambda: None)
    assert rows.read_bytes() == b"ab"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_copy_cuts_off_what_the_first_one_wrote_after_it(tmp_path: Path, rows: Path) -> None:
    some(tmp_path, rows, 2)
    (tmp_path / "copy").mkdir()
    shutil.copytree(tmp_path / "store", tmp_path / "copy" / "store")
    some(tmp_path, rows, 2)
    shutil.copy(rows, tmp_path / "copy")
    some(tmp_path / "copy", tmp_path / "copy" / "rows.txt", 9)
    assert (tmp_path / "copy" / "rows.txt").read_bytes() == b"abcdefgh"


def _state(*runs: tuple[int, Outcome | None], before: int = 0, forgotten: int = 0) -> SessionState:
    executions = [
        Execution(epoch, 0, "host", 1, ended_ns=1, outcome=outcome) for epoch, outcome in runs
    ]
    return SessionState(
        "crawl", "uid", executions=executions, runs_before=before, executions_forgotten=forgotten
    )


def test_when_every_turn_was_a_run_with_an_end() -> None:
    stopped, failed = Outcome.STOPPED, Outcome.FAILED
    assert all_ended(_state((2, stopped), (3, failed)), 4)
    assert not all_ended(_state(), 2), "nothing is known of a run that may have been"
    assert not all_ended(_state((2, stopped), (3, None)), 4), "a death"
    assert not all_ended(_state((2, None), (3, stopped)), 4), "a death before"
    assert not all_ended(_state((2, stopped), (3, stopped)), 5), "a turn that was no run"
    assert not all_ended(_state((2, stopped), (4, stopped)), 5), "the same, before"
    assert not all_ended(_state((8, stopped), (9, stopped), forgotten=1), 10)
    assert all_ended(_state((2, None), (5, stopped), before=1), 6), "it was begun anew since"
    assert all_ended(_state((8, None), (9, stopped), before=4, forgotten=3), 10)
    own = _state((2, stopped), (3, None))
    own.executions[-1].ended_ns = None
    assert all_ended(own, 3)
    assert not all_ended(own, 4), "it died, and nobody has recorded that yet"


# Gone, or not to be opened.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("opens", ["run", "retry"])
def test_a_file_that_is_away_costs_no_acknowledged_item(
    tmp_path: Path, rows: Path, opens: str
) -> None:
    some(tmp_path, rows, 5, kill=True)
    rows.rename(tmp_path / "away.txt")
    if opens == "retry":
        store_in(tmp_path).retry("crawl")
    with pytest.raises(DamagedError, match="is gone, and 5 bytes of it were acknowledged"):
        crawl(tmp_path, "abcdefgh").open(rows)
    assert not rows.exists()
    assert store_in(tmp_path).view("crawl").findings == []
    (tmp_path / "away.txt").rename(rows)
    items = crawl(tmp_path, "abcdefgh")
    out = items.open(rows)
    seen: list[str] = []
    for item in items:
        seen.append(item)
        out.write(item)
    assert seen == ["f", "g", "h"]
    assert rows.read_bytes() == b"abcdefgh"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_an_output_that_cannot_be_opened_locks_nobody_out(tmp_path: Path, rows: Path) -> None:
    class Denied(Recording):
        def open_output(self, path: str) -> int:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    some(tmp_path, rows, 3, kill=True)
    store_in(tmp_path, Denied(str(tmp_path))).retry("crawl")
    for make in (os.mkfifo, os.mkdir):
        some(tmp_path, rows, 1, kill=True)
        rows.rename(tmp_path / "away.txt")
        make(rows)
        store_in(tmp_path).retry("crawl")
        items = crawl(tmp_path, "abcdefgh")
        with pytest.raises(
            milepost.MilepostError, match=r"rows\.txt is (a folder|no regular file)"
        ):
            items.open(rows)
        items.close()
        (rows.rmdir if rows.is_dir() else rows.unlink)()
        (tmp_path / "away.txt").rename(rows)
    some(tmp_path, rows, 9)
    assert rows.read_bytes() == b"abcdefgh"


# Where it is.


def test_a_relative_path_from_another_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sub").mkdir()
    told: list[list[str]] = []
    for folder in (tmp_path, tmp_path / "sub", tmp_path / "sub", tmp_path):
        monkeypatch.chdir(folder)
        items = crawl(tmp_path, "abcdefgh")
        out = items.open("./rows.txt")
        items.open(f"other-{len(told)}.txt")
        next(items)
        out.write("row")
        items.close()
        told.append([each for each in capsys.readouterr().err.splitlines() if "wrote" in each])
    first, second = tmp_path / "rows.txt", tmp_path / "sub" / "rows.txt"
    line = (
        f"milepost: crawl: the output {second} is a new file; an earlier run wrote {first}:"
        " a relative path counts from the current folder"
    )
    assert told == [[], [line], [], []]


def test_a_program_that_changes_its_folder_is_told_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    items = crawl(tmp_path, "abcdefgh")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        items.open("rows.txt")
    items.close()
    assert "rows.txt" not in capsys.readouterr().err
    assert (tmp_path / "second" / "rows.txt").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows itself keeps what is open from others")
def test_while_one_session_has_a_file_open_another_is_refused(tmp_path: Path, rows: Path) -> None:
    store = store_in(tmp_path)
    one = milepost.resume(["a"], "one", store=store, progress=False)
    one.open(rows)
    two = milepost.resume(["c"], "two", store=store, progress=False)
    with pytest.raises(OutputError, match="is being written by another session"):
        two.open(rows)
    one.close()
    two.open(rows)
    two.close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_two_sessions_on_one_file_are_noticed_without_locks_too(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(*_: int) -> None:
            raise OSError(number, "no locks")

    monkeypatch.setattr(output, "fcntl", NoLocks)
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="such files are not there")
def test_what_is_no_regular_file_is_refused(tmp_path: Path, rows: Path) -> None:
    os.mkfifo(rows)
    link = tmp_path / "link.txt"
    link.symlink_to(rows)
    for path in (rows, link, os.devnull):
        items = milepost.resume("ab", str(path), store=store_in(tmp_path), progress=False)
        with pytest.raises(OutputError, match="is no regular file") as caught:
            items.open(path)
        assert "name a file" in caught.value.hint
        assert list(items.session.live.outputs) == []
        items.close()


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


class OwnThreads(Executor):
    """An executor that nobody knows, around threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._threads.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait, cancel_futures=cancel_futures)


def test_rows_from_an_executor_that_nobody_knows_are_refused(tmp_path: Path, rows: Path) -> None:
    def nested(letter: str) -> str:
        inner = milepost.resume([letter], f"inner {letter}", store=tmp_path / "i", progress=False)
        own = inner.open(tmp_path / f"{letter}.txt")
        for each in inner:
            own.write(each)
        with pytest.raises(ClosedError, match="nobody can tell whose row this is"):
            out.write(letter)
        return letter

    items = milepost.map(
        nested, "ab", "crawl", store=store_in(tmp_path), executor=OwnThreads, progress=False
    )
    out = items.open(rows)
    for _, letter in items:
        out.write(letter)
    assert sorted(rows.read_text()) == ["a", "b"]
    assert (tmp_path / "a.txt").read_text() == "a"
    assert items.failed == 0


# A map whose acknowledgement fails.


@pytest.mark.parametrize("is_async", [False, True])
def test_what_could_not_be_acknowledged_with_its_rows_is_not_without(
    tmp_path: Path, rows: Path, *, is_async: bool
) -> None:
    """A source that is no list: what is begun is recorded in steps, of which one fails."""
    moved = tmp_path / "moved"

    def source() -> Iterator[str]:
        yield from map(str, range(60))

    async def same(item: str) -> str:
        return item

    def work(*, moves: bool) -> None:
        with milepost.map(
            str, source(), "crawl", workers=16, store=store_in(tmp_path), progress=False
        ) as items:
            out = items.open(rows)
            for item, _ in items:
                out.write(f"{item}\n")
                if moves and item == "3":
                    rows.rename(moved)

    async def work_async(*, moves: bool) -> None:
        async with milepost.map(
            same, source(), "crawl", workers=16, store=store_in(tmp_path), progress=False
        ) as items:
            out = await items.aopen(rows)
            async for item, _ in items:
                out.write(f"{item}\n")
                if moves and item == "3":
                    await asyncio.to_thread(rows.rename, moved)

    def run(*, moves: bool) -> None:
        if is_async:
            asyncio.run(work_async(moves=moves))
        else:
            work(moves=moves)

    with pytest.raises(milepost.DamagedError, match="was moved"):
        run(moves=True)
    moved.rename(rows)
    run(moves=False)
    assert sorted(rows.read_text().split(), key=int) == [str(each) for each in range(60)]


# Files and names.


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("is_open", [True, False])
def test_a_second_name_of_a_file_is_refused_before_anything_is_cut(
    tmp_path: Path, rows: Path, link: Callable[[Path, Path], None], *, is_open: bool
) -> None:
    some(tmp_path, rows, 2)
    link(rows, tmp_path / "second")
    items = crawl(tmp_path, "abcdefgh")
    if is_open:
        items.open(rows)
    with pytest.raises(OutputError, match="is the same file as"):
        items.open(tmp_path / "second")
    items.close()
    assert rows.read_bytes() == b"ab"


def test_files_that_nobody_writes_any_more_are_closed(tmp_path: Path) -> None:
    items = crawl(tmp_path, "abcd")
    kept = items.open(tmp_path / "kept")
    for number, item in enumerate(items):
        for each in range(50):
            items.open(tmp_path / f"rows-{number}-{each}").write(item)  # nobody holds it
        kept.write(item)
        assert len(items.session.outputs._files) <= 64 + 2 * 50
        assert items.open(tmp_path / "rows-0-0").path.endswith("rows-0-0")
    assert {path.read_bytes() for path in tmp_path.glob("rows-3-*")} == {b"d"}
    assert {path.read_bytes() for path in tmp_path.glob("rows-0-*")} == {b"a"}
    assert kept.path == str(tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == b"abcd"


def test_a_file_system_without_folder_syncs(tmp_path: Path, rows: Path) -> None:
    system = Recording(str(tmp_path))
    system.failing["fsync-folder"] = errno.EINVAL
    items = milepost.resume("ab", "crawl", store=store_in(tmp_path, system), progress=False)
    out = items.open(rows)
    for item in items:
        out.write(item)
    assert rows.read_bytes() == b"ab"
    assert "fsync-folder ." in system.calls


def test_a_file_that_cannot_be_read_is_told_as_ours(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some(tmp_path, rows, 2)

    def fail(*_: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(output, "_read_at", fail)
    items = crawl(tmp_path, "abcd")
    with pytest.raises(milepost.StorageError, match="cannot read"):
        items.open(rows)
    items.close()
    with pytest.raises(OutputError, match="zero byte"):
        crawl(tmp_path, "abcd").open("a\0b")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_is_forked_while_a_session_closes_keeps_no_output_locked(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[int] = []
    reading, writing = os.pipe()
    snapshot = Writer.snapshot

    def forking(writer: Writer, *, by_hand: bool = False) -> int:
        if not children:
            children.append(os.fork())
            if not children[0]:
                os.close(writing)
                os.read(reading, 1)
                os._exit(0)
        return snapshot(writer, by_hand=by_hand)

    monkeypatch.setattr(Writer, "snapshot", forking)
    for text in ("ab", "abc"):
        items = crawl(tmp_path, text)
        out = items.open(rows)
        for item in items:
            out.write(item)
    assert children
    os.close(writing)
    os.waitpid(children[0], 0)
    os.close(reading)
    assert rows.read_bytes() == b"abc"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_is_refused_though_another_thread_wrote_just_then(
    tmp_path: Path, rows: Path
) -> None:
    items = crawl(tmp_path, "ab")
    out = items.open(rows)
    next(items)
    held, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        with items.session.outputs.lock:
            held.set()
            assert goes_on.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)

    def body(_: Callable[[bytes], None]) -> None:
        with pytest.raises(ClosedError, match="belongs to the parent process"):
            out.write("the child's")
        items.close()

    try:
        assert in_child(body).code == 0
    finally:
        goes_on.set()
        thread.join(60)
    items.close()


def test_no_row_waits_for_the_sync_of_files_that_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = crawl(tmp_path, "a")
    for number in range(64):
        items.open(tmp_path / f"rows{number}.txt")
    gc.collect()
    lock, sync = items.session.outputs.lock, output.OutputFile.sync
    waited: list[bool] = []

    def slow(file: output.OutputFile) -> None:
        waited.append(is_held_here(lock))
        sync(file)

    monkeypatch.setattr(output.OutputFile, "sync", slow)
    items.open(tmp_path / "one more.txt")
    assert len(waited) >= 64
    assert not any(waited)
    items.close()


def test_a_file_of_this_run_is_no_earlier_one_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    items = crawl(tmp_path, "a")
    items.open("sub/rows.txt")
    for number in range(64):
        items.open(f"other{number}.txt")
    gc.collect()
    items.open("rows.txt")
    items.close()
    assert "an earlier run wrote" not in capsys.readouterr().err


# Rows from threads of the body.


def test_a_row_of_another_thread_is_its_items_or_refused(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The item is acknowledged while the thread makes room for its first row."""
    begun = threading.Event()

    def slow(outputs: Any) -> Slip:
        begun.set()
        time.sleep(0.1)
        return Slip(outputs)

    monkeypatch.setattr("milepost.session.items.Slip", slow)
    items = crawl(tmp_path, "ab")
    out = items.open(rows)
    thread = threading.Thread(target=out.write, args=("row of a\n",))
    for item in items:
        if item == "a":
            thread.start()
            assert begun.wait(60)
        else:
            thread.join(60)
            items.skip()  # whatever it has, it is not written
    assert rows.read_text() == "row of a\n"


@pytest.mark.parametrize("is_another_s", [False, True])
def test_what_is_collected_while_rows_are_given_waits_for_no_thread_that_writes(
    tmp_path: Path, rows: Path, *, is_another_s: bool
) -> None:
    session = store_in(tmp_path).session("work")
    batch = session.start_batch("b")
    working = threading.Event()

    def function(item: int) -> int:
        working.set()
        with lock:
            out.write(f"{item}\n")
        return item

    out = batch.items().open(rows)
    work: Any = batch.map(function, range(3), workers=2)
    cycle: list[Any] = [work]
    cycle.append(cycle)
    ended = threading.Event()
    another = store_in(tmp_path).session("another")
    lock = another.outputs.lock if is_another_s else session.outputs.lock

    def collect() -> None:
        nonlocal work, cycle
        with lock:
            work._fill(work._dispatcher(work._prepared(to_loop=True)))
            assert working.wait(60)
            del work, cycle
            gc.collect()
        ended.set()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    assert ended.wait(60)
    wait_for_left()
    another.close()
    session.close()


def test_the_first_rows_of_an_item_from_two_threads(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(outputs: Any) -> Slip:
        time.sleep(0.05)
        return Slip(outputs)

    monkeypatch.setattr("milepost.session.items.Slip", slow)
    items = crawl(tmp_path, "a")
    out = items.open(rows)
    for _ in items:
        with ThreadPoolExecutor(2) as pool:
            for call in [pool.submit(out.write, "x"), pool.submit(out.write, "y")]:
                call.result()
    assert sorted(rows.read_text()) == ["x", "y"]


def test_a_row_is_in_the_file_or_refused_while_the_loop_goes_on(tmp_path: Path, rows: Path) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    is_over = threading.Event()
    try:
        taken: list[int] = []
        items = milepost.resume(range(1000), "crawl", store=store_in(tmp_path), progress=False)
        out = items.open(rows)

        def write() -> None:
            number = 0
            while not is_over.is_set():
                number += 1
                with contextlib.suppress(ClosedError):
                    out.write(f"{number}\n")
                    taken.append(number)

        thread = threading.Thread(target=write)
        thread.start()
        for item in items:
            if item == 998:
                is_over.set()
                thread.join()
        assert [int(row) for row in rows.read_text().split()] == taken
    finally:
        is_over.set()
        sys.setswitchinterval(before)


def test_an_event_loop_waits_for_no_disk_when_a_row_cannot_be_written(
    tmp_path: Path, rows: Path
) -> None:
    system = Recording(str(tmp_path))
    synced_here: list[str] = []
    plain = system.sync

    def sync(descriptor: int) -> None:
        if is_full and threading.current_thread() is threading.main_thread():
            synced_here.append("sync")
        plain(descriptor)

    is_full = False
    system.sync = sync  # type: ignore[method-assign]

    async def main() -> None:
        nonlocal is_full
        items = milepost.resume("abc", "crawl", store=store_in(tmp_path, system), progress=False)
        out = await items.aopen(rows)
        with pytest.raises(milepost.StorageFullError):
            async for item in items:
                out.write(item)
                if item == "b":
                    is_full, system.room = True, 0
        system.room = None

    asyncio.run(main())
    assert not synced_here
    assert rows.read_bytes() == b"a"
    some(tmp_path, rows, 9)
    assert rows.read_bytes() == b"abcdefgh"


def test_what_was_cut_off_is_told(
    tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some(tmp_path, rows, 2, kill=True)
    rows.write_bytes(rows.read_bytes() + b"12345")
    items = crawl(tmp_path, "abcd")
    items.open(rows)
    items.close()
    told = capsys.readouterr().err
    assert f"bytes behind the last acknowledged row cut off: {rows}" in told


def test_a_store_that_was_moved_alone_tells_where_its_output_was(
    tmp_path: Path, rows: Path
) -> None:
    some(tmp_path, rows, 2)
    (tmp_path / "elsewhere").mkdir()
    rows.rename(tmp_path / "elsewhere" / rows.name)
    items = crawl(tmp_path, "abcd")
    with pytest.raises(OutputError) as caught:
        items.open(tmp_path / "elsewhere" / rows.name)
    assert f"this session wrote {rows}, which is not there any more" in (caught.value.hint or "")
    items.close()


def test_a_retry_after_what_is_no_number() -> None:
    retry: Any = milepost.Retry
    with pytest.raises(ConfigurationError, match="after is 'soon'"):
        retry(after="soon")
