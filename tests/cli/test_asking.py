"""What a target is: asked of a process of its own, because it may crash, exit or hang."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from milepost_cli import asking
from milepost_cli.asking import JobTarget
from milepost_cli.failure import TargetError
from support.watching import wait_until

if TYPE_CHECKING:
    from pathlib import Path

JOB = """
import milepost

@milepost.job("places", batches=["a"])
def ingest(batch): pass
"""


def asked(target: str) -> JobTarget:
    (answer,) = asking.ask([target])
    assert isinstance(answer, JobTarget), answer
    return answer


def refused(target: str, *, patience_seconds: float = 60.0) -> TargetError:
    (answer,) = asking.ask([target], patience_seconds=patience_seconds)
    assert isinstance(answer, TargetError), answer
    return answer


def test_a_file_and_a_module_tell_their_session_and_store(here: Path) -> None:
    (here / "jobs").mkdir()
    (here / "jobs" / "__init__.py").touch()
    (here / "jobs" / "places.py").write_text(JOB.replace('"a"]', '"a"], store="mine"'))
    (here / "places.py").write_text(JOB)
    assert asked("places.py") == ("places.py", "places", None)
    assert asked("places.py:ingest").session == "places"
    assert asked("jobs.places:ingest") == ("jobs.places:ingest", "places", str(here / "mine"))


def test_an_empty_variable_names_no_store(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "milepost.toml").write_text('store = "named"')
    (here / "places.py").write_text(JOB)
    monkeypatch.setenv("MILEPOST_STORE", "")
    assert asked("places.py").store == str(here / "named")
    monkeypatch.setenv("MILEPOST_STORE", "other")
    assert asked("places.py").store is None


def test_a_store_that_was_made_tells_where_it_is(here: Path) -> None:
    (here / "x.py").write_text(JOB.replace('"a"]', '"a"], store=milepost.Store("made")'))
    assert asked("x.py").store == str(here / "made")
    assert not (here / "made").exists()


def test_what_it_prints_and_leaves_running_is_no_answer(here: Path) -> None:
    text = """
import os, subprocess, threading
print('{"session": "forged", "store": null}', flush=True)
os.write(1, b'{"session": "forged", "store": null}')
subprocess.run(["echo", "forged"])
threading.Thread(target=threading.Event().wait).start()
"""
    (here / "loud.py").write_text(text + JOB)
    assert asked("loud.py").session == "places"


@pytest.mark.parametrize(
    ("text", "message", "code"),
    [
        ("import os; os._exit(4)", "ended its process while it was imported (exit code 4)", 1),
        ("import os; os.abort()", "ended its process while it was imported (SIGABRT)", 1),
        ("raise SystemExit(3)", "ended the interpreter while it was imported", 1),
        ("\n1 / 0", "(ZeroDivisionError: division by zero, line 2 of x.py)", 1),
        ("def broken(:", "raised SyntaxError while it was imported", 1),
        ("x = 1", "x.py has no job", 2),
        ("raise KeyboardInterrupt", "ended its process while it was imported", 1),
    ],
)
def test_one_that_cannot_be_imported_says_so_and_takes_nobody_along(
    text: str, message: str, code: int, here: Path
) -> None:
    (here / "x.py").write_text(text)
    (here / "good.py").write_text(JOB)
    bad, good = asking.ask(["x.py", "good.py"])
    assert isinstance(bad, TargetError)
    assert message in str(bad)
    assert "\n" not in str(bad)
    assert bad.exit_code == code
    assert isinstance(good, JobTarget)


def test_one_that_hangs_is_ended_with_all_that_it_started(here: Path) -> None:
    text = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("pids", "w").write(f"{os.getpid()} {child.pid}")
child.wait()
"""
    (here / "slow.py").write_text(text)
    error = refused("slow.py", patience_seconds=3.0)
    assert str(error) == "slow.py was not imported within 3 seconds"
    for pid in (here / "pids").read_text().split():
        wait_until(partial(is_gone, int(pid)))


def is_gone(pid: int) -> bool:
    """Whether it has ended; who inherits it may take a moment to notice."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] in {"Z", "X"}
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("name", ["click.py", "milepost.py", "json.py"])
def test_a_file_in_the_current_folder_shadows_no_module(name: str, here: Path) -> None:
    (here / name).write_text("raise RuntimeError('imported by chance')")
    (here / "jobs").mkdir()
    (here / "jobs" / "places.py").write_text(JOB)
    assert asked("jobs/places.py").session == "places"


def test_a_command_is_told_as_people_type_it() -> None:
    command = asking.command_of("a b.py", "--store", "x")
    assert command[0] == sys.executable
    assert asking.typed(command) == "milepost run 'a b.py' --store x"
    assert asking.typed(["python", "a b.py"]) == "python 'a b.py'"


def test_an_interrupt_while_it_is_asked_leaves_no_process(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "x.py").write_text(
        f"import os, time\nopen('pid', 'w').write(str(os.getpid()))\n"
        f"os.kill({os.getpid()}, {int(signal.SIGINT)})\ntime.sleep(600)"
    )
    with pytest.raises(KeyboardInterrupt):
        asking.ask(["x.py"])
    wait_until(partial(is_gone, int((here / "pid").read_text())))
