"""Groups of errors, as task groups raise them: they count as what is in them."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost import Backoff, BatchErrorType, BatchStatus, ItemStatus, Outcome, StorageError
from milepost.groups import leaves
from milepost.journal.writer import JournalWriter
from milepost.text import error_text
from milepost.work.classify import classify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AT_ONCE = Backoff(first_seconds=0.0, seconds_max=0.0)
DOWN, BAD = ConnectionError("down"), ValueError("bad page")


def a_group(*errors: BaseException) -> BaseException:
    return BaseExceptionGroup("unhandled errors", [BaseExceptionGroup("inner", list(errors))])


def test_a_group_is_told_by_its_errors() -> None:
    assert error_text(a_group(DOWN)) == "ExceptionGroup: ConnectionError: down"
    told = error_text(a_group(DOWN, BAD, DOWN, DOWN, DOWN))
    first = "ConnectionError: down"
    assert told == f"ExceptionGroup: {first}; ValueError: bad page; {first}; 2 more"


def test_groups_may_be_nested_deeper_than_calls() -> None:
    error: Any = DOWN
    for _ in range(10 * sys.getrecursionlimit()):
        error = a_group(error)
    assert leaves(error) == [DOWN]
    while error is not DOWN:  # else Python itself frees them by recursion
        error = error.exceptions[0]


@pytest.mark.parametrize(
    ("errors", "kind", "is_recoverable"),
    [
        ([DOWN, TimeoutError()], BatchErrorType.NETWORK_ERROR, True),
        ([DOWN, BAD], BatchErrorType.VALIDATION_ERROR, False),
    ],
)
def test_a_group_is_as_bad_as_the_worst_in_it(
    errors: list[Exception], kind: BatchErrorType, is_recoverable: bool
) -> None:
    assert classify(a_group(*errors)) == (kind, is_recoverable)


# Bodies of jobs, and functions of maps.


def run_job(
    store: Path, kind: str, body: Callable[[milepost.Batch], None], **options: Any
) -> milepost.JobResult:
    """A job whose body is, or whose tasks in a group are, this."""

    def in_group(batch: milepost.Batch) -> None:
        try:
            body(batch)
        except BaseException as error:
            raise a_group(error) from None

    async def in_tasks(batch: milepost.Batch) -> None:
        async def task() -> None:
            body(batch)

        async with asyncio.TaskGroup() as group:
            group.create_task(task())

    function: Any = in_tasks if kind == "tasks" else in_group
    options.setdefault("workers", 2 if kind == "threads" else 1)
    job = milepost.job("work", batches="abc", store=store, backoff=AT_ONCE, **options)(function)
    return asyncio.run(job.run_async()) if kind == "tasks" else job.run(progress=False)


KINDS = ["plain", "threads", "tasks"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_in_a_group_is_a_stop(tmp_path: Path, kind: str) -> None:
    def body(batch: milepost.Batch) -> None:
        for item in batch.items("xyz"):
            if item == "y":
                batch.session.request_stop()

    with pytest.raises(KeyboardInterrupt):
        run_job(tmp_path, kind, body)
    state = milepost.Store(tmp_path).load_progress("work")
    assert state.executions[-1].outcome is Outcome.STOPPED
    assert state.failed_batches == {}


@pytest.mark.parametrize("kind", KINDS)
def test_an_outage_in_a_group_is_one(tmp_path: Path, kind: str) -> None:
    def fail(_: str) -> None:
        raise DOWN

    def body(batch: milepost.Batch) -> None:
        for _ in batch.map(fail, "xyz", workers=1, attempts=1, give_up_after=2):
            pass

    with pytest.raises(milepost.OutageError):
        run_job(tmp_path, kind, body, workers=1)
    state = milepost.Store(tmp_path).load_progress("work")
    assert state.failed_batches == {}
    assert "down" in (state.executions[-1].error_message or "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_in_a_group_is_no_bodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def refuse(*_: object) -> None:
        monkeypatch.undo()
        raise StorageError("no space left on device")

    def body(batch: milepost.Batch) -> None:
        with batch.items("xyz") as items:
            for item in items:
                if item == "y":
                    monkeypatch.setattr(JournalWriter, "append", refuse)

    with pytest.raises(StorageError):
        run_job(tmp_path, kind, body, workers=1)
    state = milepost.Store(tmp_path).load_progress("work")
    assert state.failed_batches == {}
    assert state.total_items_processed == 1


@pytest.mark.parametrize("kind", KINDS)
def test_skip_and_retry_in_a_group_are_what_they_are(tmp_path: Path, kind: str) -> None:
    runs: list[str] = []

    def body(batch: milepost.Batch) -> None:
        runs.append(batch.key)
        if batch.key == "a":
            raise milepost.Skip("of no use")
        if batch.key == "b" and runs.count("b") == 1:
            raise milepost.Retry(after=0)
        if batch.key == "c":
            raise BAD

    result = run_job(tmp_path, kind, body)
    assert result.completed == 2
    assert result.failures == {"c": "ValueError: bad page"}
    assert sorted(runs) == ["a", "b", "b", "c"]


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_what_a_function_of_a_map_raises_in_a_group(tmp_path: Path, kind: str) -> None:
    tries: list[str] = []

    def function(item: str) -> str:
        tries.append(item)
        if item == "again" and tries.count(item) == 1:
            raise a_group(milepost.Retry(after=0))
        if item == "out":
            raise a_group(milepost.Skip("of no use"))
        if item == "bad":
            raise a_group(BAD)
        return item

    async def in_task(item: str) -> str:
        return function(item)

    async def in_tasks(batch: milepost.Batch) -> None:
        async for item, _ in batch.map(in_task, source):
            given.append(item)

    source, given = ["again", "out", "bad", "good"], list[str]()
    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        if kind == "tasks":
            asyncio.run(in_tasks(batch))
        else:
            for item, _ in batch.map(function, source):
                given.append(item)
        assert sorted(given) == ["again", "good"]
        assert batch.status_of("out") is ItemStatus.SKIPPED
        failed = batch.progress.open["bad"]
        assert (failed.error_message, failed.is_recoverable) == ("ValueError: bad page", False)
        assert batch.complete() is BatchStatus.FAILED


def test_catching_knows_what_is_in_a_group(tmp_path: Path) -> None:
    items = milepost.resume(["a", "b", "c", "d"], "work", store=tmp_path, progress=False)
    refused: list[str] = []
    for item in items:
        try:
            with items.catching(ValueError):
                if item == "a":
                    raise a_group(milepost.Skip("of no use"))
                if item == "b":
                    raise a_group(BAD)
                if item == "c":
                    raise a_group(BAD, StorageError("no space left"))
        except BaseExceptionGroup:
            refused.append(item)
    assert refused == ["c"]
    sums = milepost.Store(tmp_path).load_progress("work").session_statistics
    assert (sums.total_items_skipped, sums.total_items_failed) == (1, 1)


@pytest.mark.parametrize("errors", [[BAD], [BAD, DOWN]])
def test_catching_groups_catches_them_however_many_are_in_one(
    tmp_path: Path, errors: list[Exception]
) -> None:
    items = milepost.resume(["a", "b"], "work", store=tmp_path, progress=False)
    for item in items:
        with items.catching(ExceptionGroup):
            if item == "a":
                raise a_group(*errors)
    assert milepost.Store(tmp_path).load_progress("work").total_items_processed == 1


# What the function of a map says.


@pytest.mark.parametrize("kind", ["threads", "tasks"])
@pytest.mark.parametrize("word", ["fail", "skip", "catching"])
def test_the_function_of_a_map_says_nothing_of_the_item_of_the_body(
    tmp_path: Path, kind: str, word: str
) -> None:
    def function(item: int) -> int:
        if item:
            {"fail": lambda: items.fail("bad"), "skip": items.skip, "catching": items.catching}[
                word
            ]()
        return item

    async def in_task(item: int) -> int:
        return function(item)

    async def in_tasks() -> None:
        async for item, _ in items:
            assert item == 0
            items.skip("it is the body's")

    with milepost.Store(tmp_path).session("work") as session:
        batch = session.start_batch("b")
        items: Any = batch.map(in_task if kind == "tasks" else function, range(3), workers=1)
        if kind == "tasks":
            asyncio.run(in_tasks())
        else:
            for item, _ in items:
                assert item == 0
                items.skip("it is the body's")
        assert batch.status_of(0) is ItemStatus.SKIPPED
        for item in (1, 2):
            assert "ClosedError" in (batch.progress.open[item].error_message or "")
