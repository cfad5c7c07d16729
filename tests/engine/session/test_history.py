"""Reading a session back: journals are joined only where one was built on the other."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest

import milepost
from milepost.journal import record
from milepost.journal.reader import Replay, replay

if TYPE_CHECKING:
    from pathlib import Path

DONE = milepost.ItemStatus.COMPLETED


class Copy:
    """A copy of a store that goes on by itself, in two journals without a snapshot between."""

    def __init__(self, path: Path, first: list[str], second: str) -> None:
        config = milepost.StoreConfig(backup_enabled=False)
        self.store = milepost.Store(path, config=config, clock=milepost.ManualClock())
        self.folder = path / "sessions" / "work"
        with self.store.session("work") as session:
            batch = session.start_batch("b")
            batch.update_items([(key, DONE) for key in first])
            between = session.snapshot()
            batch.update_item(second, DONE)
            session.supersede()  # as a kill leaves it
        for snapshot in (self.folder / "snapshots").glob(f"{between}.*"):
            snapshot.unlink()

    def journals(self) -> list[record.JournalName]:
        names = [record.parse_name(each.name) for each in (self.folder / "journal").iterdir()]
        return sorted(name for name in names if name is not None)

    def read(self, name: record.JournalName) -> Replay:
        data = (self.folder / name.path).read_bytes()
        return replay(data, name, self.store.load_progress("work").uid)

    def done(self) -> set[milepost.Key]:
        return set(self.store.load_progress("work").active_batches[0].finished)


def copies(tmp_path: Path, one: list[str], other: list[str]) -> tuple[Copy, Copy]:
    """Two copies of one session that went different ways, under the same file names."""
    milepost.Store(tmp_path / "one").session("work", execute=False).close()
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    found = Copy(tmp_path / "one", one, "z"), Copy(tmp_path / "other", other, "z")
    assert found[0].journals() == found[1].journals()
    return found


@pytest.mark.parametrize("key", ["a", "a longer key"])
def test_a_journal_of_another_copy_is_not_joined(tmp_path: Path, key: str) -> None:
    one, foreign = copies(tmp_path, [key], ["b"])
    assert one.done() == {key, "z"}
    assert not one.store.view("work").is_lossy
    before, after = one.journals()
    opened = foreign.read(after).opened
    assert opened is not None
    assert opened.predecessor == before.name
    if key == "a":
        # Name, place and numbers are right; only the chain value tells the two apart.
        assert opened.accepted_bytes == one.read(before).size_bytes
    shutil.copy(foreign.folder / after.path, one.folder / after.path)

    view = one.store.view("work")
    assert view.is_lossy
    assert "journal-chain" in [finding.rule for finding in view.findings]
    assert one.done() == {key}
    with pytest.raises(milepost.DamagedError, match="builds on another end"):
        one.store.session("work")


def test_marks_behind_the_accepted_place_do_not_part_two_journals(tmp_path: Path) -> None:
    """A writer may still mark what it synced while its successor reads."""
    one, _ = copies(tmp_path, ["a"], ["a"])
    before = one.read(one.journals()[0])
    proof = record.synced_proof(before.last, before.name, one.store.load_progress("work").uid)
    mark = record.encode_payload(record.SyncedThrough(before.last, proof))
    path = one.folder / before.name.path
    path.write_bytes(path.read_bytes() + record.frame(mark, before.chain)[0])
    assert one.read(before.name).size_bytes > before.size_bytes
    assert not one.store.view("work").is_lossy
    assert one.done() == {"a", "z"}


def test_a_mark_that_a_power_cut_took_does_not_part_two_journals(tmp_path: Path) -> None:
    one, _ = copies(tmp_path, ["a"], ["a"])
    before, after = one.journals()
    # What the second journal accepted ends in a mark that is not on the disk any more.
    reopened(one.folder / after.path, accepted_bytes=one.read(before).size_bytes + 30)
    assert not one.store.view("work").is_lossy
    assert one.done() == {"a", "z"}


def reopened(path: Path, **changed: int) -> None:
    """Write the journal anew, with other words in its first record."""
    data, seed = path.read_bytes(), record.first_seed(record.file_header())
    first, *rest = (
        payload for payload, _, _ in record.frames(data, record.FILE_HEADER_BYTES, seed)
    )
    opened = record.decode_payload(first)
    payloads = [record.encode_payload(msgspec.structs.replace(opened, **changed)), *rest]
    made, chain = record.file_header(), seed
    for payload in payloads:
        framed, chain = record.frame(bytes(payload), chain)
        made += framed
    path.write_bytes(made)
