"""What somebody who tried to break loops and maps found, and must not find again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost import BatchStatus, ItemStatus, Outcome, SessionStatus, StorageError
from milepost.model.state import Suspect
from milepost.session.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

QUICK = milepost.Backoff(first_seconds=0.0)


def same(item: int) -> int:
    return item


def never(_writer: Writer) -> bool:
    return False


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


def mapped(source: Any, store: Path, **options: Any) -> Any:
    function = options.pop("function", same)
    make: Any = milepost.map
    return make(function, source, "work", store=store, progress=False, **options)


@pytest.mark.parametrize("key", [None, "position"])
def test_a_map_over_a_generator_goes_on_in_a_second_run(tmp_path: Path, key: str | None) -> None:
    found: list[int] = []
    for item, _ in mapped(numbers(20), tmp_path, workers=4, key=key):
        if len(found) == 5:
            break
        found.append(item)
    found += [item for item, _ in mapped(numbers(20), tmp_path, workers=4, key=key)]
    assert sorted(found) == list(range(20))


def test_a_completed_map_takes_up_what_is_new_in_a_generator(tmp_path: Path) -> None:
    for _ in mapped(numbers(3), tmp_path):
        pass
    assert sorted(item for item, _ in mapped(numbers(9), tmp_path)) == list(range(3, 9))


@pytest.mark.parametrize("workers", [1, 4])
def test_the_same_key_twice_in_a_window_runs_once(tmp_path: Path, workers: int) -> None:
    work = mapped(["a", "a", "b", "a"], tmp_path, workers=workers)
    assert sorted(item for item, _ in work) == ["a", "b"]
    assert work.duplicates == 2


def test_the_same_key_twice_in_a_chunk_is_given_out_once(tmp_path: Path) -> None:
    loop = milepost.resume(["a", "a", "b"], "work", chunk=3, store=tmp_path, progress=False)
    for chunk in loop:
        assert chunk == ["a", "b"]
    assert loop.duplicates == 1


def test_what_was_taken_for_a_cancelled_task_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every recording goes aside, so that a cancel can meet it.
    monkeypatch.setattr(Writer, "takes_at_once", never)

    async def crawl(batch: milepost.Batch) -> list[int]:
        items = batch.items(range(10))
        seen = [await asyncio.ensure_future(anext(items))]
        while True:
            asking = asyncio.ensure_future(anext(items))
            await asyncio.sleep(0)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                seen.append(await asking)
                continue
            try:
                seen.append(await asyncio.ensure_future(anext(items)))
            except StopAsyncIteration:
                return seen
            # It was taken when the task before was cancelled, and nobody worked on it since.
            assert not batch.is_done(seen[-1])

    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        assert asyncio.run(crawl(batch)) == list(range(10))
        assert batch.progress.items_processed == 10


def test_what_was_taken_for_a_cancelled_task_is_given_out_as_it_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Writer, "takes_at_once", never)
    recorded, go_on = threading.Event(), threading.Event()
    plain = milepost.Batch.end_items

    def slowly(*given: Any) -> Any:
        taken = plain(*given)
        recorded.set()
        assert go_on.wait(60)
        return taken

    monkeypatch.setattr(milepost.Batch, "end_items", slowly)

    async def crawl(batch: milepost.Batch) -> list[list[int]]:
        suspects = batch.session.live.suspects
        suspects.append(Suspect(batch.number, 99))  # while there is one, chunks hold one item
        items = batch.items(range(4), chunk=3)
        asking = asyncio.ensure_future(anext(items))
        await asyncio.to_thread(recorded.wait)
        asking.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await asking
        suspects.clear()
        return [chunk async for chunk in items]

    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        assert asyncio.run(crawl(batch)) == [[0], [1, 2, 3]]
        assert batch.progress.items_processed == 4


def test_items_found_on_the_way_and_left_keep_a_batch_from_ending_well(tmp_path: Path) -> None:
    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        batch.add_many([1, 2, 3])
        for item in batch.items():
            if item == 2:
                break
        assert batch.complete() is BatchStatus.FAILED
        failed = session.live.failed_batches[0]
        assert "2 items found on the way not done" in failed.error_message
        assert failed.is_recoverable
        again = session.start_batch("b")
        assert list(_each(again.items())) == [2, 3]
        assert again.complete() is BatchStatus.COMPLETED


def _each(items: Any) -> Iterator[Any]:
    yield from items


def test_after_an_outage_another_loop_in_the_body_has_them_all(tmp_path: Path) -> None:
    def fails(item: int) -> int:
        raise ConnectionError("down")

    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        batch.add_many(range(6))
        with pytest.raises(milepost.OutageError):
            for _ in batch.map(fails, workers=3, attempts=1, give_up_after=2):
                pass
        assert sorted(_each(batch.items())) == list(range(6))
        assert batch.complete() is BatchStatus.COMPLETED


def test_skip_in_a_plain_loop_of_a_job_is_said_of_the_item(tmp_path: Path) -> None:
    @milepost.job("work", batches=["b"], store=tmp_path)
    def work(batch: milepost.Batch) -> None:
        for item in batch.items(range(4)):
            if item == 1:
                raise milepost.Skip("not this one")

    result = work.run(progress=False)
    assert result.outcome is Outcome.COMPLETED
    assert result.statistics.total_items_processed == 3
    assert result.statistics.total_items_skipped == 1


def test_skip_with_several_in_hand_is_no_end_of_the_batch(tmp_path: Path) -> None:
    @milepost.job("work", batches=["b"], store=tmp_path, attempts=1)
    def work(batch: milepost.Batch) -> None:
        for _ in batch.map(same, range(9), workers=4):
            raise milepost.Skip("which?")

    assert "nobody can tell which is meant" in work.run(progress=False).failures["b"]


def test_a_function_s_own_broken_pool_is_its_own(tmp_path: Path) -> None:
    calls: list[int] = []

    def function(item: int) -> int:
        calls.append(item)
        if item == 0:
            raise BrokenProcessPool("nested")
        return item

    work = mapped(range(4), tmp_path, function=function, workers=4, attempts=2, backoff=QUICK)
    out = work.open(tmp_path / "rows.txt")
    for item, _ in work:
        out.write(f"{item}\n")
    assert sorted(calls) == [0, 0, 1, 2, 3]
    assert sorted((tmp_path / "rows.txt").read_text().split()) == ["1", "2", "3"]
    assert work.failed == 1


def test_an_end_by_an_error_is_no_end_of_the_work(tmp_path: Path) -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ConnectionError("down")

    work = mapped(source(), tmp_path, workers=1)
    with pytest.raises(ConnectionError):
        for _ in work:
            pass
    with pytest.raises(milepost.ClosedError, match="ended with ConnectionError"):
        next(work)


def test_stop_iteration_from_a_plain_body_is_a_failure_in_a_loop_too(tmp_path: Path) -> None:
    @milepost.job("work", batches=["b"], store=tmp_path, attempts=1)
    def work(batch: milepost.Batch) -> None:
        next(iter(()))

    result = asyncio.run(work.run_async(progress=False))
    assert "StopIteration" in result.failures["b"]


def test_what_is_left_by_a_second_verdict_stays(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        milepost.resume(range(4), "work", chunk=4, store=tmp_path, progress=False) as items,
    ):
        for _ in items:
            items.skip("said before", key=1)
            raise RuntimeError("of the rest")
    progress = milepost.Store(tmp_path).load_progress("work").active_batches[0]
    assert progress.status_of(1) is ItemStatus.SKIPPED
    assert progress.status_of(2) is ItemStatus.FAILED


@pytest.mark.parametrize("after", [-1, float("nan"), 1e308, True])
def test_no_wait_is_longer_than_anybody_waits(after: float) -> None:
    with pytest.raises(milepost.ConfigurationError, match="after is"):
        milepost.Retry(after=after)


def test_two_tasks_do_not_take_a_session_from_each_other(tmp_path: Path) -> None:
    running: list[int] = []

    async def both() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def work(item: int) -> None:
            running.append(item)
            begun.set()
            await go_on.wait()

        async def crawl() -> None:
            async for _ in milepost.map(work, range(5), "work", store=tmp_path, progress=False):
                pass

        first = asyncio.create_task(crawl())
        await begun.wait()
        with pytest.raises(milepost.AlreadyLockedError, match="another task of this process"):
            await asyncio.create_task(crawl())
        go_on.set()
        await first
        await crawl()  # a task that has ended holds nothing

    asyncio.run(both())
    assert sorted(running) == list(range(5))


def test_a_store_that_others_are_making_just_now_is_no_folder_of_other_things(
    tmp_path: Path,
) -> None:
    (tmp_path / "MILEPOST.1234.tmp").write_bytes(b"")
    assert [item for item, _ in mapped(range(3), tmp_path, workers=1)] == [0, 1, 2]


@pytest.mark.parametrize("field", ["first_seconds", "factor", "seconds_max"])
@pytest.mark.parametrize("number", [-1, float("nan"), float("inf"), True, "1"])
def test_a_backoff_of_numbers_that_cannot_be_is_refused(field: str, number: Any) -> None:
    with pytest.raises(milepost.ConfigurationError, match=f"{field} is"):
        milepost.Backoff(**{field: number})


def test_nothing_is_no_item_to_add(tmp_path: Path) -> None:
    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        with pytest.raises(milepost.EncodingError, match="None is no item"):
            batch.add(None, key="k")
        assert batch.progress.items_added == 0


# What is in the source and was found on the way as well.


@pytest.mark.parametrize("shape", ["loop", "chunk", "map", "async map"])
def test_what_is_in_the_source_and_was_found_too_runs_once(tmp_path: Path, shape: str) -> None:
    ran: list[int] = []

    async def note(item: int) -> int:
        ran.append(item)
        return item

    async def in_tasks(batch: milepost.Batch) -> None:
        async for _ in batch.map(note, range(2, 5), workers=9):
            pass

    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        batch.add_many(range(3))  # 2 is in the source below as well
        if shape == "loop":
            ran += _each(batch.items(range(2, 5)))
        elif shape == "chunk":
            for chunk in _each(batch.items(range(2, 5), chunk=9)):
                ran += chunk
        elif shape == "map":
            ran += [item for item, _ in _each(batch.map(same, range(2, 5), workers=9))]
        else:
            asyncio.run(in_tasks(batch))
        assert sorted(ran) == [0, 1, 2, 3, 4]
        assert batch.complete() is BatchStatus.COMPLETED


@pytest.mark.parametrize("shape", ["loop", "map"])
def test_what_failed_and_is_in_the_source_and_was_found_is_tried_once_more(
    tmp_path: Path, shape: str
) -> None:
    source = ["a", "c", "b"]
    loop = milepost.resume(source, "work", store=tmp_path, progress=False)
    for item in loop:
        if item == "a":
            loop.add("b")
        if item == "b":
            loop.fail(TimeoutError("once"))
    ran: list[str] = []
    if shape == "loop":
        loop = milepost.resume(source, "work", store=tmp_path, progress=False)
        out = loop.open(tmp_path / "rows.txt")
        for item in loop:
            ran.append(item)
            out.write(f"{item}\n")
    else:
        work = mapped(source, tmp_path, workers=3)
        out = work.open(tmp_path / "rows.txt")
        for item, _ in work:
            ran.append(item)
            out.write(f"{item}\n")
    assert ran == ["b"]
    assert (tmp_path / "rows.txt").read_text() == "b\n"


def test_what_waits_for_a_further_try_is_not_found_meanwhile(tmp_path: Path) -> None:
    calls: list[str] = []
    work: Any = None

    def function(item: str) -> str:
        calls.append(item)
        if item == "a":
            work.add("b")  # the source has it, too
        if item == "b" and calls.count("b") == 1:
            raise milepost.Retry("not yet", after=0.05)
        return item

    work = mapped(["a", "b"], tmp_path, function=function, workers=1)
    assert sorted(item for item, _ in work) == ["a", "b"]
    assert calls == ["a", "b", "b"]


def test_many_that_were_met_are_forgotten_when_they_are_done(tmp_path: Path) -> None:
    count = 2_000
    loop = milepost.resume([0, *range(0, count, 2)], "work", store=tmp_path, progress=False)
    ran: list[int] = []
    for item in loop:
        ran.append(item)
        loop.add_many([item, item + 1, item + 2])
        if item >= count:
            break
    assert ran == [*range(0, count, 2), *range(1, count, 2), count]


# Functions that only seem to do the work.


def lazily(item: int) -> Iterator[int]:
    yield item


async def later(item: int) -> int:
    return item


async def lazily_later(item: int) -> AsyncIterator[int]:
    yield item


@pytest.mark.parametrize("function", [lazily, lazily_later])
def test_a_generator_function_is_no_function_to_map(tmp_path: Path, function: Any) -> None:
    with pytest.raises(TypeError, match="generator function"):
        mapped(range(3), tmp_path, function=function)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", [lazily, lazily_later, later])
def test_what_has_yet_to_be_run_is_no_result(tmp_path: Path, function: Any) -> None:
    def call(item: int) -> Any:
        return function(item)  # not seen by who looks at what was handed in

    work = mapped([0], tmp_path, function=call, workers=1)
    with pytest.raises(TypeError, match="so nothing was done"):
        for _ in work:
            pass
    with pytest.raises(TypeError, match="so nothing was done"):
        asyncio.run(in_tasks(function, tmp_path))
    progress = milepost.Store(tmp_path).load_progress("work").active_batches[0]
    assert (progress.items_processed, progress.items_failed) == (0, 0)


async def in_tasks(function: Any, store: Path) -> None:
    async def work(item: int) -> Any:
        return function(item)

    async for _ in mapped([0], store, function=work):
        pass


# Sources that break.


@pytest.mark.parametrize("is_async", [False, True])
def test_a_source_that_breaks_costs_no_map_what_is_in_hand(tmp_path: Path, is_async: bool) -> None:
    calls: list[int] = []

    def source() -> Iterator[int]:
        yield from range(10)
        raise ConnectionError("the listing broke off")

    def function(item: int) -> int:
        calls.append(item)
        return item

    async def function_async(item: int) -> int:
        await asyncio.sleep(0)
        return function(item)

    async def run() -> list[int]:
        found: list[int] = []
        with pytest.raises(ConnectionError):
            async for item, _ in mapped(source(), tmp_path, function=function_async):
                found.append(item)
        return found

    found: list[int] = []
    if is_async:
        found = asyncio.run(run())
    else:
        with pytest.raises(ConnectionError):
            for item, _ in mapped(source(), tmp_path, function=function):
                found.append(item)
    assert sorted(found) == list(range(10))
    assert [item for item, _ in mapped(numbers(12), tmp_path)] == [10, 11]
    assert sorted(calls) == list(range(10))


@pytest.mark.parametrize("where", ["source", "key"])
def test_a_loop_in_a_batch_that_broke_is_not_taken_for_its_end(tmp_path: Path, where: str) -> None:
    def source() -> Iterator[int]:
        yield from range(3)
        if where == "source":
            raise ConnectionError("the listing broke off")
        yield 3

    def key(item: int) -> int:
        if item == 3:
            raise ConnectionError("no key")
        return item

    @milepost.job("work", batches=["b"], store=tmp_path, attempts=1)
    def work(batch: milepost.Batch) -> None:
        items = batch.items(source(), key=key)
        for _ in range(3):
            next(items)
        with pytest.raises(ConnectionError):
            next(items)
        assert batch.is_done(2)
        next(items)

    assert "this loop ended with ConnectionError" in work.run(progress=False).failures["b"]


def test_an_async_generator_that_was_cancelled_is_not_taken_for_its_end(tmp_path: Path) -> None:
    async def source() -> AsyncIterator[int]:
        yield 0
        await asyncio.Event().wait()
        yield 1

    async def pull(items: Any) -> int:
        async with asyncio.timeout(0.01):
            number: int = await anext(items)
            return number

    async def run(batch: milepost.Batch) -> None:
        items = batch.items(source())
        assert await anext(items) == 0
        with pytest.raises(TimeoutError):
            await pull(items)
        with pytest.raises(milepost.ClosedError, match="the source was cancelled"):
            await anext(items)

    with milepost.Store(tmp_path).session("work") as session:
        asyncio.run(run(session.start_batch("b")))


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
def test_a_key_function_that_would_end_a_loop_is_an_error(
    tmp_path: Path, error: type[Exception]
) -> None:
    def key(item: int) -> int:
        if item == 2:
            raise error
        return item

    loop = milepost.resume(range(5), "work", key=key, store=tmp_path, progress=False)
    with pytest.raises(RuntimeError, match=rf"key= raised {error.__name__} for 2"):
        for _ in loop:
            pass


def test_a_loop_that_was_cancelled_behind_the_end_of_its_source_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every recording goes aside, so that a cancel can meet it.
    monkeypatch.setattr(Writer, "takes_at_once", never)

    async def source() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    async def run(batch: milepost.Batch) -> list[int]:
        batch.add_many(range(10, 13))
        items = batch.items(source())
        seen: list[int] = []
        while True:
            asking = asyncio.ensure_future(anext(items))
            for _ in range(len(seen)):  # each time at another step
                await asyncio.sleep(0)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                seen.append(await asking)
                continue
            try:
                seen.append(await asyncio.ensure_future(anext(items)))
            except StopAsyncIteration:
                return seen

    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        assert asyncio.run(run(batch)) == [0, 1, 2, 10, 11, 12]
        assert batch.complete() is BatchStatus.COMPLETED


@pytest.mark.parametrize("is_growing", [False, True])
@pytest.mark.parametrize("shape", ["loop", "map"])
def test_what_could_not_be_recorded_is_given_out_by_the_next_loop(
    tmp_path: Path, is_growing: bool, shape: str
) -> None:
    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        source = None if is_growing else ["a", "b", "c"]
        if is_growing:
            batch.add_many(["a", "b", "c"])
        seen: list[str] = []
        items: Any = batch.items(source) if shape == "loop" else batch.map(str, source, workers=1)
        with pytest.raises(milepost.EncodingError):
            for each in items:
                seen.append(each if shape == "loop" else each[0])
                if seen[-1] == "b":
                    items.fail("\udc80")  # no text that can be stored
        seen += _each(batch.items(source))
        assert seen == ["a", "b", "b", "c"]
        assert batch.complete() is BatchStatus.COMPLETED


def test_a_loop_that_is_closed_late_takes_nothing_from_the_next_one(tmp_path: Path) -> None:
    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        lines = [f"line {number}" for number in range(6)]
        first = batch.items(lines, key="position")
        for line in first:
            if line == "line 3":
                break
        seen: list[str] = []
        for line in batch.items(lines, key="position"):
            seen.append(line)
            first.close()
        assert seen == lines[3:]
        assert batch.progress.items_processed == 6


def test_what_an_inner_loop_puts_down_is_given_out_by_the_outer_one(tmp_path: Path) -> None:
    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        batch.add_many(range(300))  # more than are looked at ahead
        seen: list[int] = []
        for item in batch.items():
            seen.append(item)
            if len(seen) == 256:
                for _ in batch.items():
                    break
        assert sorted(seen) == list(range(300))
        assert batch.complete() is BatchStatus.COMPLETED


def test_what_vanished_is_counted_beside_what_is_found(tmp_path: Path) -> None:
    first = milepost.resume(range(6), "work", store=tmp_path, progress=False)
    for item in first:
        if item == 2:
            first.add_many([100, 101])
        if item == 4:
            break
    again = milepost.resume(range(2, 6), "work", store=tmp_path, progress=False)
    for item in again:
        if item < 10:
            again.add(item + 200)
    assert again.vanished == 2


# Whose error it is, and whose row.


def test_an_error_of_another_session_is_the_items(tmp_path: Path) -> None:
    def function(item: int) -> int:
        if item == 1:
            other = milepost.Store(tmp_path / "other").session("other")
            other.close()
            other.set_data(1)
        if item == 2:
            milepost.resume(range(2), "inner", store=tmp_path / "other", progress=False).open(
                tmp_path / "nowhere" / "rows.txt"
            )
        return item

    work = mapped(range(5), tmp_path, function=function, workers=1)
    assert [item for item, _ in work] == [0, 3, 4]
    assert work.failed == 2


def test_an_error_of_its_own_session_is_no_items(tmp_path: Path) -> None:
    work: Any = None

    def function(item: int) -> int:
        if item == 2:
            work.session.close()
            work.add("more")
        return item

    work = mapped(range(5), tmp_path, function=function, workers=1)
    with pytest.raises(milepost.ClosedError):
        for _ in work:
            pass
    progress = milepost.Store(tmp_path).load_progress("work").active_batches[0]
    assert progress.items_failed == 0


def test_what_a_try_left_behind_writes_no_row_of_the_next(tmp_path: Path) -> None:
    tries: list[int] = []
    late: list[str] = []
    go_on = asyncio.Event()

    async def part(out: milepost.Output) -> None:
        await go_on.wait()
        try:
            out.write("of the first try\n")
        except milepost.ClosedError:
            late.append("refused")

    async def run() -> None:
        left: list[asyncio.Task[None]] = []

        async def function(item: str) -> str:
            tries.append(len(tries))
            if len(tries) == 1:
                left.append(asyncio.create_task(part(out)))
                raise TimeoutError("once")
            go_on.set()
            await left[0]
            out.write(f"{item}\n")
            return item

        work = mapped(["a"], tmp_path, function=function, backoff=QUICK)
        out = await work.aopen(tmp_path / "rows.txt")
        async for _ in work:
            pass

    asyncio.run(run())
    assert late == ["refused"]
    assert (tmp_path / "rows.txt").read_text() == "a\n"


def test_a_row_of_what_is_acknowledged_already_is_refused(tmp_path: Path) -> None:
    late: list[str] = []

    async def run() -> None:
        acknowledged = asyncio.Event()
        left: list[asyncio.Task[None]] = []

        async def afterwards() -> None:
            await acknowledged.wait()
            with pytest.raises(milepost.ClosedError):
                out.write("late\n")
            late.append("refused")

        async def function(item: int) -> int:
            if item == 0:
                left.append(asyncio.create_task(afterwards()))
            return item

        work = mapped(range(3), tmp_path, function=function, workers=1)
        out = await work.aopen(tmp_path / "rows.txt")
        async for item, _ in work:
            if item == 1:
                acknowledged.set()
                await left[0]

    asyncio.run(run())
    assert late == ["refused"]
    assert (tmp_path / "rows.txt").read_text() == ""


# Loops that are left, and others after them.


@pytest.mark.parametrize("how", ["error", "timeout"])
def test_what_a_left_loop_had_found_is_given_out_by_the_next_one(tmp_path: Path, how: str) -> None:
    ran: list[str] = []

    async def with_timeout(batch: milepost.Batch) -> None:
        try:
            async with asyncio.timeout(0.01):
                async for item in batch.items():
                    ran.append(item)
                    await asyncio.Event().wait()
        except TimeoutError:
            pass
        ran.extend([item async for item in batch.items()])

    def with_error(batch: milepost.Batch) -> None:
        try:
            for item in batch.items():
                ran.append(item)
                raise ConnectionError("once")
        except ConnectionError:
            pass
        ran.extend(_each(batch.items()))

    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        batch.add_many(["a", "b"])
        if how == "timeout":
            asyncio.run(with_timeout(batch))
        else:
            with_error(batch)
        assert ran == ["a", "a", "b"]
        assert batch.complete() is BatchStatus.COMPLETED


def test_tasks_may_open_several_outputs_at_once(tmp_path: Path) -> None:
    async def run() -> None:
        loop = milepost.resume("ab", "work", store=tmp_path / "s", progress=False)
        names = ["one", "two", "three"]
        outs = await asyncio.gather(*(loop.aopen(tmp_path / name) for name in names))
        async for item in loop:
            for out in outs:
                out.write(item)

    asyncio.run(run())
    assert (tmp_path / "three").read_text() == "ab"


def test_a_loop_that_ends_where_no_thread_can_be_started_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "milepost-leaving":
            raise RuntimeError("can't start new thread")
        plain(thread)

    async def run() -> None:
        async for _ in milepost.resume("ab", "work", store=tmp_path, progress=False):
            break

    monkeypatch.setattr(threading.Thread, "start", start)
    asyncio.run(run())
    assert milepost.Store(tmp_path).view("work").judgement.status is milepost.SessionStatus.STOPPED


# Blocks whose error cannot be recorded.


def looped(source: Any, store: Path, **options: Any) -> Any:
    return milepost.resume(source, "work", store=store, progress=False, **options)


async def same_async(item: int) -> int:
    return item


def status(store: Path) -> SessionStatus:
    return milepost.Store(store).view("work").judgement.status


@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.parametrize("shape", ["loop", "map", "async loop", "async map"])
def test_a_block_whose_error_cannot_be_recorded_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    def refuse(*_given: object) -> None:
        raise StorageError("no space left on device")

    def body() -> None:
        with (looped if shape == "loop" else mapped)(range(9), tmp_path) as items:
            for _ in items:
                monkeypatch.setattr(milepost.Batch, "end_items", refuse)
                raise ValueError("of the body")

    async def async_body() -> None:
        function = {} if shape == "async loop" else {"function": same_async}
        make = looped if shape == "async loop" else mapped
        async with make(range(9), tmp_path, **function) as items:
            async for _ in items:
                monkeypatch.setattr(milepost.Batch, "end_items", refuse)
                raise ValueError("of the body")

    caught: ValueError | None = None
    try:
        if shape.startswith("async"):
            asyncio.run(async_body())
        else:
            body()
    except ValueError as error:
        caught = error
    assert caught is not None
    assert caught.__notes__ == ["milepost: leaving the loop failed too: no space left on device"]
    # While its traceback is held: nothing is left to a collection.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert status(tmp_path) is SessionStatus.INTERRUPTED


@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.parametrize("shape", ["loop", "map"])
def test_a_block_that_is_cancelled_while_its_error_is_recorded_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    recording, go = threading.Event(), threading.Event()
    plain = milepost.Batch.end_items

    def slowly(*given: Any) -> None:
        recording.set()
        assert go.wait(60)
        plain(*given)

    async def body() -> None:
        function = {} if shape == "loop" else {"function": same_async}
        make = looped if shape == "loop" else mapped
        async with make(range(9), tmp_path, durability="disk", **function) as items:
            async for _ in items:
                monkeypatch.setattr(milepost.Batch, "end_items", slowly)
                raise ValueError("of the body")

    async def run() -> None:
        task = asyncio.create_task(body())
        assert await asyncio.to_thread(recording.wait, 60)
        task.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert isinstance(caught.value.__context__, ValueError)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert status(tmp_path) is SessionStatus.INTERRUPTED

    asyncio.run(run())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    state = milepost.Store(tmp_path).load_progress("work")
    assert "ValueError: of the body" in {
        each.error_message for each in state.active_batches[0].open.values()
    }


# Openings.


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("how", ["threads", "tasks", "both"])
def test_several_that_add_before_a_loop_begins_are_all_heard(
    tmp_path: Path, is_new: bool, how: str
) -> None:
    store = milepost.Store(tmp_path)
    keys = [f"k{number}" for number in range(6)]
    make: Any = milepost.map

    def in_threads(items: Any) -> None:
        gate = threading.Barrier(len(keys))
        errors: list[BaseException] = []

        def add(key: str) -> None:
            gate.wait()
            try:
                assert items.add(key)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=add, args=(key,)) for key in keys]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []

    async def in_tasks(items: Any) -> list[Any]:
        adding = [
            asyncio.to_thread(items.add, key) if how == "both" and key < "k3" else items.aadd(key)
            for key in keys
        ]
        assert all(await asyncio.gather(*adding))
        return [key async for key, _ in items]

    for number in range(3):
        name = f"work{number}"
        if not is_new:
            for _ in milepost.resume(["before"], name, store=store, progress=False):
                pass
        if how == "threads":
            items = make(str, ["before"], name, store=store, progress=False)
            in_threads(items)
            found = [key for key, _ in items]
        else:
            items = make(same_async, ["before"], name, store=store, progress=False)
            found = asyncio.run(in_tasks(items))
        assert sorted(found) == (["before", *keys] if is_new else keys)


@pytest.mark.parametrize("shape", ["loop", "map"])
@pytest.mark.parametrize("how", ["add", "session", "open", "with"])
def test_a_loop_whose_opening_failed_is_not_taken_for_done(
    tmp_path: Path, shape: str, how: str
) -> None:
    for _ in looped(["a"], tmp_path / "s", key="position"):
        break
    items: Any = (looped if shape == "loop" else mapped)(["a", "b"], tmp_path / "s")
    with pytest.raises(milepost.InputChangedError) as first:
        if how == "add":
            items.add("c")
        elif how == "session":
            print(items.session)
        elif how == "open":
            items.open(tmp_path / "rows.txt")
        else:
            items.__enter__()
    with pytest.raises(milepost.ClosedError, match="ended with") as again:
        next(items)
    assert again.value.__cause__ is first.value
    with pytest.raises(milepost.ClosedError, match="ended with"):
        items.add("c")
    assert status(tmp_path / "s") is SessionStatus.INTERRUPTED
