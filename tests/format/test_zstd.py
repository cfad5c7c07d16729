"""Every `.zst` file of a store is read by the stock zstd program, without milepost."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import milepost
from milepost import CheckpointType, ItemStatus, Store, StoreConfig
from milepost.storage import frame

V1 = Path(__file__).parent.parent / "fixtures" / "format" / "v1"

pytestmark = pytest.mark.skipif(
    shutil.which("zstd") is None,
    reason="the zstd program is missing; install it: apt-get install zstd, brew install zstd",
)


def printed(path: Path) -> bytes:
    done = subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_all_readable(folder: Path) -> int:
    paths = sorted(folder.rglob("*.zst"))
    for path in paths:
        _, body = frame.decode(path.read_bytes(), path.name)
        assert printed(path) == body
    return len(paths)


@pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "raw"])
def test_zstd_reads_every_file_of_a_store(tmp_path: Path, compressed: bool) -> None:
    config = StoreConfig(enable_compression=compressed)
    store = Store(tmp_path / "s", config=config)

    @milepost.job("work", batches=[str(n) for n in range(20)], store=store)
    def work(batch: milepost.Batch) -> None:
        batch.update_items([(f"item-{n}", ItemStatus.COMPLETED) for n in range(50)])
        batch.session.save_checkpoint(CheckpointType.BATCH_PROGRESS, {"text": "abc" * 1_000})

    work.run(progress=False)
    store.save_state("settings", {"cursor": 41})
    kinds = {path.parent.name for path in (tmp_path / "s").rglob("*.zst")}
    assert kinds == {"snapshots", "segments", "checkpoints"}
    assert assert_all_readable(tmp_path / "s") > 40  # the backups too


def test_zstd_reads_the_sample_of_format_1() -> None:
    assert assert_all_readable(V1) > 5
