"""`recover` with targets: real watchers, real children, killed for real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import milepost
from milepost_cli import asking
from milepost_cli.advice import Advice
from support.commands import SIGNALS, run, start
from support.gates import ITEMS, Gate

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

PATIENCE_SECONDS = 60.0
AT_ONCE = {"MILEPOST_RECOVERY_DELAY_SECONDS": "0"}
DONE = list(range(ITEMS))


def recover(here: Path, *words: str) -> subprocess.Popen[str]:
    return start("recover", *words, cwd=here, env=AT_ONCE)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    return process.returncode, out, err


def died(gate: Gate, here: Path, store: str) -> None:
    """Run it by hand, and kill it at its gate."""
    words = [sys.executable, gate.file.name]
    if not gate.is_script:
        words = [sys.executable, "-m", "milepost_cli", "run", gate.file.name]
    with subprocess.Popen(
        words,
        cwd=here,
        env={**os.environ, "MILEPOST_STORE": store},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ):
        gate.kill_run(1)


class Watched:
    """A watcher that prints JSON lines, and what it told so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.told: list[dict[str, Any]] = []

    def wait_for(self, event: str, **facts: Any) -> dict[str, Any]:
        """The next notice of this kind with these facts."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.append(json.loads(line))
            if self.told[-1] == self.told[-1] | {"event": event, **facts}:
                return self.told[-1]
        pytest.fail(
            f"no {event} {facts}: {self.told} {self.process.stderr and self.process.stderr.read()}"
        )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        out, self.err = self.process.communicate(timeout=PATIENCE_SECONDS)
        self.told += [json.loads(line) for line in out.splitlines()]
        return self.process.returncode


@contextmanager
def watching(here: Path, store: str, *words: str) -> Generator[Watched]:
    """A watcher beside the test; where the test hangs, it is ended and all is told."""
    process = recover(here, *words, "--watch", "--json", "-s", store)
    watchdog = threading.Timer(PATIENCE_SECONDS, process.kill)
    watchdog.start()
    try:
        yield Watched(process)
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()  # a child that lives on holds the other end, so no end is awaited


# Until nothing is left.


def test_it_carries_on_what_died_and_ends(here: Path, store: milepost.Store) -> None:
    gate = Gate(here, "job")
    died(gate, here, store.path)
    gate.open()
    code, out, err = ended(recover(here, "job.py", "-s", store.path))
    assert (code, out) == (0, "")
    assert gate.done == DONE
    assert f"watching {store.path}" in err
    assert "  job: started process " in err
    assert "did 8\n" in err, "what it prints goes to our stderr"
    assert err.splitlines()[-1].endswith("  job: all work is done")
    code, out, err = ended(recover(here, "job.py", "-s", store.path))
    assert (code, out) == (0, "")
    assert "started" not in err
    assert "  job: all work is done" in err, "the user asked for it by name"


def test_targets_and_tables_each_have_their_sessions(here: Path, store: milepost.Store) -> None:
    (here / "inner").mkdir()
    loops = [Gate(here, name, is_script=True) for name in ("crawl-a", "crawl-b")]
    job, other = Gate(here, "job"), Gate(here, "other", is_script=True)
    for each in (*loops, job, other):
        died(each, here, store.path)
        each.open()
    # One command for many sessions learns from the environment which it is.
    (here / "any.py").write_text(
        "import os\nexec(open(os.environ['MILEPOST_SESSION'] + '.py').read())\n"
    )
    table = f'[[recover]]\nsession = "{{}}"\ncommand = ["{sys.executable}", "any.py"]\n'
    (here / "milepost.toml").write_text(table.format("crawl-*") + table.format("job"))
    process = recover(here / "inner", "../job.py", "-s", store.path, "--json", "--jobs", "2")
    code, out, err = ended(process)
    assert code == 0, out + err
    assert all(each.done == DONE for each in loops)
    assert store.load_progress("crawl-a").outcome is milepost.Outcome.COMPLETED
    assert other.done == DONE[:5], "what nobody named is not run"
    program = store.load_progress("job").executions[-1].program
    assert program == "milepost run ../job.py", "the command line goes before the file"
    told = [json.loads(line) for line in out.splitlines()]
    found = next(each for each in told if each["session"] == "other")
    assert found["message"].endswith("; no target carries it on")
    assert found["status"]["kind"] == "required"


def test_only_the_sessions_that_were_named_are_run(here: Path, store: milepost.Store) -> None:
    gates = [Gate(here, name, is_script=True) for name in ("a", "b[1]")]
    for each in gates:
        died(each, here, store.path)
        each.open()
    text = "import os\nexec(open(os.environ['MILEPOST_SESSION'] + '.py').read())\n"
    (here / "any.py").write_text(text)
    (here / "milepost.toml").write_text(
        f'[[recover]]\nsession = "*"\ncommand = ["{sys.executable}", "any.py"]\n'
    )
    (here / "none.py").write_text(gates[0].file.read_text().split("body(milepost")[0] + "1 / 0")
    job = Gate(here, "job")
    words = ["job.py", "--session", "b[1]", "-s", store.path]
    code, _, err = ended(recover(here, *words))
    assert code == 0, err
    assert [len(each.done) for each in gates] == [5, ITEMS]
    assert job.done == []
    code, _, err = ended(recover(here, "job.py", "--session", "a", "--dry-run", "-s", store.path))
    assert code == 0
    assert gates[0].done == DONE[:5]
    (here / "milepost.toml").unlink()
    code, _, err = ended(recover(here, *words))
    assert code == 2
    assert "error: no target carries on session 'b[1]'" in err


def test_what_wants_to_be_carried_on_is_named_where_no_table_fits_it(
    here: Path, store: milepost.Store, folder: Path, dead: str, failed: str
) -> None:
    (here / "milepost.toml").write_text('[[recover]]\nsession = "x-*"\ncommand = ["true"]\n')
    with store.session("done", total_batches=0) as session:
        session.complete()
    ran = run("recover", "-s", folder)
    assert (ran.code, ran.out) == (10, "")
    assert "is named by a target or a [[recover]] table; these want to be carried on: " in ran.err
    assert f"{dead!r}" in ran.err
    assert "'done'" not in ran.err
    assert 'hint: in a [[recover]] table write session = "' in ran.err


def test_a_session_that_lives_is_said_to_be_left_alone(here: Path, store: milepost.Store) -> None:
    (here / "milepost.toml").write_text('[[recover]]\nsession = "liv*"\ncommand = ["true"]\n')
    with store.session("living") as living, store.session("else") as other:
        living.start_batch("b")
        other.start_batch("b")
        code, out, err = ended(recover(here, "-s", store.path))
    assert (code, out) == (0, "")
    assert err.splitlines()[-1].endswith(
        "  living: a process is writing it; left alone while it lives"
    )
    assert "else:" not in err, "nobody named it"


def test_a_name_with_a_pattern_in_it_is_that_name_alone(here: Path, store: milepost.Store) -> None:
    gate, decoy = Gate(here, "job[1]"), Gate(here, "job1")
    for each in (gate, decoy):
        died(each, here, store.path)
        each.open()
    assert ended(recover(here, "job[1].py", "-s", store.path))[0] == 0
    assert (gate.done, decoy.done) == (DONE, DONE[:5])


def test_a_dry_run_says_what_would_be_run(here: Path, store: milepost.Store) -> None:
    gate = Gate(here, "job")
    died(gate, here, store.path)
    code, out, _ = ended(recover(here, "job.py", "--dry-run", "-s", store.path))
    assert code == 0
    assert f"  next: milepost run job.py --store {store.path}" in out
    assert not (here / store.path / "watcher.lock").exists()
    assert gate.done == DONE[:5]


def test_failed_batches_are_3(here: Path, store: milepost.Store) -> None:
    gate = Gate(here, "job")
    died(gate, here, store.path)
    gate.file.write_text(
        gate.file.read_text().replace("if item ==", "assert item != 7\n        if item ==")
    )
    gate.open()
    code, _, err = ended(recover(here, "job.py", "-s", store.path))
    assert code == 3, err
    assert store.view("job").judgement.status is milepost.SessionStatus.FAILED


def test_what_never_gets_on_is_given_up_and_is_1(here: Path, store: milepost.Store) -> None:
    gate = Gate(here, "job")
    died(gate, here, store.path)
    (here / "milepost.toml").write_text(
        f'[[recover]]\nsession="job"\ncommand=["{sys.executable}", "-c", ""]\n'
    )
    other = Gate(here, "other")
    died(other, here, store.path)
    other.open()
    code, _, err = ended(recover(here, "other.py", "-s", store.path, "--max-attempts", "2"))
    assert code == 1
    assert err.count("  job: started process") > 1
    (told,) = [line for line in err.splitlines() if "  job: given up: " in line]
    assert "given up: 3 starts in a row without progress; the last: exit code 0" in told
    assert f"; look at it: milepost show job --store {store.path}; to try again: " in told
    assert told.endswith(f"; to try again: milepost recover --session job --store {store.path}")
    assert other.done == DONE, "the others go on"


def test_what_was_given_up_is_tried_again_by_what_was_named_for_it(
    here: Path, store: milepost.Store, interrupted: str
) -> None:
    targets = [
        milepost.Target("job", asking.command_of("job.py", "--store", "mine")),
        milepost.Target("table", ("python", "a.py"), str(here)),
    ]
    advice = Advice(store, targets, store_option=None)
    assert advice.trying_again("job") == "to try again: milepost run job.py --store mine"
    assert advice.trying_again("table") == "to try again: milepost recover --session table"
    assert advice.trying_again(interrupted) == "to try again: milepost run places.py"
    assert advice.trying_again("nobodys") == "to try again: run its program again"


def test_with_auto_resume_off_what_is_advised_says_that_it_is_meant(
    store: milepost.Store, here: Path, interrupted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILEPOST_AUTO_RESUME", "0")
    targets = [
        milepost.Target("job", asking.command_of("job.py")),
        milepost.Target("table", ("python", "a.py"), str(here)),
    ]
    advice = Advice(store, targets, store_option=None)
    by_hand = "to carry it on: MILEPOST_AUTO_RESUME=1 "
    assert advice.going_on("job") == f"{by_hand}milepost run job.py"
    assert advice.going_on("table") == f"{by_hand}MILEPOST_SESSION=table python a.py"
    assert advice.going_on(interrupted) == f"{by_hand}milepost run places.py"
    assert advice.trying_again("table") == "to try again: milepost recover --session table"


def test_what_was_stopped_on_purpose_is_told_with_what_carries_it_on(
    here: Path, store: milepost.Store
) -> None:
    gate, looked_at = Gate(here, "job"), Gate(here, "loop", is_script=True)
    for name in ("job", "loop", *(f"other-{number}" for number in range(48))):
        with store.session(name) as session:
            session.end(milepost.Outcome.STOPPED)
    (here / "milepost.toml").write_text(
        f'[[recover]]\nsession="loop"\ncommand=["{sys.executable}", "{looked_at.file.name}"]\n'
    )
    words = ["job.py", "-s", store.path]
    code, _, err = ended(recover(here, *words))
    assert code == 0, err
    told = [line.partition(" UTC  ")[2] for line in err.splitlines() if "on purpose" in line]
    why = "it was stopped on purpose; left alone; to carry it on"
    by_table = f"MILEPOST_STORE={store.path} MILEPOST_SESSION=loop {sys.executable} loop.py"
    assert told[0] == f"job: {why}: milepost run job.py --store {store.path}"
    assert told[1] == f"loop: {why}: {by_table}", "what was named for it comes first"
    assert len(told) == 5
    assert told[4] == (
        f"46 more stopped on purpose, and left alone; see them: milepost list --store {store.path}"
    )
    assert gate.done == looked_at.done == []
    looked_at.open()
    subprocess.run(by_table, shell=True, check=True, cwd=here)
    assert looked_at.done == DONE, "what is told can be typed"


def test_damage_is_12(here: Path, store: milepost.Store) -> None:
    gate = Gate(here, "job")
    died(gate, here, store.path)
    for part in ("sessions", "backups"):
        for file in (here / store.path / part).rglob("*.zst"):
            file.write_bytes(b"nothing")
    code, _, err = ended(recover(here, "job.py", "-s", store.path))
    assert code == 12, err
    assert "  job: no snapshot of this session can be read" in err


# What is wrong.


def test_wrong_targets_are_told_and_the_others_go_on(here: Path, store: milepost.Store) -> None:
    gate = Gate(here, "job")
    died(gate, here, store.path)
    gate.open()
    (here / "bad.py").write_text("1 / 0\n")
    (here / "exits.py").write_text("import os; os._exit(3)\n")
    Gate(here, "later")
    words = ["bad.py", "job.py", "exits.py", "missing.py", "later.py", "-s", store.path]
    code, _, err = ended(recover(here, *words))
    assert code == 1, err
    assert gate.done == DONE
    for message in (
        "bad.py raised ZeroDivisionError while it was imported (ZeroDivisionError: division by",
        "exits.py ended its process while it was imported (exit code 3)",
        "missing.py does not exist",
        f"later.py: there is no session 'later' in {store.path} yet; milepost run later.py",
    ):
        assert err.count(message) == 1


@pytest.mark.parametrize("more", [[], ["--watch"]])
def test_where_every_target_is_wrong_nothing_is_watched(
    more: list[str], here: Path, store: milepost.Store, dead: str
) -> None:
    (here / "bad.py").write_text("1 / 0\n")
    ran = run("recover", "bad.py", "-s", store.path, *more)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: bad.py raised ZeroDivisionError while it was imported (")
    told = run("recover", "missing.py", "-s", store.path, *more, "--json")
    assert (told.code, told.error["message"]) == (2, "missing.py does not exist")


def test_a_job_that_matches_no_session_is_10_and_watched_for_if_wanted(
    here: Path, store: milepost.Store, dead: str
) -> None:
    gate = Gate(here, "job")
    ran = run("recover", "job.py", "-s", store.path)
    assert (ran.code, ran.out) == (10, "")
    assert f"error: job.py: there is no session 'job' in {store.path} yet" in ran.err
    with watching(here, store.path, "job.py") as watched:
        watched.wait_for("trouble", message=ran.err.removeprefix("error: ").strip())
        watched.wait_for("found", session=dead)
        died(gate, here, store.path)
        assert watched.wait_for("started", session="job")["pid"] == gate.wait_for_run(2)
        gate.open()
        watched.wait_for("ended", session="job", exit_code=0)
        assert watched.stop() == 143
    assert gate.done == DONE


def test_jobs_with_several_stores_are_wrong_use(here: Path) -> None:
    for name in ("one", "two"):
        gate = Gate(here, name)
        gate.file.write_text(gate.file.read_text().replace('["only"]', f'["only"], store="{name}"'))
        milepost.Store(name).save_state(name, 1)
    ran = run("recover", "one.py", "two.py")
    assert ran.code == 2
    assert f"one.py has its sessions in {here / 'one'}, two.py in {here / 'two'}" in ran.err
    ran = run("recover", "one.py", "two.py", "-s", "one", "--dry-run")
    assert ran.code == 0, "one store for all is named"


def test_a_command_that_does_not_exist_is_given_up_and_watching_goes_on(
    here: Path, store: milepost.Store, dead: str
) -> None:
    gate = Gate(here, "job")
    died(gate, here, store.path)
    gate.open()
    (here / "milepost.toml").write_text(
        '[[recover]]\nsession="dead"\ncommand=["no-such-command"]\n'
    )
    with watching(here, store.path, "job.py") as watched:
        told: dict[str, dict[str, Any]] = {}
        while not {"gave_up", "ended"} <= told.keys():
            assert watched.process.stdout is not None
            each = json.loads(watched.process.stdout.readline())
            told[each["event"]] = each
        assert told["gave_up"]["session"] == dead
        assert "cannot start 'no-such-command'" in told["gave_up"]["message"]
        assert (told["ended"]["session"], told["ended"]["exit_code"]) == ("job", 0)
        assert watched.stop() == 143


def test_a_second_watcher_is_11(here: Path, store: milepost.Store, dead: str) -> None:
    Gate(here, "job")
    with watching(here, store.path) as watched:
        watched.wait_for("found", session=dead)
        code, _, err = ended(recover(here, "job.py", "--watch", "-s", store.path))
        assert code == 11
        assert f"another process watches {store.path} already" in err


def test_a_store_that_vanishes_is_waited_for(here: Path, store: milepost.Store, dead: str) -> None:
    gate = Gate(here, "job")
    away = here / "away"
    with watching(here, store.path, "job.py", "--poll") as watched:
        watched.wait_for("found", session=dead)
        shutil.move(store.path, away)
        watched.wait_for("trouble")
        assert watched.told[-1]["message"].endswith("waiting for it to come back")
        shutil.move(away, store.path)
        watched.wait_for("trouble", message=f"{store.path} is back")
        died(gate, here, store.path)
        gate.open()
        watched.wait_for("ended", session="job", exit_code=0)
        assert watched.stop() == 143
    assert gate.done == DONE


def test_without_any_target_it_only_tells(here: Path, store: milepost.Store, dead: str) -> None:
    with watching(here, store.path) as watched:
        first = watched.wait_for("trouble")
        assert "nothing is executed" in first["message"]
        found = watched.wait_for("found", session=dead)
        assert found["message"].endswith("; no target carries it on")
        assert watched.stop(signal.SIGINT) == 130
    assert store.load_progress(dead).recovery is None


def test_switched_off_it_only_tells(here: Path, store: milepost.Store) -> None:
    gate = Gate(here, "job")
    died(gate, here, store.path)
    process = start(
        *("recover", "job.py", "-s", store.path),
        cwd=here,
        env={"MILEPOST_AUTO_RECOVERY_ENABLED": "no"},
    )
    code, _, err = ended(process)
    assert code == 0
    assert "auto_recovery_enabled is off: sessions are only told of" in err
    assert "started" not in err


# Watching.


def test_a_killed_child_is_started_again(here: Path, store: milepost.Store) -> None:
    gate = Gate(here, "job")
    died(gate, here, store.path)
    with watching(here, store.path, "job.py") as watched:
        for number in (2, 3):
            assert watched.wait_for("started")["pid"] == gate.wait_for_run(number)
            gate.kill_run(number)
            told = watched.wait_for("ended", session="job")
            assert (told["exit_code"], "killed by SIGKILL" in told["message"]) == (137, True)
            # It got on with nothing; what it had in hand is poison at the third death.
        gate.open()
        watched.wait_for("ended", exit_code=3)
        assert watched.stop() == 143
    state = store.load_progress("job")
    item = state.failed_batches[0].partial_progress.open[5]
    assert item.error_message is not None
    assert item.error_message.startswith("poison: ")


def test_the_limit_of_the_command_line_counts_for_the_children_too(
    here: Path, store: milepost.Store
) -> None:
    gate = Gate(here, "job")
    died(gate, here, store.path)
    with watching(here, store.path, "job.py", "--max-attempts", "5", "--delay", "0") as watched:
        for number in (2, 3, 4):
            gate.kill_run(number)
        gate.wait_for_run(5)  # four deaths are poison by default, and are not here
        gate.open()
        watched.wait_for("ended", session="job", exit_code=0)
        assert watched.stop() == 143
    assert gate.done == DONE


@pytest.mark.parametrize(("number", "code", "status"), SIGNALS)
def test_a_signal_is_passed_on_and_the_save_awaited(
    number: signal.Signals,
    code: int,
    status: milepost.SessionStatus,
    here: Path,
    store: milepost.Store,
) -> None:
    gate = Gate(here, "job")
    died(gate, here, store.path)
    with watching(here, store.path, "job.py") as watched:
        gate.wait_for_run(2)
        watched.wait_for("started")
        watched.process.send_signal(number)
        watched.wait_for("stopping")
        gate.open()
        watched.process.wait(timeout=PATIENCE_SECONDS)
        assert watched.process.returncode == code
    assert store.view("job").judgement.status is status
    assert gate.done == DONE[:6], "the item in hand was finished, and no other begun"


def test_who_stops_a_watcher_is_told_what_is_stopped_now(here: Path, store: milepost.Store) -> None:
    gates = [Gate(here, name) for name in ("a", "b", "done")]
    for each in gates:
        died(each, here, store.path)
    gates[2].open()
    process = recover(here, "a.py", "b.py", "done.py", "--watch", "--jobs", "2", "-s", store.path)
    for each in gates[:2]:
        each.wait_for_run(2)
    process.send_signal(signal.SIGINT)
    for each in gates:
        each.open()
    code, _, err = ended(process)
    assert code == 130
    assert err.splitlines()[-2:] == [
        f"milepost: {name}: stopped, also for the next watcher; to carry it on:"
        f" milepost run {name}.py --store {store.path}"
        for name in ("a", "b")
    ]


def test_after_a_sigterm_the_next_watcher_goes_on_so_nothing_is_told(
    here: Path, store: milepost.Store
) -> None:
    gate = Gate(here, "job")
    died(gate, here, store.path)
    process = recover(here, "job.py", "--watch", "-s", store.path)
    gate.wait_for_run(2)
    process.terminate()
    gate.open()
    code, _, err = ended(process)
    assert code == 143
    assert "also for the next watcher" not in err


def test_stopped_work_that_is_begun_anew_is_taken_up(here: Path, store: milepost.Store) -> None:
    gate = Gate(here, "job")
    process = start("run", "job.py", "-s", store.path, cwd=here)
    gate.wait_for_run(1)
    process.send_signal(signal.SIGINT)
    gate.open()
    process.communicate(timeout=PATIENCE_SECONDS)
    assert run("restart", "job", "-s", store.path).code == 0
    listed = run("list", "-s", store.path, "--json").json["sessions"][0]
    assert (listed["status"], listed["reason"]) == (
        "pending",
        "it was begun anew and not run since",
    )
    code, _, err = ended(recover(here, "job.py", "-s", store.path))
    assert code == 0, err
    assert gate.done == DONE[:6] + DONE


def test_children_outlive_a_killed_watcher_and_are_left_alone_by_the_next(
    here: Path, store: milepost.Store
) -> None:
    gate = Gate(here, "job")
    died(gate, here, store.path)
    with watching(here, store.path, "job.py") as watched:
        pid = gate.wait_for_run(2)
        watched.process.kill()
        watched.process.wait()
    with watching(here, store.path, "job.py") as watched:
        watched.wait_for("found", session="job")
        assert watched.told[-1]["status"]["kind"] == "none"
        os.kill(pid, 0)
        gate.kill_run(2)
        watched.wait_for("started", session="job")
        gate.open()
        watched.wait_for("ended", session="job", exit_code=0)
        assert watched.stop() == 143
    assert gate.done == DONE


def test_stopped_work_is_left_alone(here: Path, store: milepost.Store) -> None:
    gate = Gate(here, "job")
    process = start("run", "job.py", "-s", store.path, cwd=here)
    gate.wait_for_run(1)
    process.send_signal(signal.SIGINT)
    gate.open()
    process.communicate(timeout=PATIENCE_SECONDS)
    code, _, err = ended(recover(here, "job.py", "-s", store.path))
    assert code == 0
    assert "  job: it was stopped on purpose" in err
    assert gate.done == DONE[:6]


def test_what_children_print_goes_to_a_file_each_under_logs(
    here: Path, store: milepost.Store
) -> None:
    gate, other = Gate(here, "지역 a"), Gate(here, "other")
    for each in (gate, other):
        died(each, here, store.path)
        each.open()
    words = ["지역 a.py", "other.py", "-s", store.path, "--logs", "logs/new"]
    code, _, err = ended(recover(here, *words))
    assert code == 0, err
    assert "did 8" not in err
    logs = {path.name: path.read_text() for path in (here / "logs" / "new").iterdir()}
    assert len(logs) == 2
    assert all("did 8\n" in text and "milepost: " in text for text in logs.values())
    (here / "file").touch()
    ran = run("recover", "other.py", "-s", store.path, "--logs", "file")
    assert ran.code == 2
    assert "--logs file: " in ran.err


def test_handlers_are_put_back(here: Path, store: milepost.Store) -> None:
    from milepost_cli.passing_on import signals_to

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    told: list[int] = []
    with signals_to(told.append):
        for number in numbers:
            signal.raise_signal(number)
    assert told == [signal.SIGINT, signal.SIGTERM, signal.SIGTERM]
    assert [signal.getsignal(number) for number in numbers] == before


def test_what_is_ignored_stays_so() -> None:
    from milepost_cli.passing_on import signals_to

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_to(lambda _number: None):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


PLAIN = """
import milepost
for item in milepost.resume(range(5), "plain"):
    print(item)
"""


@pytest.mark.parametrize("words", [["run"], ["run", "--supervise"], ["recover", "--dry-run"]])
def test_a_plain_script_is_refused_as_a_target_before_its_loop_begins(
    here: Path, words: list[str]
) -> None:
    (here / "plain.py").write_text(PLAIN)
    code, out, err = ended(start(*words, "plain.py", cwd=here))
    assert (code, out) == (2, "")
    assert "plain.py has no job: it is a plain script, and its loop was not begun" in err
    assert "milepost run --supervise -- python plain.py" in err
    assert not (here / ".milepost").exists()


def test_a_table_carries_a_script_on_also_without_watching_and_beside_a_wrong_target(
    here: Path,
) -> None:
    (here / "plain.py").write_text(PLAIN)
    store = milepost.Store(here / ".milepost")
    with store.session("plain", execute=False) as session:
        session.set_total_batches(1)
    (here / "milepost.toml").write_text(
        f'[[recover]]\nsession="pl*"\ncommand=["{sys.executable}", "plain.py"]\n'
    )
    code, _, err = ended(recover(here, "absent.py"))
    assert code == 1
    assert "absent.py does not exist" in err
    assert store.view("plain").judgement.status is milepost.SessionStatus.COMPLETED
    store.restart("plain")
    code, _, err = ended(recover(here, "--dry-run"))
    assert (code, store.load_progress("plain").items_finished) == (0, 0)
    code, _, err = ended(recover(here))
    assert (code, store.load_progress("plain").items_finished) == (0, 5)
