from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

import milepost
from milepost_cli.group import COMMANDS
from support.commands import ROOT, run, start

if TYPE_CHECKING:
    from pathlib import Path


def command_of(name: str) -> click.Command:
    command: click.Command = importlib.import_module(f"milepost_cli.commands.{name}").command
    return command


def test_every_command_has_a_file_and_every_file_a_command() -> None:
    files = {path.stem for path in (ROOT / "cli/milepost_cli/commands").glob("*.py")}
    assert files - {"__init__"} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    ran = run(name, "--help")
    assert ran.code == 0
    assert ran.err == ""
    command = command_of(name)
    assert command.help
    assert command.short_help == COMMANDS[name]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_store_and_json(name: str) -> None:
    options = {option for parameter in command_of(name).params for option in parameter.opts}
    assert {"--store", "-s", "--json"} <= options


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_mentions_every_command(name: str) -> None:
    text = (ROOT / "README.md").read_text()
    assert re.search(rf"milepost {name}\b", text), f"README.md does not mention milepost {name}"


def test_the_help_lists_the_commands_and_the_exit_codes() -> None:
    ran = run("--help")
    assert ran.code == 0
    for name, told in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(told)}$", ran.out, re.MULTILINE)
    assert "12 damaged" in " ".join(ran.out.split())


def test_without_a_command_it_helps() -> None:
    ran = run()
    assert ran.code == 2
    assert "Usage: milepost" in ran.err
    assert ran.out == ""


def test_the_version_is_that_of_the_package() -> None:
    ran = run("--version")
    assert ran.code == 0
    assert re.search(r"\d+\.\d+\.\d+", ran.out)


def test_an_unknown_command_is_wrong_usage() -> None:
    ran = run("lsit")
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert "\n\nhint: " in ran.err


def test_wrong_usage_is_json_under_json() -> None:
    ran = run("show", "--json")
    assert (ran.code, ran.out) == (2, "")
    assert ran.error["type"] == "UsageError"
    assert ran.error["exit_code"] == 2
    assert "NAME" in ran.error["message"]
    assert ran.error["hint"].endswith("show --help")


def test_the_store_may_be_named_before_and_after_the_command(folder: Path, failed: str) -> None:
    before = run("--store", folder, "--json", "show", failed)
    after = run("show", failed, "-s", folder, "--json")
    assert before == after
    assert before.json["name"] == failed


def test_the_nearer_store_option_counts(folder: Path, failed: str, tmp_path: Path) -> None:
    assert run("-s", tmp_path / "none", "list", "-s", folder).code == 0


def test_the_store_of_the_environment_is_found(folder: Path, failed: str) -> None:
    ran = run("list", "--json", env={"MILEPOST_STORE": str(folder)})
    assert ran.json["store"] == str(folder)


@pytest.mark.parametrize("words", [["list"], ["show", "x"], ["log", "x"], ["retry", "x"]])
def test_a_missing_store_is_10_and_is_not_made(words: list[str], tmp_path: Path) -> None:
    ran = run(*words, "-s", tmp_path / "none")
    assert (ran.code, ran.out) == (10, "")
    assert "error: there is no store at" in ran.err
    assert "hint: " in ran.err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "words", [["show"], ["log"], ["retry"], ["restart"], ["restore", "1"]], ids=lambda w: w[0]
)
def test_a_missing_session_is_10_and_names_what_there_is(
    words: list[str], folder: Path, failed: str
) -> None:
    ran = run(words[0], "nope", *words[1:], "-s", folder)
    assert (ran.code, ran.out) == (10, "")
    assert "'nope'" in ran.err
    assert failed in ran.err


def test_a_folder_that_is_no_store_is_10(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("mine")
    assert run("list", "-s", tmp_path).code == 10


@pytest.mark.parametrize("words", [["list"], ["show", "x"], ["retry", "x"]])
def test_a_store_that_is_a_file_is_10(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    ran = run(*words, "-s", tmp_path / "file")
    assert (ran.code, ran.out) == (10, "")
    assert f"error: {tmp_path / 'file'} is a file; a store is a folder\n\nhint: name a" in ran.err


def test_a_store_without_its_marker_is_damaged_and_not_new(folder: Path, failed: str) -> None:
    (folder / "MILEPOST").unlink()
    ran = run("list", "-s", folder, "--json")
    assert (ran.code, ran.out) == (12, "")
    assert ran.error["type"] == "NotAMilepostFileError"


def test_a_session_name_that_cannot_be_is_wrong_usage(folder: Path, failed: str) -> None:
    ran = run("show", "", "-s", folder)
    assert ran.code == 2
    assert "error: a session name cannot be empty" in ran.err


def test_help_imports_nothing_heavy_and_little_beyond_click() -> None:
    """What `--help` costs, counted in modules: a time would depend on the machine."""
    bare = """
import click, sys
@click.group()
def cli(): "Help."
@cli.command()
def one(): "One."
try: cli.main(["--help"])
except SystemExit: pass
print(*sorted(sys.modules), file=sys.stderr)
"""
    ours = """
import sys
from milepost_cli.group import cli
try: cli.main(["--help"])
except SystemExit: pass
print(*sorted(sys.modules), file=sys.stderr)
"""
    of_click = _modules(bare)
    extra = _modules(ours) - of_click
    assert len(extra) <= 10, sorted(extra)
    heavy = {"milepost", "rich", "zstandard", "msgspec", "filelock", "watchfiles", "psutil"}
    assert not heavy & extra
    assert not any(name.startswith("milepost_cli.commands.") for name in extra)


def _modules(code: str) -> set[str]:
    done = _python(code)
    assert done.returncode == 0
    return set(done.stderr.split())


def _python(code: str) -> subprocess.CompletedProcess[str]:
    path = f"{ROOT / 'engine'}{os.pathsep}{ROOT / 'cli'}"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_it_runs_as_a_module(folder: Path, failed: str) -> None:
    process = start("list", "-s", folder, "--json")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["sessions"][0]["name"] == failed


def test_a_reader_that_goes_away_ends_it_quietly(store: milepost.Store) -> None:
    with store.session("long", total_batches=1) as session:
        batch = session.start_batch("b")
        for number in range(3_000):
            batch.update_item(f"{number:0100}", milepost.ItemStatus.COMPLETED)
    process = start("log", "long", "-s", store.path)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_no_colour_in_a_pipe_or_under_no_color(folder: Path, failed: str) -> None:
    assert "\x1b" not in run("show", failed, "-s", folder).out


@pytest.mark.parametrize("begun", ["click", "milepost", "milepost_cli.commands.list"])
def test_ctrl_c_while_it_is_imported_is_one_line_and_130(begun: str) -> None:
    code = f"""
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "{begun}":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
sys.argv = ["milepost", "list"]
from milepost_cli.main import main
main()
"""
    done = _python(code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "milepost: stopped\n")
