"""The walk of a session's life, step by step, with its deaths; and many random ones like it.

New session → 3 updates → kill -9 → reopen → 2 updates → power cut → reopen → snapshot → prune →
copy while writing → open the copy. What is looked at after each step is said there.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
from typing import TYPE_CHECKING

import pytest

import milepost
from milepost.model.status import SessionStatus
from support.faults import PowerCut, in_child
from support.workload import store_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from milepost.storage.syscalls import Syscalls

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="kills and power cuts are played in forked processes"
)

DONE = milepost.ItemStatus.COMPLETED
WALKS = int(os.environ.get("MILEPOST_TEST_WALKS", "12"))
"""How many random walks are taken; `make crash` asks for more."""


def _done(state: milepost.SessionState) -> list[milepost.Key]:
    batch = state.active_batches[0]
    return [*sorted(batch.done, key=str), *batch.finished]


def _begin(path: str, system: Syscalls | None = None) -> tuple[milepost.Session, milepost.Batch]:
    session = store_at(path, system).session("walk")
    return session, session.start_batch("b")


def _kill_after(path: str, image: str, keys: list[str]) -> None:
    """A process that records these items and is killed; its page cache stays behind."""

    def body(tell: Callable[[bytes], None]) -> None:
        system = PowerCut.load(image) if os.path.exists(image) else PowerCut(path)
        _, batch = _begin(path, system)
        for key in keys:
            batch.update_item(key, DONE)
            tell(b".")
        system.image = image
        system.end()

    ended = in_child(body)
    assert (ended.told, ended.signal) == (b"." * len(keys), signal.SIGKILL)


def _power_cut_after(path: str, image: str, keys: list[str]) -> None:
    """A process that records these items, then the power goes."""

    def body(tell: Callable[[bytes], None]) -> None:
        system = PowerCut.load(image)
        _, batch = _begin(path, system)
        for key in keys:
            batch.update_item(key, DONE)
            tell(b".")
        system.end()

    ended = in_child(body)
    assert (ended.told, ended.code) == (b"." * len(keys), 0)


def test_the_walk(tmp_path: Path) -> None:
    path, image = str(tmp_path / "store"), str(tmp_path / "image")
    os.mkdir(path)
    store = store_at(path)

    # New session, 3 updates, kill -9: every call that returned is there.
    _kill_after(path, image, ["1", "2", "3"])
    view = store.view("walk")
    assert view.judgement.status is SessionStatus.INTERRUPTED
    assert _done(view.state) == ["1", "2", "3"]
    assert not view.findings

    # Reopen, 2 updates, power cut: what was there before the reopening was made durable by it; the
    # two were nowhere but in the page cache, and are gone.
    _power_cut_after(path, image, ["4", "5"])
    view = store.view("walk")
    assert not view.is_lossy
    assert _done(view.state) == ["1", "2", "3"]

    # Reopen: the work goes on where it is; a snapshot holds it and nothing is written twice.
    clock = milepost.ManualClock()
    store = store_at(path, clock=clock, config=milepost.StoreConfig(max_state_history=2))
    session = store.session("walk")
    assert _done(session.state) == ["1", "2", "3"]
    batch = session.start_batch("b")
    batch.update_items([("4", DONE), ("5", DONE)])
    version = session.snapshot()
    assert session.snapshot() == version
    assert _done(store.load_progress("walk", version)) == ["1", "2", "3", "4", "5"]

    # Prune: the last 2 made by hand stay, the automatic ones thin out, and what stays loads.
    for number in range(6, 16):
        clock.advance(700)
        batch.update_item(str(number), DONE)
        session.snapshot()
    kept = store.versions("walk")
    assert kept[0].version == version + 10
    assert [each.version for each in kept if each.by_hand] == [version + 10, version + 9]
    journals = os.listdir(f"{session.path}/journal")
    for each in kept:
        assert store.load_progress("walk", each.version).sequence == each.sequence
    assert len(_done(store.load_progress("walk"))) == 15

    # Copy while writing: every copy opens, with all that was acknowledged before it began.
    copies = _copy_while_writing(path, tmp_path, session, batch)
    session.close()
    final = _done(store.load_progress("walk"))
    for copy, before in copies:
        _open_copy(copy, final, before)
    assert len(journals) < 16
    assert _done(store.load_progress("walk")) == final


def _copy_while_writing(
    path: str, tmp_path: Path, session: milepost.Session, batch: milepost.Batch
) -> list[tuple[str, int]]:
    """Copies of the store with how many items were acknowledged before each began."""
    stop = threading.Event()

    def write() -> None:
        number = 16
        while not stop.is_set():
            batch.update_item(str(number), DONE)
            number += 1
            if number % 20 == 0:
                session.snapshot()

    thread = threading.Thread(target=write)
    thread.start()
    copies: list[tuple[str, int]] = []
    try:
        for index in range(4):
            target = str(tmp_path / f"copy-{index}")
            before = len(_done(session.state))
            _copy(path, target)
            copies.append((target, before))
    finally:
        stop.set()
        thread.join()
    return copies


def _copy(source: str, target: str) -> None:
    """As cp -r does: what vanishes under its hands is left out, all else is copied."""

    def copy_file(one: str, two: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(one, two)

    shutil.copytree(source, target, copy_function=copy_file)


def _open_copy(copy: str, final: list[milepost.Key], before: int) -> None:
    store = store_at(copy)
    seen = _done(store.load_progress("walk"))
    assert seen == final[: len(seen)]
    assert len(seen) >= before
    with store.session("walk") as session:
        assert "copy" in session.notice
        assert _done(session.state) == seen
        session.start_batch("b").update_item("in the copy", DONE)
    assert _done(store.load_progress("walk")) == [*seen, "in the copy"]


@pytest.mark.parametrize("seed", range(WALKS))
def test_random_walks(tmp_path: Path, seed: int) -> None:
    """Kills and power cuts in any order, each anywhere: nothing durable is ever lost.

    After a kill, all that was acknowledged is there. After a power cut, all that was there when the
    session was last opened, and all before the last flush.
    """
    rng = random.Random(seed)
    path, image = str(tmp_path / "store"), str(tmp_path / "image")
    os.mkdir(path)
    PowerCut(path).save(image)
    next_key = sure = 0
    for life in range(8):
        surely, returned, cut = _random_life(path, image, rng, next_key)
        sure = sure if surely is None else surely
        if not os.path.exists(f"{path}/MILEPOST"):
            assert returned == 0
            continue
        state = store_at(path).load_progress("walk") if store_at(path).names() else None
        numbers = [int(key) for key in _done(state)] if state and state.active_batches else []
        assert numbers == list(range(len(numbers))), f"life {life}"
        least = sure if cut else returned
        assert len(numbers) >= least, f"life {life}: {least} were sure"
        assert len(numbers) <= returned + 1, f"life {life}"
        next_key = len(numbers)
        sure = next_key if cut else sure


def _random_life(
    path: str, image: str, rng: random.Random, start: int
) -> tuple[int | None, int, bool]:
    """One process from its opening to its death.

    Returns how many items are surely on the disk (`None`: no more than before), how many were
    acknowledged, and whether the power went.
    """
    life = random.Random(rng.random())
    is_cut = life.random() < 0.5
    at = int(life.expovariate(1 / 60))

    def body(tell: Callable[[bytes], None]) -> None:
        system = PowerCut.load(image)
        system.at, system.seed = at, life.choice([None, life.randrange(1 << 30)])
        system.image = None if is_cut else image
        session, batch = _begin(path, system)
        tell(b"o")
        for number in range(start, start + 60):
            batch.update_item(str(number), DONE)
            tell(b".")
            if life.random() < 0.2:
                session.flush()
                tell(b"f")
            if life.random() < 0.1:
                session.snapshot()
                tell(b"s")
        system.end()

    ended = in_child(body)
    assert ended.code == 0
    told = ended.told.decode()
    if is_cut:
        os.remove(image)
        PowerCut(path).save(image)
    returned = start + told.count(".")
    surely = start + told[: max(told.rfind(mark) for mark in "ofs") + 1].count(".")
    return (surely if "o" in told else None), returned, is_cut
