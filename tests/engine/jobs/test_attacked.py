"""What somebody who tried to break loops and maps found, and must not find again."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost import BatchStatus, ItemStatus, Outcome
from milepost.session.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = milepost.Backoff(first_seconds=0.0)


def same(item: int) -> int:
    return item


def never(_session: Session) -> bool:
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
    monkeypatch.setattr(Session, "answers_at_once", never)

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


def test_items_found_on_the_way_and_left_keep_a_batch_from_ending_well(tmp_path: Path) -> None:
    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        batch.add_many([1, 2, 3])
        for item in batch.items():
            if item == 2:
                break
        assert batch.complete() is BatchStatus.FAILED
        failed = session.live.failed_batches[0]
        assert "2 items that were found on the way are not done" in failed.error_message
        assert failed.is_recoverable
        again = session.start_batch("b")
        assert list(_each(again.items())) == [2, 3]
        assert again.complete() is BatchStatus.COMPLETED


def _each(items: Any) -> Iterator[int]:
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


@pytest.mark.parametrize("after", [-1, float("nan"), 1e308])
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
