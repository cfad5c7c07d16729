"""`list`, `show`, `log` and `cat` write nothing, take no lock, and work beside a writer."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from milepost import ItemStatus
from support.commands import ROOT, run, tree

if TYPE_CHECKING:
    from pathlib import Path

    import milepost


@pytest.mark.parametrize("words", [["show"], ["log"], ["list"]], ids=lambda words: words[0])
def test_reading_changes_no_file(
    words: list[str], folder: Path, failed: str, interrupted: str
) -> None:
    before = tree(folder)
    for name in [] if words == ["list"] else [failed, interrupted]:
        run(*words, name, "-s", folder)
        run(*words, name, "-s", folder, "--json")
    if words == ["list"]:
        run("list", "-s", folder)
    assert tree(folder) == before


def test_reading_changes_no_file_of_a_live_writer(store: milepost.Store, folder: Path) -> None:
    with store.session("live", total_batches=1) as session:
        session.start_batch("b").update_item("x", ItemStatus.PROCESSING)
        session.flush()
        files = {path: at for path, at in tree(folder).items() if not path.endswith(".beat")}
        for words in (["list"], ["show", "live"], ["log", "live"]):
            assert run(*words, "-s", folder).code == 0
        after = {path: at for path, at in tree(folder).items() if not path.endswith(".beat")}
        assert after == files
        session.start_batch("c").complete()


WATCHED = """
import os, sys
folder, words = sys.argv[1], sys.argv[2:]
import milepost_cli.group

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.utime", "os.link"}

def watch(event, details):
    if event == "open" and isinstance(details[0], (str, bytes)):
        if details[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            if os.path.abspath(os.fsdecode(details[0])).startswith(folder):
                os._exit(99)
    elif event in CHANGES and os.path.abspath(os.fsdecode(details[0])).startswith(folder):
        os._exit(98)

sys.addaudithook(watch)
milepost_cli.group.cli.main(words)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there a lock is probed by taking it")
def test_reading_opens_no_file_for_writing(store: milepost.Store, folder: Path) -> None:
    """So it works on read-only media, where even the superuser cannot write."""
    path = os.pathsep.join([str(ROOT / "engine"), str(ROOT / "cli")])
    with store.session("live", total_batches=1) as session:
        session.start_batch("b").update_item("x", ItemStatus.PROCESSING)
        session.flush()
        for words in (["list"], ["show", "live"], ["log", "live"], ["cat", "MILEPOST"]):
            done = subprocess.run(
                [sys.executable, "-c", WATCHED, str(folder), *words, "-s", str(folder)],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "PYTHONPATH": path},
            )
            assert done.returncode == 0, (words, done)
            assert words[0] == "log" or "live" in done.stdout or words[0] == "cat"
            if words[0] in {"list", "show"}:
                assert "running" in done.stdout
