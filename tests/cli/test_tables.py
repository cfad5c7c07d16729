"""`[[recover]]` tables of the user's file as targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import milepost
from milepost_cli import tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = '[[recover]]\nsession = "crawl-*"\ncommand = ["python", "crawl.py"]\n'


@pytest.fixture(autouse=True)
def searching(here: Path) -> Iterator[None]:
    """From the current folder, as every command does it."""
    with milepost.searching_from("."):
        yield


def test_all_tables_in_their_order_run_in_the_folder_of_their_file(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "milepost.toml").write_text(GOOD + '[[recover]]\nsession="x"\ncommand=["y"]\n')
    (here / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(here / "a" / "b")
    assert tables.targets() == [
        milepost.Target("crawl-*", ("python", "crawl.py"), str(here)),
        milepost.Target("x", ("y",), str(here)),
    ]


def test_without_a_file_or_without_tables_there_are_none(here: Path) -> None:
    assert tables.targets() == []
    (here / "milepost.toml").write_text("enabled = true\n")
    assert tables.targets() == []


def test_a_project_that_speaks_to_milepost_counts(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "pyproject.toml").write_text(GOOD.replace("[[recover]]", "[[tool.milepost.recover]]"))
    inner = here / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    assert [each.pattern for each in tables.targets()] == ["crawl-*"]
    (inner / "pyproject.toml").write_text("[tool.milepost]\n")
    assert tables.targets() == [], "the nearest one counts, also where it has no table"


def test_a_store_has_no_say_in_what_is_executed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    milepost.Store(here / "store").save_state("x", 1)
    inner = here / "store" / "sessions"
    for folder in (here / "store", inner):
        (folder / "milepost.toml").write_text('[[recover]]\nsession="*"\ncommand=["evil"]\n')
    monkeypatch.chdir(inner)
    assert tables.targets() == []
    (here / "milepost.toml").write_text(GOOD)
    assert [each.pattern for each in tables.targets()] == ["crawl-*"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[recover]]\ncommand = ["x"]', ":1: [[recover]] 1: session is missing"),
        ('[[recover]]\nsession = 1\ncommand = ["x"]', ":2: [[recover]] 1: session is 1"),
        ('[[recover]]\nsession = ""\ncommand = ["x"]', ":2: [[recover]] 1: session is ''"),
        ('[[recover]]\nsession = "x"\ncommand = "x y"', ":3: [[recover]] 1: command is 'x y'"),
        ('[[recover]]\nsession = "x"\ncommand = []', ":3: [[recover]] 1: command is []"),
        ('[[recover]]\nsession = "x"\ncommand = [""]', ":3: [[recover]] 1: command is ['']"),
        ('[[recover]]\nsession = "x"\ncommand = ["x", 1]', ":3: [[recover]] 1: command is ['x'"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(text: str, expected: str, here: Path) -> None:
    file = here / "milepost.toml"
    file.write_text(text)
    with pytest.raises(milepost.ConfigurationError) as caught:
        tables.targets()
    assert caught.value.message.startswith(f"{file}{expected}")
    assert caught.value.hint
