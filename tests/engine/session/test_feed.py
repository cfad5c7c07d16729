"""What is run next: work found on the way, chunks, positions, sources that changed."""

from __future__ import annotations

import itertools
import operator
import os
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import milepost
from milepost import ItemStatus
from support.faults import die, in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMPLETED = ItemStatus.COMPLETED
needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="a death in the middle needs a fork"
)


def loop(source: Any, store: Path, **options: Any) -> milepost.Items[Any]:
    return milepost.resume(source, "crawl", store=store, progress=False, **options)


def all_of(items: Any) -> list[Any]:
    found: list[Any] = []
    for item in items:
        found.append(item)
    return found


def state(store: Path) -> milepost.SessionState:
    return milepost.Store(store).load_progress("crawl")


# Work found on the way.


def links(number: int) -> list[int]:
    """A tree of 63 pages, with links back."""
    return [each for each in (2 * number, 2 * number + 1, number // 2) if 0 < each < 64]


def crawl(store: Path, seen: list[int], stop: int | None = None) -> None:
    items = loop([1], store)
    for page in items:
        if stop is not None and len(seen) == stop:
            items.close()
            return
        seen.append(page)
        items.add_many(links(page))


def test_work_is_added_once_by_key_and_runs_breadth_first(tmp_path: Path) -> None:
    seen: list[int] = []
    crawl(tmp_path, seen)
    assert seen == [*range(1, 64)]


@pytest.mark.parametrize("stop", [1, 2, 7, 40, 62])
def test_it_stays_breadth_first_when_it_is_taken_up_again(tmp_path: Path, stop: int) -> None:
    seen: list[int] = []
    crawl(tmp_path, seen, stop)
    crawl(tmp_path, seen)
    assert seen == [*range(1, 64)]


@needs_fork
def test_and_after_every_death(tmp_path: Path) -> None:
    def once(tell: Callable[[bytes], None]) -> None:
        seen: list[int] = []
        items = loop([1], tmp_path)
        for page in items:
            tell(f"{page} ".encode())
            seen.append(page)
            items.add_many(links(page))
            if len(seen) == 5:
                die()

    told: list[list[int]] = []
    for _ in range(40):
        ended = in_child(once)
        told.append([int(each) for each in ended.told.split()])
        if not ended.signal:
            break
    order = [page for pages in told for page in pages]
    # What was in hand at a death runs again; nothing else does, and nothing is left out.
    assert [*dict.fromkeys(order)] == [*range(1, 64)]
    assert all(again == [pages[-1]] for pages, again in repeated(told))


def repeated(told: list[list[int]]) -> Iterator[tuple[list[int], list[int]]]:
    for before, after in itertools.pairwise(told):
        yield before, [page for page in after if page in before]


def test_what_was_added_by_an_item_that_fails_is_there(tmp_path: Path) -> None:
    def work() -> None:
        with loop(["a"], tmp_path) as items:
            for item in items:
                items.add("b")
                raise TimeoutError(item)

    with pytest.raises(TimeoutError):
        work()
    assert all_of(loop(["a"], tmp_path)) == ["b", "a"]


def test_items_with_payloads_come_back_as_they_were(tmp_path: Path) -> None:
    with milepost.Store(tmp_path).session("s") as session:
        batch = session.start_batch("b")
        assert batch.add({"url": "x", "depth": 1}, key="x")
        assert not batch.add({"url": "x", "depth": 9}, key="x")
        assert batch.add("y")
        assert batch.add_many([{"id": 1}, {"id": 2}, {"id": 1}], key=lambda each: each["id"]) == 2
    with milepost.Store(tmp_path).session("s") as session:
        items = session.start_batch("b").items()
        assert all_of(items) == [{"url": "x", "depth": 1}, "y", {"id": 1}, {"id": 2}]


def test_an_item_too_large_to_be_added_is_named_and_nothing_is_added(tmp_path: Path) -> None:
    with milepost.Store(tmp_path).session("s") as session:
        batch = session.start_batch("b")
        with pytest.raises(milepost.RecordTooLargeError):
            batch.add({"page": "x" * 100_000}, key="x")
        with pytest.raises(milepost.EncodingError):
            batch.add(object())
        assert batch.progress.items_added == 0


def test_what_is_done_is_not_added_again(tmp_path: Path) -> None:
    items = loop(["a"], tmp_path)
    for item in items:
        assert not items.add(item)
        items.add("b")
    assert all_of(loop(["a"], tmp_path)) == []
    assert state(tmp_path).total_items_processed == 2


def left_in_hand(store: Path, source: list[Any], **options: Any) -> None:
    """A run that takes the first item and is left."""
    items = loop(source, store, **options)
    next(items)
    items.close()


def test_what_was_in_hand_and_the_source_has_lost_is_run_where_it_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left_in_hand(tmp_path, ["a", "b"])
    items = loop(["b"], tmp_path)
    seen: list[str] = []
    for item in items:
        seen.append(item)
        assert not items.add("a")  # nothing new: it runs once
    assert seen == ["b", "a"]
    assert (items.vanished, items.duplicates) == (0, 0)
    assert state(tmp_path).total_items_processed == 2
    assert milepost.check(state(tmp_path)) == []
    assert "no longer in the source" not in capsys.readouterr().err


def test_it_comes_as_it_was_found(tmp_path: Path) -> None:
    def page(number: int, depth: int) -> dict[str, int]:
        return {"id": number, "depth": depth}

    by_id = operator.itemgetter("id")
    left_in_hand(tmp_path, [page(1, 0), page(2, 0)], key=by_id)
    items = loop([page(2, 0)], tmp_path, key=by_id)
    seen: list[Any] = []
    for item in items:
        seen.append(item)
        items.add(page(1, 1))
    assert seen == [page(2, 0), page(1, 1)]


def test_what_failed_and_the_source_has_lost_is_tried_again_where_it_is_found(
    tmp_path: Path,
) -> None:
    def fails(source: list[str]) -> list[str]:
        seen: list[str] = []
        with loop(source, tmp_path) as items:
            for item in items:
                seen.append(item)
                items.add("a")
                if item == "a":
                    items.fail(TimeoutError("too slow"))
        assert items.vanished == 0
        return seen

    assert fails(["a"]) == ["a"]
    assert fails(["b"]) == ["b", "a"]
    items = loop([], tmp_path)  # found, so that no source need have it
    assert all_of(items) == ["a"]


def test_what_a_source_gave_and_was_found_in_hand_outlives_the_source(tmp_path: Path) -> None:
    items = loop(["a", "b"], tmp_path)
    assert next(items) == "a"
    items.add("a")
    items.close()
    assert all_of(loop([], tmp_path)) == ["a"]
    assert all_of(loop(["b"], tmp_path)) == ["b"]


@pytest.mark.parametrize("chunk", [None, 3])
def test_what_is_found_before_the_source_comes_to_it_runs_once_and_in_its_place(
    tmp_path: Path, chunk: int | None
) -> None:
    left_in_hand(tmp_path, ["z", "a"])
    source = ["a", "b", *map(str, range(1_000)), "z"]
    items = loop(source, tmp_path, chunk=chunk)
    seen: list[str] = []
    for item in items:
        seen += item if chunk else [item]
        items.add_many(["z", "a", *seen[-3:]])
    assert seen == source
    assert (items.vanished, items.duplicates) == (0, 0)
    assert milepost.check(state(tmp_path)) == []


def test_a_map_runs_what_its_source_has_lost_where_it_is_found(tmp_path: Path) -> None:
    left_in_hand(tmp_path, ["a", "b"])
    seen: list[str] = []
    with milepost.map(str, ["b"], "crawl", store=tmp_path, progress=False) as items:
        for item, _ in items:
            seen.append(item)
            items.add("a")
    assert seen == ["b", "a"]


def test_what_is_in_the_source_and_found_is_counted_once(tmp_path: Path) -> None:
    everything = [f"page {number}" for number in range(100)]
    items = loop(everything, tmp_path)
    for _ in items:
        items.add_many(everything)
        assert items.session.live.active_batches[0].items_expected == 100
    assert items.session.live.total_items_processed == 100


def test_items_without_a_source_that_are_added_by_a_map(tmp_path: Path) -> None:
    with milepost.Store(tmp_path).session("crawl") as session:
        batch = session.start_batch("site")
        batch.add(1)
        seen: list[int] = []
        for page, found in batch.map(links, workers=4):
            seen.append(page)
            batch.add_many(found)
        batch.complete()
    assert sorted(seen) == [*range(1, 64)]


@needs_fork
def test_growing_work_in_a_map_whose_process_dies(tmp_path: Path) -> None:
    def once(tell: Callable[[bytes], None]) -> None:
        with milepost.Store(tmp_path).session("crawl") as session:
            batch = session.start_batch("site", keeps_items=True)
            batch.add(1)
            for count, (page, found) in enumerate(batch.map(links, workers=3)):
                batch.add_many(found)
                tell(f"{page} ".encode())
                if count == 10:
                    die()
            batch.complete()

    order: list[int] = []
    for _ in range(40):
        ended = in_child(once)
        order += [int(each) for each in ended.told.split()]
        if not ended.signal:
            break
    assert set(order) == set(range(1, 64))
    assert len(order) < 63 + 10  # only what was shown at a death is shown again
    found = state(tmp_path)
    assert found.total_items_processed == 63
    assert milepost.check(found) == []


@needs_fork
def test_poison_found_on_the_way_is_failed_and_the_rest_is_done(tmp_path: Path) -> None:
    def once(_: Callable[[bytes], None]) -> None:
        items = loop([1], tmp_path)
        for page in items:
            if page == 9:
                die()
            items.add_many(links(page))

    ends = [in_child(once).signal for _ in range(4)]
    assert [bool(end) for end in ends] == [True, True, True, False]
    batch = state(tmp_path).failed_batches[0].partial_progress
    assert list(batch.open) == [9]
    assert batch.items_processed == 63 - 7  # 18 and 19, and what they lead to, were never found


def test_pending_items_cost_little_memory(tmp_path: Path) -> None:
    count = 100_000
    with milepost.Store(tmp_path).session("s") as session:
        batch = session.start_batch("b")
        batch.add_many(f"warm-{number}" for number in range(100))
        tracemalloc.start()
        try:
            for start in range(0, count, 10_000):
                batch.add_many(f"https://example.org/{n:09}" for n in range(start, start + 10_000))
            now, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert now / count < 400
        assert len(batch.progress.queued) == count + 100


# Chunks.


@pytest.mark.parametrize("key", [None, "position"])
def test_chunks_are_acknowledged_a_list_at_a_time(tmp_path: Path, key: str | None) -> None:
    items = loop(range(10), tmp_path, chunk=4, key=key)
    assert next(items) == [0, 1, 2, 3]
    assert next(items) == [4, 5, 6, 7]
    items.close()
    assert state(tmp_path).total_items_processed == 4
    assert all_of(loop(range(10), tmp_path, chunk=4, key=key)) == [[4, 5, 6, 7], [8, 9]]


def test_chunks_of_another_size_when_it_goes_on(tmp_path: Path) -> None:
    items = loop(range(10), tmp_path, chunk=4)
    next(items)
    next(items)
    items.close()
    assert all_of(loop(range(10), tmp_path, chunk=3)) == [[4, 5, 6], [7, 8, 9]]


def test_one_of_a_chunk_may_fail_and_another_be_left_out(tmp_path: Path) -> None:
    with loop(range(6), tmp_path, chunk=3) as items:
        for chunk in items:
            if chunk[0] == 0:
                items.fail("one", key=1)
                items.skip("two", key=2)
                with pytest.raises(milepost.ClosedError):
                    items.fail("not in hand", key=5)
    batch = state(tmp_path).failed_batches[0].partial_progress
    assert list(batch.open) == [1]
    assert (batch.items_processed, batch.items_skipped) == (4, 1)


def test_an_exception_in_a_with_block_fails_the_whole_chunk(tmp_path: Path) -> None:
    def work() -> None:
        with loop(range(6), tmp_path, chunk=3) as items:
            for _ in items:
                raise TimeoutError("too slow")

    with pytest.raises(TimeoutError):
        work()
    failed = state(tmp_path).active_batches[0].open
    assert {key: each.status for key, each in failed.items()} == dict.fromkeys(
        range(3), ItemStatus.FAILED
    )


@needs_fork
@pytest.mark.parametrize("key", [None, "position"])
def test_poison_in_a_chunk_is_found_alone(tmp_path: Path, key: str | None) -> None:
    def once(tell: Callable[[bytes], None]) -> None:
        for chunk in loop(range(12), tmp_path, chunk=4, key=key):
            tell(f"{len(chunk)}{'!' if 5 in chunk else ''} ".encode())
            if 5 in chunk:
                die()

    told: list[str] = []
    for _ in range(10):
        ended = in_child(once)
        told.append(ended.told.decode())
        if not ended.signal:
            break
    assert told[0] == "4 4! "
    assert all("1! " in each for each in told[1:4])
    assert len(told) == 5
    batch = state(tmp_path).failed_batches[0].partial_progress
    assert list(batch.open) == [5]
    assert batch.items_processed == 11


# Positions.


def test_positions_need_no_keys_and_keep_none(tmp_path: Path) -> None:
    lines = ["same"] * 1000
    items = loop(lines, tmp_path, key="position")
    for _ in range(500):
        next(items)
    items.close()
    batch = state(tmp_path).active_batches[0]
    assert batch.position == 499
    assert len(batch.open) + len(batch.finished) + len(batch.done) <= 2
    assert len(all_of(loop(lines, tmp_path, key="position"))) == 501
    assert state(tmp_path).total_items_processed == 1000


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (["a", "x", "c", "d"], "does not begin with"),
        (["a"], "has 1 items"),
        ([], "has 0 items"),
        (["ab", "c", "d"], "does not begin with|has"),
    ],
)
def test_a_source_that_does_not_begin_as_it_did(
    tmp_path: Path, source: list[str], message: str
) -> None:
    items = loop(["a", "b", "c", "d"], tmp_path, key="position")
    for _ in range(3):
        next(items)
    items.close()
    with pytest.raises(milepost.InputChangedError, match=message) as caught:
        all_of(loop(source, tmp_path, key="position"))
    assert "restart" in caught.value.hint
    assert all_of(loop(["a", "b", "c", "d"], tmp_path, key="position")) == ["c", "d"]


def test_a_source_that_grew_at_its_end(tmp_path: Path) -> None:
    assert all_of(loop(["a", "b"], tmp_path, key="position")) == ["a", "b"]
    assert all_of(loop(["a", "b", "c"], tmp_path, key="position")) == ["c"]


def test_keys_and_positions_do_not_mix(tmp_path: Path) -> None:
    items = loop(range(3), tmp_path, key="position")
    next(items)
    next(items)
    items.close()
    with pytest.raises(milepost.InputChangedError, match="by their position"):
        all_of(loop(range(3), tmp_path))
    assert all_of(loop(range(3), tmp_path, key="position")) == [1, 2]
    all_of(milepost.resume("ab", "keys", store=tmp_path, progress=False))
    with pytest.raises(milepost.InputChangedError, match="by their keys"):
        all_of(milepost.resume("ab", "keys", store=tmp_path, progress=False, key="position"))


@pytest.mark.parametrize("guarded", [False, True])
def test_what_was_refused_holds_the_session_no_longer(tmp_path: Path, guarded: bool) -> None:
    all_of(loop(range(3), tmp_path, key="position"))
    items = loop(range(3), tmp_path)
    with pytest.raises(milepost.InputChangedError):
        items.__enter__() if guarded else next(items)
    opened: list[milepost.Session] = []
    store = milepost.Store(tmp_path)
    thread = threading.Thread(target=lambda: opened.append(store.session("crawl")))
    thread.start()
    thread.join()
    assert len(opened) == 1  # another thread would be locked out
    opened[0].close()


def test_nothing_is_added_to_positions(tmp_path: Path) -> None:
    items = loop(range(3), tmp_path, key="position")
    next(items)
    with pytest.raises(milepost.ConfigurationError, match="known by their position"):
        items.add(7)
    items.close()


def test_items_that_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(milepost.EncodingError, match="position"):
        all_of(loop([object()], tmp_path, key="position"))


@settings(max_examples=10)
@given(
    count=st.integers(0, 30),
    chunk=st.none() | st.integers(1, 7),
    failing=st.sets(st.integers(0, 29)),
    stops=st.lists(st.integers(0, 12), max_size=4),
)
def test_positions_and_keys_come_to_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    chunk: int | None,
    failing: set[int],
    stops: list[int],
) -> None:
    """Left anywhere and taken up again, with failures: both see the same items in one order."""
    seen: dict[str | None, list[Any]] = {}
    for key in (None, "position"):
        store = tmp_path_factory.mktemp("s")
        seen[key] = []
        for stop in [*stops, None]:
            items = loop(range(count), store, key=key, chunk=chunk)
            with items:
                for number, each in enumerate(items):
                    if number == stop:
                        break
                    given: list[int] = [each] if chunk is None else each
                    for item in given:
                        seen[key].append(item)
                        if item in failing:
                            failing_item(items, item)
        found = state(store)
        assert milepost.check(found) == []
        assert found.total_items_processed == len(set(range(count)) - failing)
    assert seen[None] == seen["position"]


def failing_item(items: milepost.Items[Any], item: int) -> None:
    items.fail(ValueError("a mistake"), key=item)


@settings(max_examples=10)
@given(failing=st.sets(st.integers(0, 29)), workers=st.integers(1, 5), stop=st.integers(0, 30))
def test_a_map_over_positions(
    tmp_path_factory: pytest.TempPathFactory, failing: set[int], workers: int, stop: int
) -> None:
    store = tmp_path_factory.mktemp("s")

    def work(number: int) -> int:
        if number in failing:
            raise ValueError("a mistake")
        return number

    for limit in (stop, None):
        with milepost.map(
            work,
            range(30),
            "crawl",
            key="position",
            workers=workers,
            store=store,
            progress=False,
            give_up_after=0,
        ) as items:
            for number, _ in enumerate(items):
                if number == limit:
                    break
    found = state(store)
    assert milepost.check(found) == []
    assert found.total_items_processed == len(set(range(30)) - failing)


# Sources that changed.


def test_new_items_run_also_in_a_completed_session_and_vanished_ones_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    all_of(loop(["a", "b"], tmp_path))
    items = milepost.resume(["b", "c"], "crawl", store=tmp_path)
    assert all_of(items) == ["c"]
    assert items.vanished == 1
    assert "1 key of earlier runs no longer in the source" in capsys.readouterr().err


def test_what_was_found_on_the_way_has_not_vanished(tmp_path: Path) -> None:
    items = loop(["a"], tmp_path)
    for item in items:
        if item == "a":
            items.add_many("bc")
    again = loop(["a"], tmp_path)
    assert all_of(again) == []
    assert again.vanished == 0
