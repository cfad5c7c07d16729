"""Work in every shape, killed by SIGKILL at random moments until it comes to its end.

The promises are those of `test_kills`, for maps in threads, tasks and processes, jobs of coroutine
functions, chunks, positions and work that grows; and what is written through an output has one row
for each acknowledged item, after every kill and in the end.
"""

from __future__ import annotations

import gzip
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import pytest
import zstandard

import milepost
from support.campaigns import Campaign

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")

KILLS = int(os.environ.get("MILEPOST_TEST_SHAPE_KILLS", "25"))
"""How often each program is killed; `make crash` asks for more."""
COUNT = 100 * (KILLS + 1)
BYTES_A_KILL = 96
WORKERS = 4
CHUNK = 7
ITEMS_A_BATCH = 5

_OPENING = f"""
import asyncio, os, sys, time
import milepost

path, log, rows, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
out = None

def note(text):
    side = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)  # in whatever process this is
    os.write(side, f"{{text}}\\n".encode())
    os.close(side)

def work(item):
    note(item)
    time.sleep(0.0005)
    return item

async def work_async(item):
    note(item)
    await asyncio.sleep(0.0005)
    return item

def children(number):
    return [each for each in (2 * number + 1, 2 * number + 2) if each < count]

def row(item):
    out.write(f"{{item}}\\n")

def work_and_write(item):
    work(item)
    row(item)

async def work_and_write_async(item):
    await work_async(item)
    row(item)

WORKERS, CHUNK, ITEMS_A_BATCH = {WORKERS}, {CHUNK}, {ITEMS_A_BATCH}
store = milepost.Store(
    path,
    config=milepost.StoreConfig(max_state_history=2),
    tracker=milepost.TrackerConfig(
        checkpoint_interval_seconds=0.01, sync_interval_seconds=0.003
    ),
    # These deaths are random: an item that dies often in a row is none the worse for it.
    recovery=milepost.RecoveryConfig(max_recovery_attempts=1_000_000),
)
same = {{"store": store, "progress": False}}
"""

THREADS = """
if __name__ == "__main__":
    mapped = milepost.map(work_and_write, range(count), "killed", workers=WORKERS, **same)
    out = mapped.open(rows)
    for item, _ in mapped:
        pass
"""
POSITIONS_IN_THREADS = """
if __name__ == "__main__":
    lines = [str(number) for number in range(count)]
    mapped = milepost.map(work, lines, "killed", workers=WORKERS, key="position", **same)
    out = mapped.open(rows)
    for item, _ in mapped:
        row(item)
"""
TASKS = """
if __name__ == "__main__":
    async def main():
        global out
        mapped = milepost.map(work_and_write_async, range(count), "killed", workers=WORKERS, **same)
        async with mapped:
            out = mapped.open(rows)
            async for item, _ in mapped:
                pass
    asyncio.run(main())
"""
PROCESSES = """
if __name__ == "__main__":
    mapped = milepost.map(
        work, range(count), "killed", workers=WORKERS, executor="processes", **same
    )
    out = mapped.open(rows)
    for item, _ in mapped:
        row(item)
"""
LOKY = """
if __name__ == "__main__":
    import loky

    mapped = milepost.map(
        work,
        range(count),
        "killed",
        workers=WORKERS,
        executor=lambda: loky.get_reusable_executor(WORKERS),
        **same,
    )
    out = mapped.open(rows)
    for item, _ in mapped:
        row(item)
"""
JOB_IN_PROCESSES = """
@milepost.job(
    "killed",
    batches=range(count // ITEMS_A_BATCH),
    workers=WORKERS,
    store=store,
    executor="processes",
)
def job(batch):
    outcomes = []
    for key, item in batch.todo(range(ITEMS_A_BATCH)):
        work(f"{batch.key}/{item}")
        outcomes.append((key, milepost.ItemStatus.COMPLETED))
    return outcomes

if __name__ == "__main__":
    sys.exit(job.run(progress=False).exit_code)
"""
ASYNC_JOB = """
if __name__ == "__main__":
    @milepost.job(
        "killed", batches=range(count // ITEMS_A_BATCH), workers=WORKERS, store=store
    )
    async def job(batch):
        async with batch.items(range(ITEMS_A_BATCH)) as items:
            out = items.open(rows)
            async for item in items:
                await work_async(f"{batch.key}/{item}")
                out.write(f"{batch.key}/{item}\\n")

    sys.exit(job.run(progress=False).exit_code)
"""
GROWING_JOB = """
if __name__ == "__main__":
    @milepost.job("killed", batches=["site"], store=store)
    async def job(batch):
        global out
        batch.add(0)
        mapped = batch.map(work_async, workers=WORKERS)
        out = mapped.open(rows)
        async for number, _ in mapped:
            batch.add_many(children(number))
            row(number)

    sys.exit(job.run(progress=False).exit_code)
"""
GROWING_LOOP = """
if __name__ == "__main__":
    items = milepost.resume([0], "killed", **same)
    out = items.open(rows)
    for number in items:
        items.add_many(children(number))
        work_and_write(number)
"""
CHUNKS = """
if __name__ == "__main__":
    chunks = milepost.resume(range(count), "killed", chunk=CHUNK, **same)
    out = chunks.open(rows)
    for chunk in chunks:
        for item in chunk:
            work_and_write(item)
"""
POSITIONS = """
if __name__ == "__main__":
    lines = (str(number) for number in range(count))
    chunks = milepost.resume(lines, "killed", chunk=CHUNK, key="position", **same)
    out = chunks.open(rows)
    for chunk in chunks:
        for item in chunk:
            work_and_write(item)
"""


class Program(NamedTuple):
    """What runs.

    Attributes:
        text: The script, behind what all of them begin with.
        in_hand: How many items may be in hand at once: of a map, twice as many as run.
        output: The file its rows go to.
        has_batches: Whether its items are known by batch and item.
        writes_rows: Whether it writes any: in an executor, the function of a job does not.
    """

    text: str
    in_hand: int
    output: str = "rows.txt"
    has_batches: bool = False
    writes_rows: bool = True

    @property
    def items(self) -> set[str]:
        """All items, as they stand in the log."""
        if not self.has_batches:
            return {str(number) for number in range(COUNT)}
        batches = range(COUNT // ITEMS_A_BATCH)
        return {f"{batch}/{item}" for batch in batches for item in range(ITEMS_A_BATCH)}


PROGRAMS = {
    "map in threads": Program(THREADS, 2 * WORKERS),
    "map in threads by position": Program(POSITIONS_IN_THREADS, 2 * WORKERS),
    "map in tasks": Program(TASKS, 2 * WORKERS, "rows.zst"),
    "map in processes": Program(PROCESSES, 2 * WORKERS),
    "map in loky": Program(LOKY, 2 * WORKERS),
    "job in processes": Program(
        JOB_IN_PROCESSES, WORKERS * ITEMS_A_BATCH, has_batches=True, writes_rows=False
    ),
    "async job": Program(ASYNC_JOB, WORKERS, "rows.gz", has_batches=True),
    "growing async job": Program(GROWING_JOB, 2 * WORKERS),
    "growing loop": Program(GROWING_LOOP, 1, "rows.gz"),
    "chunks": Program(CHUNKS, CHUNK),
    "chunks by position": Program(POSITIONS, CHUNK, "rows.zst"),
}


class Field:
    """A store, a log, an output, and the program that is let loose on them."""

    def __init__(self, folder: Path, program: Program) -> None:
        self.program = program
        self.path = str(folder / "store")
        self.log = folder / "log"
        self.output = folder / program.output
        script = folder / "program.py"
        script.write_text(_OPENING + program.text)
        self._command = [sys.executable, str(script), self.path, str(self.log)]
        self._command += [str(self.output), str(COUNT)]
        self.log.touch()

    def worked_on(self) -> list[str]:
        return self.log.read_text().split()

    def state(self) -> milepost.SessionState | None:
        store = milepost.Store(self.path)
        if not store.exists() or "killed" not in store.names():
            return None
        view = store.view("killed")
        assert not [each for each in view.findings if each.rule != "torn-tail"], view.findings
        return view.state

    def acknowledged(self) -> set[str]:
        """What the store says is done."""
        state = self.state()
        if state is None:
            return set()
        size = ITEMS_A_BATCH if self.program.has_batches else COUNT
        for completed in state.completed_batches.values():
            assert completed.items_processed == size
        begun = {**state.active_batches, **state.pending_batches}
        done: set[str] = set()
        for number in (*begun, *state.completed_batches):
            prefix = f"{number}/" if self.program.has_batches else ""
            batch = begun.get(number)
            done |= {f"{prefix}{i}" for i in range(size) if batch is None or batch.is_done(i)}
        return done

    def rows(self) -> Counter[str]:
        """The rows that the store says are acknowledged, as they stand in the output."""
        state = self.state()
        if state is None or not state.outputs:
            return Counter()
        (known,) = state.outputs.values()
        data = self.output.read_bytes() if known.length_bytes else b""
        assert len(data) >= known.length_bytes
        return Counter(unpacked(data[: known.length_bytes], self.program.output))

    def check_rows(self) -> None:
        """The rows are those of what is acknowledged."""
        if self.program.writes_rows:
            assert self.rows() == Counter(self.acknowledged())

    def kill_one(self, rng: random.Random) -> None:
        """Start it, let it work on a few items, kill it at some moment."""
        wanted = os.path.getsize(self.log) + rng.randrange(0, BYTES_A_KILL)
        # Its workers hold the pipe, too: at the end of it all of them are gone.
        process = subprocess.Popen(self._command, stdout=subprocess.PIPE, start_new_session=True)
        try:
            while process.poll() is None and os.path.getsize(self.log) < wanted:
                time.sleep(0.0005)
            time.sleep(rng.random() * 0.005)
        finally:
            process.kill()
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        assert process.returncode == -signal.SIGKILL, "it came to its end before it was killed"

    def run(self) -> None:
        subprocess.run(self._command, check=True, timeout=120)


def unpacked(data: bytes, name: str) -> list[str]:
    """The rows in the bytes of an output."""
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    elif name.endswith(".zst"):
        reader = zstandard.ZstdDecompressor().stream_reader(BytesIO(data), read_across_frames=True)
        data = reader.read()
    return data.decode().split()


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_killed_again_and_again(tmp_path: Path, program: Program) -> None:
    field = Field(tmp_path, program)
    rng = random.Random(program.text)
    campaign = Campaign(program.in_hand)
    for _ in range(KILLS):
        field.kill_one(rng)
        campaign.after_kill(field.worked_on(), field.acknowledged())
        field.check_rows()
    field.run()
    log = field.worked_on()
    campaign.at_end(log, field.acknowledged(), program.items)
    if program.writes_rows:
        written = unpacked(field.output.read_bytes(), program.output)
        assert Counter(written) == Counter(program.items), "each item has one row"

    field.run()
    assert field.worked_on() == log, "a run after the end works on nothing"
