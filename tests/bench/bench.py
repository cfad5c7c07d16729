"""Measures what milepost costs, against the plain way and against what one would use instead.

    make bench
    python tests/bench/bench.py --quick

- Everybody does the same work in turn, round after round, so that a machine that slows down slows
  all of them; medians of the rounds are compared, and min and max say how noisy it was.
- The work is on the disk that holds the temporary folder; set TMPDIR to measure another one.
- Only the standard library and the package are needed.
"""

from __future__ import annotations

import argparse
import base64
import gc
import gzip
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

import milepost

if TYPE_CHECKING:
    from collections.abc import Callable

    from milepost.types import Durability

Run: TypeAlias = "Callable[[Path], float]"
"""Does its work once in an empty folder of its own and returns the seconds for one operation."""

COMPLETED: Final = milepost.ItemStatus.COMPLETED
ITEMS: Final = 10_000
CHANGED: Final = ITEMS // 100
HISTORY: Final = 10
LOOP: Final = "milepost.resume(range(n)), whole loop"
RECORD: Final = b"x" * 46
"""As long as the record of one update of a place, its frame included."""


class Contender(NamedTuple):
    """One way to do the work.

    Attributes:
        name: What the table calls it.
        run: Does it.
    """

    name: str
    run: Run


class Contest(NamedTuple):
    """A piece of work and the ways to do it; the first one is ours.

    Attributes:
        title: What the work is.
        unit: `"ms"` for a duration, `"/s"` for a rate.
        contenders: Who does it.
        aim: Says what was aimed at and whether the medians (by name) reach it.
    """

    title: str
    unit: str
    contenders: list[Contender]
    aim: Callable[[dict[str, float]], str]


class Item(msgspec.Struct):
    """An item as the earlier design kept it, and as a row of a table."""

    item_id: str
    status: str = "Completed"
    start_time: str = "2025-01-01T00:00:00.000000Z"
    end_time: str = "2025-01-01T00:00:01.000000Z"
    retry_count: int = 0
    error_message: str | None = None


def keys(count: int) -> list[str]:
    """Keys as places have them."""
    return [f"place-{number:07}" for number in range(count)]


def parts(count: int) -> list[list[str]]:
    """What changes in each of so many saves: another hundredth of the items each time."""
    names = keys(ITEMS)
    return [names[start : start + CHANGED] for start in range(0, count * CHANGED, CHANGED)]


def timed(work: Callable[[], object], operations: int = 1) -> float:
    """Seconds for one operation; what other work left to collect is none of this one's time."""
    gc.collect()
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) / operations


# Updates, one at a time.


def ours(count: int, durability: Durability) -> Run:
    """`update_item` in a session."""

    def run(folder: Path) -> float:
        store = milepost.Store(folder / "store")
        with store.session("bench", total_batches=1, durability=durability) as session:
            batch = session.start_batch("only", items_total=count)
            update, names = batch.update_item, keys(count)

            def work() -> None:
                for name in names:
                    update(name, COMPLETED)

            return timed(work, count)

    return run


def loop(count: int) -> Run:
    """The whole of `for item in milepost.resume(...)`, opening and closing included."""

    def run(folder: Path) -> float:
        def work() -> None:
            for _ in milepost.resume(range(count), "bench", store=folder / "store", progress=False):
                pass

        return timed(work, count)

    return run


def raw_writes(count: int, *, sync: bool) -> Run:
    """The same bytes appended to a file by the system's own call."""

    def run(folder: Path) -> float:
        descriptor = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def work() -> None:
            for _ in range(count):
                os.write(descriptor, RECORD)
                if sync:
                    os.fdatasync(descriptor)

        try:
            return timed(work, count)
        finally:
            os.close(descriptor)

    return run


def open_table(folder: Path) -> sqlite3.Connection:
    """SQLite as it is set up for work that must not be lost."""
    connection = sqlite3.connect(folder / "items.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(
        "CREATE TABLE items (item_id TEXT PRIMARY KEY, status TEXT, start_time TEXT,"
        " end_time TEXT, retry_count INTEGER, error_message TEXT) WITHOUT ROWID"
    )
    return connection


UPSERT: Final = (
    "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (item_id) DO UPDATE SET"
    " status = excluded.status, end_time = excluded.end_time"
)


def sqlite_rows(count: int) -> Run:
    """One row upserted in a transaction of its own."""

    def run(folder: Path) -> float:
        connection = open_table(folder)
        rows = [msgspec.structs.astuple(Item(name)) for name in keys(count)]

        def work() -> None:
            for row in rows:
                connection.execute(UPSERT, row)

        try:
            return timed(work, count)
        finally:
            connection.close()

    return run


# Saving one item in a hundred.


def save_ours(saves: int) -> Run:
    """The changed items in one record, durable on return."""

    def run(folder: Path) -> float:
        store = milepost.Store(folder / "store")
        with store.session("bench", total_batches=1) as session:
            batch = session.start_batch("only", items_total=ITEMS)
            batch.update_items([(name, milepost.ItemStatus.PENDING) for name in keys(ITEMS)])
            session.flush()

            def work() -> None:
                for changed in parts(saves):
                    batch.update_items([(name, COMPLETED) for name in changed])
                    session.flush()

            return timed(work, saves)

    return run


def save_earlier(saves: int) -> Run:
    """The whole state as JSON, gzip and base64 in a new row; old rows deleted; a backup file.

    Its JSON comes from msgspec, which is about as quick as the compiled code of that design.
    """

    def run(folder: Path) -> float:
        connection = sqlite3.connect(folder / "states.sqlite", isolation_level=None)
        connection.execute(
            "CREATE TABLE batch_states (session_id TEXT, state_version INTEGER, state_data TEXT,"
            " compressed BOOLEAN, created_at DATETIME, PRIMARY KEY (session_id, state_version))"
        )
        items = {name: Item(name, status="Pending") for name in keys(ITEMS)}

        def work() -> None:
            for version, changed in enumerate(parts(saves), 1):
                for name in changed:
                    items[name].status = "Completed"
                save_whole(connection, folder, items, version=version)

        try:
            return timed(work, saves)
        finally:
            connection.close()

    return run


def save_whole(
    connection: sqlite3.Connection, folder: Path, items: dict[str, Item], *, version: int
) -> None:
    """One save of the earlier design."""
    packed = gzip.compress(msgspec.json.encode(items), compresslevel=6)
    data = base64.b64encode(packed).decode()
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "INSERT INTO batch_states VALUES ('bench', ?, ?, TRUE, CURRENT_TIMESTAMP)", (version, data)
    )
    connection.execute(
        "DELETE FROM batch_states WHERE session_id = 'bench' AND state_version NOT IN (SELECT"
        " state_version FROM batch_states WHERE session_id = 'bench' ORDER BY state_version DESC"
        " LIMIT ?)",
        (HISTORY,),
    )
    (folder / f"batch_state_bench_{version}.json").write_text(data)
    connection.execute("COMMIT")


def save_rows(saves: int) -> Run:
    """The changed rows in one transaction."""

    def run(folder: Path) -> float:
        connection = open_table(folder)
        fill(connection)

        def work() -> None:
            for changed in parts(saves):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(
                    UPSERT, [msgspec.structs.astuple(Item(name)) for name in changed]
                )
                connection.execute("COMMIT")

        try:
            return timed(work, saves)
        finally:
            connection.close()

    return run


def fill(connection: sqlite3.Connection) -> None:
    """Put all items in."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(UPSERT, [msgspec.structs.astuple(Item(name)) for name in keys(ITEMS)])
    connection.execute("COMMIT")


# Loading.


def load_ours(*, after_kill: bool) -> Run:
    """`Store.load_progress`: from a snapshot, or after a kill from the journal alone."""

    def run(folder: Path) -> float:
        store = milepost.Store(folder / "store")
        with store.session("bench", total_batches=1) as session:
            batch = session.start_batch("only", items_total=ITEMS)
            for name in keys(ITEMS):
                batch.update_item(name, COMPLETED)
            if after_kill:
                # What a kill would leave at this moment.
                shutil.copytree(folder / "store", folder / "killed")
        fresh = milepost.Store(folder / ("killed" if after_kill else "store"))

        def work() -> None:
            state = fresh.load_progress("bench")
            assert len(state.active_batches[0].finished) == ITEMS  # noqa: S101 - or it timed nothing

        return timed(work)

    return run


def load_rows(folder: Path) -> float:
    """All rows of a table, made into objects."""
    connection = open_table(folder)
    fill(connection)
    connection.close()

    def work() -> None:
        again = sqlite3.connect(folder / "items.sqlite")
        items = {row[0]: Item(*row) for row in again.execute("SELECT * FROM items")}
        again.close()
        assert len(items) == ITEMS  # noqa: S101 - or it timed nothing

    return timed(work)


def load_earlier(folder: Path) -> float:
    """The newest row of the earlier design, unpacked and parsed."""
    connection = sqlite3.connect(folder / "states.sqlite", isolation_level=None)
    connection.execute(
        "CREATE TABLE batch_states (session_id TEXT, state_version INTEGER, state_data TEXT,"
        " compressed BOOLEAN, created_at DATETIME, PRIMARY KEY (session_id, state_version))"
    )
    save_whole(connection, folder, {name: Item(name) for name in keys(ITEMS)}, version=1)
    connection.close()

    def work() -> None:
        again = sqlite3.connect(folder / "states.sqlite")
        (data,) = again.execute(
            "SELECT state_data FROM batch_states ORDER BY state_version DESC LIMIT 1"
        ).fetchone()
        again.close()
        text = gzip.decompress(base64.b64decode(data))
        items = msgspec.json.decode(text, type=dict[str, Item])
        assert len(items) == ITEMS  # noqa: S101 - or it timed nothing

    return timed(work)


# The contests.


def contests(*, quick: bool) -> list[Contest]:
    """All of them, in the order of the table."""
    durable, surviving, saves = (20, 2_000, 3) if quick else (300, 30_000, 20)
    disk, process = 'milepost, durability="disk"', 'milepost, durability="process"'
    full, earlier = "SQLite rows, WAL, synchronous=FULL", "earlier design: JSON, gzip, base64"
    saved, loaded = "milepost", "milepost, from a snapshot"
    return [
        Contest(
            "an update that survives a power cut, one at a time",
            "ms",
            [
                Contender(disk, ours(durable, "disk")),
                Contender("raw append and fdatasync", raw_writes(durable, sync=True)),
                Contender(full, sqlite_rows(durable)),
            ],
            lambda medians: verdict(
                medians[disk] <= medians[full],
                "on a par with SQLite FULL",
                f"{medians[full] / medians[disk]:.1f} times its speed",
            ),
        ),
        Contest(
            "updates that survive kill -9, each acknowledged",
            "/s",
            [
                Contender(process, ours(surviving, "process")),
                Contender(LOOP, loop(surviving)),
                Contender("raw os.write", raw_writes(surviving, sync=False)),
            ],
            lambda medians: verdict(
                1 / medians[process] >= 100_000,
                "100,000 a second",
                f"{1 / medians[process]:,.0f}; the loop adds {medians[LOOP] * 1e6:.1f} us an item",
            ),
        ),
        Contest(
            f"saving {CHANGED} changed items of {ITEMS:,}, durable",
            "ms",
            [
                Contender(saved, save_ours(saves)),
                Contender(earlier, save_earlier(saves)),
                Contender(full, save_rows(saves)),
            ],
            lambda medians: verdict(
                medians[earlier] >= 20 * medians[saved],
                "20 times the speed of the earlier design",
                f"{medians[earlier] / medians[saved]:.0f} times",
            ),
        ),
        Contest(
            f"loading {ITEMS:,} items",
            "ms",
            [
                Contender(loaded, load_ours(after_kill=False)),
                Contender("milepost, after a kill", load_ours(after_kill=True)),
                Contender("SQLite rows", load_rows),
                Contender(earlier, load_earlier),
            ],
            lambda medians: verdict(
                medians[loaded] <= medians["SQLite rows"],
                "no slower than SQLite rows",
                f"{medians['SQLite rows'] / medians[loaded]:.1f} times their speed",
            ),
        ),
    ]


def verdict(reached: bool, aim: str, measured: str) -> str:  # noqa: FBT001 - read as a sentence
    """One line about an aim."""
    return f"aim: {aim}: {'reached' if reached else 'MISSED'} ({measured})"


def measure(contest: Contest, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Everybody in turn, round after round, beginning with another one each time."""
    results: dict[str, list[float]] = {each.name: [] for each in contest.contenders}
    for number in range(rounds):
        shift = number % len(contest.contenders)
        for each in contest.contenders[shift:] + contest.contenders[:shift]:
            own = Path(tempfile.mkdtemp(dir=folder))
            results[each.name].append(each.run(own))
            shutil.rmtree(own)
    return results


def told(seconds: float, unit: str) -> str:
    """A duration or a rate, as the table shows it."""
    return f"{seconds * 1e3:.3f}" if unit == "ms" else f"{1 / seconds:,.0f}"


def show(contest: Contest, results: dict[str, list[float]]) -> None:
    """A contest's part of the table."""
    medians = {name: statistics.median(values) for name, values in results.items()}
    first = next(iter(medians.values()))
    print(f"\n{contest.title}")
    print(f"  {'':40}{'median ' + contest.unit:>14}{'min - max':>22}{'milepost is':>16}")
    for name, values in results.items():
        slowest, fastest = told(max(values), contest.unit), told(min(values), contest.unit)
        ends = (fastest, slowest) if contest.unit == "ms" else (slowest, fastest)
        ratio = "" if medians[name] == first else f"{medians[name] / first:.2f}x as fast"
        print(
            f"  {name:40}{told(medians[name], contest.unit):>14}{' - '.join(ends):>22}{ratio:>16}"
        )
    print(f"  {contest.aim(medians)}")


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Measures what milepost costs.")
    parser.add_argument("--quick", action="store_true", help="a short run, to see that it works")
    parser.add_argument("--rounds", type=int, default=0, help="9 unless told")
    options = parser.parse_args()
    rounds: int = options.rounds or (2 if options.quick else 9)
    with tempfile.TemporaryDirectory(prefix="milepost-bench-") as temporary:
        folder = Path(temporary)
        version = sys.version.split()[0]
        print(f"Python {version}, {os.cpu_count()} CPUs, {rounds} rounds, in {folder.parent}")
        for contest in contests(quick=options.quick):
            show(contest, measure(contest, rounds, folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
