"""An older version and the events since are the newer version, or somebody has to look."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import milepost
from milepost import ItemStatus, Store
from support.workload import STEPS, WORK, Run

if TYPE_CHECKING:
    from collections.abc import Callable

COMPLETED = ItemStatus.COMPLETED


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", config=milepost.StoreConfig(backup_enabled=False))


def work(store: Store, spoil: Callable[[milepost.SessionState], None] | None = None) -> None:
    """Two runs that each leave a snapshot; before the last, something goes wrong in memory."""
    for run in range(2):
        with store.session("work") as session:
            session.set_data({"rate": math.nan, "pages": [1, (2, math.nan)]})
            batch = session.start_batch("b")
            batch.update_items([(run, COMPLETED), (f"{run}", ItemStatus.FAILED, "HTTP 503")])
            if run and spoil is not None:
                spoil(session._writer.state)


def folder(store: Store, name: str) -> list[Path]:
    return sorted(Path(store.folder_of("work"), name).iterdir())


def test_what_was_recorded_and_what_was_saved_agree(store: Store) -> None:
    work(store)
    assert len(store.versions("work")) >= 3
    assert store.disagreements("work") == []


def test_they_agree_after_every_step_of_a_whole_run(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "store"))
    for step in STEPS:
        run.take(step)
        assert run.store.disagreements(WORK) == [], step.name


def forget_an_item(state: milepost.SessionState) -> None:
    del state.active_batches[0].finished[1]


def other_data(state: milepost.SessionState) -> None:
    state.data = {"rate": 1.0, "pages": [1, [2, math.nan]]}


@pytest.mark.parametrize(
    ("spoil", "part"), [(forget_an_item, "active_batches"), (other_data, "data")]
)
def test_a_version_that_is_not_what_was_recorded_is_found(
    store: Store, spoil: Callable[[milepost.SessionState], None], part: str
) -> None:
    work(store, spoil)
    (finding,) = store.disagreements("work")
    newest, older, *_ = store.versions("work")
    assert (finding.rule, finding.is_error) == ("disagreement", True)
    assert finding.path == newest.name.path
    assert finding.message.endswith(f"since lead to: they differ in {part}")
    assert f"version {newest.version} is not what version {older.version}" in finding.message


def test_nothing_is_said_where_the_events_between_are_gone(store: Store) -> None:
    work(store, forget_an_item)
    for path in folder(store, "journal"):
        path.unlink()
    assert store.disagreements("work") == []


def test_how_much_is_compared_can_be_bounded(store: Store) -> None:
    work(store, forget_an_item)
    newest, older, *_ = store.versions("work")
    between = newest.sequence - older.sequence
    assert store.disagreements("work", events_max=between) != []
    assert store.disagreements("work", events_max=between - 1) == []


def test_nothing_is_said_where_there_is_only_one_version(store: Store) -> None:
    work(store, forget_an_item)
    for path in folder(store, "snapshots"):
        if not path.name.startswith(f"{store.versions('work')[0].version}."):
            path.unlink()
    assert store.disagreements("work") == []


def test_a_damaged_version_is_passed_over(store: Store) -> None:
    work(store, forget_an_item)
    newest, older, *_ = store.versions("work")
    path = Path(store.folder_of("work"), older.name.path)
    path.write_bytes(path.read_bytes()[:-9])
    (finding,) = store.disagreements("work")
    assert f"version {newest.version} is not what version {older.version - 1}" in finding.message


def test_a_restored_version_is_no_product_of_events(store: Store) -> None:
    work(store)
    store.restore("work", 1)
    assert store.disagreements("work") == []


def test_backups_serve_as_well(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    work(store, forget_an_item)
    for path in folder(store, "snapshots"):
        path.unlink()
    assert [finding.rule for finding in store.disagreements("work")] == ["disagreement"]


def test_an_unknown_session_is_said_to_be_so(store: Store) -> None:
    work(store)
    with pytest.raises(milepost.SessionNotFoundError):
        store.disagreements("nothing")
    assert os.listdir(Path(store.path, "sessions")) == ["work"]
