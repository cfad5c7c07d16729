"""Checkpoints: typed marks, each a file of its own that says what it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from milepost.errors import ConfigurationError, EncodingError, FormatError, StorageError
from milepost.snapshots import checkpoints
from milepost.snapshots.segments import Identity
from milepost.storage import frame
from milepost.storage.directory import LocalDirectory
from milepost.types import CheckpointType
from support.faults import damaged_files
from support.histories import UID
from support.recording import Recording

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def system(tmp_path: Path) -> Recording:
    return Recording(str(tmp_path))


@pytest.fixture
def folder(tmp_path: Path, system: Recording) -> LocalDirectory:
    return LocalDirectory(str(tmp_path), system=system)


def write(folder: LocalDirectory, data: Any, *, name: str | None = None) -> str:
    return checkpoints.write(
        folder,
        CheckpointType.BATCH_PROGRESS,
        data,
        name=name,
        sequence=7,
        created_ns=5,
        identity=Identity("crawl", UID, 3),
        level=frame.LEVEL_HOT,
    )


def test_a_checkpoint_comes_back_with_what_it_says(folder: LocalDirectory) -> None:
    made = write(folder, {"page": 7}, name="before the merge")
    header, data = checkpoints.read(folder, made)
    assert data == {"page": 7}
    assert header.schema == "batch_progress"
    assert (header.session, header.session_uid) == ("crawl", UID)
    assert (header.sequence, header.epoch, header.created_ns) == (7, 3, 5)
    assert header.facts == {"id": made, "name": "before the merge"}


def test_a_checkpoint_is_durable_when_its_id_is_known(
    folder: LocalDirectory, system: Recording
) -> None:
    made = write(folder, None)
    assert system.calls[-2:] == [
        f"rename TMP checkpoints/{made}.zst",
        "fsync-folder checkpoints",
    ]
    assert "fsync TMP" in system.calls


def test_two_checkpoints_of_one_second_are_two(folder: LocalDirectory) -> None:
    one, two = write(folder, 1), write(folder, 2)
    assert one != two
    assert (checkpoints.read(folder, one)[1], checkpoints.read(folder, two)[1]) == (1, 2)


def test_data_that_cannot_be_stored_leaves_no_file(folder: LocalDirectory) -> None:
    with pytest.raises(EncodingError, match="the checkpoint's data"):
        write(folder, {"x": object()})
    assert folder.names(checkpoints.FOLDER) == []


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("0123456789abcdef0123456789abcdef", True),
        ("0123456789ABCDEF0123456789ABCDEF", False),
        ("0123456789abcdef0123456789abcde", False),
        ("../../../../../../../etc/passwd0", False),
        ("", False),
        (None, False),
        (7, False),
        ("\uff10" * 32, False),
    ],
)
def test_what_can_be_an_id(text: object, *, is_one: bool) -> None:
    assert checkpoints.is_id(text) is is_one


@pytest.mark.parametrize("value", [CheckpointType.BATCH_ERROR, "BATCH_ERROR", "batch_error"])
def test_a_type_is_known_by_member_or_name(value: object) -> None:
    assert checkpoints.check_type(value) is CheckpointType.BATCH_ERROR


@pytest.mark.parametrize("value", ["batch", "", None, 3, True, [], "Batch_Error", b"batch_error"])
def test_an_unknown_type_is_refused_and_never_taken_for_another(value: object) -> None:
    with pytest.raises(ConfigurationError, match="is no checkpoint type") as caught:
        checkpoints.check_type(value)
    assert "session_complete" in caught.value.hint


def test_a_renamed_checkpoint_is_not_believed(folder: LocalDirectory) -> None:
    one, two = write(folder, 1), write(folder, 2)
    os.replace(folder.full(checkpoints.path_of(one)), folder.full(checkpoints.path_of(two)))
    with pytest.raises(FormatError, match="another file"):
        checkpoints.read(folder, two)
    with pytest.raises(StorageError):
        checkpoints.read(folder, one)


def test_a_file_of_another_kind_is_no_checkpoint(folder: LocalDirectory) -> None:
    made = "a" * 32
    header = frame.FrameHeader(
        kind="snapshot", session="crawl", session_uid=UID, facts={"id": made}
    )
    folder.make_folders(checkpoints.FOLDER)
    folder.publish(checkpoints.path_of(made), frame.encode(header, b"\x01"))
    with pytest.raises(FormatError):
        checkpoints.read(folder, made)


def test_every_cut_and_flip_is_noticed(folder: LocalDirectory) -> None:
    made = write(folder, {"page": 7})
    path = folder.full(checkpoints.path_of(made))
    for _ in damaged_files(path, cut_step=3):
        with pytest.raises(FormatError):
            checkpoints.read(folder, made)
