"""An output is exactly as far as its session is, whatever a crash left of either.

A writer is killed in the middle, then files are spoiled as a power cut or somebody would, and the
work is carried on.
"""

from __future__ import annotations

import gzip
import signal
from typing import TYPE_CHECKING

import pytest
import zstandard

import milepost
from milepost.errors import ConfigurationError, DamagedError
from milepost.session import contents
from support.faults import die, in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ITEMS = list("abcdefgh")
WHOLE = b"".join(f"{item}\n".encode() for item in ITEMS)


def store_at(folder: Path) -> milepost.Store:
    return milepost.Store(folder / "store")


def work(
    folder: Path,
    *,
    name: str = "rows.txt",
    at: Callable[[str, milepost.Session], None] | None = None,
) -> list[str]:
    """Write a row for each item that is left; returns the items."""
    seen: list[str] = []
    session = store_at(folder).session("crawl", total_batches=1)
    with session, session.start_batch("only").items(ITEMS) as items:
        out = items.open(folder / name)
        for item in items:
            if at is not None:
                at(item, session)
            seen.append(item)
            out.write(f"{item}\n")
    return seen


def killed(folder: Path, *, flushed_at: str = "d", name: str = "rows.txt") -> Path:
    """What a writer leaves that was killed with `g` in hand, after a sync with another in hand."""

    def at(item: str, session: milepost.Session) -> None:
        if item == "a":
            # The background thread must not sync more than was asked for.
            session._writer.sync_behind = lambda: None  # type: ignore[method-assign]
        if item == flushed_at:
            session.flush()
        if item == "g":
            die()

    def body(_tell: Callable[[bytes], None]) -> None:
        work(folder, name=name, at=at)

    assert in_child(body).signal == signal.SIGKILL
    return folder / name


def rows_synced(folder: Path) -> int:
    """How many rows the journal says to be on the disk."""
    (journal,) = (folder / "store" / "sessions" / "crawl" / "journal").iterdir()
    told = list(contents.of(journal.read_bytes(), journal.name))
    through = max(each["sequence"] for each in told if each["event"] == "SyncedThrough")
    return sum(bool(each.get("rows")) and each["sequence"] <= through for each in told)


def done(folder: Path) -> list[str]:
    batch = store_at(folder).load_progress("crawl").active_batches[0]
    return [item for item in ITEMS if batch.is_done(item)]


@pytest.mark.parametrize("tail", [b"", b"g", b"g\nh\n" * 99_999], ids=["none", "some", "much"])
def test_what_stands_behind_the_acknowledged_rows_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    rows = killed(tmp_path)
    assert rows.read_bytes() == b"a\nb\nc\nd\ne\nf\n"
    rows.write_bytes(rows.read_bytes() + tail)
    assert work(tmp_path) == ["g", "h"]
    assert rows.read_bytes() == WHOLE


@pytest.mark.parametrize(
    ("rest", "left"),
    [
        (WHOLE[:11], "abcde"),
        (WHOLE[:10] + bytes(2), "abcde"),
        (WHOLE[:8], "abcd"),
        (WHOLE[:6] + bytes(6), "abc"),
        (WHOLE[:6] + bytes(4) + WHOLE[10:12], "abc"),
    ],
    ids=["cut", "zeros", "two cut", "all that was not synced", "a hole"],
)
def test_events_whose_rows_a_power_cut_took_are_a_torn_tail(
    tmp_path: Path, rest: bytes, left: str
) -> None:
    rows = killed(tmp_path)
    assert rows_synced(tmp_path) == 3
    rows.write_bytes(rest)
    view = store_at(tmp_path).view("crawl")
    assert [(each.rule, each.is_error) for each in view.findings] == [("rows-missing", False)]
    assert "rows.txt" in view.findings[0].message
    assert done(tmp_path) == list(left)
    assert work(tmp_path) == ITEMS[len(left) :]
    assert rows.read_bytes() == WHOLE


@pytest.mark.parametrize("rest", [b"a\nb\n", WHOLE[:10] + b"x\n", None])
def test_rows_that_were_synced_and_are_not_there_are_damage(
    tmp_path: Path, rest: bytes | None
) -> None:
    rows = killed(tmp_path, flushed_at="g")
    assert rows_synced(tmp_path) == 6
    data = rows.read_bytes()
    rows.unlink()
    if rest is not None:
        rows.write_bytes(rest)
    assert store_at(tmp_path).view("crawl").findings == []
    with pytest.raises(DamagedError, match=r"rows\.txt"):
        work(tmp_path)
    assert rows.exists() is (rest is not None)
    # Put back, it goes on.
    rows.write_bytes(data)
    assert work(tmp_path) == ["g", "h"]
    assert rows.read_bytes() == WHOLE


def test_a_file_of_somebody_elses_is_not_appended_to(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("mine\n")
    with pytest.raises(ConfigurationError, match="did not write"):
        work(tmp_path)
    assert (tmp_path / "rows.txt").read_text() == "mine\n"


@pytest.mark.parametrize("name", ["rows.gz", "rows.zst"])
def test_a_compressed_output_is_whole_after_each_acknowledgement(tmp_path: Path, name: str) -> None:
    rows = killed(tmp_path, name=name)

    def unpacked() -> bytes:
        data = rows.read_bytes()
        if name.endswith(".gz"):
            return gzip.decompress(data)
        reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
        return reader.read()

    assert unpacked() == b"a\nb\nc\nd\ne\nf\n"
    assert work(tmp_path, name=name) == ["g", "h"]
    assert unpacked() == WHOLE
