"""The sealed plan: one file or several, each known by what is in it."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import (
    ConfigurationError,
    EncodingError,
    FormatError,
    RecordTooLargeError,
    SchemaError,
    StorageError,
)
from milepost.model.state import PlanPart
from milepost.snapshots import segments
from milepost.snapshots.segments import Identity, PlannedBatch
from milepost.storage import frame
from milepost.storage.directory import LocalDirectory
from support.faults import damaged_files
from support.histories import UID

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = Identity("crawl", UID, 3)


@pytest.fixture
def folder(tmp_path: Path) -> LocalDirectory:
    return LocalDirectory(str(tmp_path))


def seal(folder: LocalDirectory, batches: list[PlannedBatch], *, first: int = 0) -> PlanPart:
    return segments.seal_plan(
        folder,
        batches,
        first=first,
        sequence=7,
        created_ns=5,
        identity=IDENTITY,
        level=frame.LEVEL_SEALED,
    )


REGIONS = [PlannedBatch("11110", "종로구", {"code": "11110"}), PlannedBatch("11140", "중구", None)]


@given(
    st.lists(
        st.builds(
            PlannedBatch,
            st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
            st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
            st.none() | st.integers(0, 9) | st.dictionaries(st.sampled_from("ab"), st.booleans()),
        ),
        max_size=8,
    ),
    st.integers(0, 2**40),
)
def test_a_plan_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, batches: list[PlannedBatch], first: int
) -> None:
    folder = LocalDirectory(str(tmp_path_factory.mktemp("plan")))
    part = seal(folder, batches, first=first)
    assert (part.first, part.count) == (first, len(batches))
    assert segments.read_plan(folder, part, UID) == batches


def test_the_name_says_what_is_inside(folder: LocalDirectory) -> None:
    part = seal(folder, REGIONS, first=10)
    assert part.path.startswith("segments/plan.10-11.")
    assert part.path.endswith(".zst")
    assert len(part.path.split(".")[2]) == 16
    assert folder.exists(part.path)


def test_other_batches_have_another_name(folder: LocalDirectory) -> None:
    assert seal(folder, REGIONS).path != seal(folder, REGIONS[::-1]).path


def test_sealing_the_same_again_is_the_same_file(folder: LocalDirectory) -> None:
    # A kill between the file and its event starts the enumeration again.
    assert seal(folder, REGIONS) == seal(folder, REGIONS)
    assert len(folder.names(segments.FOLDER)) == 1


def test_an_empty_plan_is_a_plan(folder: LocalDirectory) -> None:
    part = seal(folder, [])
    assert part.count == 0
    assert segments.read_plan(folder, part, UID) == []


def test_a_payload_that_cannot_be_stored_names_its_batch(folder: LocalDirectory) -> None:
    with pytest.raises(EncodingError, match=r"the payload of batch '11140'\['code'\]"):
        seal(folder, [REGIONS[0], PlannedBatch("11140", None, {"code": object()})])
    with pytest.raises(EncodingError, match="label of batch"):
        seal(folder, [PlannedBatch("a", "\ud800", None)])
    assert folder.names(segments.FOLDER) == []


def test_a_payload_nested_too_deeply_is_refused_before_it_is_sealed(
    folder: LocalDirectory,
) -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    with pytest.raises(RecordTooLargeError, match="batch 'a'"):
        seal(folder, [PlannedBatch("a", None, deep)])
    assert folder.names(segments.FOLDER) == []


def test_a_renamed_or_swapped_segment_is_not_believed(folder: LocalDirectory) -> None:
    one, two = seal(folder, REGIONS), seal(folder, REGIONS[::-1])
    os.replace(folder.full(one.path), folder.full(two.path))
    with pytest.raises(FormatError, match="another segment") as caught:
        segments.read_plan(folder, two, UID)
    assert caught.value.path == two.path
    with pytest.raises(StorageError):
        segments.read_plan(folder, one, UID)


def test_a_segment_of_another_session_is_not_believed(folder: LocalDirectory) -> None:
    part = seal(folder, REGIONS)
    with pytest.raises(FormatError):
        segments.read_plan(folder, part, "f" * 32)


@pytest.mark.parametrize("change", [{"first": 1}, {"count": 3}, {"count": 1}])
def test_a_reference_to_other_numbers_is_not_believed(
    folder: LocalDirectory, change: dict[str, int]
) -> None:
    part = msgspec.structs.replace(seal(folder, REGIONS), **change)
    with pytest.raises(FormatError):
        segments.read_plan(folder, part, UID)


def test_every_cut_and_many_flips_are_noticed(folder: LocalDirectory) -> None:
    part = seal(folder, REGIONS)
    path = folder.full(part.path)
    for _ in damaged_files(path, cut_step=5):
        with pytest.raises(FormatError):
            segments.read_plan(folder, part, UID)


def craft(folder: LocalDirectory, body: bytes, *, count: int) -> PlanPart:
    """A segment whose digests are right, whatever it holds."""
    header = frame.FrameHeader(
        kind="segment", session="crawl", session_uid=UID, facts={"first": 0, "count": count}
    )
    data = frame.encode(header, body)
    size = frame.decode_header(data, "x")[0].compressed_size_bytes
    path = f"segments/plan.0-{count - 1}.{frame.digest(data[-size:])[:8].hex()}.zst"
    folder.make_folders("segments")
    folder.publish(path, data)
    return PlanPart(path, 0, count)


@pytest.mark.parametrize("body", [b"\xc0", b"\x91\x01", b"\x91\x91\x01", b"\x91\x91\xa1\xff"])
def test_a_body_of_another_shape_is_refused(folder: LocalDirectory, body: bytes) -> None:
    part = craft(folder, body, count=1)
    with pytest.raises(SchemaError):
        segments.read_plan(folder, part, UID)


def test_a_plan_of_another_length_than_it_says_is_refused(folder: LocalDirectory) -> None:
    part = craft(folder, msgspec.msgpack.encode([PlannedBatch("a")]), count=2)
    with pytest.raises(FormatError, match="1 batches of 2"):
        segments.read_plan(folder, part, UID)


def test_two_batches_with_one_key_are_refused_by_name() -> None:
    segments.check_new_keys(REGIONS)
    with pytest.raises(ConfigurationError, match="two batches of the plan have the key 'a'"):
        segments.check_new_keys([PlannedBatch("a"), PlannedBatch("b"), PlannedBatch("a")])


def test_a_payload_that_could_not_be_read_back_is_refused_before_it_is_sealed(
    folder: LocalDirectory,
) -> None:
    # It can be written, as a map that is the key of a map, and no reader takes it.
    with pytest.raises(EncodingError, match="batch 'b'"):
        seal(folder, [PlannedBatch("a"), PlannedBatch("b", None, {Corner(1): "a"})])
    assert folder.names(segments.FOLDER) == []


@dataclasses.dataclass(frozen=True)
class Corner:
    x: int
