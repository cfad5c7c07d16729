"""Real deaths under real watchers: work always comes to an end, and nobody else's is touched.

What a job's process dies of is a signal that it sends itself, or memory that it is refused. Asking
for more than the limit (`RLIMIT_AS`) does not kill by itself: Python raises `MemoryError`, an error
like any other. What kills is native code that has no answer to the refusal and aborts. Here that is
watchfiles, asked to copy a text for which there is no room: a SIGABRT out of the allocator. (A
container's limit kills by SIGKILL, which is the first kind.)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

import pytest

import milepost
from support.watching import AT_ONCE, Told, program, turns, wait_until, watch_to_the_end, watching

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")

BATCHES = 40
KILLER = "17"
KILLED = "os.kill(os.getpid(), 9)"
REFUSED = "refused_memory()"
JOB = """
import os, resource, sys
import milepost, watchfiles

text = "x" * (48 << 20)

def refused_memory():
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20), used + (24 << 20)))
    next(watchfiles.watch(text))

@milepost.job("work", batches=range({batches}), workers={workers})
def job(batch):
    with open("log", "a") as file:
        file.write(batch.key + " ")
    if batch.key == "{killer}":
        {death}

sys.exit(job.run(progress=False).exit_code)
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> milepost.Store:
    monkeypatch.chdir(tmp_path)
    return milepost.Store(tmp_path / "store", recovery=AT_ONCE)


def job(folder: Path, death: str, workers: int) -> tuple[str, ...]:
    text = JOB.format(batches=BATCHES, workers=workers, killer=KILLER, death=death)
    return program(folder, text, "job.py")


# Poison.

deaths = pytest.mark.parametrize(
    ("death", "words"),
    [
        (KILLED, "killed by SIGKILL"),
        pytest.param(
            REFUSED,
            "killed by SIGABRT",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's here"),
        ),
    ],
    ids=["killed", "refused memory"],
)
crews = pytest.mark.parametrize("workers", [1, 4])


def expect_one_poisoned(store: milepost.Store, words: str, limit: int) -> None:
    state = store.load_progress("work")
    assert state.outcome is milepost.Outcome.FAILED
    assert len(state.completed_batches) == BATCHES - 1
    (failed,) = state.failed_batches.values()
    assert failed.batch_id == KILLER
    assert not failed.is_recoverable
    often = "1 time" if limit == 1 else f"{limit} times"
    assert f"poison: its process died {often} in a row" in failed.error_message
    assert words in failed.error_message
    assert not state.suspects
    with open("log") as file:
        ran = file.read().split()
    assert ran.count(KILLER) in {limit, limit + 1}, "alone, and once beside others"
    for key in map(str, range(BATCHES)):
        assert ran.count(key) >= 1


@deaths
@crews
def test_a_batch_that_kills_its_process_each_time_ends_as_poison_under_supervision(
    store: milepost.Store, tmp_path: Path, death: str, words: str, workers: int
) -> None:
    service = milepost.RecoveryService(store, AT_ONCE)
    supervisor = milepost.Supervisor(service, job(tmp_path, death, workers), report=Told())
    assert supervisor.run() == 3
    expect_one_poisoned(store, words, limit=3)


@deaths
@crews
def test_and_under_a_watcher(
    store: milepost.Store, tmp_path: Path, death: str, words: str, workers: int
) -> None:
    store.session("work", execute=False).close()
    target = milepost.Target("work", job(tmp_path, death, workers))
    rows, told = watch_to_the_end(store, target)
    assert (rows["work"].doing, rows["work"].exit_code) == ("fine", 3)
    assert not told.of("gave_up")
    expect_one_poisoned(store, words, limit=3)


@crews
def test_it_holds_for_a_limit_of_one(store: milepost.Store, tmp_path: Path, workers: int) -> None:
    config = milepost.RecoveryConfig(max_recovery_attempts=1, recovery_delay_seconds=0)
    service = milepost.RecoveryService(milepost.Store(store.path, recovery=config), config)
    supervisor = milepost.Supervisor(service, job(tmp_path, KILLED, workers), report=Told())
    assert supervisor.run() == 3
    expect_one_poisoned(store, "killed by SIGKILL", limit=1)


TOGETHER = """
import os, sys, threading
import milepost

both = threading.Barrier(2)
with open("runs", "a+") as file:
    file.write("x")
    file.seek(0)
    run = len(file.read())

@milepost.job("work", batches=range(4), workers=2)
def job(batch):
    if batch.number < 2:
        if run == 1:
            both.wait()
        os.kill(os.getpid(), 9)

sys.exit(job.run(progress=False).exit_code)
"""


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("who", ["supervisor", "watcher"])
def test_two_killers_in_hand_at_once_are_both_found_before_it_would_be_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str, limit: int
) -> None:
    monkeypatch.chdir(tmp_path)
    config = milepost.RecoveryConfig(max_recovery_attempts=limit, recovery_delay_seconds=0)
    store = milepost.Store(tmp_path / "store", recovery=config)
    command = program(tmp_path, TOGETHER)
    if who == "supervisor":
        service = milepost.RecoveryService(store, config)
        assert milepost.Supervisor(service, command, report=Told()).run() == 3
    else:
        store.session("work", execute=False).close()
        target = milepost.Target("work", command)
        rows, _ = watch_to_the_end(store, target, config=config)
        assert rows["work"].exit_code == 3
    state = store.load_progress("work")
    assert sorted(state.failed_batches) == [0, 1]
    assert sorted(state.completed_batches) == [2, 3]
    assert (tmp_path / "runs").read_text() == "x" * (1 + 2 * limit + 1)


def test_several_killers_are_all_found(store: milepost.Store, tmp_path: Path) -> None:
    death = f"pass\n    if batch.number in (3, 4, 5, 17, 39): {KILLED}"
    service = milepost.RecoveryService(store, AT_ONCE)
    supervisor = milepost.Supervisor(service, job(tmp_path, death, 4), report=Told())
    assert supervisor.run() == 3
    state = store.load_progress("work")
    assert sorted(state.failed_batches) == [3, 4, 5, 17, 39]
    assert len(state.completed_batches) == BATCHES - 5


# A watcher that is killed.

WATCHER = """
import json, sys
import milepost

store = milepost.Store(sys.argv[1], recovery=milepost.RecoveryConfig(recovery_delay_seconds=0))
target = milepost.Target("*", tuple(sys.argv[2:]))

def report(notice):
    print(json.dumps([notice.event, notice.session, notice.pid, notice.message]), flush=True)

milepost.Watcher(milepost.RecoveryService(store), [target], jobs=4, report=report).run()
"""
SLOW = """
import os, time
import milepost

for item in milepost.resume(range(400), os.environ["MILEPOST_SESSION"], progress=False):
    print("written to where the watcher wrote", flush=True)
    while item >= 20 and not os.path.exists("go"):
        time.sleep(0.01)
"""


class Killable:
    """A watcher in a process of its own, which ends with the block at the latest."""

    def __init__(self, folder: Path, store: milepost.Store, name: str) -> None:
        self._notices = folder / f"{name}.txt"
        work = program(folder, SLOW, "slow.py")
        with self._notices.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WATCHER, store.path, *work], stdout=output, stderr=output
            )

    def notices(self) -> list[Any]:
        lines = self._notices.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("[")]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()


def test_a_killed_watcher_leaves_its_children_at_work_and_the_next_leaves_them_alone(
    store: milepost.Store, tmp_path: Path
) -> None:
    store.session("work", execute=False).close()
    with Killable(tmp_path, store, "first") as first:
        wait_until(lambda: any(event == "started" for event, *_ in first.notices()))
        pid = next(pid for event, _, pid, _ in first.notices() if event == "started")
        wait_until(lambda: store.load_progress("work").items_finished > 0)
    before = turns(store)
    # Its child works on, and its output has somewhere to go.
    wait_until(lambda: store.load_progress("work").items_finished >= 20)
    os.kill(pid, 0)
    with Killable(tmp_path, store, "second") as second:
        wait_until(lambda: len(second.notices()) >= 2)
        assert second.notices()[1][3].endswith("a process is writing it")
        assert turns(store) == before
        assert first.process.returncode == -signal.SIGKILL
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: any(event == "started" for event, *_ in second.notices()))
        (tmp_path / "go").touch()
        wait_until(lambda: any(event == "ended" for event, *_ in second.notices()))
    state = store.load_progress("work")
    assert state.outcome is milepost.Outcome.COMPLETED
    assert state.items_finished == 400


def test_by_hand_and_by_watcher_at_once_never_work_on_the_same(
    store: milepost.Store, tmp_path: Path
) -> None:
    """Whoever is quicker has it; each death is followed, and nothing acknowledged runs again."""
    text = (
        "import os, sys, time\n"
        "import milepost\n"
        "log = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
        "for item in milepost.resume(range(300), 'work', progress=False):\n"
        "    os.write(log, f'{item}\\n'.encode())\n"
        "    time.sleep(0.002)\n"
    )
    command = program(tmp_path, text)
    environment = {**os.environ, "MILEPOST_STORE": store.path}
    store.save_state("settings", 1)
    by_hand: list[subprocess.Popen[bytes]] = []
    with watching(store, milepost.Target("work", command)) as found:
        for kills in range(1, 6):
            by_hand.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
            wanted = kills * 40
            wait_until(lambda wanted=wanted: _done(store) >= wanted)  # type: ignore[misc]
            _kill_writer(store)
        wait_until(lambda: store.load_progress("work").outcome is not None)
        for process in by_hand:
            process.wait()
        assert not found.told.of("gave_up")
    with open("log") as file:
        ran = file.read().split()
    assert set(ran) == {str(item) for item in range(300)}
    assert len(ran) - 300 <= 5, "at most what was in hand at a kill runs again"


def _kill_writer(store: milepost.Store) -> None:
    """Kill whoever works; our own process is the one that makes ready in between."""
    while True:
        writer = store.view("work").writer
        assert writer is not None
        if writer["alive"] and writer["pid"] != os.getpid():
            os.kill(writer["pid"], signal.SIGKILL)
            return


def _done(store: milepost.Store) -> int:
    try:
        return store.load_progress("work").items_finished
    except LookupError:
        return 0
