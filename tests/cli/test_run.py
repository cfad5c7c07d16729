from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import milepost
from milepost_cli import loading
from milepost_cli.failure import WrongUseError
from support.commands import ROOT, on_terminal, run, start

GOOD = """
import milepost

@milepost.job("places", batches=["a", "b"])
def ingest(batch):
    with batch.items(range(3)) as items:
        for item in items:
            print(batch.key, item)
"""

SLOW = """
import time, milepost

@milepost.job("slow", batches=["a", "b", "c"], workers=2)
def slow(batch):
    with batch.items(range(1000)) as items:
        for item in items:
            print(batch.key, item, flush=True)
            time.sleep(0.02)
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_it_runs_the_job_and_running_again_does_nothing(here: Path, store: milepost.Store) -> None:
    write(here / "places.py", GOOD)
    ran = run("run", "places.py", "-s", store.path)
    assert ran.code == 0
    assert ran.out.split() == ["a", "0", "a", "1", "a", "2", "b", "0", "b", "1", "b", "2"]
    assert "places: NEW in" in ran.err
    assert "places: complete, 2 batches, 6 items" in ran.err
    again = run("run", "places.py", "-s", store.path)
    assert (again.code, again.out) == (0, "")
    assert "complete since" in again.err


def test_json_prints_the_result_and_nothing_else(here: Path, store: milepost.Store) -> None:
    write(here / "places.py", GOOD.replace("print(batch.key, item)", "pass"))
    ran = run("run", "places.py", "-s", store.path, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json == ran.json | {
        "name": "places",
        "outcome": "completed",
        "exit_code": 0,
        "completed": 2,
        "failures": {},
        "did_nothing": False,
    }
    assert run("run", "places.py", "-s", store.path, "--json").json["did_nothing"] is True


def test_how_to_run_it_again_is_noted(here: Path, store: milepost.Store) -> None:
    (here / "jobs").mkdir()
    write(here / "jobs" / "my places.py", GOOD + "    raise ValueError\n")
    run("run", "jobs/my places.py", "-s", store.path)
    program = store.load_progress("places").executions[-1].program
    assert program == "milepost run 'jobs/my places.py'"


def test_no_absolute_path_is_noted(here: Path, store: milepost.Store) -> None:
    run("run", write(here / "places.py", GOOD), "-s", store.path)
    assert store.load_progress("places").executions[-1].program == "milepost run places.py"


def test_failed_batches_are_3_and_the_rest_goes_on(here: Path, store: milepost.Store) -> None:
    write(here / "places.py", GOOD + "            assert (batch.key, item) != ('a', 1)\n")
    ran = run("run", "places.py", "-s", store.path)
    assert ran.code == 3
    assert "Traceback" not in ran.err
    assert "failed: a: AssertionError" in ran.err
    assert "b 2" in ran.out
    told = run("run", "places.py", "-s", store.path, "--json")
    assert told.code == told.json["exit_code"] == 3
    assert list(told.json["failures"]) == ["a"]


@pytest.mark.parametrize("chosen", ["first", "second-name", "second"])
def test_a_job_is_chosen_by_variable_or_by_name(
    chosen: str, here: Path, store: milepost.Store
) -> None:
    jobs = """
import milepost
@milepost.job("first", batches=["x"])
def first(batch): pass
@milepost.job("second-name", batches=["x"])
def second(batch): pass
alias = second
"""
    write(here / "two.py", jobs)
    ran = run("run", f"two.py:{chosen}", "-s", store.path, "--json")
    assert ran.code == 0
    assert ran.json["name"] == ("first" if chosen == "first" else "second-name")


def test_two_jobs_and_no_choice_is_wrong_usage(here: Path, store: milepost.Store) -> None:
    text = "import milepost\n" + "".join(
        f"@milepost.job('{name}', batches=['x'])\ndef {name}(batch): pass\n" for name in "ab"
    )
    write(here / "two.py", text)
    ran = run("run", "two.py", "-s", store.path)
    assert (ran.code, ran.out) == (2, "")
    assert "error: two.py has 2 jobs: a, b" in ran.err
    assert "hint: name one: milepost run two.py:a" in ran.err
    ran = run("run", "two.py:c", "-s", store.path)
    assert ran.code == 2
    assert "error: two.py has no job 'c'" in ran.err
    assert "there are: a, b" in ran.err
    assert not store.exists()


def test_two_names_of_one_job_are_one_job(here: Path, store: milepost.Store) -> None:
    write(here / "places.py", GOOD + "\nalias = ingest\n")
    assert run("run", "places.py", "-s", store.path).code == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.py", None, "missing.py does not exist"),
        ("none.py", "x = 1\n", "none.py has no job"),
        ("text.txt", "x = 1\n", "text.txt is no Python file"),
    ],
)
def test_a_file_without_a_job_is_wrong_usage(
    name: str, text: str | None, message: str, here: Path, store: milepost.Store
) -> None:
    if text is not None:
        write(here / name, text)
    ran = run("run", name, "-s", store.path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {message}\n")
    assert "\nhint: " in ran.err
    told = run("run", name, "-s", store.path, "--json")
    assert (told.code, told.error["message"]) == (2, message)
    assert not store.exists()


def test_a_folder_is_wrong_usage(here: Path, store: milepost.Store) -> None:
    (here / "x.py").mkdir()
    assert "x.py is a folder" in run("run", "x.py", "-s", store.path).err


def test_a_file_that_raises_is_1_with_the_users_part_of_the_traceback(
    here: Path, store: milepost.Store
) -> None:
    write(here / "helper.py", "def give():\n    raise KeyError('\\x1b[31mgone')\n")
    write(here / "bad.py", "import helper\nhelper.give()\n")
    ran = run("run", "bad.py", "-s", store.path)
    assert (ran.code, ran.out) == (1, "")
    assert 'bad.py", line 2, in <module>' in ran.err
    assert 'helper.py", line 2, in give' in ran.err
    assert "milepost_cli" not in ran.err
    assert "importlib" not in ran.err
    assert "\x1b" not in ran.err
    assert "error: bad.py raised KeyError while it was imported" in ran.err
    assert "bad" not in sys.modules
    told = run("run", "bad.py", "-s", store.path, "--json")
    assert (told.code, told.error["exit_code"]) == (1, 1)
    assert told.error["facts"]["traceback"][-1].startswith("KeyError: ")


@pytest.mark.parametrize("given", ["5", "", "0", "'nothing to do'"])
def test_a_file_that_exits_is_1_and_says_where(
    given: str, here: Path, store: milepost.Store
) -> None:
    write(here / "exits.py", f"import sys\nsys.exit({given})\n")
    ran = run("run", "exits.py", "-s", store.path)
    assert (ran.code, ran.out) == (1, "")
    assert 'exits.py", line 2, in <module>' in ran.err
    assert "error: exits.py ended the interpreter while it was imported\n\nhint: " in ran.err
    assert "milepost_cli" not in ran.err
    assert "exits" not in sys.modules


def test_a_file_that_does_not_parse_is_1_and_names_the_line(
    here: Path, store: milepost.Store
) -> None:
    write(here / "bad.py", "x = 1\ndef broken(:\n")
    ran = run("run", "bad.py", "-s", store.path)
    assert ran.code == 1
    assert 'bad.py", line 2' in ran.err
    assert "milepost_cli" not in ran.err
    assert "error: bad.py raised SyntaxError while it was imported" in ran.err


def test_batches_that_raise_are_1_with_the_users_part_of_the_traceback(
    here: Path, store: milepost.Store
) -> None:
    write(here / "bad.py", GOOD.replace('batches=["a", "b"]', "batches=lambda: 1 / 0"))
    ran = run("run", "bad.py", "-s", store.path)
    assert ran.code == 1
    assert "ZeroDivisionError" in ran.err
    assert "engine/milepost" not in ran.err
    assert "error: job 'places' raised ZeroDivisionError" in ran.err


def test_a_key_that_comes_twice_in_the_plan_is_an_error_with_a_hint(
    here: Path, store: milepost.Store
) -> None:
    write(here / "twice.py", GOOD.replace('["a", "b"]', '["a", "a"]'))
    ran = run("run", "twice.py", "-s", store.path, "--json")
    assert ran.code == 2
    assert ran.error["type"] == "ConfigurationError"
    assert "Traceback" not in ran.err


def test_a_file_is_a_module_of_its_own_name_with_its_folder_on_the_path(
    here: Path, store: milepost.Store
) -> None:
    (here / "jobs").mkdir()
    write(here / "jobs" / "beside_it.py", "WORD = 'beside'\n")
    text = """
import dataclasses, pickle, sys
import beside_it, milepost
from typing import ClassVar

@dataclasses.dataclass
class Row:
    word: str
    kind: ClassVar[str] = "row"

assert __name__ == "dated_places", __name__
assert sys.argv == ["jobs/dated_places.py"], sys.argv

@milepost.job("places", batches=["a"])
def ingest(batch):
    row = pickle.loads(pickle.dumps(Row(beside_it.WORD)))
    assert type(row) is Row
    print(row)

if __name__ == "__main__":
    raise SystemExit("run as a script")
"""
    write(here / "jobs" / "dated_places.py", text)
    before = sys.argv
    ran = run("run", "jobs/dated_places.py", "-s", store.path)
    assert (ran.code, ran.out) == (0, "Row(word='beside')\n")
    assert sys.argv is before


@pytest.mark.parametrize("name", ["json.py", "2026-crawl.py", "__main__.py", "click.py"])
def test_a_file_with_the_name_of_a_module_shadows_none(
    name: str, here: Path, store: milepost.Store
) -> None:
    import json as before

    write(here / name, GOOD)
    assert run("run", name, "-s", store.path).code == 0
    assert sys.modules["json"] is before


def test_a_colon_in_a_path_is_no_choice(here: Path) -> None:
    write(here / "odd:name.py", GOOD)
    assert loading.split_target("odd:name.py") == ("odd:name.py", None)
    assert loading.split_target("odd:name.py:ingest") == ("odd:name.py", "ingest")
    assert loading.split_target(r"C:\jobs\places.py") == (r"C:\jobs\places.py", None)
    assert loading.split_target("places.py:지역-수집") == ("places.py", "지역-수집")


def test_options_go_before_the_decorator(here: Path, store: milepost.Store) -> None:
    text = """
import milepost, threading
meet = threading.Barrier(3, timeout=30)
tries = []

@milepost.job("wide", batches=lambda: SOURCE, attempts=1)
def wide(batch):
    if batch.key < "d":
        meet.wait()
        return
    tries.append(1)
    if len(tries) < 2:
        raise ConnectionError("again")

wide.backoff = milepost.Backoff(first_seconds=0.001)
SOURCE = ["a", "b", "c", "d"]
"""
    first = text.replace(', "d"]', "]")
    write(here / "wide.py", first)
    ran = run("run", "wide.py", "-s", store.path, "--workers", "3", "--durability", "disk")
    assert ran.code == 0, ran.err
    del sys.modules["wide"]
    write(here / "wide2.py", text)
    assert run("run", "wide2.py", "-s", store.path, "--json").json["completed"] == 3
    del sys.modules["wide2"]
    ran = run("run", "wide2.py", "-s", store.path, "--plan", "extend", "--attempts", "2", "--json")
    assert (ran.code, ran.json["completed"]) == (0, 4)


TASKS = """
import milepost

@milepost.job("tasks", batches=["a"])
async def tasks(batch):
    pass
"""


def test_an_executor_for_a_coroutine_function_is_wrong_usage(
    here: Path, store: milepost.Store
) -> None:
    write(here / "tasks.py", TASKS)
    for executor in ("processes", "foo", "dask://localhost:1"):
        ran = run("run", "tasks.py", "-s", store.path, "--executor", executor)
        assert (ran.code, ran.out) == (2, "")
        assert f"error: executor is '{executor}', and job 'tasks' is a coroutine" in ran.err
        assert "Traceback" not in ran.err
    assert not store.exists()
    assert run("run", "tasks.py", "-s", store.path, "--executor", "threads").code == 0


def test_a_file_behind_a_link_is_run_by_the_settings_beside_the_real_one(here: Path) -> None:
    (here / "work").mkdir()
    (here / "work" / "milepost.toml").write_text('store = "st"')
    (here / "work" / "beside.py").write_text("BATCHES = ['a', 'b']\n")
    text = GOOD.replace("import milepost", "import milepost\nfrom beside import BATCHES")
    write(here / "work" / "real.py", text.replace('["a", "b"]', "BATCHES"))
    (here / "link.py").symlink_to(here / "work" / "real.py")
    ran = run("run", "link.py")
    assert ran.code == 0, ran.err
    assert milepost.Store(here / "work" / "st").names() == ["places"]


@pytest.mark.parametrize(
    "words",
    [
        ["--workers", "0"],
        ["--attempts", "x"],
        ["--durability", "hope"],
        ["--plan", "maybe"],
        ["--nonsense"],
    ],
    ids=lambda words: words[0],
)
def test_wrong_options_are_wrong_usage(words: list[str], here: Path, store: milepost.Store) -> None:
    write(here / "places.py", GOOD)
    ran = run("run", "places.py", "-s", store.path, *words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert not store.exists()


def test_the_jobs_own_store_counts_where_none_is_named(here: Path) -> None:
    write(here / "places.py", GOOD.replace('"b"]', '"b"], store="mine"'))
    assert run("run", "places.py").code == 0
    assert (here / "mine" / "MILEPOST").exists()
    assert milepost.Store("mine").load_progress("places").executions[-1].program == (
        "milepost run places.py"
    )
    made = GOOD.replace('"b"]', '"b"], store=milepost.Store("made")')
    write(here / "made.py", made)
    assert run("run", "made.py").code == 0
    assert (here / "made" / "MILEPOST").exists()
    assert run("run", "made.py", "-s", "other").code == 0
    assert (here / "other" / "MILEPOST").exists()


def test_a_session_that_somebody_runs_is_11(here: Path, store: milepost.Store) -> None:
    write(here / "places.py", GOOD)
    with store.session("places"):
        process = start("run", "places.py", "-s", store.path, cwd=here)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (11, "")
    assert f"is being written by process {os.getpid()} on" in err
    assert "\nhint: " in err
    assert "Traceback" not in err


READ_ONLY = """
import errno, milepost
from milepost.storage.directory import LocalDirectory
from milepost.storage.syscalls import OperatingSystem

class ReadOnly(OperatingSystem):
    def open_new(self, path):
        raise OSError(errno.EROFS, "Read-only file system", path)
    make_folder = open_new

@milepost.job("new", batches=["a"], store=milepost.Store(
    directory=LocalDirectory(FOLDER, system=ReadOnly()), program="x"))
def ingest(batch): pass
"""


@pytest.mark.parametrize("is_there", [True, False])
def test_a_store_that_must_not_be_written_is_1_and_named(
    is_there: bool, here: Path, store: milepost.Store
) -> None:
    if is_there:
        store.save_state("settings", 1)
    write(here / "places.py", READ_ONLY.replace("FOLDER", repr(store.path)))
    ran = run("run", "places.py")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        f"error: the store at {store.path} cannot be written: Read-only file system\n\n"
        "hint: make it writable, or go on with a copy of it\n"
    )


def test_a_store_that_is_a_file_is_10(here: Path) -> None:
    write(here / "places.py", GOOD)
    ran = run("run", "places.py", "-s", "places.py")
    assert (ran.code, ran.out) == (10, "")
    assert ran.err.startswith(f"error: {here / 'places.py'} is a file; a store is a folder\n")
    assert (here / "places.py").read_text() == GOOD


def begun(process: subprocess.Popen[str], lines: int = 4) -> None:
    """Wait until the job has printed some lines."""
    assert process.stdout is not None
    for _ in range(lines):
        assert process.stdout.readline()


def ended(process: subprocess.Popen[str]) -> str:
    _, err = process.communicate(timeout=60)
    return err


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [
        (signal.SIGINT, 130, milepost.SessionStatus.STOPPED),
        (signal.SIGTERM, 143, milepost.SessionStatus.INTERRUPTED),
    ],
)
def test_a_signal_saves_and_is_the_exit_code(
    number: signal.Signals,
    code: int,
    status: milepost.SessionStatus,
    here: Path,
    store: milepost.Store,
) -> None:
    write(here / "slow.py", SLOW)
    process = start("run", "slow.py", "-s", store.path, cwd=here)
    begun(process)
    process.send_signal(number)
    err = ended(process)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "stopped after the items in hand; run it again to carry on" in err
    view = store.view("slow")
    assert view.judgement.status is status
    assert milepost.item_counts(view.state).completed >= 2
    assert milepost.item_counts(view.state).processing == 0
    told = run("show", "slow", "-s", store.path, "--json").json
    assert told["next_command"] == f"milepost run slow.py --store {store.path}"


def test_ctrl_c_before_the_work_begins_is_130_without_a_traceback(here: Path) -> None:
    write(here / "waits.py", "import time\nprint('in', flush=True)\ntime.sleep(60)\n")
    process = start("run", "waits.py", "-s", here / "none", cwd=here)
    begun(process, 1)
    process.send_signal(signal.SIGINT)
    err = ended(process)
    assert (process.returncode, err) == (130, "milepost: stopped\n")
    assert not (here / "none").exists()


def test_after_kill_9_show_tells_and_a_run_carries_on(here: Path, store: milepost.Store) -> None:
    quick = SLOW.replace("range(1000)", "range(20)")
    write(here / "slow.py", quick)
    process = start("run", "slow.py", "-s", store.path, cwd=here)
    begun(process, 6)
    process.kill()
    ended(process)
    told = run("show", "slow", "-s", store.path, "--json").json
    assert told["status"] == "interrupted"
    assert told["in_flight"]
    done = told["items"]["completed"]
    assert done >= 4
    again = start("run", "slow.py", "-s", store.path, cwd=here)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert "resumed after its process died" in err
    assert len(out.splitlines()) == 60 - done


def test_without_a_terminal_there_are_no_control_characters(
    here: Path, store: milepost.Store
) -> None:
    write(here / "places.py", GOOD)
    process = start("run", "places.py", "-s", store.path, cwd=here)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "\r" not in out + err
    assert "\x1b" not in out + err


WITHOUT_RICH = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "rich" else found(name, *more)
"""
"""As on a machine without the extra."""


def shown(job: str, store: milepost.Store, *, columns: int, with_rich: bool) -> str:
    """What a terminal shows of a run of `job`, below what it prints."""
    if not with_rich:
        write(Path("sitecustomize.py"), WITHOUT_RICH)
    path = os.pathsep.join([os.getcwd(), str(ROOT / "engine"), str(ROOT / "cli")])
    ran = on_terminal(
        *("run", job, "-s", store.path),
        columns=columns,
        stdout=subprocess.DEVNULL,
        env={"PYTHONPATH": path},
    )
    assert ran.code == 0, ran.out
    return ran.out


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are a thing of Unix")
@pytest.mark.parametrize("with_rich", [True, False])
def test_a_terminal_gets_one_line_rewritten_in_place(
    with_rich: bool, here: Path, store: milepost.Store
) -> None:
    write(here / "slow.py", SLOW.replace("range(1000)", "range(30)"))
    text = shown("slow.py", store, columns=120, with_rich=with_rich)
    assert "slow · " in text
    assert "/3 batches · " in text
    assert text.count("\r") > 3
    assert ("━" in text) is with_rich
    assert "slow: complete, 3 batches, 90 items" in text


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are a thing of Unix")
def test_the_plain_line_fits_a_narrow_terminal(here: Path, store: milepost.Store) -> None:
    job = SLOW.replace("range(1000)", "range(20)").replace('"slow"', '"서울특별시 지역 수집"')
    write(here / "slow.py", job)
    text = shown("slow.py", store, columns=40, with_rich=False)
    lines = re.findall(r"\r(서울[^\r\n]*)", text)
    assert len(lines) > 3
    assert {milepost.text_width(line) for line in lines} == {39}
    assert all(line.rstrip().endswith("…") for line in lines)


def test_the_error_of_a_job_is_the_only_line_on_stderr_under_json(
    here: Path, store: milepost.Store
) -> None:
    write(here / "places.py", GOOD)
    with store.session("places"):
        process = start("run", "places.py", "-s", store.path, "--json", cwd=here)
        _, err = process.communicate(timeout=60)
    assert json.loads(err)["error"]["type"] == "AlreadyLockedError"


def test_a_job_in_a_module_is_run_by_its_name(here: Path, store: milepost.Store) -> None:
    (here / "package").mkdir()
    write(here / "package" / "__init__.py", "")
    write(here / "package" / "beside.py", "WORD = 'beside'\n")
    write(here / "package" / "jobs.py", GOOD + "\nfrom . import beside\nprint(beside.WORD)\n")
    ran = run("run", "package.jobs:ingest", "-s", store.path)
    assert ran.code == 0, ran.err
    assert ran.out.split()[:3] == ["beside", "a", "0"]
    program = store.load_progress("places").executions[-1].program
    assert program == "milepost run package.jobs:ingest"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.jobs:ingest", "there is no file and no module 'nowhere.jobs'"),
        ("package.nowhere:ingest", "there is no file and no module 'package.nowhere'"),
        ("package.jobs:other", "package.jobs has no job 'other'"),
        ("package.jobs", "package.jobs does not exist"),
        ("package/jobs:ingest", "package/jobs does not exist"),
    ],
)
def test_a_module_without_the_job_is_wrong_usage(
    target: str, message: str, here: Path, store: milepost.Store
) -> None:
    (here / "package").mkdir()
    write(here / "package" / "__init__.py", "")
    write(here / "package" / "jobs.py", GOOD)
    ran = run("run", target, "-s", store.path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {message}\n")
    assert not store.exists()


def test_what_a_module_itself_cannot_import_is_its_own_error(
    here: Path, store: milepost.Store
) -> None:
    write(here / "lacking.py", "import nowhere_to_be_found\n")
    ran = run("run", "lacking:ingest", "-s", store.path)
    assert ran.code == 1
    assert 'lacking.py", line 1' in ran.err
    assert "error: lacking raised ModuleNotFoundError while it was imported" in ran.err


def test_a_file_goes_before_a_module(here: Path) -> None:
    write(here / "places.py", GOOD)
    assert loading.job_of("places:ingest").name == "places"
    write(here / "places", "no Python")
    with pytest.raises(WrongUseError, match="places is no Python file"):
        loading.job_of("places:ingest")


def test_a_job_that_is_run_while_its_file_is_imported_is_not_begun(here: Path) -> None:
    (here / "eager.py").write_text(
        "import milepost\n"
        "@milepost.job('eager', batches=range(2), store='elsewhere')\n"
        "def eager(batch):\n"
        "    pass\n"
        "raise SystemExit(eager.run().exit_code)\n"
    )
    ran = run("run", "eager.py")
    assert ran.code == 2
    assert "eager.py runs its job while it is imported, which would do the work twice" in ran.err
    assert 'if __name__ == "__main__":' in ran.err
    assert not (here / "elsewhere").exists()
    assert not (here / ".milepost").exists()
