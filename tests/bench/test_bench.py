"""The benchmark runs to its end and prints every row; how fast anything is decides no test."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

ROWS = {
    "an update that survives a power cut, one at a time": [
        'milepost, durability="disk"',
        "raw append and fdatasync",
        "SQLite rows, WAL, synchronous=FULL",
    ],
    "updates that survive kill -9, each acknowledged": [
        'milepost, durability="process"',
        "milepost.resume(range(n)), whole loop",
        "raw os.write",
    ],
    "an item whose body does nothing, the whole loop": [
        "milepost.resume",
        "milepost.map, 8 threads",
        "milepost.map, 8 tasks",
        *(["tqdm"] if importlib.util.find_spec("tqdm") else []),
        "a plain loop",
    ],
    "a row of 100 bytes, an item each, the whole loop": [
        "milepost, items.open",
        "the same, chunk=100",
        "the same, .gz",
        "the same, .zst",
        "file.write and flush in a plain loop",
        "file.write in a plain loop",
    ],
    "a durable save of 100 changed items of 10,000": [
        "milepost",
        "earlier design: JSON, gzip, base64",
        "SQLite rows, WAL, synchronous=FULL",
    ],
    "loading 10,000 items": [
        "milepost, from a snapshot",
        "milepost, from the journal of a kill",
        "SQLite rows",
        "earlier design: JSON, gzip, base64",
    ],
}
ROW = re.compile(r"  (?P<name>\S.*?) +[\d,.]+ +[\d,.]+ - [\d,.]+( +[\d.]+x as fast)?")


def test_the_short_form_prints_every_row(tmp_path: Path) -> None:
    bench = Path(__file__).with_name("bench.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(bench), "--quick"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={"TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, list[str]] = {}
    title = ""
    for line in done.stdout.splitlines():
        if line and not line.startswith(" "):
            title = line
        elif match := ROW.fullmatch(line):
            found.setdefault(title, []).append(match["name"])
    assert found == ROWS
    aims = re.findall(r"^  aim: .*: (?:reached|MISSED)$", done.stdout, re.MULTILINE)
    assert len(aims) == len(ROWS)
    assert list(tmp_path.iterdir()) == []
