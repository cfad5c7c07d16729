"""The benchmark of watching runs to its end and prints every row; its figures decide no test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_the_short_form_prints_every_row(tmp_path: Path) -> None:
    bench = Path(__file__).with_name("watching.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(bench), "--quick"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={"TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(
        r"^  (\S.*?) +[\d.]+ s of CPU +[\d.]+% of a core$|^  (\S+)(?: +[-\d.]+){4}$",
        done.stdout,
        re.MULTILINE,
    )
    found = [idle or death for idle, death in rows]
    assert found == ["with file events", "polling", "supervised", "watched"]
    aims = re.findall(r"^  aim: .*: (?:reached|MISSED)$", done.stdout, re.MULTILINE)
    assert len(aims) == 2
    assert list(tmp_path.iterdir()) == []
