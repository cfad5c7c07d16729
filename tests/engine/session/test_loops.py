"""Several loops and maps over one batch: at once, one in another, one after another."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import signal
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost import Backoff, BatchStatus, ItemStatus, StorageError
from milepost.journal.writer import JournalWriter
from milepost.session.aside import leave_aside, wait_for_left
from milepost.session.dispatch import Dispatch
from milepost.session.outputs import Outputs
from milepost.session.writer import Writer
from support.faults import in_child
from support.watching import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
    from pathlib import Path


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[milepost.Batch]:
    with milepost.Store(tmp_path).session("work") as session:
        yield session.start_batch("b")


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def never(*_: object) -> bool:
    return False


def in_threads(*works: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), errors
    assert not errors


# At once.


@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("source", ["list", "found"])
def test_loops_in_threads_share_the_items(batch: milepost.Batch, source: str) -> None:
    given: list[int] = []
    everything = range(600)
    if source == "found":
        batch.add_many(everything)

    together = threading.Barrier(3, timeout=60)

    def loop() -> None:
        items = batch.items(everything if source == "list" else None)
        assert items.session is batch.session
        together.wait()  # all have begun before one takes anything
        for item in items:
            given.append(item)

    in_threads(loop, loop, loop)
    assert Counter(given) == Counter(everything)
    assert batch.complete() is BatchStatus.COMPLETED


@pytest.mark.usefixtures("switching")
def test_loops_in_threads_over_what_they_find(batch: milepost.Batch) -> None:
    given: list[int] = []
    batch.add(1)

    together = threading.Barrier(3, timeout=60)

    def loop() -> None:
        items = batch.items()
        assert items.session is batch.session
        together.wait()
        for item in items:
            given.append(item)
            batch.add_many(each for each in (2 * item, 2 * item + 1) if each < 300)

    in_threads(loop, loop, loop)
    assert Counter(given) == Counter(range(1, 300))


@pytest.mark.usefixtures("switching")
def test_maps_in_threads_share_the_items(batch: milepost.Batch) -> None:
    given: list[int] = []

    together = threading.Barrier(2, timeout=60)

    def loop() -> None:
        mapped = batch.map(str, range(300), workers=3)
        assert mapped.session is batch.session
        together.wait()
        for item, _ in mapped:
            given.append(item)

    in_threads(loop, loop)
    assert Counter(given) == Counter(range(300))


def test_async_maps_share_the_items(tmp_path: Path) -> None:
    ran: list[int] = []

    async def fetch(item: int) -> int:
        ran.append(item)
        await asyncio.sleep(0)
        return item

    async def loop(batch: milepost.Batch) -> None:
        async for _ in batch.map(fetch, workers=3):
            pass

    async def run() -> None:
        with milepost.Store(tmp_path).session("work", durability="disk") as session:
            batch = session.start_batch("b")
            batch.add_many(range(60))
            await asyncio.gather(loop(batch), loop(batch))
            assert batch.complete() is BatchStatus.COMPLETED

    asyncio.run(run())
    assert Counter(ran) == Counter(range(60))


def test_what_waits_for_another_try_and_is_done_by_another_map_is_done(
    batch: milepost.Batch,
) -> None:
    calls: list[str] = []

    def fails(item: str) -> str:
        calls.append(item)
        if item == "a":
            raise milepost.Retry(after=2)  # long enough for the body
        return item

    batch.add_many(["a", "b"])
    outer = batch.map(fails, workers=1)
    for item, _ in outer:
        assert item == "b"
        assert [each for each, _ in batch.map(str, workers=1)] == ["a"]
        calls.clear()
    assert calls == []
    assert batch.status_of("a") is ItemStatus.COMPLETED
    assert batch.progress.items_processed == 2


def test_what_another_thread_has_in_hand_is_left_to_it(batch: milepost.Batch) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    given: list[int] = []

    def slow() -> None:
        for item in batch.items(range(4)):
            given.append(item)
            begun.set()
            go_on.wait(timeout=60)
        ended.set()

    def quick() -> None:
        begun.wait(timeout=60)
        for item in batch.items(range(4)):
            given.append(item)
            if item == 3:
                go_on.set()
                ended.wait(timeout=60)

    in_threads(slow, quick)
    assert sorted(given) == [0, 1, 2, 3]


@pytest.mark.parametrize("key", [None, "position"])
def test_what_a_loop_has_in_hand_that_is_left_and_kept_comes_first(
    batch: milepost.Batch, key: str | None
) -> None:
    kept = batch.items(range(6), key=key)
    for item in kept:
        if item == 2:
            break
    given: list[int] = []
    for item in batch.items(range(6), key=key):
        given.append(item)
    assert given == [2, 3, 4, 5]
    kept.close()


def test_what_is_left_by_a_thread_that_is_gone_is_run_by_another(batch: milepost.Batch) -> None:
    kept: list[Any] = []

    def leave() -> None:
        kept.append(batch.items(range(4)))
        next(kept[0])

    in_threads(leave)
    given: list[int] = []
    for item in batch.items(range(4)):
        given.append(item)
    assert sorted(given) == [0, 1, 2, 3]
    kept[0].close()


# One in another, by hand, through other handles.


def test_an_inner_loop_leaves_out_what_the_outer_one_takes_later(batch: milepost.Batch) -> None:
    outer: list[int] = []
    inner: list[int] = []
    for item in batch.items(range(6)):
        outer.append(item)
        if item == 2:
            for other in batch.items(range(3, 6)):
                inner.append(other)
    assert (outer, inner) == ([0, 1, 2], [3, 4, 5])
    assert batch.complete() is BatchStatus.COMPLETED


@pytest.mark.parametrize("how", ["inner loop", "by hand"])
@pytest.mark.parametrize("key", [None, "position"])
def test_an_item_in_hand_that_somebody_puts_back_is_done_with_its_body(
    batch: milepost.Batch, key: str | None, how: str
) -> None:
    given: list[int] = []
    for item in batch.items(range(4), key=key):
        given.append(item)
        if item == 1 and how == "by hand":
            batch.update_item(1, ItemStatus.PENDING)
        elif item == 1:
            for _ in batch.items(range(4), key=key):
                break
    assert given == [0, 1, 2, 3]
    assert batch.progress.items_processed == 4
    assert batch.complete() is BatchStatus.COMPLETED


def test_what_is_found_through_another_handle_is_run(tmp_path: Path) -> None:
    with milepost.Store(tmp_path).session("work") as session:
        for _ in session.start_batch("b").items(["a", "b"]):
            break
    with milepost.Store(tmp_path).session("work") as session:
        given: list[str] = []
        for item in session.start_batch("b").items(["b"]):
            given.append(item)
            session.batch(0).add("a")
        assert given == ["b", "a"]


def test_what_a_loop_had_in_hand_is_known_without_a_handle(tmp_path: Path) -> None:
    with milepost.Store(tmp_path).session("work") as session:
        session.start_batch("b").add_many(["a", "b"])
        with contextlib.suppress(ZeroDivisionError):
            for _ in session.batch(0).items():
                raise ZeroDivisionError
        given: list[str] = []
        for item in session.batch(0).items():
            given.append(item)
        assert given == ["a", "b"]


@pytest.mark.parametrize("in_a_block", [False, True])
def test_an_exit_that_is_caught_costs_no_item(batch: milepost.Batch, in_a_block: bool) -> None:
    batch.add_many(["a", "b"])
    items = batch.items()
    with contextlib.suppress(SystemExit), items if in_a_block else contextlib.nullcontext():
        for _ in items:
            sys.exit(3)
    del items
    given: list[str] = []
    for item in batch.items():
        given.append(item)
    assert given == ["a", "b"]


# What cannot be recorded.


class FullDisk:
    """Refuses so many records, once it is on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refusals = 0
        self.passing = 0

        def refusing(plain: Callable[..., None]) -> Callable[..., None]:
            def commit(*given: Any, **options: Any) -> None:
                if self.refusals and not self.passing:
                    self.refusals -= 1
                    raise StorageError("no space left on device")
                self.passing -= self.passing > 0
                plain(*given, **options)

            return commit

        for name in ("commit", "commit_with_rows"):
            monkeypatch.setattr(Writer, name, refusing(getattr(Writer, name)))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(monkeypatch)


@pytest.mark.parametrize("when", ["it is left", "the next one begins"])
def test_what_could_not_be_put_down_is_later(
    batch: milepost.Batch, disk: FullDisk, when: str
) -> None:
    batch.add_many(["a", "b"])
    items = batch.items()
    assert next(items) == "a"
    if when == "it is left":
        disk.refusals = 1
        items.close()
    else:
        batch.end_loop(1, stays=True)
        disk.refusals = 1
        with pytest.raises(StorageError):
            next(batch.items())
    assert disk.refusals == 0
    given: list[str] = []
    for item in batch.items():
        given.append(item)
    assert given == ["a", "b"]
    assert batch.complete() is BatchStatus.COMPLETED


def test_what_was_found_before_a_record_was_refused_is_run(
    tmp_path: Path, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milepost.session.batch._ADDED_MAX", 2)
    with milepost.Store(tmp_path).session("work") as session:
        for _ in session.start_batch("b").items(["a", "b"]):
            break
    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        given: list[str] = []
        for item in batch.items(["b"]):
            given.append(item)
            if item == "b":
                disk.refusals, disk.passing = 1, 1
                with pytest.raises(StorageError):
                    batch.add_many(["a", "x", "y", "z"])
        assert given == ["b", "a", "x"]


def test_what_was_refused_while_a_task_was_cancelled_is_no_end_of_its_item(
    tmp_path: Path, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writer, "takes_at_once", never)  # so that a cancel can meet it

    async def crawl(batch: milepost.Batch) -> None:
        items = batch.items(["a", "b"])
        assert await asyncio.ensure_future(anext(items)) == "a"
        disk.refusals = 1
        asking = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await asking
        assert disk.refusals == 0
        with pytest.raises(milepost.ClosedError) as refused:
            await asyncio.ensure_future(anext(items))
        cause = refused.value.__cause__
        assert cause is not None
        assert isinstance(cause.__cause__, StorageError), caught.value
        assert [item async for item in batch.items(["a", "b"])] == ["a", "b"]

    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        asyncio.run(crawl(batch))
        assert batch.complete() is BatchStatus.COMPLETED


def test_what_nobody_was_given_nobody_can_speak_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writer, "takes_at_once", never)

    async def crawl(batch: milepost.Batch) -> None:
        items = batch.items(["a", "b"])
        rows = await items.aopen(tmp_path / "rows.txt")
        assert await asyncio.ensure_future(anext(items)) == "a"
        asking = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert items.key is None
        with pytest.raises(milepost.ClosedError):
            items.fail("timed out")
        with pytest.raises(milepost.ClosedError):
            rows.write("a row of nobody\n")
        async for item in items:
            assert item == "b"
            rows.write("b\n")

    with milepost.Store(tmp_path / "s").session("work") as session:
        batch = session.start_batch("b")
        asyncio.run(crawl(batch))
        assert batch.complete() is BatchStatus.COMPLETED
    assert (tmp_path / "rows.txt").read_text() == "b\n"


def test_what_waits_by_hand_is_looked_for_again(batch: milepost.Batch) -> None:
    batch.add_many(range(300))  # more than are looked at ahead
    given: list[int] = []
    for item in batch.items():
        given.append(item)
        if item == 0:
            batch.update_item(299, ItemStatus.PENDING)
            batch.update_items([(298, ItemStatus.PENDING, None)])
    assert sorted(given) == list(range(300))
    assert batch.complete() is BatchStatus.COMPLETED


@pytest.mark.parametrize("inner", [True, False])
def test_what_a_loop_is_left_with_waits_though_others_ran(
    batch: milepost.Batch, inner: bool
) -> None:
    for _ in batch.items(["a", "b"]):
        if inner:
            for _ in batch.items(["c"]):
                pass
        break
    assert batch.status_of("a") is ItemStatus.PENDING


@pytest.mark.parametrize("error", [KeyboardInterrupt, StorageError])
def test_rows_of_a_record_that_was_refused_are_cut_back_whatever_interrupts_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    refusals: list[BaseException] = []

    def refusing(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            if refusals:
                raise refusals.pop()
            return plain(*given, **options)

        return call

    monkeypatch.setattr(JournalWriter, "append", refusing(JournalWriter.append))
    monkeypatch.setattr(Outputs, "take_back", refusing(Outputs.take_back))

    def work(*, is_full: bool) -> None:
        items = milepost.resume("abc", "work", store=tmp_path / "s", progress=False)
        with items:
            rows = items.open(tmp_path / "rows.txt")
            for item in items:
                rows.write(item)
                if is_full and item == "b":
                    refusals.extend([error("what comes then"), StorageError("no space left")])

    with pytest.raises(error, match="what comes then"):
        work(is_full=True)
    assert refusals == []
    work(is_full=False)
    assert (tmp_path / "rows.txt").read_text() == "abc"


def test_a_row_that_comes_after_the_function_returned_is_refused(
    batch: milepost.Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts: list[contextvars.Context] = []

    def function(item: str) -> str:
        contexts.append(contextvars.copy_context())
        rows.write(item)
        return item

    mapped = batch.map(function, ["a"], workers=1)
    rows = mapped.open(tmp_path / "rows.txt")
    plain = Writer.commit_with_rows

    def commit_with_rows(writer: Writer, event: Any, slips: Any) -> None:
        if slips:  # it is acknowledged just now
            with pytest.raises(milepost.ClosedError, match="acknowledged or given up already"):
                contexts[0].run(rows.write, "too late")
        plain(writer, event, slips)

    monkeypatch.setattr(Writer, "commit_with_rows", commit_with_rows)
    for _ in mapped:
        pass
    assert (tmp_path / "rows.txt").read_text() == "a"


def test_what_was_taken_over_and_waited_since_is_the_next_ones_own(batch: milepost.Batch) -> None:
    kept = batch.items(["a", "b"])
    assert next(kept) == "a"
    for _ in batch.items(["a"]):
        break  # it took over what the first one has in hand
    for item in batch.items(["a"]):
        assert item == "a"
        break
    assert batch.status_of("a") is ItemStatus.PENDING
    kept.close()


# A loop that another thread or task closes, and what it has then.


@pytest.mark.parametrize("shape", ["loop", "map"])
def test_what_a_source_gives_a_loop_that_was_closed_is_run_by_another(
    batch: milepost.Batch, shape: str
) -> None:
    asked, is_closed = threading.Event(), threading.Event()
    made: list[Any] = []

    def slow() -> Iterator[str]:
        yield "a"
        asked.set()
        assert is_closed.wait(60)
        yield "b"

    def work() -> None:
        items: Any = batch.items(slow()) if shape == "loop" else batch.map(str, slow(), workers=2)
        made.append(items)
        with pytest.raises(milepost.ClosedError, match="was closed"):
            for given in items:
                assert "b" not in given

    def close() -> None:
        assert asked.wait(60)
        made[0].close()
        is_closed.set()

    in_threads(work, close)
    for _ in batch.items(["a", "b"]):
        pass
    assert batch.complete() is BatchStatus.COMPLETED


def test_what_a_source_gives_an_async_map_that_was_closed_is_run_by_another(
    batch: milepost.Batch,
) -> None:
    async def same(item: str) -> str:
        return item

    async def main() -> None:
        asked, is_closed = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[str]:
            yield "a"
            asked.set()
            await is_closed.wait()
            yield "b"

        items = batch.map(same, slow(), workers=2)

        async def work() -> None:
            with pytest.raises(milepost.ClosedError, match="was closed"):
                async for _ in items:
                    pass

        working = asyncio.create_task(work())
        await asked.wait()
        await items.aclose()
        is_closed.set()
        await working
        async for _ in batch.items(["a", "b"]):
            pass

    asyncio.run(main())
    assert batch.complete() is BatchStatus.COMPLETED


def test_the_function_of_a_map_may_close_it(batch: milepost.Batch) -> None:
    def in_a_thread() -> None:
        def find(item: int) -> int:
            if item == 3:
                items.close()
            return item

        items = batch.map(find, range(100), workers=2)
        with contextlib.suppress(milepost.ClosedError):
            for _ in items:
                pass

    async def in_tasks() -> None:
        async def find(item: int) -> int:
            await asyncio.sleep(0)
            if item == 53:
                await items.aclose()
            return item

        items = batch.map(find, range(100), workers=2)
        with contextlib.suppress(milepost.ClosedError):
            async for _ in items:
                pass

    in_threads(in_a_thread)
    in_threads(lambda: asyncio.run(in_tasks()))
    for _ in batch.items(range(100)):
        pass
    assert batch.complete() is BatchStatus.COMPLETED


# Whose an item is, and whose rows it has.


def test_an_item_that_another_loop_takes_between_look_and_claim_is_not_passed_by(
    batch: milepost.Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = batch.items(["k"]), batch.items(["k", "z"])
    claim = batch.loops.claim

    def claim_late(key: Any, owner: object) -> bool:
        monkeypatch.undo()
        assert next(first) == "k"
        return claim(key, owner)

    monkeypatch.setattr(batch.loops, "claim", claim_late)
    assert next(second) == "z"
    first.close()
    assert list(map(str, pulled(second))) == ["k"]
    assert batch.complete() is BatchStatus.COMPLETED


def pulled(items: Iterable[Any]) -> Iterator[Any]:
    yield from items


def test_an_outage_leaves_alone_what_another_loop_has_taken_since(batch: milepost.Batch) -> None:
    second: list[Any] = []

    def source() -> Iterator[str]:
        yield "x"
        second.append(batch.items(["x"]))
        assert next(second[0]) == "x"  # it failed, and is tried again there
        yield "y"

    def fail(_: str) -> None:
        raise ConnectionError("down")

    with pytest.raises(milepost.OutageError):
        for _ in batch.map(fail, source(), workers=1, attempts=1, give_up_after=2):
            pass
    assert batch.status_of("x") is ItemStatus.PROCESSING
    assert batch.status_of("y") is ItemStatus.PENDING


def test_what_a_dropped_loop_left_is_not_put_down_where_another_took_it(
    batch: milepost.Batch,
) -> None:
    first = batch.items(["a"])
    next(first)
    second = batch.items(["z", "a"])
    assert next(second) == "z"
    first._close(KeyboardInterrupt(), on_purpose=False)
    assert next(second) == "a"
    next(batch.items(["q"]))  # one more begins
    assert batch.status_of("a") is ItemStatus.PROCESSING


@pytest.mark.parametrize("ends_first", [0, 1])
def test_an_item_that_two_loops_had_in_hand_has_the_rows_of_one(
    batch: milepost.Batch, tmp_path: Path, ends_first: int
) -> None:
    rows = tmp_path / "rows"
    loops = [batch.items(["k"]), batch.items(["k"])]
    for number, items in enumerate(loops):
        out = items.open(rows)
        next(items)
        out.write(f"{number}\n")
    for number in (ends_first, 1 - ends_first):
        with pytest.raises(StopIteration):
            next(loops[number])
    assert rows.read_text() == f"{ends_first}\n"


def test_what_waited_in_a_map_that_was_left_is_taken_over(batch: milepost.Batch) -> None:
    """Found items: another loop has passed them by while they were in hand."""
    batch.add_many(["w", "x", "z"])
    made: list[Any] = []
    goes_on = threading.Event()

    def fail(item: str) -> None:
        assert item == "x"
        assert goes_on.wait(60)
        raise ConnectionError("down")

    def source() -> Iterator[str]:
        yield from ()

    def first() -> None:
        slow = Backoff(first_seconds=1000.0, seconds_max=1000.0)
        made.append(batch.map(fail, source(), workers=1, backoff=slow))
        with pytest.raises(milepost.ClosedError):
            for _ in made[0]:
                pass

    def second() -> None:
        items = batch.items()
        assert next(items) == "w"
        thread = threading.Thread(target=first, daemon=True)
        thread.start()
        wait_until(lambda: status_of_x() is ItemStatus.PROCESSING)
        assert next(items) == "z"
        goes_on.set()
        wait_until(lambda: status_of_x() is ItemStatus.PENDING)
        made[0].close()
        thread.join(60)
        assert list(pulled(items)) == ["x"]

    def status_of_x() -> ItemStatus | None:
        recorded = batch.recorded
        item = recorded.open.get("x") if recorded is not None else None
        return None if item is None else item.status

    in_threads(second)
    assert batch.complete() is BatchStatus.COMPLETED


def test_what_was_chosen_where_a_loop_was_interrupted_is_another_s(
    batch: milepost.Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Dispatch, "_admitted", interrupt)
        with pytest.raises(KeyboardInterrupt):
            next(batch.map(str, ["a"]))
    assert list(pulled(batch.items(["a"]))) == ["a"]


@pytest.mark.parametrize("key", [None, "position"])
def test_an_item_of_two_loops_has_one_row_whoever_tries_it_again(
    batch: milepost.Batch, tmp_path: Path, key: Any
) -> None:
    rows = tmp_path / "rows"
    first, second = batch.items(["k"], key=key), batch.items(["k"], key=key)
    next(first)
    first.open(rows).write("first\n")
    next(second)
    second.close()
    third = batch.items(["k"], key=key)
    next(third)
    third.open(rows).write("third\n")
    for items in (third, first):
        with contextlib.suppress(StopIteration):
            next(items)
    assert rows.read_text() == "third\n"


def test_of_a_list_only_what_was_done_has_had_its_rows(
    batch: milepost.Batch, tmp_path: Path
) -> None:
    rows = tmp_path / "rows"
    first, second = batch.items(["k1", "k2"], chunk=2), batch.items(["k1"])
    next(first)
    next(second)
    first.fail("no", key="k1")
    first.open(rows).write("k2\n")
    assert list(pulled(first)) in ([], [["k1"]])
    second.open(rows).write("k1\n")
    assert list(pulled(second)) == []
    assert rows.read_text() == "k2\nk1\n"


def test_what_a_map_chooses_while_it_is_closed_is_another_s(batch: milepost.Batch) -> None:
    """A source that answers at once: what was chosen is recorded a moment later."""
    made: list[Any] = []

    def key(item: str) -> str:
        if item == "c":
            in_threads(made[0].close)
        return item

    made.append(batch.map(str, ["a", "b", "c"], key=key, workers=8))
    with pytest.raises(milepost.ClosedError):
        next(made[0])
    assert list(pulled(batch.items(["a", "b", "c"]))) == ["a", "b", "c"]


def test_a_loop_that_is_closed_while_it_opens_gives_out_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT)
    items = milepost.resume("ab", "work", store=tmp_path / "s", progress=False)
    opened = milepost.Store.session

    def open_slowly(*args: Any, **options: Any) -> milepost.Session:
        session = opened(*args, **options)
        items.close()
        return session

    monkeypatch.setattr(milepost.Store, "session", open_slowly)
    with pytest.raises(milepost.ClosedError):
        next(items)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) == before
    again = milepost.resume("ab", "work", store=tmp_path / "s", progress=False)
    assert list(pulled(again)) == ["a", "b"]


def test_what_is_shown_of_a_loop_that_is_closed_meanwhile_is_ended(tmp_path: Path) -> None:
    told: list[str] = []
    before = signal.getsignal(signal.SIGINT)

    @contextlib.contextmanager
    def display(*_: object) -> Generator[None]:
        items.close()
        told.append("begun")
        yield
        told.append("ended")

    items = milepost.resume("ab", "work", store=tmp_path / "s", progress=display)
    with pytest.raises(milepost.ClosedError):
        next(items)
    assert told == ["begun", "ended"]
    assert signal.getsignal(signal.SIGINT) == before


def test_what_is_dropped_in_an_event_loop_waits_for_nobody_who_records(
    batch: milepost.Batch,
) -> None:
    held, goes_on = threading.Event(), threading.Event()

    def record() -> None:
        with batch.lock:
            held.set()
            assert goes_on.wait(60)

    async def run() -> None:
        items: Any = batch.items(["a", "b"])
        next(items)
        thread = threading.Thread(target=record)
        thread.start()
        assert held.wait(60)
        del items
        goes_on.set()  # what waited for the thread would never come here
        thread.join(60)

    asyncio.run(run())
    wait_for_left()
    assert list(pulled(batch.items(["a", "b"]))) == ["a", "b"]


def test_a_batch_that_has_ended_keeps_nothing_of_its_loops(tmp_path: Path) -> None:
    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        items = batch.items(["a"])
        next(items)
        batch.fail("no")
        items.close()
        assert session.loops._kept == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_waits_for_no_thread_of_its_parent(tmp_path: Path) -> None:
    goes_on = threading.Event()
    leave_aside(lambda: goes_on.wait(60))

    def body(tell: Callable[[bytes], None]) -> None:
        with milepost.Store(tmp_path).session("work"):
            tell(b"opened")

    try:
        assert in_child(body).told == b"opened"
    finally:
        goes_on.set()
        wait_for_left()


def test_a_function_of_an_inner_map_may_close_the_outer_one(batch: milepost.Batch) -> None:
    def run() -> None:
        def inner(item: int) -> int:
            outer.close()
            return item

        def function(item: int) -> int:
            for _ in another.map(inner, [item]):
                pass
            return item

        another = batch.session.start_batch("another")
        outer = batch.map(function, [1], workers=1)
        with contextlib.suppress(milepost.ClosedError):
            for _ in outer:
                pass

    in_threads(run)
