"""A job under a watcher, where everything is killed at random moments until all work is done.

- What is killed: the job, the watcher, both and then a recovery in progress.
- Every item is worked on; one that the store says is done is never worked on again.
- The failing batches fail as they should, and all counts are exactly right in the end.

The limit of deaths in a row is raised, because these deaths are random and nobody's fault.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import milepost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")

ROUNDS = int(os.environ.get("MILEPOST_TEST_ROUNDS", "12"))
"""How often something is killed; `make crash` asks for more."""
ITEMS_A_BATCH = 100
BATCHES = int(os.environ.get("MILEPOST_TEST_ROUND_BATCHES", "12"))
"""With 50 it is a job of 5,000 items."""
FAILING = {2: 10, 5: 0, 9: 99}
"""Number of a failing batch to the item that raises in it."""

JOB = f"""
import os, time
import milepost

side = os.open(os.environ["CAMPAIGN_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
tracker = milepost.TrackerConfig(checkpoint_interval_seconds=0.05, sync_interval_seconds=0.01)
store = milepost.Store(tracker=tracker, config=milepost.StoreConfig(max_state_history=2))
failing = {FAILING!r}

@milepost.job("campaign", batches=range({BATCHES}), workers=4, store=store)
def campaign(batch):
    with batch.items(range({ITEMS_A_BATCH})) as items:
        for item in items:
            os.write(side, f"{{batch.key}}/{{item}}\\n".encode())
            while (batch.number, item) == ({BATCHES - 1}, {ITEMS_A_BATCH - 1}):
                if os.path.exists(os.environ["CAMPAIGN_GATE"]):
                    break  # the last item of all waits until there was enough killing
                time.sleep(0.01)
            if failing.get(batch.number) == item:
                raise ValueError("this item is wrong")
            time.sleep(float(os.environ["CAMPAIGN_PAUSE"]))
"""


class Campaign:
    """A store, a log, a watcher and its job."""

    def __init__(self, folder: Path) -> None:
        self.store = milepost.Store(folder / "store", config=milepost.StoreConfig())
        self.log = folder / "log"
        self.log.touch()
        (folder / "work.py").write_text(JOB)
        self.folder = folder
        self._environment = {
            **os.environ,
            "MILEPOST_STORE": self.store.path,
            "MILEPOST_MAX_RECOVERY_ATTEMPTS": "100000",
            "MILEPOST_RECOVERY_DELAY_SECONDS": "0",
            "CAMPAIGN_LOG": str(self.log),
            "CAMPAIGN_GATE": str(folder / "gate"),
            "CAMPAIGN_PAUSE": str(0.0005 if ROUNDS < 50 else 0.02),
        }
        self.watcher: subprocess.Popen[bytes] | None = None
        self._output = (folder / "output").open("wb")

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "milepost_cli", *arguments],
            cwd=self.folder,
            env=self._environment,
            stdout=self._output,
            stderr=self._output,
        )

    def watch(self) -> None:
        self.watcher = self.start("recover", "work.py", "--watch", "--jobs", "1")

    def kill_watcher(self) -> None:
        if self.watcher is not None:
            self.watcher.kill()
            self.watcher.wait()
            self.watcher = None

    def kill_job(self) -> None:
        """Kill the process that writes the session, if one does."""
        writer = self.store.view("campaign").writer
        if writer is not None and writer["alive"] and writer["pid"] != os.getpid():
            try:
                os.kill(writer["pid"], signal.SIGKILL)
            except ProcessLookupError:
                return

    def lines(self) -> list[str]:
        return self.log.read_text().split()

    def acknowledged(self) -> set[str]:
        """What the store says is done."""
        state = self.store.load_progress("campaign")
        done = {
            f"{number}/{item}"
            for number in state.completed_batches
            for item in range(ITEMS_A_BATCH)
        }
        begun = [*state.active_batches.values(), *state.pending_batches.values()]
        begun += [failed.partial_progress for failed in state.failed_batches.values()]
        for batch in begun:
            done |= {f"{batch.batch_number}/{key}" for key in (*batch.done, *batch.finished)}
        return done

    def has_ended(self) -> bool:
        return self.store.view("campaign").judgement.status is milepost.SessionStatus.FAILED

    def close(self) -> None:
        self.kill_watcher()
        self.kill_job()
        self._output.close()


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Campaign]:
    found = Campaign(tmp_path)
    yield found
    found.close()


def test_everything_is_killed_and_all_is_done(campaign: Campaign) -> None:
    rng = random.Random(ROUNDS)
    first = campaign.start("run", "work.py")
    _wait_for_lines(campaign, 5)
    first.kill()
    first.wait()
    campaign.watch()
    acknowledged: set[str] = set()
    for _ in range(ROUNDS):
        before = campaign.acknowledged()
        assert before >= acknowledged, "what was acknowledged stays so"
        acknowledged, read = before, len(campaign.lines())
        _wait_for_lines(campaign, read + rng.randrange(1, 40))
        what = rng.choice(["job", "job", "watcher", "recovery"])
        if what == "job":
            campaign.kill_job()
        elif what == "watcher":
            campaign.kill_watcher()
            campaign.watch()
        else:
            _kill_a_recovery(campaign, rng)
        again = acknowledged & set(campaign.lines()[read:])
        assert not again, f"acknowledged items were worked on again: {sorted(again)[:3]}"
        assert not campaign.has_ended()
    read = len(campaign.lines())
    acknowledged = campaign.acknowledged()
    (campaign.folder / "gate").touch()
    deadline = time.monotonic() + 120
    while not campaign.has_ended():
        assert time.monotonic() < deadline, "it came to no end"
        time.sleep(0.05)
    assert not acknowledged & set(campaign.lines()[read:])
    _check_the_end(campaign)


def _kill_a_recovery(campaign: Campaign, rng: random.Random) -> None:
    """Kill the watcher and its job, then a recovery of it in the middle."""
    campaign.kill_watcher()
    campaign.kill_job()
    recovery = campaign.start("recover")
    time.sleep(rng.random() * 0.6)
    recovery.kill()
    recovery.wait()
    campaign.watch()


def _wait_for_lines(campaign: Campaign, count: int) -> None:
    # Near the end there is little left to be written.
    deadline = time.monotonic() + 2
    while len(campaign.lines()) < count and time.monotonic() < deadline:
        time.sleep(0.005)


def _check_the_end(campaign: Campaign) -> None:
    expected = {
        f"{batch}/{item}"
        for batch in range(BATCHES)
        for item in range(FAILING[batch] + 1 if batch in FAILING else ITEMS_A_BATCH)
    }
    wrong = {f"{batch}/{item}" for batch, item in FAILING.items()}
    assert set(campaign.lines()) == expected
    assert campaign.acknowledged() == expected - wrong
    state = campaign.store.load_progress("campaign")
    assert milepost.check(state) == []
    assert sorted(state.failed_batches) == sorted(FAILING)
    assert len(state.completed_batches) == BATCHES - len(FAILING)
    sums = state.session_statistics
    assert sums.total_items_processed == len(expected) - len(wrong)
    assert (sums.total_items_failed, sums.total_items_skipped) == (len(wrong), 0)
    assert sums.total_batches_completed == len(state.completed_batches)
    assert sums.total_batches_failed == len(FAILING)
