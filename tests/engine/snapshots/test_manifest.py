"""The manifest: an index for people and a hint for programs, never believed over the files."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.snapshots import manifest
from milepost.snapshots.manifest import Manifest
from milepost.storage.directory import LocalDirectory
from support.faults import flips
from support.histories import UID
from support.recording import Recording

if TYPE_CHECKING:
    from pathlib import Path

INDEX = Manifest(
    session="지역-수집",
    session_uid=UID,
    lineage="l" * 32,
    epoch=3,
    folder_inode=2**63,
    journals=["2.1.journal", "9.3.journal"],
    versions=[{"version": 1, "sequence": 8, "epoch": 1, "created_ns": 5, "by_hand": False}],
    checkpoints=[{"id": "a" * 32, "type": "batch_progress", "name": None, "sequence": 4}],
    executions=[{"epoch": 1, "host": "laptop"}],
)


@pytest.fixture
def system(tmp_path: Path) -> Recording:
    return Recording(str(tmp_path))


@pytest.fixture
def folder(tmp_path: Path, system: Recording) -> LocalDirectory:
    return LocalDirectory(str(tmp_path), system=system)


def raw(folder: LocalDirectory) -> bytes:
    return folder.read(manifest.PATH, size_bytes_max=1 << 20)


def overwrite(folder: LocalDirectory, data: bytes) -> None:
    with open(folder.full(manifest.PATH), "wb") as file:
        file.write(data)


def test_a_manifest_comes_back_as_it_was(folder: LocalDirectory) -> None:
    manifest.write(folder, INDEX)
    assert manifest.read(folder) == INDEX
    other = Manifest(**{name: getattr(INDEX, name) for name in INDEX.__struct_fields__})
    other.epoch = 4
    manifest.write(folder, other)
    found = manifest.read(folder)
    assert found is not None
    assert found.epoch == 4
    assert folder.temporaries() == []


def test_a_manifest_is_json_for_people(folder: LocalDirectory) -> None:
    manifest.write(folder, INDEX)
    data = json.loads(raw(folder))
    assert data["manifest"]["session"] == "지역-수집"
    assert data["manifest"]["journals"] == ["2.1.journal", "9.3.journal"]
    assert len(raw(folder).splitlines()) > 10


def test_a_missing_manifest_is_none(folder: LocalDirectory) -> None:
    assert manifest.read(folder) is None


def test_any_wrong_byte_makes_it_none_and_never_another(folder: LocalDirectory) -> None:
    manifest.write(folder, INDEX)
    data = raw(folder)
    for flipped in flips(data):
        overwrite(folder, flipped)
        # A flipped bit of the very layout may leave the same content.
        found = manifest.read(folder)
        assert found is None or found == INDEX
    for length in range(len(data) - 1):
        overwrite(folder, data[:length])
        assert manifest.read(folder) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"manifest":{},"checksum":""}',
        b'{"manifest":{},"checksum":"\\ud800"}',
        b'{"manifest":1,"checksum":2}',
        b'{"manifest":' + b"[" * 50_000 + b"]" * 50_000 + b',"checksum":""}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_manifest_is_none_and_no_traceback(folder: LocalDirectory, data: bytes) -> None:
    overwrite(folder, data)
    assert manifest.read(folder) is None


@given(st.binary(max_size=100))
def test_whatever_it_holds_it_is_none(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = LocalDirectory(str(tmp_path_factory.mktemp("manifest")))
    overwrite(folder, data)
    assert manifest.read(folder) is None


def test_a_folder_or_a_link_in_its_place_is_none(folder: LocalDirectory, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"{}")
    (tmp_path / "manifest.json").symlink_to(tmp_path / "elsewhere")
    assert manifest.read(folder) is None
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").mkdir()
    assert manifest.read(folder) is None


@pytest.mark.parametrize("call", ["open", "write", "rename"])
def test_a_disk_that_refuses_it_fails_nothing_and_leaves_the_old_one(
    folder: LocalDirectory, system: Recording, call: str
) -> None:
    manifest.write(folder, INDEX)
    system.failing[call] = errno.ENOSPC
    changed = Manifest(**{name: getattr(INDEX, name) for name in INDEX.__struct_fields__})
    changed.epoch = 9
    manifest.write(folder, changed)
    assert manifest.read(folder) == INDEX
    assert folder.temporaries() == []
