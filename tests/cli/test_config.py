"""`milepost config`: each value and where it came from."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import TYPE_CHECKING

import pytest

import milepost
from milepost_cli import asking
from support.commands import run, start

if TYPE_CHECKING:
    from pathlib import Path

    from support.commands import Ran


def told(ran: Ran) -> dict[str, tuple[object, str]]:
    assert (ran.code, ran.err) == (0, "")
    return {each["name"]: (each["value"], each["source"]) for each in ran.json["settings"]}


def test_each_value_and_where_it_came_from(here: Path) -> None:
    file = here / "milepost.toml"
    file.write_text('store = "data"\nsync_interval_seconds = 2\n[job.crawl]\nworkers = 4\n')
    env = {"MILEPOST_BACKUP_ENABLED": "off"}
    ran = run("config", "--json", env=env)
    assert ran.json["file"] == str(file)
    assert ran.json["store"] == {
        "name": "store",
        "value": str(here / "data"),
        "source": f"{file}:1",
    }
    values = told(ran)
    assert values["sync_interval_seconds"] == (2.0, f"{file}:2")
    assert values["backup_enabled"] == (False, "$MILEPOST_BACKUP_ENABLED")
    assert values["max_state_history"] == (10, "default")
    assert values['job."crawl".workers'] == (4, f"{file}:4")

    lines = run("config", env=env).out.splitlines()
    assert lines[0] == f"settings of {file}"
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:]}
    assert rows["store"] == [f'"{here / "data"}"', f"{file}:1"]
    assert rows["backup_enabled"] == ["false", "$MILEPOST_BACKUP_ENABLED"]
    assert rows["batch_name"] == ["-", "default"]
    assert set(rows) == {"store", *values}


def test_why_the_store_is_this_one(here: Path) -> None:
    def store(*words: str, env: dict[str, str] | None = None) -> tuple[str, str]:
        found = run("config", "--json", *words, env=env).json["store"]
        return found["value"], found["source"]

    assert store() == (str(here / ".milepost"), "a new one in the current folder")
    (here.parent / ".milepost").mkdir()
    near = (str(here.parent / ".milepost"), "the nearest .milepost upwards from here")
    assert store() == near
    (here / "milepost.toml").write_text('\nstore = "mine"')
    assert store() == (str(here / "mine"), f"{here / 'milepost.toml'}:2")
    env = {"MILEPOST_STORE": str(here / "env")}
    assert store(env=env) == (str(here / "env"), "$MILEPOST_STORE")
    assert store("-s", "flag", env=env) == (str(here / "flag"), "--store")


def test_without_end_is_told_as_a_file_says_it(here: Path) -> None:
    (here / "milepost.toml").write_text("stalled_after_seconds = inf")
    assert re.search(r"^stalled_after_seconds +inf ", run("config").out, re.MULTILINE)


def test_without_a_file_it_says_where_it_looked(here: Path) -> None:
    assert run("config", "--json").json["file"] is None
    assert run("config").out.startswith("no milepost.toml and no pyproject.toml with")
    assert run("config").out.splitlines()[0].endswith(f" upwards from {here}")


def test_a_script_has_the_settings_of_its_own_folder_and_is_not_run(here: Path) -> None:
    (here / "milepost.toml").write_text("max_state_history = 3")
    (here.parent / "jobs").mkdir()
    script = here.parent / "jobs" / "x.py"
    script.write_text("raise SystemExit('it was run')")
    assert told(run("config", script, "--json"))["max_state_history"] == (10, "default")
    (script.parent / "pyproject.toml").write_text("[tool.milepost]\nmax_state_history = 4")
    source = f"{script.parent / 'pyproject.toml'}:2"
    assert told(run("config", script, "--json"))["max_state_history"] == (4, source)
    assert told(run("config", "--json"))["max_state_history"][0] == 3
    assert run("config", here / "none.py").code == 2


@pytest.mark.parametrize("words", [["config"], ["list"], ["recover"]])
def test_a_wrong_key_is_wrong_usage_and_named_with_file_and_line(
    words: list[str], here: Path
) -> None:
    (here / "milepost.toml").write_text("\nmax_state_histroy = 3\n")
    ran = run(*words, "--json")
    assert (ran.code, ran.out) == (2, "")
    assert ran.error["message"] == f"{here / 'milepost.toml'}:2: unknown key 'max_state_histroy'"
    assert ran.error["hint"] == "did you mean max_state_history?"


def test_a_wrong_variable_is_wrong_usage(here: Path) -> None:
    ran = run("config", env={"MILEPOST_ENABLED": "perhaps"})
    assert ran.code == 2
    assert "$MILEPOST_ENABLED: enabled is 'perhaps'; it must be true or false" in ran.err


JOB = """
import milepost

@milepost.job("crawl", batches=["a", "b"], workers=1)
def crawl(batch):
    print(batch.key)
"""


def test_a_variable_that_is_no_setting_is_told_with_what_was_meant(here: Path) -> None:
    env = {"MILEPOST_ENABELD": "0", "MILEPOST_WORKERS": "8", "MILEPOST_ENABLED": "1"}
    env["MILEPOST_STORE"] = str(here)
    ran = run("config", env=env)
    assert ran.code == 0
    assert "$MILEPOST_ENABELD is no setting: did you mean $MILEPOST_ENABLED?" in ran.err
    assert "$MILEPOST_WORKERS is no setting: workers belongs in a table of its job" in ran.err
    assert "MILEPOST_STORE" not in ran.err
    unknown = run("config", "--json", env=env).json["unknown_variables"]
    assert {"MILEPOST_ENABELD", "MILEPOST_WORKERS"} <= set(unknown)
    assert "MILEPOST_STORE" not in unknown
    assert "MILEPOST_ENABLED" not in unknown


def test_run_goes_by_the_settings_beside_the_file_and_flags_go_first(here: Path) -> None:
    folder = here.parent / "jobs"
    folder.mkdir()
    (folder / "x.py").write_text(JOB)
    (here / "milepost.toml").write_text('store = "wrong"\nregion_type = "wrong"')
    (folder / "milepost.toml").write_text(
        'store = "st"\nregion_type = "city"\n[job.crawl]\nbatch_name = "towns"\n'
    )
    ran = run("run", folder / "x.py")
    assert (ran.code, ran.out) == (0, "a\nb\n")
    assert f"towns: NEW in {folder / 'st'}" in ran.err
    assert "towns: complete, 2 cities" in ran.err
    ran = run("run", folder / "x.py", "--store", here / "flag")
    assert f"towns: NEW in {here / 'flag'}" in ran.err
    assert not (here / "wrong").exists()


@pytest.fixture
def elsewhere(here: Path) -> Path:
    """A folder beside the current one, with a job and settings of its own."""
    folder = here.parent / "jobs"
    folder.mkdir()
    (folder / "x.py").write_text(JOB)
    (folder / "note.py").write_text("open('noted', 'w').close()")
    (folder / "milepost.toml").write_text(
        'store = "st"\nmax_recovery_attempts = 1\nrecovery_delay_seconds = 0\n'
        '[job.crawl]\nbatch_name = "towns"\n'
        f'[[recover]]\nsession = "other"\ncommand = ["{sys.executable}", "note.py"]\n'
    )
    return folder


def test_a_job_is_asked_by_the_settings_beside_its_file(elsewhere: Path) -> None:
    target = str(elsewhere / "x.py")
    assert asking.ask([target]) == [asking.JobTarget(target, "towns", str(elsewhere / "st"))]


def test_recover_goes_by_the_settings_beside_its_target(here: Path, elsewhere: Path) -> None:
    run("run", elsewhere / "x.py")
    store = milepost.Store(elsewhere / "st")
    with contextlib.suppress(RuntimeError), store.session("other", total_batches=2) as session:
        session.start_batch("a")
        raise RuntimeError("the line was lost")
    process = start("recover", elsewhere / "x.py", cwd=here)
    _, told = process.communicate(timeout=60)
    assert (elsewhere / "noted").exists(), told
    assert f"to try again: cd {elsewhere} && milepost recover --session other" in told
