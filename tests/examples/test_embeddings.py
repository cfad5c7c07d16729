"""Each line is embedded once, in chunks, and a killed run carries on to the same bytes."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING

import pytest

from support.scripts import EXAMPLES, command, kill_when, run, started, state_of

if TYPE_CHECKING:
    from pathlib import Path

ROW_BYTES = 4 * 64
STORE = ".milepost"
LINES = 5_000


def write_text(path: Path, *, count: int = LINES) -> list[str]:
    """Numbered lines of the example data."""
    places = (EXAMPLES / "data" / "regions.tsv").read_text("utf-8").splitlines()
    lines = [f"{number} {places[number % len(places)]}\n" for number in range(count)]
    path.write_text("".join(lines), "utf-8")
    return lines


def test_row_n_is_line_n(tmp_path: Path) -> None:
    lines = write_text(tmp_path / "text.txt")
    done = run(command("embeddings.py", "text.txt", "vectors"), tmp_path)
    assert done.returncode == 0, done.stderr
    data = (tmp_path / "vectors").read_bytes()
    assert len(data) == LINES * ROW_BYTES
    rows = [data[start : start + ROW_BYTES] for start in range(0, len(data), ROW_BYTES)]
    for number in (0, 1, 255, 256, LINES - 1):
        # Each group of three letters is counted once, up or down.
        groups = len(lines[number].rstrip("\n")) - 2
        assert sum(abs(value) for value in array("f", rows[number])) % 2 == groups % 2
        alone = tmp_path / str(number)
        alone.mkdir()
        (alone / "text.txt").write_text(lines[number], "utf-8")
        # A store of its own: the one above would be found.
        words = command("embeddings.py", "text.txt", "vectors")
        assert run(words, alone, MILEPOST_STORE=str(alone / STORE)).returncode == 0
        assert (alone / "vectors").read_bytes() == rows[number]
    # Different lines hardly ever meet in all 64 places.
    assert len(set(rows)) > LINES * 0.95

    again = run(command("embeddings.py", "text.txt", "vectors"), tmp_path)
    assert again.returncode == 0, again.stderr
    assert "complete since" in again.stderr
    assert (tmp_path / "vectors").read_bytes() == data


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_killed_run_carries_on(tmp_path: Path) -> None:
    lines = write_text(tmp_path / "text.txt")
    whole = tmp_path / "whole"
    whole.mkdir()
    assert run(command("embeddings.py", "../text.txt", "vectors"), whole).returncode == 0

    # Each time a pipe gives the script some lines and lets it wait for the rest until it is killed.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    acknowledged = 0
    for given in (700, 1_900, 1_950, 4_000):
        with (
            started(command("embeddings.py", "pipe", "vectors"), tmp_path) as process,
            # Opened both ways, so that it does not wait for a script that never comes to read.
            open(os.open(pipe, os.O_RDWR), "w", encoding="utf-8") as feed,
        ):
            feed.writelines(lines[:given])
            feed.flush()
            wanted = acknowledged + (given - acknowledged) // 256 * 256
            state = kill_when(
                process,
                tmp_path / STORE,
                "embeddings",
                lambda state, wanted=wanted: state.total_items_processed >= wanted,  # type: ignore[misc]
            )
        acknowledged = state.total_items_processed
        assert acknowledged <= given
        # What a kill tore off is cut back by the next run.
        assert (tmp_path / "vectors").stat().st_size >= acknowledged * ROW_BYTES
        with (tmp_path / "vectors").open("ab") as vectors:
            vectors.write(b"half a row")

    done = run(command("embeddings.py", "text.txt", "vectors"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"resumed after its process died with {acknowledged:,} items done" in done.stderr
    assert (tmp_path / "vectors").read_bytes() == (whole / "vectors").read_bytes()
    latest = state_of(tmp_path / STORE, "embeddings").executions[-1]
    assert latest.items_processed == LINES - acknowledged


def test_another_text_is_refused(tmp_path: Path) -> None:
    lines = write_text(tmp_path / "text.txt", count=1_000)
    assert run(command("embeddings.py", "text.txt", "vectors"), tmp_path).returncode == 0
    (tmp_path / "text.txt").write_text("".join(["another\n", *lines[1:]]), "utf-8")
    done = run(command("embeddings.py", "text.txt", "vectors"), tmp_path)
    assert done.returncode == 1
    assert "does not begin with the 1,000 items that it began with" in done.stderr
    assert (tmp_path / "vectors").stat().st_size == 1_000 * ROW_BYTES
