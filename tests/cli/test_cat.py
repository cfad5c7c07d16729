from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support.commands import run, tree

if TYPE_CHECKING:
    from pathlib import Path


def test_every_file_with_content_can_be_looked_at(
    folder: Path, failed: str, interrupted: str
) -> None:
    kinds = (".zst", ".journal", ".json")
    files = [file for file in folder.rglob("*") if file.name.endswith(kinds)]
    assert {file.suffix for file in files} == set(kinds)
    before = tree(folder)
    for file in files:
        ran = run("cat", file, "--json")
        assert (ran.code, ran.err) == (0, ""), file
        assert all(json.loads(line) for line in ran.out.splitlines())
    assert tree(folder) == before


def test_a_path_may_be_relative_to_the_store(folder: Path, failed: str) -> None:
    ran = run("cat", f"sessions/{failed}/leases/1.json", "-s", folder)
    assert ran.code == 0
    assert json.loads(ran.out)["lease"]["session"] == failed


def test_the_marker_of_the_store_can_be_looked_at(folder: Path, failed: str) -> None:
    ran = run("cat", "MILEPOST", "-s", folder, "--json")
    assert (ran.code, ran.json["marker"]["format"]) == (0, "1")


def test_a_snapshot_shows_its_header_and_its_state(folder: Path, failed: str) -> None:
    (file,) = (folder / "sessions" / failed / "snapshots").glob("1.*.zst")
    header, body = map(json.loads, run("cat", file, "--json").out.splitlines())
    assert header["header"]["version"] == 1
    assert body["body"]["session_id"] == failed


def test_without_json_it_is_laid_out_for_people(folder: Path, failed: str) -> None:
    (file,) = (folder / "sessions" / failed / "snapshots").glob("1.*.zst")
    assert run("cat", file).out.startswith('{\n  "header": {\n')


def test_a_missing_file_is_wrong_usage(folder: Path, failed: str) -> None:
    ran = run("cat", "nope.zst", "-s", folder)
    assert (ran.code, ran.out) == (2, "")
    assert "error: nope.zst is no file, neither here nor in the store" in ran.err


def test_a_folder_is_wrong_usage(folder: Path, failed: str) -> None:
    ran = run("cat", folder)
    assert ran.code == 2
    assert "is a folder" in ran.err


@pytest.mark.parametrize(
    "content", [b"mine", b"", b"\x28\xb5\x2f\xfd zstd", b"[1]", b'{"name": 1}', b"{broken"]
)
def test_a_stranger_s_file_is_wrong_usage(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.zst").write_bytes(content)
    ran = run("cat", tmp_path / "x.zst")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: x.zst is not a file of a store\n\nhint: ")


def test_a_file_of_a_store_that_was_overwritten_is_12(folder: Path, failed: str) -> None:
    (file,) = (folder / "sessions" / failed / "snapshots").glob("1.*.zst")
    file.write_bytes(b"\0" * 4096)
    ran = run("cat", file, "--json")
    assert (ran.code, ran.out) == (12, "")
    assert ran.error["type"] == "NotAMilepostFileError"


def test_a_damaged_file_is_12(folder: Path, failed: str) -> None:
    (file,) = (folder / "sessions" / failed / "snapshots").glob("1.*.zst")
    file.write_bytes(file.read_bytes()[:-3])
    ran = run("cat", file)
    assert ran.code == 12
    assert ran.err.startswith("error: ")


def test_a_name_with_control_characters_is_printed_safely(tmp_path: Path) -> None:
    ran = run("cat", tmp_path / "a\x1b[2Jb")
    assert ran.code == 2
    assert "\x1b" not in ran.err
