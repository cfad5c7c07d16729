"""Measures what milepost costs, against the plain way and against what one would use instead.

    make bench
    python tests/bench/bench.py --quick

- Everybody does the same work in turn, round after round, so that a machine that slows down slows
  all of them; medians of the rounds are compared, and min and max say how noisy it was.
- The work is on the disk that holds the temporary folder; set TMPDIR to measure another one.
- Only the standard library and the package are needed; tqdm is measured where it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import gzip
import importlib
import importlib.util
import io
import os
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

import milepost

if TYPE_CHECKING:
    from milepost.types import Durability

Run: TypeAlias = Callable[[Path], float]
"""Does its work once in an empty folder of its own and returns the seconds for one operation."""

COMPLETED: Final = milepost.ItemStatus.COMPLETED
ITEMS: Final = 10_000
HALF: Final = ITEMS // 2
CHANGED: Final = ITEMS // 100
HISTORY: Final = 10
RECORD: Final = b"x" * 46
"""As long as the record of one update of a place, its frame included."""
ROW: Final = '{"id": "place-0000001", "name": "' + "x" * 64 + '"}\n'
"""As long as a small row of JSON: 100 bytes."""
CHUNK: Final = 100


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
        unit: `"ms"` or `"us"` for a duration, `"/s"` for a rate.
        contenders: Who does it.
        aim: What was aimed at, in words.
        against: The contender that the aim speaks of; `""` for none.
        factor: How many times its speed is aimed at; without one, how many operations a second.
    """

    title: str
    unit: str
    contenders: list[Contender]
    aim: str
    against: str
    factor: float


class Item(msgspec.Struct):
    """An item as the earlier design kept it, and as a row of a table."""

    item_id: str
    status: str = "Pending"
    start_time: str | None = None
    end_time: str | None = None
    retry_count: int = 0
    error_message: str | None = None

    def complete(self, chance: random.Random) -> None:
        """Be done, at times that are as hard to compress as real ones."""
        start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=86_400 * chance.random())
        self.status = "Completed"
        self.start_time = start.isoformat()
        self.end_time = (start + timedelta(seconds=chance.random())).isoformat()


def some_items(*, done: int) -> dict[str, Item]:
    """All items, the first ones done."""
    chance = random.Random(7)
    items = {name: Item(name) for name in keys(ITEMS)}
    for name in keys(done):
        items[name].complete(chance)
    return items


def keys(count: int) -> list[str]:
    """Keys as places have them."""
    return [f"place-{number:07}" for number in range(count)]


def parts(count: int) -> list[list[Item]]:
    """What gets done in each of so many saves: another hundredth of the items each time."""
    items = list(some_items(done=ITEMS).values())[HALF:]
    return [items[start : start + CHANGED] for start in range(0, count * CHANGED, CHANGED)]


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


# Loops whose body does nothing.


def nothing(_item: int) -> None:
    """What the body does."""


def plain_loop(count: int) -> Run:
    """`for item in range(n)`."""

    def run(_folder: Path) -> float:
        def work() -> None:
            for item in range(count):
                nothing(item)

        return timed(work, count)

    return run


def with_tqdm(count: int) -> Run:
    """`for item in tqdm(range(n))`, its line thrown away."""

    def run(_folder: Path) -> float:
        tqdm = importlib.import_module("tqdm")  # it may not be there

        def work() -> None:
            for item in tqdm.tqdm(range(count), file=io.StringIO()):
                nothing(item)

        return timed(work, count)

    return run


def in_threads(count: int) -> Run:
    """The whole of a `milepost.map` in threads."""

    def run(folder: Path) -> float:
        def work() -> None:
            for _ in milepost.map(
                nothing, range(count), "bench", store=folder / "store", progress=False
            ):
                pass

        return timed(work, count)

    return run


def in_tasks(count: int) -> Run:
    """The whole of a `milepost.map` in tasks of an event loop."""

    async def coroutine(_item: int) -> None:
        pass

    def run(folder: Path) -> float:
        async def main() -> None:
            async for _ in milepost.map(
                coroutine, range(count), "bench", store=folder / "store", progress=False
            ):
                pass

        return timed(lambda: asyncio.run(main()), count)

    return run


# Rows.


def plain_rows(count: int) -> Run:
    """`file.write` in a plain loop."""

    def run(folder: Path) -> float:
        def work() -> None:
            with open(folder / "rows", "w", encoding="utf-8") as file:
                for _ in range(count):  # noqa: FURB122  # one at a time is what is measured
                    file.write(ROW)

        return timed(work, count)

    return run


def flushed_rows(count: int) -> Run:
    """The same, each row handed to the system: it survives kill -9 as ours do."""

    def run(folder: Path) -> float:
        def work() -> None:
            with open(folder / "rows", "w", encoding="utf-8") as file:
                for _ in range(count):
                    file.write(ROW)
                    file.flush()

        return timed(work, count)

    return run


def our_rows(count: int, *, chunk: int | None = None, name: str = "rows") -> Run:
    """Through `items.open`, a row an item; the whole loop."""

    def run(folder: Path) -> float:
        store = folder / "store"

        def each() -> None:
            items = milepost.resume(range(count), "bench", store=store, progress=False)
            out = items.open(folder / name)
            for _ in items:
                out.write(ROW)

        def chunks() -> None:
            items = milepost.resume(
                range(count), "bench", store=store, progress=False, chunk=chunk or 1
            )
            out = items.open(folder / name)
            for part in items:
                for _ in part:
                    out.write(ROW)

        return timed(each if chunk is None else chunks, count)

    return run


# Saving one item in a hundred.


def save_ours(saves: int) -> Run:
    """The changed items in one record, durable on return."""

    def run(folder: Path) -> float:
        store = milepost.Store(folder / "store")
        with store.session("bench", total_batches=1) as session:
            batch = session.start_batch("only", items_total=ITEMS)
            batch.update_items([(name, milepost.ItemStatus.PENDING) for name in keys(ITEMS)])
            batch.update_items([(name, COMPLETED) for name in keys(HALF)])
            session.flush()

            changes = parts(saves)

            def work() -> None:
                for changed in changes:
                    batch.update_items([(item.item_id, COMPLETED) for item in changed])
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
        items, changes = some_items(done=HALF), parts(saves)

        def work() -> None:
            for version, changed in enumerate(changes, 1):
                items.update((item.item_id, item) for item in changed)
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
        connection, changes = open_table(folder), parts(saves)
        fill(connection, list(some_items(done=HALF).values()))

        def work() -> None:
            for changed in changes:
                fill(connection, changed)

        try:
            return timed(work, saves)
        finally:
            connection.close()

    return run


def fill(connection: sqlite3.Connection, items: list[Item]) -> None:
    """Put these in, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(UPSERT, [msgspec.structs.astuple(item) for item in items])
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
            assert len(state.active_batches[0].finished) == ITEMS

        return timed(work)

    return run


def load_rows(folder: Path) -> float:
    """All rows of a table, made into objects."""
    connection = open_table(folder)
    fill(connection, list(some_items(done=ITEMS).values()))
    connection.close()

    def work() -> None:
        again = sqlite3.connect(folder / "items.sqlite")
        items = {row[0]: Item(*row) for row in again.execute("SELECT * FROM items")}
        again.close()
        assert len(items) == ITEMS

    return timed(work)


def load_earlier(folder: Path) -> float:
    """The newest row of the earlier design, unpacked and parsed."""
    connection = sqlite3.connect(folder / "states.sqlite", isolation_level=None)
    connection.execute(
        "CREATE TABLE batch_states (session_id TEXT, state_version INTEGER, state_data TEXT,"
        " compressed BOOLEAN, created_at DATETIME, PRIMARY KEY (session_id, state_version))"
    )
    save_whole(connection, folder, some_items(done=ITEMS), version=1)
    connection.close()

    def work() -> None:
        again = sqlite3.connect(folder / "states.sqlite")
        (data,) = again.execute(
            "SELECT state_data FROM batch_states ORDER BY state_version DESC LIMIT 1"
        ).fetchone()
        again.close()
        text = gzip.decompress(base64.b64decode(data))
        items = msgspec.json.decode(text, type=dict[str, Item])
        assert len(items) == ITEMS

    return timed(work)


# The contests.


def has_tqdm() -> bool:
    """Whether tqdm is installed."""
    return importlib.util.find_spec("tqdm") is not None


def contests(*, quick: bool) -> list[Contest]:
    """All of them, in the order of the table."""
    durable, surviving, saves = (20, 2_000, 3) if quick else (300, 30_000, 20)
    mapped = surviving // 10
    full, earlier = "SQLite rows, WAL, synchronous=FULL", "earlier design: JSON, gzip, base64"
    return [
        Contest(
            "an update that survives a power cut, one at a time",
            "ms",
            [
                Contender('milepost, durability="disk"', ours(durable, "disk")),
                Contender("raw append and fdatasync", raw_writes(durable, sync=True)),
                Contender(full, sqlite_rows(durable)),
            ],
            "on a par with SQLite FULL",
            full,
            1,
        ),
        Contest(
            "updates that survive kill -9, each acknowledged",
            "/s",
            [
                Contender('milepost, durability="process"', ours(surviving, "process")),
                Contender("milepost.resume(range(n)), whole loop", loop(surviving)),
                Contender("raw os.write", raw_writes(surviving, sync=False)),
            ],
            "100,000 a second",
            "",
            100_000,
        ),
        Contest(
            "an item whose body does nothing, the whole loop",
            "us",
            [
                Contender("milepost.resume", loop(surviving)),
                Contender("milepost.map, 8 threads", in_threads(mapped)),
                Contender("milepost.map, 8 tasks", in_tasks(mapped)),
                *([Contender("tqdm", with_tqdm(surviving))] if has_tqdm() else []),
                Contender("a plain loop", plain_loop(surviving)),
            ],
            "10 microseconds an item with resume",
            "",
            100_000,
        ),
        Contest(
            f"a row of {len(ROW)} bytes, an item each, the whole loop",
            "us",
            [
                Contender("milepost, items.open", our_rows(surviving)),
                Contender(f"the same, chunk={CHUNK}", our_rows(surviving, chunk=CHUNK)),
                Contender("the same, .gz", our_rows(mapped, name="rows.gz")),
                Contender("the same, .zst", our_rows(mapped, name="rows.zst")),
                Contender("file.write and flush in a plain loop", flushed_rows(surviving)),
                Contender("file.write in a plain loop", plain_rows(surviving)),
            ],
            "25,000 rows a second",
            "",
            25_000,
        ),
        Contest(
            f"a durable save of {CHANGED} changed items of {ITEMS:,}",
            "ms",
            [
                Contender("milepost", save_ours(saves)),
                Contender(earlier, save_earlier(saves)),
                Contender(full, save_rows(saves)),
            ],
            "20 times as fast as the earlier design",
            earlier,
            20,
        ),
        Contest(
            f"loading {ITEMS:,} items",
            "ms",
            [
                Contender("milepost, from a snapshot", load_ours(after_kill=False)),
                Contender("milepost, from the journal of a kill", load_ours(after_kill=True)),
                Contender("SQLite rows", load_rows),
                Contender(earlier, load_earlier),
            ],
            "as fast as SQLite rows",
            "SQLite rows",
            1,
        ),
    ]


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
    if unit == "us":
        return f"{seconds * 1e6:.2f}"
    return f"{seconds * 1e3:.3f}" if unit == "ms" else f"{1 / seconds:,.0f}"


def show(contest: Contest, results: dict[str, list[float]]) -> None:
    """A contest's part of the table."""
    medians = {name: statistics.median(values) for name, values in results.items()}
    first = medians[contest.contenders[0].name]
    print(f"\n{contest.title}")
    print(f"  {'':38}{'median ' + contest.unit:>12}{'slowest - fastest':>24}{'milepost is':>16}")
    for name, values in results.items():
        ends = f"{told(max(values), contest.unit)} - {told(min(values), contest.unit)}"
        times = medians[name] / first
        digits = 2 if times >= 0.1 else 4
        ratio = "" if times == 1 else f"{times:.{digits}f}x as fast"
        row = f"  {name:38}{told(medians[name], contest.unit):>12}{ends:>24}{ratio:>16}"
        print(row.rstrip())
    measured = medians[contest.against] / first if contest.against else 1 / first
    reached = "reached" if measured >= contest.factor else "MISSED"
    print(f"  aim: {contest.aim}: {reached}")


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
