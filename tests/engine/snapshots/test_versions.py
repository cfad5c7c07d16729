"""A snapshot says what it is, and nothing that says otherwise is believed."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import (
    FormatError,
    MilepostError,
    SchemaError,
    StorageError,
    UnsupportedVersionError,
)
from milepost.model.state import FOLD_VERSION, SCHEMA_VERSION, SessionState
from milepost.snapshots import versions
from milepost.snapshots.versions import SnapshotName, VersionInfo
from milepost.storage import frame
from milepost.storage.directory import LocalDirectory
from support.faults import damaged_files
from support.histories import START_NS, UID, History, Story, folded, histories

if TYPE_CHECKING:
    from pathlib import Path

NOW_NS = START_NS + 5_123_456_000


@pytest.fixture
def folder(tmp_path: Path) -> LocalDirectory:
    return LocalDirectory(str(tmp_path))


def write(
    folder: LocalDirectory,
    state: SessionState,
    *,
    version: int = 1,
    epoch: int = 1,
    by_hand: bool = False,
    restored_from: int | None = None,
    level: int = frame.LEVEL_HOT,
) -> VersionInfo:
    return versions.write(
        folder,
        state,
        name=SnapshotName(epoch, state.sequence, version),
        created_ns=NOW_NS,
        by_hand=by_hand,
        restored_from=restored_from,
        parents=("1.1.journal",),
        level=level,
    )


def some_state() -> SessionState:
    story = Story()
    story.run()
    story.plan(3)
    story.start()
    story.done("서울", 7)
    return story.state


@given(st.integers(1, 2**40), st.integers(0, 2**63 - 1), st.integers(1, 2**40))
def test_a_name_says_version_sequence_and_epoch(version: int, sequence: int, epoch: int) -> None:
    name = SnapshotName(epoch, sequence, version)
    assert name.name == f"{version}.{sequence}.{epoch}.zst"
    assert versions.parse_name(name.name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".zst",
        "1.2.zst",
        "1.2.3",
        "1.2.3.4.zst",
        "01.2.3.zst",
        "1.2.3.zst.tmp",
        "-1.2.3.zst",
        "a.2.3.zst",
        "\uff11.2.3.zst",
        "1.2.³.zst",
        "1.2.3.ZST",
    ],
)
def test_a_strangers_name_is_none(name: str) -> None:
    assert versions.parse_name(name) is None


def test_snapshots_sort_by_epoch_then_sequence_then_version(folder: LocalDirectory) -> None:
    folder.make_folder(versions.FOLDER)
    for name in ("9.5.1.zst", "10.4.2.zst", "2.7.2.zst", "3.7.2.zst", ".DS_Store", "x.zst"):
        folder.publish(f"snapshots/{name}", b"")
    assert [each.name for each in versions.names(folder)] == [
        *("9.5.1.zst", "10.4.2.zst", "2.7.2.zst", "3.7.2.zst")
    ]


@given(histories(), st.sampled_from([frame.LEVEL_NONE, frame.LEVEL_HOT]))
def test_a_state_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, history: History, level: int
) -> None:
    folder = LocalDirectory(str(tmp_path_factory.mktemp("snapshots")))
    state = folded(history.events)
    info = write(folder, state, level=level)
    found, back = versions.read(folder, info.name)
    assert back.last_snapshot_ns == NOW_NS
    back.last_snapshot_ns = state.last_snapshot_ns
    assert back == state
    assert found == info


def test_what_a_version_says_of_itself(folder: LocalDirectory) -> None:
    state = some_state()
    info = write(folder, state, version=4, epoch=2, by_hand=True, restored_from=3)
    assert (info.version, info.sequence, info.epoch) == (4, state.sequence, 2)
    assert (info.by_hand, info.restored_from) == (True, 3)
    assert info.segments == tuple(part.path for part in state.plan)
    assert info.size_bytes == os.path.getsize(folder.full(info.name.path))
    assert info.created_at == datetime.fromtimestamp(NOW_NS // 1_000_000_000, UTC).replace(
        microsecond=123_456
    )
    assert versions.read_info(folder, info.name) == info
    header, _ = versions.read_header(folder, info.name.path)
    assert (header.session, header.session_uid) == ("crawl", UID)
    assert header.parents == ("1.1.journal",)


def test_any_stock_program_reads_the_state(folder: LocalDirectory) -> None:
    info = write(folder, some_state())
    data = folder.read(info.name.path, size_bytes_max=1 << 20)
    body = frame.decode(data, info.name.path)[1]
    plain: Any = msgspec.msgpack.decode(body)
    assert plain[:3] == ["crawl", UID, info.sequence]


def test_a_snapshot_is_never_replaced(folder: LocalDirectory) -> None:
    write(folder, some_state())
    with pytest.raises(StorageError):
        write(folder, some_state())


@pytest.mark.parametrize("field", ["version", "sequence", "epoch"])
def test_a_renamed_snapshot_is_not_believed(folder: LocalDirectory, field: str) -> None:
    info = write(folder, some_state())
    other = info.name._replace(**{field: 9_999})
    os.rename(folder.full(info.name.path), folder.full(other.path))
    for look in (versions.read, versions.read_info):
        with pytest.raises(FormatError) as caught:
            look(folder, other)
        assert caught.value.path == other.path
        assert "renamed or swapped" in caught.value.hint
    assert versions.list_versions(folder) == []


def test_swapped_snapshots_are_both_noticed(folder: LocalDirectory) -> None:
    story = Story()
    story.run()
    one = write(folder, story.state, version=1)
    story.start()
    two = write(folder, story.state, version=2)
    first, second, aside = (folder.full(p) for p in (one.name.path, two.name.path, "aside"))
    os.rename(first, aside)
    os.rename(second, first)
    os.rename(aside, second)
    for info in (one, two):
        with pytest.raises(FormatError):
            versions.read(folder, info.name)


def test_a_body_of_another_state_is_noticed(folder: LocalDirectory) -> None:
    state = some_state()
    for other in (
        SessionState("another", UID, state.sequence),
        SessionState("crawl", "f" * 32, state.sequence),
        SessionState("crawl", UID, state.sequence + 1),
    ):
        name = craft(folder, other, sequence=state.sequence)
        with pytest.raises(FormatError, match="another state than it says"):
            versions.read(folder, name)
        folder.remove(name.path)


def craft(folder: LocalDirectory, body: Any, *, sequence: int = 7, **fields: Any) -> SnapshotName:
    """A file whose digests are right, whatever it holds."""
    name = SnapshotName(1, sequence, 1)
    given: dict[str, Any] = {
        "kind": "snapshot",
        "session": "crawl",
        "session_uid": UID,
        "version": 1,
        "sequence": sequence,
        "epoch": 1,
    }
    data = frame.encode(frame.FrameHeader(**(given | fields)), msgspec.msgpack.encode(body))
    folder.make_folders(versions.FOLDER)
    folder.publish(name.path, data)
    return name


@pytest.mark.parametrize(
    ("field", "known"), [("schema_version", SCHEMA_VERSION), ("fold_version", FOLD_VERSION)]
)
def test_a_newer_schema_or_fold_is_refused_by_name(
    folder: LocalDirectory, field: str, known: int
) -> None:
    name = craft(folder, SessionState("crawl", UID, 7), **{field: known + 1})
    for look in (versions.read, versions.read_info):
        with pytest.raises(UnsupportedVersionError) as caught:
            look(folder, name)
        assert (caught.value.found, caught.value.supported) == (known + 1, known)
        assert caught.value.path == name.path


@pytest.mark.parametrize("kind", ["segment", "checkpoint", ""])
def test_a_file_of_another_kind_is_no_snapshot(folder: LocalDirectory, kind: str) -> None:
    name = craft(folder, SessionState("crawl", UID, 7), kind=kind)
    with pytest.raises(FormatError):
        versions.read(folder, name)


@pytest.mark.parametrize("body", [None, [], {}, "state", [1, 2, 3], ["crawl", "\u0000" * 3, "x"]])
def test_a_body_of_another_shape_is_refused(folder: LocalDirectory, body: Any) -> None:
    name = craft(folder, body)
    with pytest.raises((SchemaError, FormatError)):
        versions.read(folder, name)


def test_text_that_is_none_in_a_body_is_refused(folder: LocalDirectory) -> None:
    name = craft(folder, msgspec.Raw(b"\x92\xa2\xff\xff\xa1u"))
    with pytest.raises(SchemaError):
        versions.read(folder, name)


def test_every_cut_and_many_flips_are_noticed(folder: LocalDirectory) -> None:
    info = write(folder, some_state())
    path = folder.full(info.name.path)
    for _ in damaged_files(path, cut_step=7, flip_step=3):
        with pytest.raises(FormatError):
            versions.read(folder, info.name)


def test_a_missing_snapshot_is_told(folder: LocalDirectory) -> None:
    assert versions.names(folder) == []
    assert versions.list_versions(folder) == []
    with pytest.raises(StorageError):
        versions.read(folder, SnapshotName(1, 1, 1))


def test_damaged_versions_are_left_out_of_the_list(folder: LocalDirectory) -> None:
    story = Story()
    for version in (1, 2, 3):
        story.run()
        write(folder, story.state, version=version)
    second = versions.names(folder)[1]
    with open(folder.full(second.path), "r+b") as file:
        file.truncate(30)
    assert [each.version for each in versions.list_versions(folder)] == [1, 3]
    assert len(versions.names(folder)) == 3


@pytest.mark.parametrize(
    "facts", [{"segments": 7}, {"segments": None}, {"by_hand": "yes"}, {"restored_from": "x"}]
)
def test_odd_facts_are_no_traceback(folder: LocalDirectory, facts: dict[str, Any]) -> None:
    # Facts are optional to a reader; what they are not, they do not say.
    name = craft(folder, SessionState("crawl", UID, 7), facts=facts)
    try:
        info = versions.read_info(folder, name)
    except MilepostError:
        return
    assert not info.by_hand
    assert info.restored_from is None


def test_a_folder_that_was_deleted_is_not_made_anew(folder: LocalDirectory) -> None:
    shutil.rmtree(folder.root)
    with pytest.raises(StorageError):
        write(folder, some_state())
    assert not os.path.exists(folder.root)
