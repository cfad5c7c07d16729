"""One command under supervision: until its work is done, and no longer."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest

import milepost
from support.watching import AT_ONCE, Told, program, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")

LOOP = """
import os, sys
import milepost

def runs():
    with open("runs", "a+") as file:
        file.write("x")
        file.seek(0)
        return len(file.read())

def note(text):
    with open("log", "a") as file:
        file.write(text)

def loop(name="work", count=6):
    return milepost.resume(range(count), name, progress=False)
"""


class Supervised:
    """A supervisor over one program; its `run` happens in the thread of the test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        self._folder = folder
        self.store = milepost.Store(folder / "store")
        self.told = Told()
        self.supervisor: milepost.Supervisor

    def of(self, text: str, config: milepost.RecoveryConfig = AT_ONCE) -> milepost.Supervisor:
        return self.with_command(*program(self._folder, LOOP + text), config=config)

    def with_command(
        self, *command: str, config: milepost.RecoveryConfig = AT_ONCE
    ) -> milepost.Supervisor:
        service = milepost.RecoveryService(self.store, config)
        self.supervisor = milepost.Supervisor(service, command, report=self.told)
        return self.supervisor

    def run(self, text: str, config: milepost.RecoveryConfig = AT_ONCE) -> int:
        return self.of(text, config).run()

    @property
    def starts(self) -> int:
        return len(self.told.of("started"))

    def status(self, name: str = "work") -> milepost.SessionStatus:
        return self.store.view(name).judgement.status


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervised:
    return Supervised(tmp_path, monkeypatch)


def test_a_plain_loop_that_dies_is_carried_on_to_its_end(supervised: Supervised) -> None:
    code = supervised.run(
        "run = runs()\n"
        "for item in loop():\n"
        "    note(f'{item} ')\n"
        "    if item == run:\n"
        "        os.kill(os.getpid(), 9)\n"
    )
    assert code == 0
    assert supervised.status() is milepost.SessionStatus.COMPLETED
    # Each death leaves one item in hand, and nothing else is done again.
    with open("log") as file:
        assert file.read().split() == ["0", "1", "1", "2", "2", "3", "3", "4", "4", "5", "5"]
    assert supervised.starts == 6
    died = [each.error_message for each in supervised.store.load_progress("work").executions]
    assert all(str(each).startswith("killed by SIGKILL") for each in died[:-1])
    assert not supervised.told.of("waiting"), "each run got on"


def test_a_command_that_is_done_is_not_started_again(supervised: Supervised) -> None:
    assert supervised.run("for item in loop(): pass") == 0
    assert supervised.starts == 1


def test_an_error_before_any_session_is_final(supervised: Supervised) -> None:
    assert supervised.run("sys.exit(7)") == 7
    assert supervised.starts == 1
    assert not supervised.store.exists()


def test_a_death_before_any_session_is_tried_again_up_to_the_limit(
    supervised: Supervised,
) -> None:
    assert supervised.run("os.kill(os.getpid(), 9)") == 137
    assert supervised.starts == 2 + AT_ONCE.max_recovery_attempts
    (given_up,) = supervised.told.of("gave_up")
    assert "4 starts in a row without progress; the last: killed by SIGKILL" in given_up.message


def test_a_death_between_two_sessions_is_carried_on(supervised: Supervised) -> None:
    code = supervised.run(
        "for item in loop('first'): pass\n"
        "if runs() == 1:\n"
        "    os.kill(os.getpid(), 9)\n"
        "for item in loop('second'): pass\n"
    )
    assert (code, supervised.starts) == (0, 2)
    assert supervised.status("second") is milepost.SessionStatus.COMPLETED


def test_an_outage_is_waited_for_with_growing_delays_and_then_given_up(
    supervised: Supervised,
) -> None:
    config = milepost.RecoveryConfig(max_recovery_attempts=3, recovery_delay_seconds=0.01)
    code = supervised.run(
        "for item in loop():\n    if item == 2: raise ConnectionError('no network')", config
    )
    assert (code, supervised.starts) == (1, 5)
    waits = [each.wait_seconds for each in supervised.told.of("waiting")]
    assert waits == [0.01, 0.02, 0.04]
    assert supervised.status() is milepost.SessionStatus.INTERRUPTED


def test_failed_batches_are_tried_again_in_so_many_runs(supervised: Supervised) -> None:
    code = supervised.run(
        "@milepost.job('work', batches=range(3), attempts=1)\n"
        "def job(batch):\n"
        "    note(batch.key)\n"
        "    if batch.key == '1': raise ConnectionError('no network')\n"
        "sys.exit(job.run(progress=False).exit_code)\n"
    )
    assert (code, supervised.starts) == (3, 3)
    with open("log") as file:
        assert file.read() == "01211"


@pytest.mark.parametrize(
    "text",
    [
        # It begins its own session anew each time, and dies at another place.
        (
            "store = milepost.Store()\n"
            "if store.exists(): store.restart('work')\n"
            "last = (7, 2, 6, 7, 3, 5)[runs() % 6]\n"
            "for item in loop(count=99):\n"
            "    if item == last: os.kill(os.getpid(), 9)\n"
        ),
        # It begins another session each time.
        "for item in loop(f's{runs()}'):\n    if item == 3: os.kill(os.getpid(), 9)\n",
        # It does nothing at all in its session.
        "session = milepost.Store().session('work')\nos.kill(os.getpid(), 9)\n",
        "session = milepost.Store().session('work')\nsession.end(milepost.Outcome.INTERRUPTED)\n",
    ],
    ids=["restarts", "renames", "dies", "leaves"],
)
def test_work_that_never_gets_on_comes_to_an_end(supervised: Supervised, text: str) -> None:
    assert supervised.run(text) != 0
    assert supervised.starts <= 7
    (given_up,) = supervised.told.of("gave_up")
    shown = "list" if len(supervised.store.names()) > 1 else "show work"
    assert f"; look at it: milepost {shown} --store " in given_up.message


def test_what_others_do_in_the_store_meanwhile_is_not_its_own(supervised: Supervised) -> None:
    code = supervised.run(
        "import subprocess\n"
        "other = 'import milepost, os; s = milepost.Store().session(\"other\"); os._exit(9)'\n"
        "for item in loop():\n"
        "    if item == 3: subprocess.run([sys.executable, '-c', other])\n"
    )
    assert (code, supervised.starts) == (0, 1)
    assert supervised.status("other") is milepost.SessionStatus.INTERRUPTED


def test_a_command_that_only_starts_the_programs_that_work_is_carried_on(
    supervised: Supervised, tmp_path: Path
) -> None:
    inner = program(
        tmp_path,
        LOOP + "if runs() > 1:\n    for item in loop(): pass\n"
        "for item in loop():\n    if item == 3: os._exit(5)\n",
        "inner.py",
    )
    script = tmp_path / "all.sh"
    script.write_text(f"{' '.join(inner)}\nexit $?\n")
    assert supervised.with_command("sh", str(script)).run() == 0
    assert supervised.starts == 2
    assert supervised.status() is milepost.SessionStatus.COMPLETED


def test_a_session_in_other_hands_is_left_there(supervised: Supervised) -> None:
    with supervised.store.session("work"):
        assert supervised.run("milepost.Store().session('work', waits=False)") == 1
    assert supervised.starts == 1


def test_a_command_that_does_not_exist_is_one_error(supervised: Supervised) -> None:
    with pytest.raises(milepost.ConfigurationError, match="no-such-program"):
        supervised.with_command("no-such-program").run()


def test_what_is_held_back_is_told_and_left(supervised: Supervised) -> None:
    # It dies after it lost what the store says was on the disk.
    code = supervised.run(
        "store = milepost.Store()\n"
        "for item in loop():\n"
        "    if item == 3:\n"
        "        folder = os.path.join(store.folder_of('work'), 'journal')\n"
        "        for name in os.listdir(folder): os.unlink(os.path.join(folder, name))\n"
        "        os._exit(4)\n"
    )
    assert (code, supervised.starts) == (4, 1)
    (found,) = supervised.told.of("found", "work")
    assert found.status is not None
    assert "milepost restore" in found.message


def test_with_recovery_off_it_only_tells(supervised: Supervised) -> None:
    config = milepost.RecoveryConfig(auto_recovery_enabled=False)
    code = supervised.run("for item in loop(): os.kill(os.getpid(), 9)", config)
    assert (code, supervised.starts) == (137, 1)
    assert supervised.told.of("found", "work")


# Signals.

WORKING = """
import time
for item in loop(count=100_000):
    open("working", "w").close()
    time.sleep(0.01)
"""
DEAF = """
import signal, time
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, lambda number, _: open(f"heard-{number}", "a").write("x"))
open("working", "w").close()
while True: time.sleep(0.01)
"""


def when(path: Path, act: Callable[[], None]) -> threading.Thread:
    """Do something in a thread once a file is there."""

    def wait() -> None:
        wait_until(path.exists)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [
        (signal.SIGINT, 130, milepost.SessionStatus.STOPPED),
        (signal.SIGTERM, 143, milepost.SessionStatus.INTERRUPTED),
    ],
)
def test_a_signal_is_passed_on_and_the_clean_save_awaited(
    supervised: Supervised, tmp_path: Path, number: int, code: int, status: milepost.SessionStatus
) -> None:
    supervisor = supervised.of(WORKING)
    thread = when(tmp_path / "working", lambda: supervisor.stop(number))
    assert supervisor.run() == code
    thread.join()
    assert supervised.starts == 1
    assert supervised.status() is status


def test_the_second_signal_is_passed_on_too_and_the_third_kills(
    supervised: Supervised, tmp_path: Path
) -> None:
    def insist() -> None:
        supervisor.stop(signal.SIGTERM)
        wait_until((tmp_path / "heard-15").exists)
        supervisor.stop(signal.SIGINT)
        wait_until((tmp_path / "heard-2").exists)
        supervisor.stop(signal.SIGINT)

    supervisor = supervised.of(DEAF)
    thread = when(tmp_path / "working", insist)
    assert supervisor.run() == 137
    thread.join()
    assert supervised.starts == 1


def test_a_signal_while_it_waits_ends_it(supervised: Supervised) -> None:
    config = milepost.RecoveryConfig(recovery_delay_seconds=3600)
    supervisor = supervised.of("os.kill(os.getpid(), 9)", config)

    def stop() -> None:
        supervised.told.wait("waiting")
        supervisor.stop(signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    assert supervisor.run() == 143
    thread.join()
    assert supervised.starts == 2


def test_a_program_that_somebody_stopped_is_not_started_again(supervised: Supervised) -> None:
    code = supervised.run(
        "import signal\nfor item in loop():\n    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    assert (code, supervised.starts) == (130, 1)
    assert supervised.status() is milepost.SessionStatus.STOPPED


def test_a_program_that_somebody_terminated_is_carried_on(supervised: Supervised) -> None:
    code = supervised.run(
        "import signal\n"
        "first = runs() == 1\n"
        "for item in loop():\n"
        "    if first: os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert (code, supervised.starts) == (0, 2)
