"""Measures what watching costs, and how long work lies still after a death.

    make bench-recovery
    python tests/bench/watching.py --quick

- Idle: a watcher in a process of its own, over sessions in which nothing happens. Its CPU time is
  that of `resource.getrusage`, its children left out, over so many seconds after its first look.
- Death: from SIGKILL of a job to the first item that is newly acknowledged, by the clock that all
  processes share; beside it, in the same rounds, what an interpreter needs to start and import.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import milepost

SHARE_AIMED_AT: Final = 0.01
SECONDS_AIMED_AT: Final = 1.0
_SETTLING_SECONDS: Final = 4.0
"""Folders that changed a moment ago are looked at again; idle is what comes after."""

WORK: Final = """
import sys, time
import milepost

fresh = 0
for item in milepost.resume(range(1_000_000), "work", progress=False):
    if fresh == 1:  # it asked for the next item, so the first one is acknowledged
        with open(sys.argv[1], "a") as file:
            print(time.monotonic(), file=file)
    fresh += 1
    time.sleep(0.0005)
"""
START: Final = "import time, milepost; print(time.monotonic())"


# Idle.


def make_sessions(path: Path, count: int) -> milepost.Store:
    """A store of sessions in which nothing happens: half of them finished, half of them stopped."""
    store = milepost.Store(path, config=milepost.StoreConfig(backup_enabled=False))
    for number in range(count):
        with store.session(f"idle-{number:04}", durability="buffered") as session:
            session.start_batch("only").complete()
            if number % 2:
                session.complete()
    return store


def watch_idle(path: str, seconds: float, *, uses_file_events: bool) -> None:
    """In a process of its own: watch for a while, then print the share of one core it took."""
    watcher = milepost.Watcher(
        milepost.RecoveryService(milepost.Store(path)),
        [milepost.Target("*", ("false",))],
        jobs=2,
        report=lambda _notice: None,
        uses_file_events=uses_file_events,
    )

    def measure() -> None:
        while not watcher.rows():
            time.sleep(0.1)
        time.sleep(min(_SETTLING_SECONDS, seconds))
        cpu, clock = _cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        print(json.dumps([_cpu_seconds() - cpu, time.monotonic() - clock, len(watcher.rows())]))
        watcher.stop(signal.SIGTERM)

    threading.Thread(target=measure).start()
    watcher.run()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure_idle(folder: Path, count: int, seconds: float) -> None:
    """Print a row for a watcher with file events, and one for a watcher without."""
    store = make_sessions(folder / "idle", count)
    print(f"\na watcher over {count:,} idle sessions, for {seconds:g} s")
    worst = 0.0
    for how in ("events", "poll"):
        words = ["--idle", store.path, "--seconds", f"{seconds}", "--how", how]
        done = subprocess.run(
            [sys.executable, __file__, *words], check=True, capture_output=True, text=True
        )
        cpu, clock, seen = json.loads(done.stdout)
        assert seen == count
        worst = max(worst, cpu / clock)
        name = "with file events" if how == "events" else "polling"
        print(f"  {name:38}{cpu:>10.3f} s of CPU{cpu / clock:>12.2%} of a core")
    reached = "reached" if worst < SHARE_AIMED_AT else "MISSED"
    print(f"  aim: under {SHARE_AIMED_AT:.0%} of a core: {reached}")


# Death.


class Job:
    """A job that somebody looks after, and the times at which its runs got going."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._times = folder / "times"
        self._times.touch()
        (folder / "work.py").write_text(WORK)
        self.command = (sys.executable, str(folder / "work.py"), str(self._times))
        self.store = milepost.Store(folder / "store")
        self.service = milepost.RecoveryService(self.store)
        self.pid = 0

    def note(self, notice: milepost.WatchNotice) -> None:
        """What looks after it tells which process it is."""
        if notice.event == "started" and notice.pid is not None:
            self.pid = notice.pid

    def got_going(self, number: int) -> float:
        """When its n-th run had its first item acknowledged."""
        while True:
            lines = self._times.read_text().splitlines(keepends=True)
            if len(lines) > number and lines[number].endswith("\n"):
                return float(lines[number])
            time.sleep(0.001)


class Kept(NamedTuple):
    """What looks after a job.

    Attributes:
        name: What the table calls it.
        run: Looks after it until it is stopped.
        stop: Stops it, by a signal.
    """

    name: str
    run: Callable[[], object]
    stop: Callable[[int], None]


def supervised(job: Job) -> Kept:
    """By a supervisor."""
    supervisor = milepost.Supervisor(job.service, job.command, report=job.note)
    return Kept("supervised", supervisor.run, supervisor.stop)


def watched(job: Job) -> Kept:
    """By a watcher."""
    job.store.session("work", execute=False).close()
    target = milepost.Target("work", job.command)
    watcher = milepost.Watcher(job.service, [target], jobs=1, report=job.note)
    return Kept("watched", watcher.run, watcher.stop)


def start_seconds() -> float:
    """From asking for an interpreter until it has imported the package."""
    before = time.monotonic()
    done = subprocess.run([sys.executable, "-c", START], check=True, capture_output=True, text=True)
    return float(done.stdout) - before


def measure_deaths(
    folder: Path, keep: Callable[[Job], Kept], rounds: int
) -> tuple[str, list[float], list[float]]:
    """Kill a job again and again; seconds until it got going, and those of a mere start."""
    job = Job(folder)
    kept = keep(job)
    thread = threading.Thread(target=kept.run)
    thread.start()
    deaths: list[float] = []
    starts: list[float] = []
    for number in range(rounds):
        job.got_going(number)
        starts.append(start_seconds())
        killed = time.monotonic()
        os.kill(job.pid, signal.SIGKILL)
        deaths.append(job.got_going(number + 1) - killed)
    kept.stop(signal.SIGTERM)
    thread.join()
    return kept.name, deaths, starts


def show_deaths(folder: Path, rounds: int) -> None:
    """Print a row for each way to look after a job."""
    print(f"\nfrom SIGKILL to the first newly acknowledged item, {rounds} rounds")
    head = f"{'median s':>10}{'slowest':>10}{'start + imports':>18}{'difference':>13}"
    print(f"  {'':24}{head}")
    worst = 0.0
    for keep in (supervised, watched):
        name, deaths, starts = measure_deaths(folder / keep.__name__, keep, rounds)
        death, start = statistics.median(deaths), statistics.median(starts)
        worst = max(worst, death - start)
        print(f"  {name:24}{death:>10.3f}{max(deaths):>10.3f}{start:>18.3f}{death - start:>13.3f}")
    reached = "reached" if worst < SECONDS_AIMED_AT else "MISSED"
    print(f"  aim: start and imports plus at most {SECONDS_AIMED_AT:g} s: {reached}")


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="Measures what watching costs.")
    parser.add_argument("--quick", action="store_true", help="a short run, to see that it works")
    parser.add_argument(
        "--seconds", type=float, default=0, help="how long an idle store is watched"
    )
    parser.add_argument("--idle", help=argparse.SUPPRESS)
    parser.add_argument("--how", default="events", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.idle is not None:
        watch_idle(options.idle, options.seconds, uses_file_events=options.how == "events")
        return 0
    with tempfile.TemporaryDirectory(prefix="milepost-bench-") as temporary:
        folder = Path(temporary)
        version = sys.version.split()[0]
        print(f"Python {version}, {os.cpu_count()} CPUs, in {folder.parent}")
        seconds = options.seconds or (0.5 if options.quick else 30.0)
        measure_idle(folder, 20 if options.quick else 1_000, seconds)
        show_deaths(folder, 2 if options.quick else 20)
    return 0


if __name__ == "__main__":
    sys.exit(main())
