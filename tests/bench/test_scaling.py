"""The benchmark of executors runs to its end and prints every row; its figures decide no test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path


def test_the_short_form_prints_every_row(tmp_path: Path) -> None:
    bench = Path(__file__).with_name("scaling.py")
    done = subprocess.run(
        [sys.executable, str(bench), "--quick"],
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
        env={"TMPDIR": str(tmp_path), "PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    row = r"^  (\w+)(?: +[\d.]+){4} ms x 2$"
    rows = re.findall(row, done.stdout, re.MULTILINE)
    assert rows == ["threads", "processes", "dask"]
