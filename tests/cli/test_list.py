from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
import pytest

import milepost
from support.commands import on_terminal, run

if TYPE_CHECKING:
    from pathlib import Path


def test_one_line_a_session_the_latest_first(folder: Path, failed: str, interrupted: str) -> None:
    ran = run("list", "-s", folder)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["crawl", "interrupted", "41%"],
        ["places", "failed", "all"],
    ]
    assert "1 of 3 batches, 2 items" in lines[0]
    assert "3 of 4 batches (1 failed), 16 items (2 failed)" in lines[1]
    assert all(line.endswith(" ago") for line in lines)


def test_json_is_one_object(folder: Path, failed: str, interrupted: str) -> None:
    told = run("list", "-s", folder, "--json").json
    assert told["store"] == str(folder)
    assert [each["name"] for each in told["sessions"]] == ["crawl", "places"]
    assert [each["status"] for each in told["sessions"]] == ["interrupted", "failed"]
    assert told["sessions"][1]["batches"] == {
        "pending": 0,
        "processing": 0,
        "completed": 3,
        "failed": 1,
    }


def test_an_unreadable_session_says_why_and_stops_nothing(
    folder: Path, failed: str, interrupted: str
) -> None:
    for part in ("sessions", "backups"):
        for file in (folder / part).rglob(f"{failed}/**/*.zst"):
            file.write_bytes(b"nothing")
    ran = run("list", "-s", folder)
    assert ran.code == 12
    lines = ran.out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("crawl ")
    assert lines[1].startswith("places  unreadable ")
    assert "no snapshot of this session can be read" in lines[1]
    told = run("list", "-s", folder, "--json").json
    assert told["sessions"][1]["status"] == "unreadable"
    assert told["sessions"][1]["batches"] is None


def test_an_empty_store_says_so_on_stderr_only(store: milepost.Store, folder: Path) -> None:
    with store.session("s"):
        pass
    for file in sorted((folder / "sessions").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    ran = run("list", "-s", folder)
    assert (ran.code, ran.out) == (0, "")
    assert "no session yet" in ran.err
    assert run("list", "-s", folder, "--json").json["sessions"] == []


def test_without_a_store_it_says_that_milepost_is_off(here: Path) -> None:
    assert "OFF" not in run("list").err
    (here / "milepost.toml").write_text("\nenabled = false")
    ran = run("list")
    assert ran.code == 10
    assert "error: there is no store at " in ran.err
    assert f"hint: milepost is OFF (enabled = false in {here / 'milepost.toml'}:2)" in ran.err
    told = run("list", "--json", env={"MILEPOST_ENABLED": "0"}).error
    assert "(enabled = false in $MILEPOST_ENABLED)" in told["hint"]


def test_names_of_all_kinds_are_listed(store: milepost.Store, folder: Path) -> None:
    names = {"지역-수집", "a/b", "CON", "two words", "x" * 300}
    for name in names:
        store.save_state(name, 1)
    told = run("list", "-s", folder, "--json").json
    assert {each["name"] for each in told["sessions"]} == names


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are a thing of Unix")
def test_on_a_terminal_long_names_are_shortened(store: milepost.Store, folder: Path) -> None:
    name = "서울특별시 지역별 장소 수집 " * 9
    with store.session(name, total_batches=3) as session:
        session.start_batch("b").complete()
    for columns in (60, 80, 120):
        (line,) = on_terminal("list", "-s", folder, columns=columns).out.splitlines()
        assert columns - 1 <= milepost.text_width(click.unstyle(line)) <= columns
        assert line.startswith("서울")
        assert "1 of 3 batches" in line
        assert line.endswith(" ago")
    assert name in run("list", "-s", folder).out


def test_a_newer_store_is_13(folder: Path, failed: str) -> None:
    import hashlib

    marker = folder / "MILEPOST"
    text = marker.read_text().partition("checksum: ")[0].replace("format: 1", "format: 99")
    checksum = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    marker.write_text(f"{text}checksum: {checksum}\n")
    ran = run("list", "-s", folder, "--json")
    assert (ran.code, ran.out) == (13, "")
    assert ran.error["type"] == "UnsupportedVersionError"
    assert ran.error["facts"]["found"] == 99


def test_json_says_what_happened_and_what_to_type(
    folder: Path, dead: str, failed: str, elsewhere: str
) -> None:
    told = {each["name"]: each for each in run("list", "-s", folder, "--json").json["sessions"]}
    assert told[dead]["next_command"] == f"milepost run places.py --store {folder}"
    assert [each["item"] for each in told[dead]["in_flight"]] == ["f"]
    assert [each["item"] for each in told[dead]["suspects"]] == ["f"]
    assert told[dead]["recovery"] is None
    assert told[failed]["last_error"]["batch"] == "b3"
    assert told[elsewhere]["writer"]["host"] == "desk"
    assert told[elsewhere]["status"] == "running"


def test_growing_work_is_listed_as_the_least_that_it_is(folder: Path, growing: str) -> None:
    (line,) = run("list", "-s", folder).out.splitlines()
    assert "at most 40%  1 of at least 5 items (1 failed)" in line
    (told,) = run("list", "-s", folder, "--json").json["sessions"]
    assert told["items"]["growing"] is True
