"""`[[recover]]` tables: where they are found, and what is wrong with them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import milepost
from milepost_cli import tables
from milepost_cli.failure import WrongUseError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = '[[recover]]\nsession = "crawl-*"\ncommand = ["python", "crawl.py"]\n'


def found(store: Path | str = "/nowhere") -> list[milepost.Target]:
    return tables.targets(os.fspath(store))


def test_all_tables_in_their_order_run_in_the_folder_of_their_file(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "milepost.toml").write_text(GOOD + '[[recover]]\nsession="x"\ncommand=["y"]\n')
    (here / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(here / "a" / "b")
    assert found() == [
        milepost.Target("crawl-*", ("python", "crawl.py"), str(here)),
        milepost.Target("x", ("y",), str(here)),
    ]


def test_without_a_file_or_without_tables_there_are_none(here: Path) -> None:
    assert found() == []
    (here / "milepost.toml").write_text("[other]\nsetting = 1\n")
    assert found() == []


def test_a_project_that_speaks_to_milepost_counts_and_any_other_does_not(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "pyproject.toml").write_text(GOOD.replace("[[recover]]", "[[tool.milepost.recover]]"))
    inner = here / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    for other in ("[tool.ruff]\n", "tool = 1\n", "not = = toml", "[tool]\nmilepost = 1\n"):
        (inner / "pyproject.toml").write_text(other)
        assert [each.pattern for each in found()] == ["crawl-*"]
    (inner / "pyproject.toml").write_text("[tool.milepost]\n")
    assert found() == [], "the nearest one counts, also where it has no table"


def test_the_own_file_goes_before_the_project(here: Path) -> None:
    (here / "milepost.toml").write_text(GOOD)
    (here / "pyproject.toml").write_text('[[tool.milepost.recover]]\nsession="p"\ncommand=["p"]')
    assert [each.pattern for each in found()] == ["crawl-*"]


def test_a_file_inside_the_store_is_never_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = here / "store"
    (store / "sessions").mkdir(parents=True)
    for folder in (store, store / "sessions"):
        (folder / "milepost.toml").write_text('[[recover]]\nsession="*"\ncommand=["evil"]\n')
    monkeypatch.chdir(store / "sessions")
    assert found(store) == []
    (here / "milepost.toml").write_text(GOOD)
    assert [each.pattern for each in found(store)] == ["crawl-*"]
    link = here / "link"
    link.symlink_to(store)
    assert [each.pattern for each in found(link)] == ["crawl-*"]
    monkeypatch.chdir(here)
    assert [each.pattern for each in found(here / "sto")] == ["crawl-*"], "no folder of that name"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("recover = 1", "recover is no list of tables"),
        ('[recover]\nsession = "x"\ncommand = ["x"]', "recover is no list of tables"),
        ("recover = [1]", "[[recover]] 1: it is no table"),
        ('[[recover]]\ncommand = ["x"]', "[[recover]] 1: session is missing"),
        ('[[recover]]\nsession = "x"', "[[recover]] 1: command is missing"),
        (GOOD + '[[recover]]\nsesion = "x"', "[[recover]] 2: unknown key 'sesion'"),
        ('[[recover]]\nsession = 1\ncommand = ["x"]', "[[recover]] 1: session is 1"),
        ('[[recover]]\nsession = ""\ncommand = ["x"]', "[[recover]] 1: session is ''"),
        ('[[recover]]\nsession = "x"\ncommand = "x y"', "[[recover]] 1: command is 'x y'"),
        ('[[recover]]\nsession = "x"\ncommand = []', "[[recover]] 1: command is []"),
        ('[[recover]]\nsession = "x"\ncommand = [""]', "[[recover]] 1: command is ['']"),
        ('[[recover]]\nsession = "x"\ncommand = ["x", 1]', "[[recover]] 1: command is ['x', 1]"),
        ("x = = 1", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(text: str, expected: str, here: Path) -> None:
    file = here / "milepost.toml"
    file.write_text(text)
    with pytest.raises(WrongUseError) as caught:
        found()
    assert str(file) in str(caught.value)
    assert expected in str(caught.value)
    assert caught.value.hint


def test_a_file_that_is_no_text_is_named(here: Path) -> None:
    (here / "milepost.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(WrongUseError, match="is not TOML"):
        found()
