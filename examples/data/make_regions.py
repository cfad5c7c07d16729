"""Makes `regions.tsv` anew from the raw file of the PublicDataReader package.

    pip download --no-deps PublicDataReader==1.1.1.post2
    python examples/data/make_regions.py PublicDataReader-1.1.1.post2-py3-none-any.whl

The argument is the wheel or the `code_bdong.json` taken out of it. The package itself is never
imported, so none of what it depends on is needed. README.md beside this file says what the rows
are and where they come from.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import NamedTuple, cast

MEMBER = "PublicDataReader/raw/code_bdong.json"
TARGET = Path(__file__).with_name("regions.tsv")


class Row(NamedTuple):
    """One legal dong as the raw file has it; a missing name is an empty string."""

    code: str
    sido: str
    sigungu: str
    dong: str
    ri: str
    deleted: str


def read(source: Path) -> bytes:
    """Reads the raw file, out of the wheel if that is what the source is."""
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as wheel:
            return wheel.read(MEMBER)
    return source.read_bytes()


def parse(raw: bytes) -> list[Row]:
    """Turns the raw file, one object per column, each keyed by row number, into rows."""
    columns = cast("dict[str, dict[str, str | float]]", json.loads(raw))
    # The order is that of the fields of Row.
    names = ("법정동코드", "시도명", "시군구명", "읍면동명", "동리명", "말소일자")
    rows = zip(*(columns[name].values() for name in names), strict=True)
    # A cell with nothing in it is written as NaN, the only number in the file.
    return [Row(*(cell if isinstance(cell, str) else "" for cell in row)) for row in rows]


def tabulate(rows: list[Row]) -> tuple[str, int, int]:
    """Returns the file's text, the number of its regions and the number of its places."""
    # Rows without a dong are a province or a region themselves; deleted ones are history.
    live = sorted(row for row in rows if row.dong and not row.deleted)
    lines: list[str] = []
    region = ""
    regions = 0
    for row in live:
        if row.code[:5] != region:
            region = row.code[:5]
            regions += 1
            # 세종 is a province and a region in one and has no second name.
            lines.append(f"{region}\t{row.sido}\t{row.sigungu}".rstrip())
        lines.append(f"{row.code}\t{row.dong} {row.ri}".rstrip())
    return "\n".join(lines) + "\n", regions, len(live)


def main() -> None:
    """Writes the file and says what is in it."""
    parser = argparse.ArgumentParser(description="Makes regions.tsv from PublicDataReader.")
    parser.add_argument("source", type=Path, help="the wheel, or code_bdong.json out of it")
    parser.add_argument("--to", type=Path, default=TARGET, help="default: %(default)s")
    options = parser.parse_args()
    text, regions, places = tabulate(parse(read(cast("Path", options.source))))
    target = cast("Path", options.to)
    target.write_bytes(text.encode())
    print(f"{target}: {regions} regions, {places} places")


if __name__ == "__main__":
    main()
