"""The fifteen-line script embeds each line once, and carries on where it was killed."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING

import pytest

from support.scripts import command, kill_when, run, started, state_of

if TYPE_CHECKING:
    from pathlib import Path

ROW_BYTES = 4 * 64
STORE = ".milepost"


def lines_of(count: int) -> list[str]:
    return [f"{number} 서울특별시 종로구 {number % 7}가\n" for number in range(count)]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(lines_of(2_000)), "utf-8")
    return path


def test_row_n_is_line_n(tmp_path: Path, text: Path) -> None:
    done = run(command("embed.py", str(text), "vectors"), tmp_path)
    assert done.returncode == 0, done.stderr
    data = (tmp_path / "vectors").read_bytes()
    rows = [data[start : start + ROW_BYTES] for start in range(0, len(data), ROW_BYTES)]
    assert len(rows) == 2_000
    for number in (0, 1, 999, 1_999):
        # Each group of three letters is counted once, up or down.
        line = lines_of(2_000)[number].rstrip("\n")
        assert sum(abs(value) for value in array("f", rows[number])) % 2 == (len(line) - 2) % 2
        assert any(array("f", rows[number]))
    # Different lines hardly ever meet in all 64 places.
    assert len(set(rows)) > 1_900

    again = run(command("embed.py", str(text), "vectors"), tmp_path)
    assert again.returncode == 0, again.stderr
    assert "complete since" in again.stderr
    assert (tmp_path / "vectors").read_bytes() == data


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_killed_run_carries_on(tmp_path: Path, text: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    assert run(command("embed.py", str(text), "vectors"), whole).returncode == 0

    # A pipe gives the script the first 300 lines and lets it wait for the rest, until it is killed.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with (
        started(command("embed.py", str(pipe), "vectors"), tmp_path) as process,
        # Opened both ways, so that it does not wait for a script that never comes to read.
        open(os.open(pipe, os.O_RDWR), "w", encoding="utf-8") as feed,
    ):
        feed.writelines(lines_of(2_000)[:300])
        feed.flush()
        state = kill_when(
            process, tmp_path / STORE, "embed", lambda state: state.total_items_processed >= 300
        )
    assert state.total_items_processed == 300
    assert (tmp_path / "vectors").stat().st_size == 300 * ROW_BYTES

    done = run(command("embed.py", str(text), "vectors"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resumed after its process died with 300 items done" in done.stderr
    assert (tmp_path / "vectors").read_bytes() == (whole / "vectors").read_bytes()
    assert state_of(tmp_path / STORE, "embed").executions[-1].items_processed == 1_700
