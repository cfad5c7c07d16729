"""The user's file: where it is found, and what is wrong with it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

import milepost
from milepost.settings.file import find_file

if TYPE_CHECKING:
    from pathlib import Path


def found(folder: Path) -> str | None:
    file = find_file(os.fspath(folder))
    return None if file is None else file.path


def test_the_nearest_folder_that_speaks_to_milepost_ends_the_search(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert found(inner) is None
    (tmp_path / "milepost.toml").write_text("")
    assert found(inner) == str(tmp_path / "milepost.toml")
    for other in ("[tool.ruff]\n", "tool = 1\n", "not = = toml # milepost", "tool.milepost = 1\n"):
        (inner / "pyproject.toml").write_text(other)
        assert found(inner) == str(tmp_path / "milepost.toml"), other
    (inner / "pyproject.toml").write_text("[tool.milepost]\n")
    assert found(inner) == str(inner / "pyproject.toml")
    (inner / "milepost.toml").write_text("enabled = false")
    assert found(inner) == str(inner / "milepost.toml")


def test_a_file_inside_a_store_is_never_read(tmp_path: Path) -> None:
    store = milepost.Store(tmp_path / "store")
    store.save_state("x", 1)
    inner = tmp_path / "store" / "sessions"
    for folder in (tmp_path / "store", inner):
        (folder / "milepost.toml").write_text('backup_path = "/evil"')
    assert found(inner) is None
    link = tmp_path / "link"
    link.symlink_to(inner)
    assert found(link) is None
    (tmp_path / "milepost.toml").write_text("")
    assert found(inner) == str(tmp_path / "milepost.toml")


def test_the_search_begins_at_the_main_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", str(tmp_path / "there" / "x.py"), raising=False)
    assert milepost.search_start() == str(tmp_path / "there")
    with milepost.searching_from("."):
        assert milepost.search_start() == str(tmp_path / "here")
    monkeypatch.delattr(main, "__file__")
    assert milepost.search_start() == str(tmp_path / "here")


def test_of_a_script_behind_a_link_the_real_folder_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "x.py").write_text("")
    (tmp_path / "bin" / "x").symlink_to(tmp_path / "work" / "x.py")
    script = str(tmp_path / "bin" / "x")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", script, raising=False)
    assert milepost.search_start() == str(tmp_path / "work")


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "milepost.toml"
    for number in (5, 77):
        path.write_text(f"max_state_history = {number}")
        file = find_file(os.fspath(tmp_path))
        assert file is not None
        assert file.table == {"max_state_history": number}


GOOD = '[[recover]]\nsession = "crawl-*"\ncommand = ["python", "crawl.py"]\n'


@pytest.mark.parametrize(
    ("text", "line", "expected", "hint"),
    [
        ("\nenable = true", 2, "unknown key 'enable'", "did you mean enabled?"),
        ("workers = 2", 1, "unknown key 'workers'", 'in a table of its job: [job."NAME"]'),
        ("[other]\nx = 1", 1, "unknown key 'other'", "there are: store, checkpoint_interval"),
        (f"{GOOD}\nenabled = true", 5, "[[recover]] 1: unknown key 'enabled'", "above the first"),
        ('[job.x]\n\nstore = "s"', 3, "[job.\"x\"]: unknown key 'store'", "above the first table"),
        ("# enabled = 2\nenabled = 1", 2, "enabled is 1; it must be true or false", "correct it"),
        ('max_state_history = "7"', 1, "max_state_history is '7'; it must be a whole", "correct"),
        ("recovery_delay_seconds = true", 1, "is True; it must be a number", "correct it"),
        ("backup_path = 1", 1, "backup_path is 1; it must be text", "correct it"),
        ("\n\nmax_state_history = 0", 3, "max_state_history is 0; it must be at least 1", "take"),
        ('region_type = ""', 1, "region_type is empty", "correct it"),
        ("store = 1", 1, "store is 1; it must be a folder", "name one"),
        ("[job]\nx = 1\n", 2, "job.x is no table", '[job."NAME"]'),
        ("job = 1", 1, "job is no table of tables", '[job."NAME"]'),
        ('[job."a.b"]\nworkers = 0', 2, "workers is 0; it must be at least 1", "correct it"),
        ('[job.x]\nattempts = "2"', 2, "attempts is '2'; it must be a whole number", "correct it"),
        ("[job.x]\ngive_up_after = -1", 2, "give_up_after is -1", "correct it"),
        ('[job.x]\nexecutor = "thread"', 2, "executor is 'thread'; it must be threads", "correct"),
        ("[job.x]\nenabled = true\n[job.y]\nenabled = 0", 4, "enabled is 0", "correct it"),
        ("recover = 1", 1, "recover is no list of tables", "double brackets"),
        ("\nrecover = [1]", 2, "[[recover]] 1: it is no table", "double brackets"),
        (GOOD + '[[recover]]\nsesion = "x"', 5, "[[recover]] 2: unknown key 'sesion'", "session?"),
        (GOOD + '[[recover]]\nsession = "x"', 4, "[[recover]] 2: command is missing", "python"),
    ],
)
@pytest.mark.parametrize("is_project", [False, True])
def test_what_is_wrong_is_named_with_file_and_line(
    text: str, line: int, expected: str, hint: str, is_project: bool, tmp_path: Path
) -> None:
    path = tmp_path / ("pyproject.toml" if is_project else "milepost.toml")
    if is_project:
        text = text.replace("[[recover]]", "[[tool.milepost.recover]]").replace(
            "[job", "[tool.milepost.job"
        )
        text = f"enabled = 3\n[tool.milepost]\n{text.replace('[other]', '[tool.milepost.other]')}"
        line += 2
    path.write_text(text)
    with pytest.raises(milepost.ConfigurationError) as caught:
        find_file(os.fspath(tmp_path))
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert expected in caught.value.message
    assert hint in caught.value.hint


def test_what_is_no_toml_says_where(tmp_path: Path) -> None:
    path = tmp_path / "milepost.toml"
    path.write_text("x = 1\ny = = 1")
    with pytest.raises(milepost.ConfigurationError, match="line 2, column 5") as caught:
        find_file(os.fspath(tmp_path))
    assert str(path) in caught.value.message
    path.write_bytes(b"x = 1\n# \xff\xfe")
    with pytest.raises(milepost.ConfigurationError, match="is not TOML") as caught:
        find_file(os.fspath(tmp_path))
    assert caught.value.message.startswith(f"{path}:2 ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[project]\n<<<<<<< HEAD\n[tool.milepost]\nstore = "s"\n', 2),
        ('[tool.milepost]\nstore = "s"\nstore = "s"\n', 3),
        ('[ tool . "milepost" ]\nstore = \n', 2),
        ("['tool'.milepost]\n=\n", 2),
        ('[[tool.milepost.recover]]\nsession = "s"\ncommand = [\n]]\n', 4),
        ('[tool.milepost.job."crawl"]\nworkers = 1 2\n', 2),
        ('tool.milepost.store = "s"\nname = = 1\n', 2),
    ],
)
def test_a_broken_project_file_that_speaks_to_us_is_not_passed_over(
    text: str, line: int, tmp_path: Path
) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(text)
    with pytest.raises(milepost.ConfigurationError, match=f"line {line}, ") as caught:
        find_file(os.fspath(tmp_path))
    assert caught.value.message.startswith(f"{path} is not TOML: ")


@pytest.mark.parametrize(
    "text",
    [
        "# [tool.milepost]\n= 1",
        "[tool.milepost-helper]\n= 1",
        "[mytool.milepost]\n= 1",
        "[tool.uv.sources]\nmilepost = = 1",
        f"[tool.other]\nmilepost = {'[' * 3000}{']' * 3000}",
    ],
    ids=lambda text: text[:20],
)
def test_a_broken_project_file_of_others_is_passed_over(text: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert found(tmp_path) is None


@pytest.mark.parametrize("name", ["milepost.toml", "pyproject.toml"])
def test_a_byte_order_mark_is_called_by_its_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("[tool.milepost]\n", encoding="utf-8-sig")
    with pytest.raises(milepost.ConfigurationError, match="BOM") as caught:
        find_file(os.fspath(tmp_path))
    assert caught.value.message.startswith(f"{path}:1: ")
    assert caught.value.hint == "save it as UTF-8 without a BOM"


@pytest.mark.parametrize("text", [f"store = {'[' * 3000}{']' * 3000}", f"store{'.a' * 3000} = 1"])
def test_what_is_nested_too_deeply_is_told_in_a_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "milepost.toml"
    path.write_text(text)
    # Some versions of Python read any depth of dotted keys: then it is no folder.
    words = "nested too deeply|it must be a folder"
    with pytest.raises(milepost.ConfigurationError, match=words) as caught:
        find_file(os.fspath(tmp_path))
    assert caught.value.message.startswith(str(path))
    assert len(caught.value.message) < len(str(path)) + 200
    error = caught.value
    assert error.__suppress_context__ or error.__context__ is None, "a thousand lines of it"
