"""Loops, maps and jobs in an event loop, which is never kept waiting for a disk."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost import Backoff, ItemStatus, SessionStatus
from milepost.session.aside import wait_for_left
from support.faults import die, in_child

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_thread_left")

AT_ONCE = Backoff(first_seconds=0.0)
PATIENCE_SECONDS = 60.0


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it, and look that it leaves no task behind, and that nobody complains."""
    complaints: list[Any] = []

    async def main() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                return await work
            finally:
                gc.collect()
                for _ in range(3):  # what was cancelled gets to know it
                    await asyncio.sleep(0)
                left = asyncio.all_tasks() - {asyncio.current_task()}
                assert not left, left

    found = asyncio.run(main())
    gc.collect()
    assert complaints == []
    return found


def view(store: Path, name: str = "crawl") -> milepost.View:
    """What is known of it; a loop that was left without `async with` has gone by then."""
    gc.collect()
    wait_for_left()
    return milepost.Store(store).view(name)


def status(store: Path) -> SessionStatus:
    return view(store).judgement.status


def resumed(source: Any, store: Path, **options: Any) -> milepost.Items[Any]:
    return milepost.resume(source, "crawl", store=store, progress=False, **options)


def mapped(function: Any, source: Any, store: Path, **options: Any) -> Any:
    options.setdefault("backoff", AT_ONCE)
    make: Any = milepost.map  # with options of all kinds
    return make(function, source, "crawl", store=store, progress=False, **options)


async def echo(item: Any) -> Any:
    await asyncio.sleep(0)
    return item


async def all_of(items: Any) -> list[Any]:
    found: list[Any] = [item async for item in items]
    return found


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


# Loops.


@pytest.mark.parametrize("source", [lambda: range(9), lambda: numbers(9), lambda: iter(range(9))])
def test_a_loop_over_any_source(tmp_path: Path, source: Callable[[], Any]) -> None:
    assert run(all_of(resumed(source(), tmp_path))) == [*range(9)]
    assert run(all_of(resumed(source(), tmp_path))) == []
    assert status(tmp_path) is SessionStatus.COMPLETED


def test_break_stops_and_the_next_run_begins_with_the_item_in_hand(tmp_path: Path) -> None:
    async def work() -> None:
        async for item in resumed(numbers(5), tmp_path):
            if item == 2:
                break

    run(work())
    assert status(tmp_path) is SessionStatus.STOPPED
    assert run(all_of(resumed(numbers(5), tmp_path))) == [2, 3, 4]


def test_after_break_it_can_be_opened_again_at_once(tmp_path: Path) -> None:
    async def work() -> list[int]:
        for _ in range(5):
            async for _ in resumed(range(5), tmp_path):
                break
        return await all_of(resumed(range(5), tmp_path))

    assert run(work()) == [*range(5)]
    ends = [each.outcome for each in view(tmp_path).state.executions]
    assert ends == [milepost.Outcome.STOPPED] * 5 + [milepost.Outcome.COMPLETED]


def test_an_exception_in_the_body_interrupts(tmp_path: Path) -> None:
    async def work() -> None:
        async for item in resumed(range(5), tmp_path):
            if item == 2:
                raise RuntimeError("the body failed")

    with pytest.raises(RuntimeError, match="the body failed"):
        run(work())
    assert status(tmp_path) is SessionStatus.INTERRUPTED
    assert run(all_of(resumed(range(5), tmp_path))) == [2, 3, 4]


def test_an_exception_in_a_with_block_is_recorded(tmp_path: Path) -> None:
    async def work() -> None:
        async with resumed(range(5), tmp_path) as items:
            async for item in items:
                if item == 2:
                    raise TimeoutError("too slow")

    with pytest.raises(TimeoutError):
        run(work())
    assert view(tmp_path).state.active_batches[0].open[2].error_message == "TimeoutError: too slow"


def test_an_async_source_that_raises_keeps_what_was_done(tmp_path: Path) -> None:
    async def source() -> AsyncIterator[int]:
        yield 0
        yield 1
        raise OSError("the list broke off")

    with pytest.raises(OSError, match="broke off"):
        run(all_of(resumed(source(), tmp_path)))
    assert view(tmp_path).state.total_items_processed == 2


def test_an_async_source_is_closed_when_the_loop_is_left(tmp_path: Path) -> None:
    ended: list[str] = []

    async def source() -> AsyncIterator[int]:
        try:
            while True:
                yield 1 + len(ended)
        finally:
            await asyncio.sleep(0)
            ended.append("closed")

    async def work() -> None:
        items = resumed(source(), tmp_path)
        await anext(items)
        await items.aclose()
        assert ended == ["closed"]

    run(work())


def test_a_second_task_that_pulls_is_refused(tmp_path: Path) -> None:
    async def puller(items: Any, begun: asyncio.Event, go: asyncio.Event) -> None:
        async for _ in items:
            begun.set()
            await go.wait()

    async def work(items: Any) -> None:
        begun, go = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(puller(items, begun, go))
        await begun.wait()
        second = asyncio.create_task(puller(items, begun, go))
        with pytest.raises(milepost.ConsumerError, match="a second task"):
            await second
        go.set()
        await first

    run(work(resumed(range(5), tmp_path)))
    assert status(tmp_path) is SessionStatus.COMPLETED


def test_pulls_with_a_timeout_are_fine(tmp_path: Path) -> None:
    async def work() -> list[int]:
        items = resumed(range(5), tmp_path)
        found: list[int] = []
        with contextlib.suppress(StopAsyncIteration):
            while True:
                # It runs each pull in a task of its own.
                found.append(await asyncio.wait_for(anext(items), PATIENCE_SECONDS))
        return found

    assert run(work()) == [*range(5)]


def test_an_async_source_in_a_plain_loop_says_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="async for"):
        next(resumed(numbers(3), tmp_path))


# Cancelling.


async def cancelled_in(items: Any, count: int) -> int:
    """A task that loops and hangs in its n-th body, and is cancelled there."""
    hangs = asyncio.Event()
    seen: list[Any] = []

    async def loop() -> None:
        async for item in items:
            seen.append(item)
            if len(seen) == count:
                hangs.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(loop())
    await hangs.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return len(seen)


@pytest.mark.parametrize("kind", ["loop", "map"])
def test_a_task_that_is_cancelled_in_its_body(tmp_path: Path, kind: str) -> None:
    def make(source: Any, store: Path) -> Any:
        return resumed(source, store) if kind == "loop" else mapped(echo, source, store, workers=3)

    run(cancelled_in(make(range(9), tmp_path), 4))
    assert status(tmp_path) in {SessionStatus.INTERRUPTED, SessionStatus.STOPPED}
    assert view(tmp_path).state.total_items_processed == 3
    assert len(run(all_of(make(range(9), tmp_path)))) == 6
    assert milepost.check(view(tmp_path).state) == []


@pytest.mark.parametrize("steps", range(0, 40, 3))
def test_a_task_that_is_cancelled_anywhere(tmp_path: Path, steps: int) -> None:
    async def work() -> None:
        task = asyncio.create_task(all_of(mapped(echo, numbers(6), tmp_path, workers=2)))
        for _ in range(steps):
            await asyncio.sleep(0.001 if steps % 2 else 0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        # Whatever it was doing, it holds nothing any more.
        found = await all_of(mapped(echo, numbers(6), tmp_path, workers=2))
        assert len(found) == 6 - before(found)

    def before(found: list[Any]) -> int:
        keys = {number for number, _ in found}
        assert len(keys) == len(found)
        return len(set(range(6)) - keys)

    run(work())
    assert view(tmp_path).state.total_items_processed == 6
    assert milepost.check(view(tmp_path).state) == []


def test_an_opening_that_is_cancelled_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = milepost.Store(tmp_path)
    opening, go = threading.Event(), threading.Event()
    plain = store.session

    def slowly(*given: Any, **options: Any) -> milepost.Session:
        opening.set()
        assert go.wait(PATIENCE_SECONDS)
        return plain(*given, **options)

    monkeypatch.setattr(store, "session", slowly)

    async def work() -> None:
        items: Any = milepost.resume(range(3), "crawl", store=store, progress=False)
        task = asyncio.create_task(all_of(items))
        assert await asyncio.to_thread(opening.wait, PATIENCE_SECONDS)
        task.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(work())
    ended = in_child(lambda _: milepost.Store(tmp_path).session("crawl").close())
    assert ended.code == 0


# Maps.


def test_a_map_of_a_coroutine_function(tmp_path: Path) -> None:
    found = run(all_of(mapped(echo, range(50), tmp_path)))
    assert sorted(found) == [(n, n) for n in range(50)]
    assert run(all_of(mapped(echo, range(50), tmp_path))) == []
    assert status(tmp_path) is SessionStatus.COMPLETED


@pytest.mark.parametrize("workers", [1, 4])
def test_so_many_tasks_at_once_and_no_more(tmp_path: Path, workers: int) -> None:
    running: list[int] = []
    most: list[int] = []

    async def work(number: int) -> None:
        running.append(number)
        most.append(len(running))
        for _ in range(5):
            await asyncio.sleep(0)
        running.remove(number)

    run(all_of(mapped(work, numbers(20), tmp_path, workers=workers)))
    assert max(most) == workers


def test_break_in_a_map_leaves_no_task_behind(tmp_path: Path) -> None:
    begun: list[int] = []
    ended: list[int] = []

    async def work(number: int) -> int:
        begun.append(number)
        try:
            if number:
                await asyncio.Event().wait()
        finally:
            ended.append(number)
        return number

    async def leave() -> None:
        gc.disable()
        async for _ in mapped(work, range(9), tmp_path, workers=4):
            await asyncio.sleep(0)
            break
        for _ in range(3):
            await asyncio.sleep(0)
        gc.enable()
        assert len(asyncio.all_tasks()) == 1
        assert sorted(ended) == sorted(begun)
        assert len(begun) >= 4

    run(leave())
    assert status(tmp_path) is SessionStatus.STOPPED
    assert len(run(all_of(mapped(echo, range(9), tmp_path)))) == 9


def test_tries_skips_and_failures(tmp_path: Path) -> None:
    tries: list[int] = []

    async def work(number: int) -> int:
        tries.append(number)
        await asyncio.sleep(0)
        if number == 1 and tries.count(1) < 3:
            raise TimeoutError("too slow")
        if number == 2:
            raise milepost.Skip("two")
        if number == 3:
            raise TypeError("a mistake")
        if number == 4:
            raise asyncio.CancelledError
        return number

    found = run(all_of(mapped(work, range(6), tmp_path, attempts=3)))
    assert sorted(found) == [(0, 0), (1, 1), (5, 5)]
    batch = view(tmp_path).state.failed_batches[0].partial_progress
    assert sorted(batch.open) == [3, 4]
    assert (batch.items_processed, batch.items_skipped) == (3, 1)


def test_an_outage(tmp_path: Path) -> None:
    async def work(number: int) -> int:
        raise ConnectionError("down")

    with pytest.raises(milepost.OutageError):
        run(all_of(mapped(work, range(50), tmp_path, attempts=1, give_up_after=4)))
    assert status(tmp_path) is SessionStatus.INTERRUPTED
    assert len(run(all_of(mapped(echo, range(50), tmp_path)))) == 50


def test_a_plain_for_over_it_says_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="async for"):
        iter(mapped(echo, range(3), tmp_path))
    with pytest.raises(TypeError, match="no executor="):
        mapped(echo, range(3), tmp_path, executor="threads")


def test_an_object_that_is_called_as_a_coroutine_function(tmp_path: Path) -> None:
    class Fetch:
        async def __call__(self, number: int) -> int:
            return number

    assert len(run(all_of(mapped(Fetch(), range(3), tmp_path)))) == 3


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_the_event_loop_never_waits_for_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Any
) -> None:
    """Every sync of the store happens in another thread than that of the loop."""
    mine = threading.get_ident()
    syncs: list[str] = []

    def watch(name: str) -> None:
        plain = getattr(os, name)

        def watched(*given: Any) -> Any:
            assert threading.get_ident() != mine, f"{name} in the event loop"
            syncs.append(name)
            return plain(*given)

        monkeypatch.setattr(os, name, watched)

    watch("fsync")
    watch("fdatasync")

    async def work() -> None:
        async for _ in mapped(echo, numbers(9), tmp_path, durability=durability):
            pass
        loop = milepost.resume(numbers(9), "loop", store=tmp_path, progress=False)
        async with loop as items:
            out = await items.aopen(tmp_path / "rows.txt")
            async for number in items:
                out.write(f"{number}\n")
        async for number in milepost.resume(numbers(9), "left", store=tmp_path, progress=False):
            if number == 3:
                break

        @milepost.job(
            "job",
            batches=range(3),
            workers=2,
            store=tmp_path,
            durability=durability,
            progress=False,
        )
        async def job(batch: milepost.Batch) -> None:
            assert await batch.aadd_many(number for number in range(3)) == 3
            async for number, _ in batch.map(echo, range(2, 5)):
                if number < 5:
                    await batch.aadd(number + 10, key=f"found at {number}")

        result = await job.run_async()
        assert result.statistics.total_items_processed == 3 * (5 + 5)

        growing = milepost.resume(
            [0], "growing", store=tmp_path, durability=durability, progress=False
        )
        found: list[int] = []
        async for number in growing:
            found.append(number)
            if number < 4:
                await growing.aadd_many([number + 1, number])
                assert not await growing.aadd(number + 1)
        assert found == [0, 1, 2, 3, 4]

    run(work())
    assert syncs


# Jobs.


def test_a_job_of_a_coroutine_function(tmp_path: Path) -> None:
    running: list[str] = []
    most: list[int] = []

    @milepost.job("work", batches=range(12), workers=4, store=tmp_path, progress=False)
    async def work(batch: milepost.Batch) -> None:
        running.append(batch.key)
        most.append(len(running))
        async for _ in batch.items(numbers(5)):
            await asyncio.sleep(0)
        running.remove(batch.key)

    result = work.run()
    assert (result.completed, result.statistics.total_items_processed) == (12, 60)
    assert max(most) == 4
    assert work.run().did_nothing


def test_a_plain_job_in_an_event_loop_that_goes_on(tmp_path: Path) -> None:
    together = threading.Barrier(12)

    @milepost.job("work", batches=range(12), workers=12, store=tmp_path, progress=False)
    def work(batch: milepost.Batch) -> None:
        together.wait(PATIENCE_SECONDS)  # more than the threads an event loop lends
        for _ in batch.items(range(5)):
            pass

    async def beside() -> int:
        ticks = 0
        task = asyncio.create_task(work.run_async())
        while not task.done():
            ticks += 1
            await asyncio.sleep(0.001)
        assert (await task).completed == 12
        return ticks

    assert run(beside()) > 1


def test_failures_and_tries_of_an_async_job(tmp_path: Path) -> None:
    tries: list[str] = []

    @milepost.job(
        "work", batches=["a", "b", "c", "d"], workers=2, store=tmp_path, backoff=AT_ONCE, attempts=3
    )
    async def work(batch: milepost.Batch) -> None:
        await asyncio.sleep(0)
        tries.append(batch.key)
        if batch.key == "b" and tries.count("b") < 3:
            raise TimeoutError("too slow")
        if batch.key == "c":
            raise TypeError("a mistake")
        if batch.key == "d":
            raise asyncio.CancelledError  # what it waited for was cancelled; nobody cancels us

    result = work.run(progress=False)
    assert result.exit_code == 3
    assert (result.completed, set(result.failures)) == (2, {"c", "d"})
    assert tries.count("b") == 3


def test_a_cancel_that_a_body_kept_to_itself_is_no_end_of_the_next(tmp_path: Path) -> None:
    @milepost.job("work", batches=["a", "b", "c"], store=tmp_path, progress=False)
    async def work(batch: milepost.Batch) -> None:
        if batch.key == "b":
            raise asyncio.CancelledError
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    assert set(work.run().failures) == {"b"}


def test_an_async_job_that_is_cancelled(tmp_path: Path) -> None:
    begun: list[str] = []
    hang = asyncio.Event()

    @milepost.job("work", batches=range(6), workers=3, store=tmp_path, progress=False)
    async def work(batch: milepost.Batch) -> None:
        begun.append(batch.key)
        if len(begun) == 5:
            hang.set()
        if len(begun) >= 3:
            await asyncio.Event().wait()

    async def cancel() -> None:
        task = asyncio.create_task(work.run_async())
        await hang.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(cancel())
    found = view(tmp_path, "work")
    assert found.judgement.status is SessionStatus.INTERRUPTED
    assert len(found.state.completed_batches) == 2
    del begun[:]

    @milepost.job("work", batches=range(6), workers=3, store=tmp_path, progress=False)
    async def again(batch: milepost.Batch) -> None:
        begun.append(batch.key)

    assert again.run().completed == 6
    assert len(begun) == 4


def test_work_found_on_the_way_in_an_async_job(tmp_path: Path) -> None:
    @milepost.job("work", batches=["site"], store=tmp_path, progress=False)
    async def crawl(batch: milepost.Batch) -> None:
        batch.add(1)
        async for number, _ in batch.map(echo, workers=4):
            batch.add_many(each for each in (2 * number, 2 * number + 1) if each < 200)

    assert crawl.run().statistics.total_items_processed == 199


@pytest.mark.parametrize("options", [{"executor": "threads"}])
def test_a_coroutine_function_takes_no_executor(options: dict[str, Any]) -> None:
    async def work(batch: milepost.Batch) -> None:
        del batch

    with pytest.raises(TypeError, match="no executor="):
        milepost.job("work", batches=[1], **options)(work)


# Signals. Programs of their own, each with an event loop.

LOOP = """
    async for item in milepost.resume(range(9), "crawl", store="s"):
        await body(item)
"""
WITH = """
    async with milepost.resume(range(9), "crawl", store="s") as items:
        async for item in items:
            await body(item)
"""
MAP = """
    async for item, _ in milepost.map(echo, range(9), "crawl", store="s", workers=2):
        await body(item)
"""
JOB = """
    @milepost.job("crawl", batches=["only"], store="s")
    async def job(batch):
        async for item in batch.items(range(9)):
            await body(item)
    await job.run_async()
"""
SHAPES = {"loop": LOOP, "with": WITH, "map": MAP, "job": JOB}
KINDS = [pytest.param(shape, id=name) for name, shape in SHAPES.items()]
FINISHES = "await asyncio.sleep(0.01); print('finished', flush=True)"
WAITS = "await asyncio.Event().wait()"
BLOCKS = "time.sleep(60)"


def program(folder: Path, shape: str, signals: str, then: str) -> subprocess.CompletedProcess[str]:
    """A crawl that sends itself signals in its third body, and then does that."""
    script = folder / "program.py"
    script.write_text(
        f"""
import asyncio, os, signal, time
import milepost
import milepost.jobs.signals, milepost.jobs.tasks
milepost.jobs.signals.GRACE_SECONDS = milepost.jobs.tasks.GRACE_SECONDS = 0.5
count = 0
async def echo(item):
    return item
async def body(item):
    global count
    count += 1
    if count == 3:
        for name in {signals!r}.split():
            os.kill(os.getpid(), getattr(signal, name))
        {then}
async def main():
{shape}
asyncio.run(main())
"""
    )
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


def done_of(store: Path) -> int:
    return view(store).state.total_items_processed


@pytest.mark.parametrize("shape", KINDS)
@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("SIGINT", -signal.SIGINT, SessionStatus.STOPPED),
        ("SIGTERM", 143, SessionStatus.INTERRUPTED),
    ],
)
def test_a_signal_finishes_the_items_in_hand(
    tmp_path: Path, shape: str, name: str, code: int, expected: SessionStatus
) -> None:
    ended = program(tmp_path, shape, name, FINISHES)
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == "finished\n"
    assert "Exception ignored" not in ended.stderr
    assert status(tmp_path / "s") is expected
    assert done_of(tmp_path / "s") >= 3


@pytest.mark.parametrize("shape", KINDS)
@pytest.mark.parametrize("then", [WAITS, BLOCKS])
def test_a_second_ctrl_c_drops_what_is_in_hand_at_once(
    tmp_path: Path, shape: str, then: str
) -> None:
    ended = program(tmp_path, shape, "SIGINT SIGINT", then)
    assert ended.returncode == -signal.SIGINT, ended.stderr
    assert status(tmp_path / "s") is SessionStatus.STOPPED
    assert done_of(tmp_path / "s") == 2


@pytest.mark.parametrize("shape", KINDS)
@pytest.mark.parametrize("then", [WAITS, BLOCKS])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_body_that_hangs_is_dropped_after_the_grace(
    tmp_path: Path, shape: str, then: str, name: str
) -> None:
    ended = program(tmp_path, shape, name, then)
    is_stop = name == "SIGINT"
    assert ended.returncode == (-signal.SIGINT if is_stop else 143), ended.stderr
    expected = SessionStatus.STOPPED if is_stop else SessionStatus.INTERRUPTED
    assert status(tmp_path / "s") is expected
    assert done_of(tmp_path / "s") == 2


def test_the_handler_of_asyncio_is_put_back(tmp_path: Path) -> None:
    async def work() -> None:
        before = signal.getsignal(signal.SIGINT)
        async for _ in resumed(range(3), tmp_path):
            assert signal.getsignal(signal.SIGINT) is not before
        assert signal.getsignal(signal.SIGINT) is before
        async for _ in mapped(echo, range(3), tmp_path):
            pass
        assert signal.getsignal(signal.SIGINT) is before

    run(work())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_programs_own_is_left_alone(tmp_path: Path) -> None:
    async def work() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: None)
        before = signal.getsignal(signal.SIGINT)
        async for _ in resumed(range(3), tmp_path):
            assert signal.getsignal(signal.SIGINT) is before
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    run(work())


# Deaths.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a death in the middle needs a fork")
def test_poison_in_an_async_map_is_failed_and_the_rest_is_done(tmp_path: Path) -> None:
    def once(tell: Callable[[bytes], None]) -> None:
        running: list[int] = []

        async def work(item: int) -> int:
            running.append(item)
            for _ in range(3):
                await asyncio.sleep(0)
            if item == 2:
                tell(f"{len(running)} ".encode())
                die()
            running.remove(item)
            return item

        asyncio.run(all_of(mapped(work, range(12), tmp_path, workers=4)))

    at_death: list[bytes] = []
    for _ in range(10):
        ended = in_child(once)
        if not ended.signal:
            break
        at_death.append(ended.told)
    assert at_death[1:] == [b"1 ", b"1 ", b"1 "]
    assert int(at_death[0]) > 1
    failed = view(tmp_path).state.failed_batches[0].partial_progress
    assert list(failed.open) == [2]
    assert failed.items_processed == 11


def test_an_item_of_an_unfinished_map_is_pending_or_in_hand(tmp_path: Path) -> None:
    begun = time.monotonic()
    run(cancelled_in(mapped(echo, range(9), tmp_path, workers=2), 2))
    kinds = {each.status for each in view(tmp_path).state.active_batches[0].open.values()}
    assert kinds <= {ItemStatus.PROCESSING, ItemStatus.PENDING}
    assert time.monotonic() - begun < PATIENCE_SECONDS
