"""What is in any file of a store, as plain data, looked at alone."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import FormatError, MilepostError, NotAMilepostFileError
from milepost.journal import record
from milepost.journal.record import JournalName
from milepost.journal.writer import JournalWriter
from milepost.model import events as e
from milepost.model.state import Retrying
from milepost.session import contents
from milepost.snapshots import checkpoints, segments, versions
from milepost.snapshots.segments import Identity, PlannedBatch
from milepost.snapshots.versions import SnapshotName
from milepost.storage import frame
from milepost.storage.directory import LocalDirectory
from milepost.types import BatchPhase, CheckpointType, ItemStatus
from support.histories import UID, Story

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = Identity("crawl", UID, 1)


@pytest.fixture
def folder(tmp_path: Path) -> LocalDirectory:
    return LocalDirectory(str(tmp_path))


def look(folder: LocalDirectory, path: str) -> list[Any]:
    return list(contents.of(folder.read(path, size_bytes_max=1 << 20), path))


def snapshot_of(folder: LocalDirectory, story: Story) -> str:
    name = SnapshotName(1, story.state.sequence, 1)
    versions.write(
        folder,
        story.state,
        name=name,
        created_ns=5,
        by_hand=True,
        restored_from=None,
        parents=(),
        level=frame.LEVEL_HOT,
    )
    return name.path


def test_a_snapshot(folder: LocalDirectory) -> None:
    story = Story()
    story.start()
    story.done("a")
    header, body = look(folder, snapshot_of(folder, story))
    assert header["header"]["kind"] == "snapshot"
    assert len(header["header"]["checksum"]) == 32
    assert body["body"]["session_id"] == "crawl"
    assert body["body"]["active_batches"][0]["finished"]["a"]["status"] == "completed"
    json.dumps([header, body])


def test_growing_work_positions_and_outputs(folder: LocalDirectory) -> None:
    story = Story()
    story.params({"model": "big"})
    story.start()
    story.add("a", 1, payloads=[{"depth": 2}, None])
    story.output("../rows.txt")
    story.finish(("b", ItemStatus.COMPLETED), rows=[story.rows("../rows.txt", 9)])
    story.start(1)
    story.advance(0, 1, batch=1)
    story.advance(1, batch=1)
    body = look(folder, snapshot_of(folder, story))[1]["body"]
    assert body["params"] == {"model": "big"}
    assert body["outputs"]["../rows.txt"]["length_bytes"] == 9
    assert body["active_batches"][0]["queued"] == {"a": {"depth": 2}, 1: None}
    assert body["active_batches"][1]["position"] == 1
    journal = JournalName(2, 1)
    writer = JournalWriter.create(
        folder, journal, session="crawl", session_uid=UID, predecessor=None, durability="process"
    )
    for event in story.events[1:]:
        writer.append([record.encode_payload(event)], event.sequence)
    writer.close()
    told = {each["event"]: each for each in look(folder, journal.path)}
    assert told["ItemsAdded"]["payloads"] == [{"depth": 2}, None]
    assert told["ItemsEnded"]["changes"][0]["status"] == "completed"
    assert told["ItemsEnded"]["rows"][0]["path"] == "../rows.txt"
    assert told["PositionsAdvanced"]["done_through"] == 1
    assert told["OutputOpened"]["path"] == "../rows.txt"
    assert told["ParamsSet"]["params"] == {"model": "big"}


def test_a_plan_and_a_checkpoint(folder: LocalDirectory) -> None:
    part = segments.seal_plan(
        folder,
        [PlannedBatch("11110", "종로구", {"n": 1}), PlannedBatch("11140")],
        first=0,
        sequence=1,
        created_ns=5,
        identity=IDENTITY,
        level=frame.LEVEL_SEALED,
    )
    _, first, second = look(folder, part.path)
    assert first == {"key": "11110", "label": "종로구", "payload": {"n": 1}}
    assert second["key"] == "11140"
    made = checkpoints.write(
        folder,
        CheckpointType.BATCH_PROGRESS,
        {"page": 7},
        name="half",
        sequence=1,
        created_ns=5,
        identity=IDENTITY,
        level=frame.LEVEL_HOT,
    )
    header, body = look(folder, checkpoints.path_of(made))
    assert header["header"]["schema"] == "batch_progress"
    assert body == {"body": {"page": 7}}


def test_a_journal_with_a_torn_end(folder: LocalDirectory) -> None:
    name = JournalName(1, 2)
    journal = JournalWriter.create(
        folder, name, session="crawl", session_uid=UID, predecessor=None, durability="process"
    )
    event = e.ItemUpdated(2, 5, 0, "a", ItemStatus.COMPLETED)
    journal.append([record.encode_payload(event)], 2)
    journal.sync()
    journal.write_mark()
    journal.close()
    opened, item, mark = look(folder, name.path)
    assert opened["event"] == "JournalOpened"
    assert (item["event"], item["key"], item["status"]) == ("ItemUpdated", "a", "completed")
    assert (mark["event"], mark["sequence"]) == ("SyncedThrough", 2)
    with open(folder.full(name.path), "ab") as file:
        size = file.tell()
        file.write(b"torn")
    assert look(folder, name.path)[-1] == {"unreadable_bytes": 4, "offset": size}


def test_a_journal_with_a_damaged_header(folder: LocalDirectory) -> None:
    with pytest.raises(FormatError, match="damaged header"):
        list(contents.of(b"MPJOURNL" + bytes(20), "journal/1.1.journal"))


def test_json_files_and_strangers() -> None:
    assert list(contents.of(b'{"manifest":1}', "manifest.json")) == [{"manifest": 1}]
    with pytest.raises(FormatError):
        list(contents.of(b'{"manifest":', "manifest.json"))
    for stranger in (b"", b"hello", b"\x28\xb5\x2f\xfd", b"\x7fELF"):
        with pytest.raises(NotAMilepostFileError):
            list(contents.of(stranger, "x"))


@given(st.binary(max_size=120), st.sampled_from([b"", b"{", b"MPJOURNL", b"\x5d\x2a\x4d\x18"]))
def test_whatever_the_file_is_the_error_is_ours(data: bytes, opening: bytes) -> None:
    try:
        list(contents.of(opening + data, "x"))
    except MilepostError as error:
        raised: MilepostError | None = error
    else:
        raised = None
    assert raised is None or str(raised)


def test_a_body_of_another_shape_is_damage() -> None:
    for schema in (versions.SCHEMA, segments.SCHEMA):
        header = frame.FrameHeader(kind="x", session="s", session_uid="u", schema=schema)
        for body in (b"\xc1", b"\x91\xa1\xff", b"\xa1a"):
            with pytest.raises(FormatError):
                list(contents.of(frame.encode(header, body), "x.zst"))


def test_plain_data_has_names_and_no_types() -> None:
    assert contents.plain(BatchPhase.DATA_SAVING) == "data_saving"
    assert contents.plain(e.BatchCompleted(1, 2, 3)) == {
        "event": "BatchCompleted",
        "sequence": 1,
        "at_ns": 2,
        "batch": 3,
        "metrics": None,
    }
    assert contents.plain((1, {"a": {2}})) == [1, {"a": [2]}]
    retrying = contents.plain(Retrying(BatchPhase.DATA_SAVING))
    assert retrying["phase"] == "data_saving"
    assert contents.plain(True) is True
    assert math.isnan(contents.plain(math.nan))
