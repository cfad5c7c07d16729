"""The live table of `recover`: what stands in it, and how a terminal shows it."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import milepost
from milepost_cli import table
from support.commands import ROOT, on_terminal
from support.gates import Gate

if TYPE_CHECKING:
    from pathlib import Path

DOINGS = ["running", "waiting", "given up", "ready", "held", "fine", "no target", "unreadable"]
ESCAPES = re.compile("\x1b\\[[0-9;?]*[A-Za-z]")


def row(
    session: str, doing: str, detail: str = "", *, pid: int | None = None, runs: int = 0
) -> milepost.Row:
    return milepost.Row(session, doing, detail, pid, runs, True, None)


def drawn(
    *rows: milepost.Row, named: tuple[str, ...] = (), columns: int = 79, height: int = 23
) -> list[str]:
    lines = table.lines("watching x", list(rows), named, columns=columns, height=height)
    return [ESCAPES.sub("", line) for line in lines]


def test_what_wants_something_stands_in_it_and_the_rest_is_counted() -> None:
    rows = [row(f"idle-{n}", "fine", "all work is done") for n in range(1000)]
    rows += [
        row("c", "waiting", "killed"),
        row("b", "running", "of no interest now", pid=12, runs=1),
        row("a", "running", pid=13, runs=3),
    ]
    assert drawn(*rows) == [
        "watching x",
        "a  running  process 13, run 3",
        "b  running  process 12",
        "c  waiting  killed",
        "1,000 sessions with nothing to do",
    ]


def test_what_the_user_named_stands_in_it_whatever_it_does() -> None:
    rows = [row("a", "fine", "it was stopped on purpose"), row("b", "fine", "all work is done")]
    assert drawn(*rows, named=("a",)) == [
        "watching x",
        "a  fine  it was stopped on purpose",
        "1 session with nothing to do",
    ]
    assert drawn() == ["watching x"]


def test_what_does_not_fit_is_counted() -> None:
    rows = [row(f"s{n:02}", "ready") for n in range(40)]
    lines = drawn(*rows, height=12)
    assert len(lines) == 12
    assert lines[-1] == "and 30 more"


def test_what_a_terminal_would_act_on_is_escaped() -> None:
    text = "\n".join(
        table.lines("t\x1b[2J", [row("a\x1b[2J", "held", "x\ny\x1b[2J")], (), columns=79, height=9)
    )
    assert "\x1b[2J" not in text
    assert "x\\ny" in text


@given(
    rows=st.lists(
        st.builds(
            row,
            st.text(min_size=1, max_size=60),
            st.sampled_from(DOINGS),
            st.text(max_size=120),
            pid=st.integers(1, 10**7),
            runs=st.integers(0, 10**4),
        ),
        max_size=30,
    ),
    columns=st.integers(36, 120),
    height=st.integers(3, 40),
)
def test_it_always_fits(rows: list[milepost.Row], columns: int, height: int) -> None:
    lines = drawn(*rows, columns=columns, height=height)
    assert len(lines) <= height
    assert all(milepost.text_width(line) <= columns for line in lines)
    assert not any("\n" in line for line in lines)


WITHOUT_RICH = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "rich" else found(name, *more)
"""
"""As on a machine without the extra."""


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are a thing of Unix")
@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("with_rich", [True, False])
def test_a_terminal_gets_one_table_redrawn_in_place(
    with_rich: bool, columns: int, here: Path, store: milepost.Store
) -> None:
    gate = Gate(here, "서울특별시-지역-수집")
    session = store.session(gate.name, total_batches=1)
    session.supersede()
    (here / "bad.py").write_text("1 / 0")
    (here / "tmp").mkdir()
    gate.open()
    path = [str(ROOT / "engine"), str(ROOT / "cli")]
    if not with_rich:
        (here / "without").mkdir()
        (here / "without" / "sitecustomize.py").write_text(WITHOUT_RICH)
        path.insert(0, str(here / "without"))
    ran = on_terminal(
        *("recover", gate.file.name, "bad.py", "-s", store.path),
        columns=columns,
        env={"PYTHONPATH": os.pathsep.join(path), "TMPDIR": str(here / "tmp")},
    )
    assert ran.code == 1, ran.out
    text = ESCAPES.sub("", ran.out)
    said = "".join(text.split())
    assert "bad.pyraisedZeroDivisionErrorwhileitwasimported" in said, "told above the table"
    assert "running  process " in text
    assert text.rstrip().splitlines()[-1].startswith("서울특별시-지역-수집  fine  ")
    assert "did 8" not in text, "what children print does not tear the table"
    (folder,) = (here / "tmp").iterdir()
    assert str(folder) in said, "where it goes is told"
    (log,) = folder.iterdir()
    assert "did 8\n" in log.read_text()
    assert "\x1b[" in ran.out, "redrawn in place"


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are a thing of Unix")
def test_a_folder_for_output_that_never_came_is_gone_again(
    here: Path, store: milepost.Store
) -> None:
    store.session("job", total_batches=0).complete()
    Gate(here, "job")
    (here / "tmp").mkdir()
    ran = on_terminal(
        *("recover", "job.py", "-s", store.path), columns=80, env={"TMPDIR": str(here / "tmp")}
    )
    assert ran.code == 0, ran.out
    assert os.listdir(here / "tmp") == []


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are a thing of Unix")
def test_a_dumb_terminal_and_json_get_no_table(here: Path, store: milepost.Store) -> None:
    store.session("job", total_batches=0).complete()
    Gate(here, "job")
    words = ["recover", "job.py", "-s", store.path]
    for more, env in ((["--json"], {}), ([], {"TERM": "dumb"})):
        ran = on_terminal(*words, *more, columns=80, env=env)
        assert ran.code == 0
        assert "\x1b" not in ran.out
        assert "job: all work is done" in ran.out
