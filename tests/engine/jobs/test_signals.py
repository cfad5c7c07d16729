"""Ctrl-C and SIGTERM where work runs in threads and has loops, maps and jobs of its own there."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

import milepost
from milepost import ItemStatus, SessionStatus
from milepost.jobs.signals import StopSignals
from support.watching import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

COUNT = 400
BEGIN = f"""
import asyncio, milepost, os, threading, time
from concurrent.futures import ThreadPoolExecutor
import milepost.jobs.workers as workers
import milepost.jobs.tasks as tasks
import milepost.jobs.signals as signals
# Who waits for the grace to end does not hear the signal.
workers.GRACE_SECONDS = tasks.GRACE_SECONDS = signals.GRACE_SECONDS = 3_600

log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
pages = [str(number) for number in range({COUNT})]

def crawl(name):
    for page in milepost.resume(pages, name, store="s", progress=False):
        time.sleep(0.005)
        os.write(log, f"{{name}}-{{page}}\\n".encode())
"""
WORKERS = """
@milepost.job("outer", batches=["a", "b"], workers=2, store="s")
def work(batch):
    crawl(batch.key)
"""
SHAPES = {
    "a job with workers": WORKERS + "work.run(progress=False)",
    "a job in an event loop": WORKERS + "asyncio.run(work.run_async(progress=False))",
    "a job in a job": WORKERS
    + """
@milepost.job("outermost", batches=["x", "y"], workers=2, store="s")
def outermost(batch):
    work.run(progress=False) if batch.key == "x" else crawl("c")

outermost.run(progress=False)
""",
    "a map": """
done = milepost.map(crawl, ["a", "b"], "outer", workers=2, store="s", progress=False)
for name, _ in done:
    pass
""",
    "threads beside a loop": """
with ThreadPoolExecutor(2) as pool:
    calls = [pool.submit(crawl, "a"), pool.submit(crawl, "b")]
    for page in milepost.resume(pages, "outer", store="s", progress=False):
        time.sleep(0.005)
    for call in calls:
        call.result()
""",
}


@pytest.mark.skipif(os.name == "nt", reason="signals to another process are not for Windows")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, (130, -2)), (signal.SIGTERM, (143,))])
def test_work_of_its_own_in_threads_stops_too(
    tmp_path: Path, shape: str, number: signal.Signals, code: tuple[int, ...]
) -> None:
    program = tmp_path / "program.py"
    program.write_text(BEGIN + textwrap.dedent(SHAPES[shape]))
    log = tmp_path / "log"
    names = ["a", "b"] + ["c"] * (shape == "a job in a job")
    command = [sys.executable, str(program)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as started:
        wait_until(lambda: log.exists() and all(f"{name}-3" in log.read_text() for name in names))
        started.send_signal(number)
        _, told = started.communicate(timeout=60)
        assert started.returncode in code, told
    store = milepost.Store(tmp_path / "s")
    done = log.read_text().split()
    assert len(done) < COUNT * len(names)
    is_ctrl_c = number is signal.SIGINT
    expected = SessionStatus.STOPPED if is_ctrl_c else SessionStatus.INTERRUPTED
    sessions = {each.session_id: each for each in store.sessions()}
    assert {"outer", *names} <= sessions.keys()
    assert {each.status for each in sessions.values()} == {expected}, told
    for name in names:  # what was finished is acknowledged, all of it
        mine = [each for each in done if each.startswith(f"{name}-")]
        assert store.load_progress(name).total_items_processed == len(mine)
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120, capture_output=True)
    done = log.read_text().split()
    assert len(done) == len(set(done)) == COUNT * len(names)
    outer = store.load_progress("outer")
    assert outer.outcome is milepost.Outcome.COMPLETED
    assert outer.session_statistics.total_items_failed == 0


ASYNC = """
begun, gone = asyncio.Event(), asyncio.Event()

async def work(name):
    if name == "a":
        await begun.wait()
        try:
            await asyncio.to_thread(crawl, name)
        finally:
            gone.set()
        return name
    begun.set()
    await gone.wait()
    await asyncio.sleep(0)  # whatever the other one raised has arrived
    await asyncio.sleep(0.01)
    os.write(log, b"in-hand\\n")
    return name
"""
PLAIN = """
begun, gone = threading.Event(), threading.Event()

@milepost.job("outer", batches=["a", "b"], workers=2, store="s", executor="threads")
def work(batch):
    if batch.key == "a":
        begun.wait()
        try:
            crawl("a")
        finally:
            gone.set()
    else:
        begun.set()
        gone.wait()
        time.sleep(0.01)
        os.write(log, b"in-hand\\n")
"""
BESIDE = {
    "an async map": ASYNC
    + """
async def main():
    made = milepost.map(work, ["a", "b"], "outer", workers=2, store="s", progress=False)
    async for name, _ in made:
        pass

asyncio.run(main())
""",
    "an async job": ASYNC
    + """
@milepost.job("outer", batches=["a", "b"], workers=2, store="s")
async def job(batch):
    await work(batch.key)

asyncio.run(job.run_async(progress=False))
""",
    "a job in an executor": PLAIN + "work.run(progress=False)",
    "a job in an executor and an event loop": PLAIN + "asyncio.run(work.run_async(progress=False))",
}


@pytest.mark.skipif(os.name == "nt", reason="signals to another process are not for Windows")
@pytest.mark.parametrize("shape", BESIDE)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, (130, -2)), (signal.SIGTERM, (143,))])
def test_the_end_of_work_in_a_function_cuts_nothing_else(
    tmp_path: Path, shape: str, number: signal.Signals, code: tuple[int, ...]
) -> None:
    program = tmp_path / "program.py"
    program.write_text(BEGIN + textwrap.dedent(BESIDE[shape]))
    log = tmp_path / "log"
    command = [sys.executable, str(program)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as started:
        wait_until(lambda: log.exists() and "a-3" in log.read_text())
        started.send_signal(number)
        _, told = started.communicate(timeout=60)
        assert started.returncode in code, told
    assert "in-hand" in log.read_text().split(), told
    outer = milepost.Store(tmp_path / "s").view("outer")
    latest = outer.state.executions[-1]
    assert (latest.error_message, latest.in_flight) == (None, [])
    expected = SessionStatus.STOPPED if number is signal.SIGINT else SessionStatus.INTERRUPTED
    assert outer.judgement.status is expected
    if shape == "an async map":
        batch = outer.state.active_batches[0]
        assert batch.is_done("b")
        assert batch.open["a"].status is ItemStatus.PENDING
    else:
        assert list(outer.state.completed_batches) == [1]


HANGS = """
async def work(name):
    if name == "a":
        await begun.wait()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    begun.set()
    await asyncio.Event().wait()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals to another process are not for Windows")
@pytest.mark.parametrize("shape", ["an async map", "an async job"])
def test_a_second_signal_in_a_task_ends_all(tmp_path: Path, shape: str) -> None:
    program = tmp_path / "program.py"
    how = BESIDE[shape].replace(ASYNC, ASYNC + HANGS)
    program.write_text(BEGIN + "import signal\n" + how)
    command = [sys.executable, str(program)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert ended.returncode in {130, -2}, ended.stderr.decode()
    outer = milepost.Store(tmp_path / "s").view("outer")
    assert outer.judgement.status is SessionStatus.STOPPED


def told_in_threads(order: Iterable[StopSignals]) -> ExitStack:
    """Have these begin, one after another, in a thread; they end with the block."""
    entered = ExitStack()

    def enter() -> None:
        for each in order:
            entered.enter_context(each)

    in_a_thread(enter)
    return entered


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.mark.parametrize("is_reversed", [False, True])
def test_outer_work_in_threads_is_told_first(is_reversed: bool) -> None:
    told: list[int] = []
    made = [StopSignals(functools.partial(told.append, number)) for number in range(50)]
    order = list(range(50))
    if is_reversed:
        order.reverse()
    with StopSignals(lambda: told.append(-1)), told_in_threads(made[number] for number in order):
        signal.raise_signal(signal.SIGINT)
    assert told == [-1, *order]


def test_outer_work_in_one_thread_is_told_first() -> None:
    told: list[str] = []
    with StopSignals(lambda: told.append("outer")), StopSignals(lambda: told.append("inner")):
        signal.raise_signal(signal.SIGINT)
    assert told == ["outer", "inner"]


def test_work_that_begins_while_others_are_told_is_no_earlier() -> None:
    told: list[str] = []
    inner = StopSignals(lambda: told.append("inner"))
    later = ExitStack()

    def note_main() -> None:
        if "main" not in told:  # in the midst of the handler, another thread begins work
            told.append("main")
            in_a_thread(lambda: later.enter_context(inner))

    outer = StopSignals(lambda: told.append("outer"))
    with StopSignals(note_main), told_in_threads([outer]), later:
        signal.raise_signal(signal.SIGINT)
    assert told[:3] == ["main", "outer", "inner"]


def test_the_thread_that_loops_hears_the_signal_whoever_added_first(tmp_path: Path) -> None:
    items: milepost.Items[str] = milepost.resume([], "work", store=tmp_path / "s", progress=False)
    in_a_thread(lambda: items.add_many(["a", "b", "c"]))
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        for item in items:
            signal.raise_signal(signal.SIGINT)
            done.append(item)
    assert done == ["a"]
    assert milepost.Store(tmp_path / "s").load_progress("work").total_items_processed == 1


def test_work_that_begins_after_a_signal_stops_and_takes_the_next_for_the_second() -> None:
    told: list[str] = []
    with StopSignals(lambda: told.append("outer")):
        signal.raise_signal(signal.SIGTERM)
        with StopSignals(lambda: told.append("inner")), pytest.raises(SystemExit):
            assert told[-1] == "inner"
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.skipif(os.name == "nt", reason="signals to another process are not for Windows")
def test_work_within_a_body_of_the_main_thread_ends_its_job_as_a_stop(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import milepost, os, signal

            @milepost.job("outer", batches=["a", "b"], store="s")
            def work(batch):
                for page in milepost.resume("xyz", "inner", store="s", progress=False):
                    if page == "y":
                        os.kill(os.getpid(), signal.SIGINT)

            work.run()
            """
        )
    )
    command = [sys.executable, str(program)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode in (130, -2)
    assert "outer: stopped after the items in hand" in done.stderr
    assert "ended at once" not in done.stderr
    store = milepost.Store(tmp_path / "s")
    assert {each.status for each in store.sessions()} == {SessionStatus.STOPPED}
    assert store.load_progress("inner").total_items_processed == 2
