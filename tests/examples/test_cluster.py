"""The job on a cluster survives its worker and its coordinator, and shows it."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from support.scripts import EXAMPLES, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
PLACES = "20,278"


def test_nothing_is_missing_at_the_end(tmp_path: Path) -> None:
    # The libraries of the cluster warn of what is theirs, so warnings are no errors here.
    done = run([sys.executable, str(EXAMPLES / "cluster.py")], tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.splitlines()
    assert [line[:2] for line in told if re.match(r"[1-5]\.", line)][:3] == ["1.", "2.", "3."]
    assert told[-1] == f"5. Exit code 0: {PLACES} places done, {PLACES} rows, {PLACES} ids."
    assert [name for name in os.listdir(tmp_path) if name.startswith("milepost-")] == []
