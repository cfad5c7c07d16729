"""FORMAT.md says what the code does: its tables are compared with the code's own constants."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import Any

import pytest

import milepost
from milepost.journal import record
from milepost.model import events as e
from milepost.model import recoveries as r
from milepost.model import state as s
from milepost.model.arms.items import TAKEN_MAX
from milepost.session.batch import ITEM_BYTES_MAX
from milepost.snapshots import segments
from milepost.storage import frame, lease, names, values
from milepost.types import (
    BatchErrorType,
    BatchPhase,
    CheckpointType,
    ItemStatus,
    Outcome,
    RecoveryPriority,
    RecoveryReason,
    RecoveryStrategy,
    SessionKind,
    label,
)

if typing.TYPE_CHECKING:
    import msgspec

TEXT = (Path(__file__).parent.parent.parent / "FORMAT.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("|") and not line.startswith("|--")
]


def rows_of(first_cell: str, *, cells: int | None = None) -> list[str]:
    found = [row for row in ROWS if row[0] == first_cell and (cells is None or len(row) == cells)]
    assert found, f"FORMAT.md has no row {first_cell!r}"
    return found[0]


@pytest.mark.parametrize("event", typing.get_args(e.BatchEvent), ids=lambda kind: kind.__name__)
def test_every_event_is_documented_with_its_fields(event: type[Any]) -> None:
    tag = event.__struct_config__.tag
    row = rows_of(str(tag), cells=3)
    assert row[1] == event.__name__
    own = [name for name in event.__struct_fields__ if name not in ("sequence", "at_ns", "batch")]
    documented = re.sub(
        r": [^,;]*(, status, error_message, error_type, is_recoverable)?", "", row[2]
    )
    assert [
        part.strip() for part in re.split("[,;]", documented) if part.strip() != "\u2013"
    ] == own


def test_no_event_is_documented_that_there_is_not() -> None:
    tags = {event.__struct_config__.tag for event in typing.get_args(e.BatchEvent)}
    documented = {int(row[0]) for row in ROWS if row[0].isdigit() and len(row) == 3}
    assert {tag for tag in documented if tag >= 10} == tags


@pytest.mark.parametrize(
    "struct",
    [
        s.SessionState,
        s.ActiveBatch,
        s.CompletedBatch,
        s.FailedBatch,
        s.ItemProgress,
        s.BatchMetrics,
        s.Execution,
        s.CheckpointInfo,
        s.PlanPart,
        s.Suspect,
        s.RecoveryMark,
        s.OutputRows,
        s.SessionStatistics,
        r.ResumedBatch,
        r.RestartedFailedBatches,
        r.PartialRecovery,
        r.FullRestart,
        r.RecoverySums,
    ],
)
def test_every_struct_of_the_state_is_documented_in_its_order(struct: type[msgspec.Struct]) -> None:
    fields = re.sub(r" \([^)]*\)", "", rows_of(struct.__name__)[1]).split(", ")
    assert fields == list(struct.__struct_fields__)
    assert struct.__struct_config__.array_like


@pytest.mark.parametrize("result", typing.get_args(r.BatchRecoveryResult))
def test_every_result_of_a_recovery_is_documented_with_its_kind(result: Any) -> None:
    assert rows_of(result.__name__)[2] == f"`{result.__struct_config__.tag}`"


@pytest.mark.parametrize(
    "enum",
    [
        ItemStatus,
        BatchPhase,
        BatchErrorType,
        CheckpointType,
        Outcome,
        SessionKind,
        RecoveryReason,
        RecoveryPriority,
        RecoveryStrategy,
    ],
    ids=lambda enum: enum.__name__,
)
def test_every_enum_is_documented(enum: Any) -> None:
    expected = ", ".join(f"{member.value} {label(member)}" for member in enum)
    assert rows_of(enum.__name__)[1] == expected


def test_the_header_of_a_framed_file_is_documented() -> None:
    documented = {
        name
        for row in ROWS
        if len(row) == 3 and row[0].startswith("`") and row[1].startswith(("text", "int", "array"))
        for name in re.findall(r"`(\w+)`", row[0])
    }
    documented |= {"checksum", "facts"}
    assert documented == set(frame.FrameHeader.__struct_fields__)


def test_the_records_of_a_journal_are_documented() -> None:
    assert rows_of("0", cells=3)[2].split(", ") == list(record.JournalOpened.__struct_fields__)
    assert rows_of("1", cells=3)[2].split(", ") == list(record.SyncedThrough.__struct_fields__)
    assert f"`{record.MAGIC.decode()}`" in TEXT
    assert record.FILE_HEADER_BYTES == 16


def test_a_lease_is_documented() -> None:
    section = TEXT.partition("## Leases")[2].partition("## Journal")[0]
    for field in lease.Lease.__struct_fields__:
        assert f"`{field}`" in section


def number(cell: str) -> int:
    return int(re.sub(r"[^\d]", "", cell.split(" ", maxsplit=1)[0]))


def test_the_limits_are_the_codes_own() -> None:
    assert number(rows_of("body of a framed file")[1]) == frame.RAW_BYTES_MAX
    assert number(rows_of("header of a framed file")[1]) == frame.HEADER_BYTES_MAX
    assert number(rows_of("Zstandard window")[1]) == frame.WINDOW_BYTES_MAX
    assert number(rows_of("payload of a record")[1]) == record.RECORD_BYTES_MAX
    assert number(rows_of("a journal")[1]) == record.FILE_BYTES_MAX
    value = rows_of("one value of a user's (data, payload, checkpoint)")[1]
    assert number(value) == values.VALUE_BYTES_MAX
    assert f"{values.DEPTH_MAX} levels" in value
    assert number(rows_of("batches in one part of a plan")[1]) == segments.PART_BATCHES_MAX
    assert number(rows_of("session name")[1]) == names.NAME_CHARACTERS_MAX
    assert number(rows_of("a lease")[1]) == lease.LEASE_BYTES_MAX
    assert number(rows_of("items taken in one event")[1]) == TAKEN_MAX
    assert number(rows_of("payload of an item found on the way")[1]) == ITEM_BYTES_MAX
    assert f"longer than {names.FOLDER_BYTES_MAX} bytes" in TEXT
    assert f"0x{frame.SKIPPABLE_MAGIC:X}" in TEXT


def test_the_numbers_of_schema_and_fold_are_the_codes_own() -> None:
    assert f"schema `SessionState` {s.SCHEMA_VERSION} " in TEXT
    assert f"`fold_version` ({s.FOLD_VERSION}) is raised" in TEXT


def test_the_tags_of_events_are_a_range_without_the_reserved_ones() -> None:
    tags = [event.__struct_config__.tag for event in typing.get_args(e.BatchEvent)]
    (first, last), reserved = (
        re.findall(r"\| (\d+)\W(\d+) \| events", TEXT)[0],
        re.findall(r"\| 2\W9, (\d+)\W127 \| reserved", TEXT)[0],
    )
    assert sorted(tags) == list(range(int(first), int(last) + 1))
    assert int(reserved) == int(last) + 1


def test_the_format_numbers_agree() -> None:
    assert frame.FORMAT_VERSION == record.FORMAT_VERSION == lease.LEASE_FORMAT == 1
    assert "The format described here is **1**" in TEXT
    assert milepost.Store is not None


def test_every_source_in_a_docstring_is_a_section() -> None:
    engine = Path(milepost.__file__).parent
    headings = set(re.findall(r"^#+ (.+)$", TEXT, flags=re.MULTILINE))
    for path in engine.rglob("*.py"):
        for named in re.findall(r'FORMAT\.md, "([^"]+)"', path.read_text(encoding="utf-8")):
            assert named in headings, f"{path.name} names a section {named!r}"
