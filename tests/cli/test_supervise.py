"""`run --supervise`: real processes, killed for real."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

import milepost
from milepost.storage.host import this_process
from support.commands import SIGNALS, run, start
from support.gates import ITEMS, Gate
from support.watching import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Generator
    from pathlib import Path

AT_ONCE = {"MILEPOST_RECOVERY_DELAY_SECONDS": "0"}

POISON = """
import milepost, os

@milepost.job("poison", batches=range(4), workers=2)
def poison(batch):
    if batch.payload == 2:
        os.kill(os.getpid(), 9)
"""


def supervise(here: Path, *words: str, **env: str) -> subprocess.Popen[str]:
    return start("run", "--supervise", *words, cwd=here, env={**AT_ONCE, **env})


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


def test_a_killed_job_is_carried_on_to_its_end(here: Path, store: milepost.Store) -> None:
    gate = Gate(here, "job")
    process = supervise(here, "job.py", "-s", store.path)
    gate.kill_run(1)
    gate.wait_for_run(2)
    gate.open()
    code, out, err = ended(process)
    assert code == 0, err
    assert gate.done == list(range(ITEMS)), "nothing twice, nothing lost"
    assert out.split() == [word for item in range(ITEMS) for word in ("did", str(item))]
    lines = err.splitlines()
    assert all(line.startswith("milepost: ") for line in lines)
    first = next(line for line in lines if " ended: " in line)
    assert " ended: killed by SIGKILL" in first
    assert lines[-1].startswith("milepost: process ")
    assert " ended: exit code 0" in lines[-1]
    state = store.load_progress("job")
    assert "killed by SIGKILL" in (state.executions[0].error_message or "")
    assert state.executions[-1].program == "milepost run job.py"


def test_any_command_with_a_loop_is_supervised(here: Path) -> None:
    gate = Gate(here, "loop", is_script=True)
    path = os.path.abspath("mine")
    process = supervise(here, "-s", "mine", "--", sys.executable, "loop.py")
    gate.kill_run(1)
    gate.open()
    code, _, err = ended(process)
    assert code == 0, err
    assert gate.done == list(range(ITEMS))
    assert milepost.Store(path).load_progress("loop").outcome is milepost.Outcome.COMPLETED


@pytest.mark.parametrize("where", ["option", "job", "environment"])
def test_it_finds_the_store_as_run_does(where: str, here: Path) -> None:
    gate = Gate(here, "job")
    if where == "job":
        text = gate.file.read_text().replace('["only"]', '["only"], store="mine"')
        gate.file.write_text(text)
    words = ["-s", "mine"] if where == "option" else []
    environment = {"MILEPOST_STORE": "mine"} if where == "environment" else {}
    process = supervise(here, "job.py", *words, **environment)
    gate.kill_run(1)
    gate.open()
    code, _, err = ended(process)
    assert code == 0, err
    assert gate.done == list(range(ITEMS))
    assert milepost.Store("mine").names() == ["job"]


def test_the_options_of_the_job_are_handed_on(here: Path, store: milepost.Store) -> None:
    text = """
import milepost, threading
meet = threading.Barrier(3, timeout=30)

@milepost.job("wide", batches=["a", "b", "c"])
def wide(batch):
    meet.wait()
"""
    (here / "wide.py").write_text(text)
    words = ["--workers", "3", "--durability", "disk", "--plan", "extend", "--attempts", "1"]
    code, out, err = ended(supervise(here, "wide.py", "-s", store.path, *words, "--json"))
    assert code == 0, err
    assert json.loads(out)["completed"] == 3, "stdout has the result of the job alone"
    told = [json.loads(line) for line in err.splitlines()]
    assert [each["event"] for each in told] == ["started", "ended"]
    assert told[1]["exit_code"] == 0
    assert told[0]["at"].endswith("Z")


def test_what_kills_each_time_ends_as_poison(here: Path, store: milepost.Store) -> None:
    (here / "poison.py").write_text(POISON)
    code, _, err = ended(supervise(here, "poison.py", "-s", store.path))
    assert code == 3, err
    state = store.load_progress("poison")
    assert sorted(state.completed_batches) == [0, 1, 3]
    assert "killed by SIGKILL" in state.failed_batches[2].error_message


def test_giving_up_says_where_to_look_and_how_to_try_again(
    here: Path, store: milepost.Store
) -> None:
    env = {"MILEPOST_MAX_RECOVERY_ATTEMPTS": "1"}
    (here / "vain.py").write_text(
        "import milepost, os\n"
        "@milepost.job('vain', batches=lambda: os._exit(3))\n"
        "def vain(batch): ...\n"
    )
    store.session("vain").supersede()
    code, _, err = ended(supervise(here, "vain.py", "-s", store.path, **env))
    assert code == 3, err
    last = err.splitlines()[-1]
    assert last.startswith("milepost: given up: 2 starts in a row without progress; the last: ")
    assert last.endswith(
        f"; look at it: milepost show vain --store {store.path};"
        f" to try again: milepost run --supervise vain.py --store {store.path}"
    )


@pytest.mark.parametrize(("number", "code", "status"), SIGNALS)
def test_a_signal_is_passed_on_and_the_save_awaited(
    number: signal.Signals,
    code: int,
    status: milepost.SessionStatus,
    here: Path,
    store: milepost.Store,
) -> None:
    gate = Gate(here, "job")
    process = supervise(here, "job.py", "-s", store.path)
    gate.wait_for_run(1)
    process.send_signal(number)
    # The job says so once the signal has come to it, and only then may its item end.
    assert process.stderr is not None
    assert any("finishing what is in hand" in line for line in process.stderr)
    gate.open()
    assert ended(process)[0] == code
    assert store.view("job").judgement.status is status
    assert gate.done == list(range(6)), "the item in hand was finished, and no other begun"


def test_the_exit_code_is_that_of_the_last_run(here: Path, store: milepost.Store) -> None:
    (here / "fails.py").write_text(POISON.replace("os.kill(os.getpid(), 9)", "raise ValueError"))
    assert ended(supervise(here, "fails.py", "-s", store.path))[0] == 3
    words = ["-s", store.path, "--", sys.executable, "-c"]
    assert ended(supervise(here, *words, "raise SystemExit(7)"))[0] == 7
    killed = "import os; os.kill(os.getpid(), 11)"
    code, _, err = ended(supervise(here, *words, killed))
    assert code == 128 + 11
    assert err.count("started process") > 1
    last = err.splitlines()[-1]
    assert last.startswith("milepost: given up: 4 starts in a row without progress; the last: ")
    assert f"; look at it: milepost list --store {store.path}; to try again: " in last
    again = f"milepost run --supervise --store {store.path} -- {sys.executable} -c "
    assert last.partition("; to try again: ")[2].startswith(again)


def test_what_has_run_to_its_end_is_run_once_and_does_nothing(
    here: Path, store: milepost.Store
) -> None:
    gate = Gate(here, "job")
    gate.open()
    for _ in range(2):
        code, _, err = ended(supervise(here, "job.py", "-s", store.path))
        assert code == 0
        assert err.count("started process") == 1
    assert gate.done == list(range(ITEMS))


# Beside a session that lives.


@contextmanager
def waiting(here: Path, gate: Gate, store: str) -> Generator[subprocess.Popen[str]]:
    """A supervised program that waits for one that lost its supervisor, and works on alone."""
    if gate.is_script:
        words = ["-s", store, "--", sys.executable, gate.file.name]
    else:
        words = [gate.file.name, "-s", store]
    first = supervise(here, *words)
    second: subprocess.Popen[str] | None = None
    try:
        pid = gate.wait_for_run(1)
        first.kill()
        first.wait()
        second = supervise(here, *words)
        assert second.stderr is not None
        line = next(line for line in second.stderr if " started process " not in line)
        host = os.uname().nodename
        told = f"milepost: {gate.name}: process {pid} on {host} writes it; waiting for its end\n"
        assert line == told
        yield second
    finally:
        gate.open()  # what was left alone comes to its end
        for process in (first, second):
            if process is not None:
                process.kill()
                process.communicate()


@pytest.mark.parametrize("is_script", [False, True])
def test_a_living_session_is_waited_for_and_carried_on_when_it_dies(
    here: Path, store: milepost.Store, *, is_script: bool
) -> None:
    gate = Gate(here, "work", is_script=is_script)
    with waiting(here, gate, store.path) as process:
        gate.kill_run(1)
        gate.wait_for_run(2)
        gate.open()
        code, _, err = ended(process)
    assert code == 0, err
    assert "waiting" not in err, "it is told once"
    assert "work: resumed after its process died" in err
    assert gate.done == list(range(ITEMS)), "nothing twice, nothing lost"
    assert store.view("work").judgement.status is milepost.SessionStatus.COMPLETED


@pytest.mark.parametrize("is_script", [False, True])
def test_a_living_session_that_comes_to_its_end_leaves_nothing_to_do(
    here: Path, store: milepost.Store, *, is_script: bool
) -> None:
    gate = Gate(here, "work", is_script=is_script)
    with waiting(here, gate, store.path) as process:
        gate.open()
        code, _, err = ended(process)
    assert code == 0, err
    assert "milepost: work: complete since " in err
    assert gate.done == list(range(ITEMS))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_wait_and_leaves_the_living_alone(
    number: signal.Signals, code: int, here: Path, store: milepost.Store
) -> None:
    gate = Gate(here, "work")
    with waiting(here, gate, store.path) as process:
        process.send_signal(number)
        assert ended(process)[0] == code
        assert store.view("work").judgement.status is milepost.SessionStatus.RUNNING
        gate.open()
        wait_until(lambda: store.load_progress("work").outcome is milepost.Outcome.COMPLETED)
    assert gate.done == list(range(ITEMS))


def test_what_the_same_supervisor_started_is_not_waited_for(
    here: Path, store: milepost.Store
) -> None:
    gate = Gate(here, "work")
    gate.open()
    (here / "outer.py").write_text(
        "import milepost, subprocess, sys\n"
        "inner = [sys.executable, '-m', 'milepost_cli', 'run', 'work.py']\n"
        "with milepost.Store().session('work') as session:\n"
        "    code = subprocess.run(inner).returncode\n"
        "    session.set_total_batches(0)\n"
        "    session.complete()\n"
        "sys.exit(code)\n"
    )
    code, _, err = ended(supervise(here, "-s", store.path, "--", sys.executable, "outer.py"))
    assert code == 11, err
    assert "is being written by process" in err


def test_only_a_supervised_program_waits(here: Path, store: milepost.Store) -> None:
    gate = Gate(here, "work")
    with start("run", "work.py", "-s", store.path, cwd=here) as living:
        try:
            gate.wait_for_run(1)
            code, _, err = ended(start("run", "work.py", "-s", store.path, cwd=here))
            assert (code, "waiting" in err) == (11, False)
            for verb in ("restart", "retry", "recover"):
                words = (["--session"] if verb == "recover" else []) + ["work"]
                env = {"MILEPOST_STARTED_BY": "somebody"}
                process = start(verb, *words, "-s", store.path, cwd=here, env=env)
                code, _, err = ended(process)
                assert (code, "waiting" in err) == (0 if verb == "recover" else 11, False), err
            there = msgspec.structs.replace(this_process(), started_by="somebody")
            supervised = milepost.Store(store.path, identify=lambda: there)
            with pytest.raises(milepost.AlreadyLockedError):
                supervised.session("work", waits=False)
        finally:
            gate.open()
            living.communicate()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--", "python", "x.py"], "a command after -- is run under supervision alone"),
        (["--supervise", "job.py", "--", "ls"], "job.py and a command after -- are two pieces"),
        (["--supervise", "--"], "there is no command after --"),
        (["--supervise"], "Missing argument"),
        ([], "Missing argument"),
        (["--supervise", "--workers", "2", "--", "ls"], "--workers is for a job"),
        (["--supervise", "--", "no-such-command"], "cannot start 'no-such-command'"),
        (["--supervise", "nothing.py"], "nothing.py does not exist"),
    ],
    ids=str,
)
def test_wrong_use_is_one_message(
    words: list[str], message: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run("run", *words)
    assert (ran.code, ran.out) == (2, "")
    assert f"error: {message}" in ran.err
    assert "\nhint: " in ran.err


def test_the_hint_for_a_command_can_be_typed(here: Path) -> None:
    ran = run("run", "--", "python", "my crawl.py")
    assert ran.err.endswith("hint: milepost run --supervise -- python 'my crawl.py'\n")


def test_a_target_that_raises_is_told_before_anything_runs(here: Path) -> None:
    (here / "bad.py").write_text("1 / 0\n")
    ran = run("run", "--supervise", "bad.py")
    assert (ran.code, ran.out) == (1, "")
    assert "bad.py raised ZeroDivisionError while it was imported" in ran.err
    told = run("run", "--supervise", "bad.py", "--json")
    assert (told.code, told.error["type"], told.error["exit_code"]) == (1, "TargetError", 1)
