"""Stores and job files for the tests of the command line."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import milepost
from milepost import ItemStatus
from milepost.storage.host import this_process
from support.hosts import beat, host, store_on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def modules_as_before() -> Iterator[None]:
    """`run` imports files into this process; no test sees those of another."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if "pytest-" in file:
            del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the store of a test is."""
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> milepost.Store:
    """A store whose programs have a name to run again."""
    return milepost.Store(folder, program="milepost run places.py")


@pytest.fixture
def failed(store: milepost.Store) -> str:
    """A session of four batches that ended: three completed, one failed with two failed items."""
    with store.session("places", total_batches=4) as session:
        for number in range(3):
            batch = session.start_batch(f"b{number}", number=number, label=f"구 {number}")
            batch.update_items([(f"p-{each}", ItemStatus.COMPLETED) for each in range(5)])
            batch.complete()
        batch = session.start_batch("b3", number=3, items_total=4)
        batch.update_item("p-0", ItemStatus.COMPLETED)
        batch.update_item("p-1", ItemStatus.FAILED, TimeoutError("too \x1b[31mslow"))
        batch.update_item(7, ItemStatus.FAILED, ValueError("no\nnumber"))
        batch.complete()
        session.complete()
    return "places"


@pytest.fixture
def interrupted(store: milepost.Store) -> str:
    """A session that an exception ended in the middle of its second batch of three."""
    with contextlib.suppress(RuntimeError), store.session("crawl", total_batches=3) as session:
        first = session.start_batch("b0", number=0, items_total=2)
        first.update_items([("a", ItemStatus.COMPLETED), ("b", ItemStatus.SKIPPED)])
        first.complete()
        second = session.start_batch("b1", number=1, items_total=4)
        second.update_item("c", ItemStatus.COMPLETED)
        second.update_item("d", ItemStatus.PROCESSING)
        session.set_data({"cursor": 41})
        session.save_checkpoint("batch_progress", {"page": 7}, name="page 7")
        raise RuntimeError("the line was lost")
    return "crawl"


@pytest.fixture
def growing(store: milepost.Store, folder: Path) -> str:
    """A session left in the middle of work that grows; its rows go to a file beside the store."""
    found: dict[milepost.Key, Any] = {"a": "a", 1: 1, "1": "1", "b": {"depth": 2}, "c": "c"}
    with contextlib.suppress(TimeoutError), store.session("tree", total_batches=1) as session:
        session.keep_params({"model": "big"})
        batch = session.start_batch("only")
        keys = iter(found)
        batch.add_many(found.values(), key=lambda _: next(keys))
        with batch.items() as items:
            rows = items.open(folder.parent / "rows.txt")
            for item in items:
                if item == 1:
                    raise TimeoutError("too slow")
                rows.write("서울")
    return "tree"


@pytest.fixture
def doomed(folder: Path) -> milepost.Store:
    """The same store as another process of this host sees it, which does not end well."""
    other = msgspec.structs.replace(this_process(), pid=4711)
    return milepost.Store(folder, program="milepost run places.py", identify=lambda: other)


@pytest.fixture
def dead(doomed: milepost.Store) -> str:
    """A session whose process died with one item in hand, in its second batch of three."""
    session = doomed.session("dead", total_batches=3)
    first = session.start_batch("b0", number=0, items_total=1)
    first.update_item("a", ItemStatus.COMPLETED)
    first.complete()
    second = session.start_batch("b1", number=1, items_total=4)
    second.update_items([(each, ItemStatus.COMPLETED) for each in "cde"])
    second.update_item("f", ItemStatus.PROCESSING)
    session.supersede()
    return "dead"


@pytest.fixture
def elsewhere(folder: Path) -> str:
    """A session that a process on another host writes, or wrote: from here nobody can tell.

    Nobody noted what program it was.
    """
    there = store_on(host("desk", pid=17), folder, clock=milepost.SystemClock(), program="")
    session = there.session("elsewhere", total_batches=1)
    session.start_batch("b").update_item("x", ItemStatus.PROCESSING)
    beat(session)
    session.supersede()
    return "elsewhere"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work
