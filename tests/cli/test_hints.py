"""The commands that errors of the library advise: they can be typed as they stand."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

import milepost
from support.commands import run

if TYPE_CHECKING:
    from pathlib import Path


def advised(hint: str, folder: Path) -> list[list[str]]:
    """The words of the commands in a hint."""
    found = re.findall(rf"milepost (.*?--store {re.escape(str(folder))})", hint)
    assert len(found) == hint.count("milepost "), hint
    return [shlex.split(words) for words in found]


def test_of_a_key_that_did_not_fail(store: milepost.Store, folder: Path, failed: str) -> None:
    with pytest.raises(milepost.SessionNotFoundError) as caught:
        store.retry(failed, keys=["nope"])
    (words,) = advised(caught.value.hint, folder)
    assert words[:3] == ["show", failed, "--failed"]
    assert run(*words).code == 0


def test_of_a_checkpoint_that_is_not_there(
    store: milepost.Store, folder: Path, failed: str
) -> None:
    with pytest.raises(milepost.CheckpointNotFoundError) as caught:
        store.load_checkpoint("nope")
    assert advised(caught.value.hint, folder)[0][:3] == ["show", "NAME", "--checkpoints"]


def test_of_a_batch_that_is_completed(store: milepost.Store, folder: Path, failed: str) -> None:
    with (
        store.session(failed, execute=False) as session,
        pytest.raises(milepost.ConfigurationError) as caught,
    ):
        session.start_batch("b0")
    (words,) = advised(caught.value.hint, folder)
    assert run(*words).code == 0


def test_of_a_job_that_failed(store: milepost.Store, folder: Path) -> None:
    @milepost.job("two words", batches=["a"], store=store, progress=False)
    def ingest(batch: milepost.Batch) -> None:
        raise ValueError(batch.key)

    with pytest.raises(milepost.JobFailedError) as caught:
        ingest.run().raise_for_failures()
    assert [run(*words).code for words in advised(caught.value.hint, folder)] == [0, 0]


def test_of_a_damaged_session(folder: Path) -> None:
    store = milepost.Store(folder, config=milepost.StoreConfig(backup_enabled=False))
    with store.session("s", total_batches=2) as session:
        batch = session.start_batch("b")
        batch.update_items([(n, milepost.ItemStatus.COMPLETED) for n in range(5)])
        session.snapshot()
        batch.complete()
    snapshots = (folder / "sessions" / "s" / "snapshots").iterdir()
    max(snapshots, key=lambda file: int(file.name.split(".")[0])).unlink()
    for journal in (folder / "sessions" / "s" / "journal").iterdir():
        data = bytearray(journal.read_bytes())
        data[len(data) // 2] ^= 1
        journal.write_bytes(data)
    with pytest.raises(milepost.DamagedError) as caught:
        store.session("s")
    show, restore = advised(caught.value.hint, folder)
    assert run(*show).code == 12
    assert run(*restore).code == 0
    assert run(*show).code == 0
