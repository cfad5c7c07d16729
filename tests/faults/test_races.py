"""Never two writers: many processes after one session, and others that look as fast as they can.

`MILEPOST_TEST_RACES` and `MILEPOST_TEST_STARTS` make it longer.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest

import milepost

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

RACERS = 8
ROUNDS = int(os.environ.get("MILEPOST_TEST_RACES", "12"))
STARTS = int(os.environ.get("MILEPOST_TEST_STARTS", "60"))
ITEMS = 5
PATIENCE_SECONDS = 120.0

OPENING = """
import itertools, json, os, sys, time
import milepost
path, who = sys.argv[1:]
store = milepost.Store(
    path,
    tracker=milepost.TrackerConfig(sync_interval_seconds=30.0),
    recovery=milepost.RecoveryConfig(max_recovery_attempts=1_000_000),
)
def tell(**facts):
    print(json.dumps(facts), flush=True)
"""

# Every round: make the session ready, open it, acknowledge items, die with it in hand.
RACER = (
    OPENING
    + f"""
service = milepost.RecoveryService(store)
tell()
for number in map(int, sys.stdin):
    began = time.monotonic()
    facts = {{"number": number, "recovered": False, "epoch": 0, "acknowledged": [], "refusal": ""}}
    try:
        service.recover("race")
        facts["recovered"] = True
    except (milepost.AlreadyLockedError, milepost.SupersededError):
        pass  # somebody else has it
    except milepost.RecoveryError as error:
        if "needs no recovery: a process is writing it" not in str(error):
            raise
    try:
        session = store.session("race")
    except milepost.AlreadyLockedError as error:
        facts["refusal"] = str(error)
    else:
        facts["held_from"] = time.monotonic()
        facts["epoch"] = session.epoch
        batch = session.start_batch("only")
        for index in range({ITEMS}):
            key = f"{{who}}/{{number}}/{{index}}"
            batch.update_item(key, milepost.ItemStatus.COMPLETED)
            facts["acknowledged"].append(key)
        facts["held_until"] = time.monotonic()
        session.supersede()  # as a kill leaves it: no end, no snapshot
    tell(**facts)
"""
)

PROBE = (
    OPENING
    + """
seen = {}
tell()
for count in itertools.count():
    found = store.presence("race") if count % 4 else store.view("race").judgement.status
    seen[found.value] = seen.get(found.value, 0) + 1
    if count == 20:
        tell()
    if os.path.exists(f"{path}.over"):
        break
tell(seen=seen)
"""
)

# Opens and closes again and again: nobody else writes, so nobody may refuse it.
STARTER = (
    OPENING
    + """
tell()
for number in map(int, sys.stdin):
    with store.session("race") as session:
        session.set_data(number)
    tell(epoch=session.epoch)
"""
)


class Told(msgspec.Struct):
    """What a racer says of one round."""

    number: int = 0
    recovered: bool = False
    epoch: int = 0
    acknowledged: list[str] = []
    refusal: str = ""
    held_from: float = 0.0
    held_until: float = 0.0


class Runner(NamedTuple):
    """A process that does something at each line it is told."""

    process: subprocess.Popen[bytes]

    def say(self, number: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"%d\n" % number)
        self.process.stdin.flush()

    def hear(self) -> bytes:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.wait(PATIENCE_SECONDS)
        return line


@contextmanager
def running(script: str, path: Path, who: str) -> Generator[Runner]:
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path), who],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield Runner(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(PATIENCE_SECONDS) == 0
        finally:
            process.kill()


@contextmanager
def probed(path: Path, count: int) -> Generator[None]:
    """Processes that look as fast as they can."""
    with ExitStack() as stack:
        probes = [stack.enter_context(running(PROBE, path, "probe")) for _ in range(count)]
        for each in probes:
            each.hear()
            each.hear()  # in full swing
        try:
            yield
        finally:
            path.with_name(f"{path.name}.over").touch()
        for each in probes:
            assert b"seen" in each.hear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store whose session was killed with a batch in hand."""
    path = tmp_path / "store"
    session = milepost.Store(path).session("race")
    session.start_batch("only")
    session.supersede()
    return path


def test_many_processes_recover_one_session_and_one_at_a_time_writes_it(path: Path) -> None:
    with ExitStack() as stack:
        racers = [stack.enter_context(running(RACER, path, str(n))) for n in range(RACERS)]
        for each in racers:
            each.hear()
        stack.enter_context(probed(path, 1))
        told: list[Told] = []
        for number in range(ROUNDS):
            for each in racers:
                each.say(number)
            heard = [msgspec.json.decode(each.hear(), type=Told) for each in racers]
            assert any(each.epoch for each in heard), "somebody got it"
            told += heard

    turns = sorted((each for each in told if each.epoch), key=lambda each: each.held_from)
    epochs = [each.epoch for each in turns]
    assert epochs == sorted(set(epochs)), "each turn has a higher number than those before it"
    for one, next_one in itertools.pairwise(turns):
        assert one.held_until <= next_one.held_from, "two held it at once"
    assert any(each.recovered for each in told)
    for round_ in told:
        assert bool(round_.epoch) != ("is being written by process" in round_.refusal)

    acknowledged = [key for each in told for key in each.acknowledged]
    assert len(acknowledged) == len(turns) * ITEMS
    view = milepost.Store(path).view("race")
    batch = view.state.active_batches[0]
    there = [*batch.done, *batch.finished]
    assert sorted(map(str, there)) == sorted(acknowledged)
    assert view.state.session_statistics.total_items_processed == len(acknowledged)
    assert not view.is_lossy
    assert [each.rule for each in view.findings if each.is_error] == []


def test_looks_never_refuse_a_starter(path: Path) -> None:
    with running(STARTER, path, "starter") as starter, probed(path, 3):
        starter.hear()
        for number in range(STARTS):
            starter.say(number)
            starter.hear()
    assert milepost.Store(path).load_state("race") == STARTS - 1
