"""File events bring a look forward, and nothing breaks where there are none."""

from __future__ import annotations

import errno
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import pytest

from milepost.recovery import hints as rooms
from milepost.recovery.hints import FileHints
from support.watching import wait_until

if TYPE_CHECKING:
    from pathlib import Path

Events: TypeAlias = Callable[[Sequence[str], threading.Event], Iterator[object]]


class Heard:
    """What was called back, in order."""

    def __init__(self) -> None:
        self.news: queue.SimpleQueue[str] = queue.SimpleQueue()

    def hints(self, root: Path, events: Events | None = None) -> FileHints:
        return FileHints(str(root), lambda: self.news.put("changed"), self.news.put, events=events)

    def next(self) -> str:
        return self.news.get(timeout=30)


def test_a_change_in_a_watched_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    heard = Heard()
    hints = heard.hints(tmp_path)
    hints.follow([str(tmp_path / "leases")])
    try:
        # Until the system watches, a change may be missed: that is what the timer is for.
        for number in range(600):
            (tmp_path / "leases" / f"{number}.json").touch()
            try:
                assert heard.news.get(timeout=0.1) == "changed"
                break
            except queue.Empty:
                continue
        else:
            pytest.fail("no change was told")
    finally:
        hints.close()


def test_what_the_system_refuses_is_told_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Semaphore(0)

    def refuse(_folders: Sequence[str], _stop: threading.Event) -> Iterator[object]:
        tried.release()
        raise OSError(errno.ENOSPC, "OS file watch limit reached")

    heard = Heard()
    hints = heard.hints(tmp_path, refuse)
    hints.follow([])
    assert tried.acquire(timeout=30)
    told = heard.next()
    assert "OS file watch limit reached" in told
    assert "looking every few seconds instead" in told
    hints.follow([])
    assert not tried.acquire(blocking=False), "not at once"
    monkeypatch.setattr(rooms, "RETRY_SECONDS", 0)
    hints._retry_at = 0

    def is_tried_again() -> bool:
        hints.follow([])  # as a watcher does it, time and again: the first try may not have ended
        return tried.acquire(timeout=0.05)

    wait_until(is_tried_again)
    hints.close()
    assert heard.news.empty(), "the same is told once"


def test_a_folder_that_goes_meanwhile_is_no_trouble(tmp_path: Path) -> None:
    def missing(_folders: Sequence[str], _stop: threading.Event) -> Iterator[object]:
        raise FileNotFoundError

    heard = Heard()
    hints = heard.hints(tmp_path, missing)
    hints.follow([])
    hints.close()
    assert heard.news.empty()


def test_new_folders_are_followed_and_the_same_ones_are_left_alone(tmp_path: Path) -> None:
    watched: queue.SimpleQueue[Sequence[str]] = queue.SimpleQueue()

    def wait(folders: Sequence[str], stop: threading.Event) -> Iterator[object]:
        watched.put(folders)
        stop.wait()
        yield from ()

    (tmp_path / "sessions").mkdir()
    (tmp_path / "a").mkdir()
    root, a = str(tmp_path), str(tmp_path / "a")
    hints = Heard().hints(tmp_path, wait)
    folders = (a, os.path.join(root, "gone"))
    hints.follow(())
    hints.follow(folders)
    hints.follow(folders)
    hints.follow((a,))
    hints.close()
    found = [watched.get_nowait() for _ in range(watched.qsize())]
    own = [root, os.path.join(root, "sessions")]
    assert found == [own, [*own, a], [*own, a]]


def test_the_real_events_can_be_had_for_many_folders(tmp_path: Path) -> None:
    folders = [tmp_path / f"{number}" for number in range(300)]
    for folder in folders:
        folder.mkdir()
    heard = Heard()
    hints = heard.hints(tmp_path)
    hints.follow([str(folder) for folder in folders])
    hints.close()
    assert heard.news.empty()
