"""Between hosts, with real processes and real time: copies under way, sleepers, silence.

One machine plays them: a process says that it is somebody else, and lets go of the OS lock that a
share would not carry across. `MILEPOST_TEST_COPIES` makes it longer.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import milepost
from milepost.model.status import Presence
from milepost.session.presence import TWO_BEATS_SECONDS
from support.hosts import Awakening, host, store_on

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process"
)

COPIES = int(os.environ.get("MILEPOST_TEST_COPIES", "5"))
PATIENCE_SECONDS = 60.0
LAPTOP = host("laptop")
DONE = milepost.ItemStatus.COMPLETED

# Acknowledges items until it is told that it may not, and notes each in a log of its own.
WRITER = """
import itertools, os, sys, time
import msgspec
import milepost
from milepost.storage.host import this_process
path, name, reach = sys.argv[1:]
me = this_process()
if name:
    me = msgspec.structs.replace(me, host=name, boot_id=f"boot of {name}")
store = milepost.Store(
    path,
    config=milepost.StoreConfig(max_state_history=2),
    tracker=milepost.TrackerConfig(checkpoint_interval_seconds=0.02, sync_interval_seconds=0.005),
    identify=lambda: me,
)
session = store.session("work")
if reach == "share":
    session._writer.turn._lock.release()
log = os.open(f"{path}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
batch = session.start_batch("a")
for number in itertools.count():
    try:
        batch.update_item(number, milepost.ItemStatus.COMPLETED)
    except milepost.MilepostError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(3)
    os.write(log, b"%d\\n" % number)
    time.sleep(0.0002)
"""

# One run of a command on the laptop.
OPENER = """
import sys
import milepost
from milepost.storage.host import HostIdentity
me = HostIdentity(host="laptop", boot_id="boot of laptop", pid=1, process_started="1")
store = milepost.Store(
    sys.argv[1], recovery=milepost.RecoveryConfig(stale_after_seconds=1.0), identify=lambda: me
)
try:
    store.session("work").close()
except milepost.AlreadyLockedError as error:
    print(f"{error}")
    sys.exit(11)
"""


class Writing:
    """A process that writes a session, and what it noted."""

    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self.process = process
        self.path = path
        self._log = path.with_name(f"{path.name}.log")

    def acknowledged(self) -> int:
        """How many items it knows to be kept: all from 0 on."""
        try:
            return self._log.read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def wait_for(self, more: int) -> int:
        """Return when it acknowledged so many more."""
        wanted = self.acknowledged() + more
        until = time.monotonic() + PATIENCE_SECONDS
        while self.acknowledged() < wanted:
            assert self.process.poll() is None, self.process.stdout and self.process.stdout.read()
            assert time.monotonic() < until
            time.sleep(0.002)
        return self.acknowledged()


@contextmanager
def writing(path: Path, name: str, reach: str = "local") -> Generator[Writing]:
    command = [sys.executable, "-c", WRITER, str(path), name, reach]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Writing(process, path)
        finally:
            process.kill()


def done_in(state: milepost.SessionState) -> set[milepost.Key]:
    batch = state.active_batches[0]
    return {*batch.done, *batch.finished}


def test_a_store_copied_while_it_is_written_opens_on_another_host(tmp_path: Path) -> None:
    with writing(tmp_path / "store", "desk") as writer:
        for number in range(COPIES):
            before = writer.wait_for(300)
            copy = tmp_path / f"copy-{number}"
            with contextlib.suppress(shutil.Error):  # what was let go of under its eyes
                shutil.copytree(writer.path, copy)
            _check_copy(copy, before, in_real_time=number == 0)
        after = writer.wait_for(1)
    view = milepost.Store(writer.path).view("work")
    assert done_in(view.state) >= set(range(after))


def _check_copy(copy: Path, before: int, *, in_real_time: bool) -> None:
    clock = milepost.SystemClock() if in_real_time else Awakening()
    store = store_on(LAPTOP, copy, clock=clock)
    began = clock.monotonic()
    with store.session("work") as session:
        assert clock.monotonic() - began >= TWO_BEATS_SECONDS
        assert "copy of the session that process" in session.notice
        assert "wrote on desk" in session.notice
        assert [each for each in session.findings if each.is_error] == []
        done = done_in(session.state)
        assert done == set(range(len(done))), "a prefix of one history"
        assert len(done) >= before, "all that was acknowledged when the copy began"
        session.batch(0).update_item("on the laptop", DONE)
    assert done_in(store.load_progress("work")) == done | {"on the laptop"}


def test_a_sleeper_that_wakes_up_is_told_and_mixes_nothing(tmp_path: Path) -> None:
    """A laptop is closed over its work, another host is told to go on, the laptop is opened."""
    path = tmp_path / "store"
    store = store_on(LAPTOP, path)
    with writing(path, "desk", "share") as writer:
        writer.wait_for(200)
        writer.process.send_signal(signal.SIGSTOP)
        os.waitpid(writer.process.pid, os.WUNTRACED)
        acknowledged = writer.acknowledged()
        assert store.presence("work", note=True) is Presence.UNKNOWN
        with pytest.raises(milepost.AlreadyLockedError, match=rf"{writer.process.pid} on desk"):
            store.session("work")
        assert store.unlock("work")
        with store.session("work") as session:
            there = done_in(session.state)
            assert there >= set(range(acknowledged))
            batch = session.start_batch("a")
            batch.update_item("before it wakes", DONE)
            writer.process.send_signal(signal.SIGCONT)
            told, _ = writer.process.communicate(timeout=PATIENCE_SECONDS)
            assert writer.process.returncode == 3
            assert told.startswith("SupersededError: process 4711 on laptop took this session over")
            batch.update_item("after it woke", DONE)
            session.flush()
    late = set(range(writer.acknowledged())) - there
    for _ in range(2):
        view = store.view("work")
        assert done_in(view.state) == there | {"before it wakes", "after it woke"}
        assert not view.is_lossy
        rules = {each.rule for each in view.findings}
        assert ("superseded-tail" in rules) >= bool(late), "what it wrote after is reported"
        store.session("work").close()


def test_a_sleeper_on_this_boot_is_alive_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "store"
    store = milepost.Store(path, recovery=milepost.RecoveryConfig(stale_after_seconds=0.01))
    with writing(path, "") as writer:
        writer.wait_for(1)
        writer.process.send_signal(signal.SIGSTOP)
        os.waitpid(writer.process.pid, os.WUNTRACED)
        for _ in range(2):
            assert store.presence("work", note=True) is Presence.ALIVE
            with pytest.raises(milepost.AlreadyLockedError, match=f"process {writer.process.pid}"):
                store.session("work")
            with pytest.raises(milepost.AlreadyLockedError):
                store.unlock("work")
        acknowledged = writer.acknowledged()
        writer.process.kill()
        writer.process.wait(PATIENCE_SECONDS)
    assert store.presence("work") is Presence.GONE
    with store.session("work") as session:
        assert done_in(session.state) >= set(range(acknowledged))


def test_silence_is_remembered_from_one_run_to_the_next(tmp_path: Path) -> None:
    """Each run is a process of its own; what they saw stands beside the lease."""
    path = tmp_path / "store"
    with writing(path, "desk", "share") as writer:
        writer.wait_for(1)
        living = _run_opener(path)
        assert living.returncode == 11, "it lives, and was just met"
    for runs in itertools.count():
        ran = _run_opener(path)
        if ran.returncode == 0:
            break
        assert ran.returncode == 11, ran
        assert f"process {writer.process.pid} on desk since" in ran.stdout
        assert runs < 100, "each run began to watch anew"
    assert store_on(LAPTOP, path).presence("work") is Presence.GONE


def _run_opener(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", OPENER, str(path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
