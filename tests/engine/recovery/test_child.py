"""A process of ours: how it is started, waited for, and what is known of its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

import milepost
from milepost.recovery.child import Child, Ending, environment

if TYPE_CHECKING:
    from pathlib import Path


def started(text: str, output: Path | None = None) -> Child:
    command = [sys.executable, "-c", text]
    if output is None:
        return Child(command, environment=os.environ)
    with output.open("wb") as file:
        return Child(command, environment=os.environ, output=file)


@pytest.mark.parametrize(
    ("text", "code", "exit_code", "words"),
    [
        ("", 0, 0, "exit code 0"),
        ("raise SystemExit(3)", 3, 3, "exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", -9, 137, "killed by SIGKILL"),
        ("import os; os.abort()", -6, 134, "killed by SIGABRT"),
    ],
)
def test_its_end_is_told_as_it_was(text: str, code: int, exit_code: int, words: str) -> None:
    ending = started(text).wait()
    assert (ending.code, ending.exit_code) == (code, exit_code)
    assert str(ending).startswith(f"{words}, at most ")
    assert ending.memory_mb is not None
    assert 1 < ending.memory_mb < 4_000


def test_a_signal_kills_but_ctrl_c_stops() -> None:
    assert Ending(-signal.SIGKILL).was_killed
    assert Ending(-signal.SIGTERM).was_killed
    assert not Ending(-signal.SIGINT).was_killed
    assert not Ending(1).was_killed
    assert str(Ending(-65)) == "killed by signal 65"


def test_it_has_a_group_of_its_own_and_no_stdin(tmp_path: Path) -> None:
    output = tmp_path / "output"
    text = "import os, sys; print(os.getpgrp() == os.getpid(), repr(sys.stdin.read()))"
    text += "; print('beside', file=sys.stderr)"
    assert started(text, output).wait().code == 0
    assert sorted(output.read_text().splitlines()) == ["True ''", "beside"]


def test_it_runs_in_the_folder_that_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "open('here', 'w').close()"]
    assert Child(command, environment=os.environ, folder=str(tmp_path)).wait().code == 0
    assert (tmp_path / "here").exists()


def test_a_signal_reaches_it_and_none_is_sent_when_it_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    child = started("import time; time.sleep(60)")
    child.send(signal.SIGTERM)
    assert child.wait().code == -signal.SIGTERM

    # Its number may belong to somebody else by now.
    def refuse(_pid: int, _number: int) -> None:
        pytest.fail("a signal was sent")

    monkeypatch.setattr(os, "kill", refuse)
    child.send(signal.SIGTERM)


def test_signals_while_it_ends_never_meet_another_process() -> None:
    for _ in range(20):
        child = started("")
        endings: list[Ending] = []
        waiter = threading.Thread(target=lambda: endings.append(child.wait()))  # noqa: B023
        waiter.start()
        while waiter.is_alive():
            child.send(0)
        waiter.join()
        assert endings[0].code == 0


def test_a_system_that_forgets_the_ends_of_children_keeps_nobody_waiting() -> None:
    text = (
        "import os, signal\n"
        "from milepost.recovery.child import Child\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "print(Child(['true'], environment=os.environ).wait())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "exit code 0\n"


@pytest.mark.parametrize("program", ["no-such-program", "/", "bad\0name", __file__])
def test_a_command_that_cannot_be_started_is_named(program: str) -> None:
    with pytest.raises(milepost.ConfigurationError, match="cannot start") as caught:
        Child([program], environment=os.environ)
    assert repr(program) in caught.value.message
    assert "check the command" in caught.value.hint


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = str(tmp_path / "gone")
    with pytest.raises(milepost.ConfigurationError, match="there is no folder") as caught:
        Child([sys.executable], environment=os.environ, folder=folder)
    assert folder in caught.value.message


def test_no_command_at_all_is_refused() -> None:
    with pytest.raises(milepost.ConfigurationError, match="no command"):
        Child([], environment=os.environ)


def test_a_machine_without_room_is_not_the_commands_fault() -> None:
    text = (
        "import os, resource\n"
        "import milepost\n"
        "from milepost.recovery.child import Child\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))\n"
        "try:\n"
        "    Child(['true'], environment=os.environ)\n"
        "except milepost.ConfigurationError:\n"
        "    print('the command')\n"
        "except milepost.MilepostError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "cannot start 'true' now: Too many open files\n"


def test_it_works_in_our_store_by_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILEPOST_MAX_RECOVERY_ATTEMPTS", "9")
    found = environment(milepost.RecoveryConfig(max_recovery_attempts=2), "/store", "crawl")
    assert found["MILEPOST_STORE"] == "/store"
    assert found["MILEPOST_SESSION"] == "crawl"
    assert found["MILEPOST_MAX_RECOVERY_ATTEMPTS"] == "2"
    assert found["MILEPOST_AUTO_RESUME"] == "true", "to carry on is what it is started for"
    assert found["PATH"] == os.environ["PATH"]
    assert "MILEPOST_SESSION" not in environment(milepost.RecoveryConfig(), "/store")
