"""The page on settings names every one of them, with its default, and its example is right."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

import milepost
from milepost.settings.file import find_file
from milepost.settings.schema import GROUPS, JobOptions

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def word(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_setting_is_documented_with_its_default() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\w.]*) ?\| \S", text, flags=re.MULTILINE)
    fields = {
        name: word(value)
        for kind in GROUPS
        for name, value in msgspec.structs.asdict(kind()).items()
    }
    assert dict(rows) == {"store": "", **fields}
    of_jobs = set(re.findall(r"^\| `(\w+)` \| [^|]+\|$", text, flags=re.MULTILINE))
    assert of_jobs == {field.name for field in msgspec.structs.fields(JobOptions)}


def test_the_example_is_accepted(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "milepost.toml").write_text(example, encoding="utf-8")
    assert find_file(str(tmp_path)) is not None
    with milepost.searching_from(tmp_path):
        said = milepost.configuration()
    assert said.job_options("crawl") == JobOptions(workers=16, attempts=5)
    assert said.group(milepost.TrackerConfig).sync_interval_seconds == 5
