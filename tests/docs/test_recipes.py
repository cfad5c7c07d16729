"""The recipes for running a watcher as a service are what their systems accept."""

from __future__ import annotations

import os
import plistlib
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

import milepost

DOCS = Path(__file__).parent.parent.parent / "docs"
UNIT = DOCS / "recipes" / "milepost-recover.service"
AGENT = DOCS / "recipes" / "org.milepost.recover.plist"


@pytest.mark.skipif(
    os.name != "posix" or not os.path.isdir("/run") or os.uname().sysname != "Linux",
    reason="systemd units are for Linux",
)
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    assert analyze, "install systemd, whose systemd-analyze checks the unit"
    program = tmp_path / "crawl" / ".venv" / "bin" / "milepost"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    found = subprocess.run(
        [analyze, "--user", "verify", str(UNIT)],
        env={"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_the_launchd_agent_is_a_property_list() -> None:
    agent = plistlib.loads(AGENT.read_bytes())
    assert agent["ProgramArguments"][1:] == ["recover", "places.py", "--watch"]
    # launchd would kill the jobs with their watcher, and they are to live on.
    assert agent["AbandonProcessGroup"] is True


def test_every_setting_of_recovery_is_documented_with_its_default() -> None:
    text = (DOCS / "recovery.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)`, `MILEPOST_\w+` \| ([\w.]+) \|", text, flags=re.MULTILINE))
    defaults = msgspec.structs.asdict(milepost.RecoveryConfig())
    expected = {name: "on" if value is True else f"{value:g}" for name, value in defaults.items()}
    assert rows == expected
    for name in expected:
        assert f"`MILEPOST_{name.upper()}`" in text


def test_every_page_is_there_that_a_page_names() -> None:
    for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} names {link}"
