"""What a look from outside found, so that it stays mended."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING

import pytest

import milepost
from milepost import ItemStatus, RecoveryService, Store
from milepost.recovery.child import Child
from support.faults import die, in_child
from support.watching import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="a death in the middle needs a forked process"
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_signal_passes_a_shell_and_the_work_behind_it_is_awaited(tmp_path: Path) -> None:
    work = tmp_path / "work.py"
    work.write_text(
        "import signal, sys, time\n"
        "def save(*_):\n"
        "    time.sleep(0.3); open('saved', 'w').close(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "open('ready', 'w').close()\n"
        "while True: time.sleep(0.01)\n"
    )
    script = f"{sys.executable} {work}; echo done"
    child = Child(["sh", "-c", script], environment=os.environ, folder=str(tmp_path))
    wait_until((tmp_path / "ready").exists)
    child.send(signal.SIGTERM)
    assert child.wait().was_killed
    assert (tmp_path / "saved").exists(), "the save behind the shell was awaited"


def test_a_clean_save_is_not_cut_short_at_its_helpers(tmp_path: Path) -> None:
    helper = "import time; open('ready', 'w').close(); time.sleep(0.3); open('helped', 'w').close()"
    work = (
        "import signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        f"sys.exit(subprocess.run([sys.executable, '-c', {helper!r}]).returncode)\n"
    )
    words = [sys.executable, "-c", work]
    child = Child(words, environment=os.environ, folder=str(tmp_path))
    wait_until((tmp_path / "ready").exists)
    child.send(signal.SIGTERM)
    assert child.wait().code == 0
    assert (tmp_path / "helped").exists()


def test_retry_reaches_the_failed_items_of_a_batch_that_waits(store: Store) -> None:
    with store.session("work") as session:
        batch = session.start_batch("a")
        batch.update_item("x", ItemStatus.COMPLETED)
        batch.update_item("y", ItemStatus.FAILED, "no")
        batch.fail("down")
        session.complete()
    RecoveryService(store).recover("work")
    assert list(store.load_progress("work").pending_batches) == [0]
    assert store.retry("work", keys=["y"]).items == 1
    (batch_again,) = store.load_progress("work").pending_batches.values()
    assert batch_again.status_of("y") is ItemStatus.PENDING
    assert milepost.check(store.load_progress("work")) == []


def test_a_copy_of_a_living_session_blames_nobody(store: Store, tmp_path: Path) -> None:
    with store.session("work") as session:
        session.start_batch("a").update_item("innocent", ItemStatus.PROCESSING)
        session.flush()
        shutil.copytree(store.path, tmp_path / "copy")
        copy = Store(tmp_path / "copy", recovery=milepost.RecoveryConfig(max_recovery_attempts=1))
        in_child(lambda _tell: (RecoveryService(copy).recover("work"), None)[1])
        state = copy.load_progress("work")
        assert (state.suspects, state.failed_batches) == ([], {})
        assert state.active_batches[0].status_of("innocent") is ItemStatus.PENDING


def test_the_first_version_has_a_second_copy_before_there_is_another(store: Store) -> None:
    def work(_tell: object) -> None:
        session = store.session("work")
        session.start_batch("a").update_item("x", ItemStatus.COMPLETED)
        wait_until(lambda: bool(_backups(store)))
        die()

    in_child(work)
    folder = store.folder_of("work")
    (first,) = os.listdir(f"{folder}/snapshots")
    os.remove(f"{folder}/snapshots/{first}")
    state = store.load_progress("work")
    assert state.active_batches[0].status_of("x") is ItemStatus.COMPLETED


def _backups(store: Store) -> list[str]:
    return [
        name
        for _, _, names in os.walk(f"{store.path}/backups")
        for name in names
        if name.endswith(".zst")
    ]


def test_a_pipe_in_the_place_of_the_lock_holds_nobody_up(store: Store) -> None:
    store.session("work").close()
    lock = f"{store.folder_of('work')}/writer.lock"
    os.remove(lock)
    os.mkfifo(lock)
    assert store.presence("work") is milepost.Presence.GONE


def test_a_session_that_breaks_the_judge_does_not_end_the_scan(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bad", "good"):
        store.session(name).close()
    real = Store.view

    def view(self: Store, name: str) -> milepost.View:
        if name == "bad":
            raise RecursionError("deep")
        return real(self, name)

    monkeypatch.setattr(Store, "view", view)
    found, failures = RecoveryService(store).detect()
    assert [each.name for each in found] == ["good"]
    assert failures == {"bad": "deep"}
