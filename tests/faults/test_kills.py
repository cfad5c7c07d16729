"""Real programs, killed by SIGKILL at random moments until they come to their end.

- Every item is worked on; one that the store says is done is never worked on again.
- What is worked on again was in flight at a kill: at most one item a worker.
- A run after the end works on nothing.

Snapshots and rotations happen all the time, so that kills hit them too. What was acknowledged is
read from the store after each kill; what was worked on, from a log that the items append to.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

import milepost
from support.campaigns import Campaign

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")

KILLS = int(os.environ.get("MILEPOST_TEST_KILLS", "25"))
"""How often each program is killed; `make crash` asks for more."""
ITEMS_A_KILL = 16
WORKERS = 4
ITEMS_A_BATCH = 9

_OPENING = """
import os, sys, time
import milepost

path, log, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
side = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
store = milepost.Store(
    path,
    config=milepost.StoreConfig(max_state_history=2),
    tracker=milepost.TrackerConfig(checkpoint_interval_seconds=0.01, sync_interval_seconds=0.003),
    # These deaths are random: an item that dies often in a row is none the worse for it.
    recovery=milepost.RecoveryConfig(max_recovery_attempts=1_000_000),
)

def work(text):
    os.write(side, f"{text}\\n".encode())
    time.sleep(0.0005)
"""

LOOP = (
    _OPENING
    + """
for item in milepost.resume(range(count), "killed", store=store, progress=False):
    work(item)
"""
)

JOB = (
    _OPENING
    + f"""
@milepost.job("killed", batches=range(count), workers={WORKERS}, store=store)
def job(batch):
    with batch.items(range({ITEMS_A_BATCH})) as items:
        for item in items:
            work(f"{{batch.key}}/{{item}}")

result = job.run(progress=False)
sys.exit(result.exit_code)
"""
)


class Program(NamedTuple):
    """What runs.

    Attributes:
        text: The script.
        workers: How many items are in hand at once.
        size: How many items or batches it is told to work on.
        items: All items, as they stand in the log.
    """

    text: str
    workers: int
    size: int
    items: list[str]


def _loop() -> Program:
    count = 2 * KILLS * ITEMS_A_KILL
    return Program(LOOP, 1, count, [str(number) for number in range(count)])


def _job() -> Program:
    count = 2 * KILLS * ITEMS_A_KILL // ITEMS_A_BATCH
    every = [f"{batch}/{item}" for batch in range(count) for item in range(ITEMS_A_BATCH)]
    return Program(JOB, WORKERS, count, every)


class Field:
    """A store, a log, and the program that is let loose on them."""

    def __init__(self, folder: Path, program: Program) -> None:
        self.program = program
        self.path = str(folder / "store")
        self.log = str(folder / "log")
        self._command = [sys.executable, "-c", program.text, self.path, self.log]
        self._command.append(str(program.size))
        (folder / "log").touch()

    def worked_on(self) -> list[str]:
        with open(self.log, encoding="ascii") as file:
            return file.read().split()

    def acknowledged(self) -> set[str]:
        """What the store says is done."""
        store = milepost.Store(self.path)
        if not store.exists() or "killed" not in store.names():
            return set()
        view = store.view("killed")
        assert not view.is_lossy, view.findings
        state = view.state
        is_loop = self.program.workers == 1
        done: set[str] = set()
        for number, completed in state.completed_batches.items():
            assert is_loop or completed.items_processed == ITEMS_A_BATCH
            if not is_loop:
                done |= {f"{number}/{item}" for item in range(ITEMS_A_BATCH)}
            elif completed.progress is not None:
                done |= _done_in(completed.progress, "")
        for number, active in state.active_batches.items():
            done |= _done_in(active, "" if is_loop else f"{number}/")
        return done

    def kill_one(self, rng: random.Random) -> None:
        """Start it, let it work on a few items, kill it at some moment."""
        size = os.path.getsize(self.log)
        wanted = size + rng.randrange(0, 6 * ITEMS_A_KILL)
        process = subprocess.Popen(self._command)
        try:
            while process.poll() is None and os.path.getsize(self.log) < wanted:
                time.sleep(0.0005)
            time.sleep(rng.random() * 0.005)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == -signal.SIGKILL, "it came to its end before it was killed"

    def run(self) -> None:
        subprocess.run(self._command, check=True, timeout=120)


def _done_in(batch: milepost.ActiveBatch, prefix: str) -> set[str]:
    return {f"{prefix}{key}" for key in (*batch.done, *batch.finished)}


@pytest.mark.parametrize("program", [_loop(), _job()], ids=["loop", "job"])
def test_killed_again_and_again(tmp_path: Path, program: Program) -> None:
    field = Field(tmp_path, program)
    rng = random.Random(program.workers)
    campaign = Campaign(program.workers)
    for _ in range(KILLS):
        field.kill_one(rng)
        campaign.after_kill(field.worked_on(), field.acknowledged())
    field.run()
    log = field.worked_on()
    campaign.at_end(log, field.acknowledged(), set(program.items))

    field.run()
    assert field.worked_on() == log, "a run after the end works on nothing"
