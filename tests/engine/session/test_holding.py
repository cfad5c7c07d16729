"""Whose an item is, whatever another loop does between a look at it and the record."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost import BatchStatus, ItemStatus
from milepost.session.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KINDS = ["loop", "loop by position", "async loop", "map", "map by position", "async map"]


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[Batch]:
    with milepost.Store(tmp_path).session("work") as session:
        yield session.start_batch("b")


def made(batch: Batch, kind: str) -> Any:
    """A loop or a map over "k"."""
    key = key_of(kind)
    if "loop" in kind:
        return batch.items(["k"], key=key)

    async def same(item: str) -> str:
        return item

    return batch.map(same if kind == "async map" else str, ["k"], workers=1, key=key)


def key_of(kind: str) -> str | None:
    return "position" if "position" in kind else None


def gone_through(work: Any, kind: str, rows: Path) -> int:
    """Go through it, with a row for each item; returns how many there were."""
    count = 0
    out = work.open(rows)

    async def in_tasks() -> None:
        nonlocal count
        async for _ in work:
            count += 1
            out.write(f"{kind}\n")

    with contextlib.suppress(milepost.ClosedError):
        if kind.startswith("async"):
            asyncio.run(in_tasks())
        else:
            for _ in work:
                count += 1
                out.write(f"{kind}\n")
    return count


def just_before(
    patch: pytest.MonkeyPatch, record: Callable[[bool, bool], bool], act: Callable[[], object]
) -> None:
    """Do something just before the first record that ends an item, or takes one, as wanted."""

    def early(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Batch, ended: Any, taken: Any, *rest: Any) -> Any:
            if record(bool(ended), bool(taken)):
                patch.undo()
                act()
            return method(self, ended, taken, *rest)

        return call

    for name in ("advance", "end_items", "advance_positions"):
        patch.setattr(Batch, name, early(getattr(Batch, name)))


def takes(_: bool, taken: bool) -> bool:
    return taken


def ends(ended: bool, _: bool) -> bool:
    return ended


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_done_by_the_time_it_is_taken_over_is_not_given_out(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    rows = tmp_path / "rows"
    first = batch.items(["k"], key=key_of(kind))
    next(first)
    first.open(rows).write("first\n")
    second = made(batch, kind)
    just_before(monkeypatch, takes, lambda: next(first, None))
    assert gone_through(second, kind, rows) == 0
    assert rows.read_text() == "first\n"
    assert batch.loops.claim("k", object())  # nobody keeps it from others
    assert batch.complete() is BatchStatus.COMPLETED


@pytest.mark.parametrize("kind", [each for each in KINDS if "async" not in each])
def test_what_is_taken_while_its_loop_is_closed_waits(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    work = made(batch, kind)
    just_before(monkeypatch, takes, work.close)
    assert gone_through(work, kind, tmp_path / "rows") == 0
    again: list[str] = []
    for item in batch.items(["k"], key=key_of(kind)):
        again.append(item)
    assert again == ["k"]


@pytest.mark.parametrize("ends_it", [True, False])
@pytest.mark.parametrize("kind", [each for each in KINDS if "async" not in each])
def test_what_is_acknowledged_while_its_loop_is_closed_has_the_rows_of_one(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, ends_it: bool
) -> None:
    rows = tmp_path / "rows"
    work, other = made(batch, kind), batch.items(["k"], key=key_of(kind))

    def close() -> None:
        work.close()
        next(other)
        other.open(rows).write("other\n")
        if ends_it:
            assert next(other, None) is None

    just_before(monkeypatch, ends, close)
    assert gone_through(work, kind, rows) == 1
    assert next(other, None) is None
    assert rows.read_text() == ("other\n" if ends_it else f"{kind}\n")
    assert batch.complete() is BatchStatus.COMPLETED


def test_a_loop_by_position_begins_while_another_goes_on(batch: Batch) -> None:
    def source() -> Iterator[int]:
        next(first)
        yield from range(9)

    first = batch.items(range(9), key="position")
    for _ in range(4):
        next(first)
    second = batch.items(source(), key="position")
    assert next(second) == 5
    first.close()


def test_of_a_list_that_another_loop_has_begun_to_end_the_rest_runs_again(
    batch: Batch, tmp_path: Path
) -> None:
    rows = tmp_path / "rows"
    first, second = batch.items("abc", chunk=3), batch.items("a")
    for items in (first, second):
        next(items)
    first.open(rows).write("abc\n")
    second.open(rows).write("a\n")
    assert next(second, None) is None
    assert next(first) == ["b", "c"]
    first.open(rows).write("bc\n")
    assert next(first, None) is None
    assert rows.read_text() == "a\nbc\n"
    assert batch.complete() is BatchStatus.COMPLETED


def test_positions_are_positions_whichever_loop_records_first(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = batch.items(range(4), chunk=3, key="position")
    second = batch.items(range(4), key="position")
    just_before(monkeypatch, takes, lambda: next(second))
    assert next(first) == [0, 1, 2]
    assert next(first, None) is None
    assert next(second, None) is None
    for _ in batch.items(range(5), key="position"):
        pass
    assert batch.progress.position == 5


def test_a_second_close_leaves_alone_what_others_have_taken(batch: Batch, tmp_path: Path) -> None:
    async def function(item: str) -> Iterator[int]:
        if item == "a":
            raise ValueError("its own")
        return (each for each in range(3))  # it is refused, and ends the map

    async def run() -> None:
        work = batch.map(function, ["a", "b"], workers=2)
        with pytest.raises(TypeError):
            async for _ in work:
                pass
        other = batch.items(["a"])
        next(other)
        await work.aclose()
        assert batch.status_of("a") is ItemStatus.PROCESSING
        other.open(tmp_path / "rows").write("other\n")
        assert next(other, None) is None

    asyncio.run(run())
    assert (tmp_path / "rows").read_text() == "other\n"


def test_an_item_that_one_loop_left_out_has_no_rows_of_another(
    batch: Batch, tmp_path: Path
) -> None:
    first, second = batch.items(["k"]), batch.items(["k"])
    next(first)
    next(second)
    second.open(tmp_path / "rows").write("second\n")
    first.skip("gone")
    for each in (first, second):
        assert next(each, None) is None
    assert batch.status_of("k") is ItemStatus.SKIPPED
    assert (tmp_path / "rows").read_text() == ""


def test_a_loop_of_before_lets_go_of_nothing_of_a_later_one(batch: Batch) -> None:
    """A failure or a stop in one is no news of what another has in hand since."""
    first, second = batch.items(["k"]), batch.items(["k"])
    next(first)
    next(second)
    first.fail("no")
    assert next(first, None) is None
    assert batch.status_of("k") is ItemStatus.PROCESSING
    first.close()
    assert next(second, None) is None
    assert batch.complete() is BatchStatus.COMPLETED


class Break(Future[Any]):
    """A call that broke its executor; another one has ended by the time that is looked at."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self._meanwhile = meanwhile
        self.set_exception(BrokenExecutor("it broke"))

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        super().add_done_callback(fn)
        self._meanwhile()


class OneBreak(Executor):
    """It breaks with its second call; the first one ends well."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        if self.calls:
            return Break(self.calls.pop())
        future: Future[Any] = Future()
        self.calls.append(lambda: future.set_result(fn(*args)))
        return future


def test_what_came_back_is_done_though_no_other_executor_can_be_made(batch: Batch) -> None:
    executors: list[Executor] = []

    def make() -> Executor:
        if executors:
            raise OSError("no more processes")
        executors.append(OneBreak())
        return executors[0]

    def run() -> None:
        for _ in batch.map(str, ["a", "b"], workers=2, executor=make):
            pass

    with pytest.raises(OSError, match="no more processes"):
        run()
    assert batch.is_done("a")
    assert batch.status_of("b") is ItemStatus.PENDING
