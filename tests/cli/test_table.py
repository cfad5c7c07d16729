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


STATUSES = [None, *milepost.SessionStatus]
PROGRESS = "42%, 12 of 250 batches, 1,204 items"


def progress(row: milepost.Row) -> str:
    return PROGRESS if row.session != "new" else ""


def advice(row: milepost.Row) -> str:
    return f"left alone; to carry it on: milepost run {row.session}.py"


BESIDE = table.Beside(progress, advice)


def row(
    session: str,
    doing: str,
    detail: str = "",
    *,
    pid: int | None = None,
    runs: int = 0,
    status: milepost.SessionStatus | None = None,
    has_target: bool = True,
) -> milepost.Row:
    return milepost.Row(session, doing, detail, pid, runs, has_target, None, status)


def stopped(session: str, *, has_target: bool = True) -> milepost.Row:
    status = milepost.SessionStatus.STOPPED
    return row(session, "fine", "it was stopped on purpose", status=status, has_target=has_target)


def drawn(
    *rows: milepost.Row,
    named: tuple[str, ...] = (),
    beside: table.Beside | None = None,
    columns: int = 79,
    height: int = 23,
) -> list[str]:
    lines = table.lines(
        "watching x", list(rows), named, beside or table.Beside(), columns=columns, height=height
    )
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
    rows = [row("a", "fine", "data alone"), row("b", "fine", "all work is done")]
    assert drawn(*rows, named=("a",)) == [
        "watching x",
        "a  fine  data alone",
        "1 session with nothing to do",
    ]
    assert drawn() == ["watching x"]


def test_what_is_at_work_says_how_far_it_is_whoever_started_it() -> None:
    living = milepost.SessionStatus.RUNNING
    rows = [
        row("others", "fine", "a process is writing it", status=living),
        row("ours", "running", pid=12, runs=2),
        row("new", "running", pid=13, runs=1),
    ]
    assert drawn(*rows, beside=BESIDE) == [
        "watching x",
        "new     running  process 13",
        f"ours    running  {PROGRESS}, process 12, run 2",
        f"others  running  {PROGRESS}, a process is writing it",
    ]


def test_of_many_that_were_stopped_a_few_are_told_and_the_rest_is_counted() -> None:
    rows = [stopped(f"s{number:02}", has_target=number > 45) for number in range(50)]
    assert drawn(*rows, named=("s01",), beside=BESIDE) == [
        "watching x",
        *(
            f"{name}  stopped  left alone; to carry it on: milepost run {name}.py"
            for name in ("s01", "s46", "s47", "s48")
        ),
        "46 more stopped on purpose",
    ]


@pytest.mark.parametrize("columns", [79, 99])
def test_what_waits_for_a_person_is_told_in_full(columns: int) -> None:
    why = (
        "4 starts in a row without progress; the last: exit code 1, at most 33 MiB of memory; look"
        " at it: milepost show crawl; to try again: milepost run crawl.py"
    )
    lines = drawn(row("crawl", "given up", why), row("b", "ready", "x" * 200), columns=columns)
    assert lines[1].startswith("b      ready     xxx")
    assert lines[2] == "crawl  given up"
    assert all(line.startswith("  ") for line in lines[3:])
    assert " ".join(line.strip() for line in lines[3:]) == why
    assert max(map(milepost.text_width, lines)) <= columns
    assert drawn(row("crawl", "given up", "short"))[1:] == ["crawl  given up  short"]


def test_what_is_told_in_full_does_not_take_the_whole_table() -> None:
    rows = [row("a", "given up", "word " * 500), row("b", "no target")]
    lines = drawn(*rows, height=9)
    assert len(lines) == 8
    assert lines[-2].endswith("…")
    assert lines[-1] == "b  no target"
    assert drawn(*rows, height=5)[1:] == ["and 2 more"]


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
            status=st.sampled_from(STATUSES),
        ),
        max_size=30,
    ),
    columns=st.integers(36, 120),
    height=st.integers(3, 40),
)
def test_it_always_fits(rows: list[milepost.Row], columns: int, height: int) -> None:
    lines = drawn(*rows, beside=BESIDE, columns=columns, height=height)
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
    assert re.search("  running  0%, ", text), "how far it is comes first"
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
