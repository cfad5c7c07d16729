"""Ctrl-C and SIGTERM where work runs in threads and has loops, maps and jobs of its own there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

import milepost
from milepost import SessionStatus

if TYPE_CHECKING:
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
        deadline = time.monotonic() + 60
        while not log.exists() or any(f"{name}-3" not in log.read_text() for name in names):
            assert time.monotonic() < deadline
            time.sleep(0.005)
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
