"""The class with a loop of its own loads each place once, and goes on where it was killed."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from support.scripts import EXAMPLES, command, kill_when, run, started, state_of

if TYPE_CHECKING:
    from pathlib import Path

STORE = ".milepost"
TARGET = "places.sqlite3"


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    """The first dozen regions, in a file as well."""
    all_lines = (EXAMPLES / "data" / "regions.tsv").read_text("utf-8").splitlines(keepends=True)
    starts = [number for number, line in enumerate(all_lines) if _is_region(line)]
    lines = all_lines[: starts[12]]
    (tmp_path / "regions.tsv").write_text("".join(lines), "utf-8")
    return lines


def _is_region(line: str) -> bool:
    return len(line.partition("\t")[0]) == 5


def places(lines: list[str]) -> set[str]:
    return {line.partition("\t")[0] for line in lines if not _is_region(line)}


def loaded(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / TARGET)) as database:
        return [row[0] for row in database.execute("SELECT id FROM places")]


def test_it_loads_everything_once(tmp_path: Path, lines: list[str]) -> None:
    done = run(command("etl_class.py", "regions.tsv", TARGET), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{len(places(lines))} places of 12 regions; 0 regions failed\n"
    assert sorted(loaded(tmp_path)) == sorted(places(lines))
    with closing(sqlite3.connect(tmp_path / TARGET)) as database:
        name = database.execute("SELECT name FROM places WHERE id = '1111010100'").fetchone()[0]
    assert name == "서울특별시 종로구 청운동"

    sequence = state_of(tmp_path / STORE, "etl").total_items_processed
    again = run(command("etl_class.py", "regions.tsv", TARGET), tmp_path)
    assert again.returncode == 0, again.stderr
    assert state_of(tmp_path / STORE, "etl").total_items_processed == sequence


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_killed_run_carries_on(tmp_path: Path, lines: list[str]) -> None:
    # A pipe gives the script some lines and lets it wait for the rest, until it is killed.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    given = places(lines[:200])
    with (
        started(command("etl_class.py", "pipe", TARGET), tmp_path) as process,
        open(os.open(pipe, os.O_RDWR), "w", encoding="utf-8") as feed,
    ):
        feed.writelines(lines[:200])
        feed.flush()
        state = kill_when(
            process, tmp_path / STORE, "etl", lambda state: state.items_finished >= len(given)
        )
    assert set(loaded(tmp_path)) == given
    regions = [line for line in lines[:200] if _is_region(line)]
    assert len(state.completed_batches) == len(regions) - 1
    assert len(state.active_batches) == 1
    # What counts as done is not loaded again, whatever became of it.
    with closing(sqlite3.connect(tmp_path / TARGET)) as database, database:
        database.execute("UPDATE places SET name = 'as it was'")

    done = run(command("etl_class.py", "regions.tsv", TARGET), tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(loaded(tmp_path)) == sorted(places(lines))
    with closing(sqlite3.connect(tmp_path / TARGET)) as database:
        kept = database.execute("SELECT id FROM places WHERE name = 'as it was'").fetchall()
    assert {row[0] for row in kept} == given
    latest = state_of(tmp_path / STORE, "etl").executions[-1]
    assert latest.items_processed == len(places(lines)) - len(given)


def test_a_place_that_fails_is_loaded_by_the_next_run(tmp_path: Path, lines: list[str]) -> None:
    with closing(sqlite3.connect(tmp_path / TARGET)) as database, database:
        database.execute("CREATE TABLE places (id PRIMARY KEY, name)")
        database.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON places WHEN NEW.id = '1111010200'"
            " BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )
    done = run(command("etl_class.py", "regions.tsv", TARGET), tmp_path)
    assert done.returncode == 3
    assert "1111010200: not this one" in done.stderr
    assert set(loaded(tmp_path)) == places(lines) - {"1111010200"}
    with closing(sqlite3.connect(tmp_path / TARGET)) as database, database:
        database.execute("DROP TRIGGER refuse")
    done = run(command("etl_class.py", "regions.tsv", TARGET), tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(loaded(tmp_path)) == places(lines)


def test_only_the_marked_lines_know_of_milepost() -> None:
    text = (EXAMPLES / "etl_class.py").read_text("utf-8")
    code = text[text.index("class RegionEtl") : text.index("def main")]
    for line in code.splitlines():
        if "session" in line or "batch" in line or "milepost" in line:
            assert "# milepost" in line or line.lstrip().startswith("def __init__"), line
