"""The background threads of a writer: what is slow in one does not hold up the other."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import milepost
from milepost.storage.directory import LocalDirectory
from milepost.storage.heartbeat import read_beat
from milepost.storage.syscalls import OperatingSystem

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_SECONDS = 30.0


class StuckBackups(OperatingSystem):
    """A disk for backups that takes no file until it is let go."""

    def __init__(self) -> None:
        self.is_stuck = threading.Event()
        self.let_go = threading.Event()

    def open_new(self, path: str) -> int:
        if "/backups/" in path and "/sessions/" not in path:
            self.is_stuck.set()
            assert self.let_go.wait(PATIENCE_SECONDS)
        return super().open_new(path)


def test_a_backup_that_takes_long_makes_nobody_look_dead(tmp_path: Path) -> None:
    system = StuckBackups()
    directory = LocalDirectory(str(tmp_path / "store"), system=system)
    tracker = milepost.TrackerConfig(checkpoint_interval_seconds=0.01, sync_interval_seconds=0.01)
    config = milepost.StoreConfig(backup_path=str(tmp_path / "backups"))
    system.let_go.set()  # the store's own marker
    store = milepost.Store(directory=directory, config=config, tracker=tracker)
    with store.session("work") as session:
        system.let_go.clear()
        system.is_stuck.clear()
        session.set_data("to be backed up")
        assert system.is_stuck.wait(PATIENCE_SECONDS)
        folder = LocalDirectory(session.path)
        before = read_beat(folder, session.epoch)
        until = time.monotonic() + PATIENCE_SECONDS
        while (now := read_beat(folder, session.epoch)) == before and time.monotonic() < until:
            time.sleep(0.05)
        system.let_go.set()
        assert now != before, "its heart stands still"
    assert read_beat(folder, session.epoch).has_ended
