"""A writer's turn: in which order it is taken, and what crashes before it left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import milepost
from milepost.errors import StorageFullError
from milepost.storage.directory import LocalDirectory
from support.recording import Recording

if TYPE_CHECKING:
    from pathlib import Path

BATCH_START = milepost.CheckpointType.BATCH_START
FOLDERS = ("", "/journal", "/snapshots", "/segments", "/checkpoints")


def killed(path: Path) -> None:
    """A session with a file of every kind, left as a kill leaves it."""
    with milepost.Store(path).session("work") as session:
        session.ensure_plan(["a", "b"])
        session.save_checkpoint(BATCH_START, {"page": 7})
        session.snapshot()
        session.start_batch("a")
        session.supersede()


def test_names_that_a_killed_process_left_are_durable_before_anything_builds_on_them(
    tmp_path: Path,
) -> None:
    """A kill may have come between a rename and the sync of its folder."""
    killed(tmp_path / "s")
    system = Recording(str(tmp_path / "s"))
    store = milepost.Store(directory=LocalDirectory(str(tmp_path / "s"), system=system))
    store.session("work", execute=False).close()
    before = system.calls[: next(n for n, call in enumerate(system.calls) if "rename" in call)]
    wanted = [".", "sessions", *(f"sessions/work{folder}" for folder in FOLDERS)]
    assert [each for each in wanted if f"fsync-folder {each}" not in before] == []


def test_opening_removes_what_crashed_publishes_left(tmp_path: Path) -> None:
    killed(tmp_path / "s")
    work = tmp_path / "s" / "sessions" / "work"
    for folder in FOLDERS:
        if folder != "/journal":  # nothing is published there
            (work / folder.lstrip("/") / ".1.2.3.zst.0a1b2c3d.tmp").write_bytes(b"half")
    milepost.Store(tmp_path / "s").session("work", execute=False).close()
    assert list(work.rglob("*.tmp")) == []


def test_a_journal_that_was_begun_and_never_written_is_not_missed(tmp_path: Path) -> None:
    """Killed between its name and its first record; then somebody opens it and does nothing."""
    killed(tmp_path / "s")
    store = milepost.Store(tmp_path / "s")
    with store.session("work") as session:
        last, epoch = session.state.sequence + 1, session.epoch
    (tmp_path / "s" / "sessions" / "work" / "journal" / f"{last + 1}.{epoch}.journal").touch()
    for _ in range(3):
        with store.session("work", execute=False) as session:
            assert session.findings == []
            assert session.live.sequence == last


def test_a_first_run_that_could_not_begin_ends_without_a_word(tmp_path: Path) -> None:
    system = Recording(str(tmp_path / "s"))
    store = milepost.Store(directory=LocalDirectory(str(tmp_path / "s"), system=system))
    session = store.session("work", execute=False)
    system.room = 0
    with pytest.raises(StorageFullError):
        session.begin_execution()
    system.room = None
    session.close()
    assert store.load_progress("work").executions == []
