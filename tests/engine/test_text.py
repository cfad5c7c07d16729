from __future__ import annotations

import pytest

from milepost.text import counted, shortened, text_width


@pytest.mark.parametrize(
    ("text", "width"), [("", 0), ("places", 6), ("지역-수집", 9), ("e\u0301", 1), ("…", 1)]
)
def test_the_width_is_counted_in_columns(text: str, width: int) -> None:
    assert text_width(text) == width


@pytest.mark.parametrize(
    ("columns", "expected"),
    [(9, "지역-수집"), (8, "지역-수…"), (7, "지역-…"), (6, "지역-…"), (2, "…"), (1, "…")],
)
def test_what_is_shortened_fits(columns: int, expected: str) -> None:
    assert shortened("지역-수집", columns) == expected
    assert text_width(expected) <= columns


@pytest.mark.parametrize(
    ("number", "word", "expected"),
    [
        (1, "batch", "1 batch"),
        (1200, "batch", "1,200 batches"),
        (2, "region", "2 regions"),
        (3, "city", "3 cities"),
        (3, "day", "3 days"),
        (2, "box", "2 boxes"),
        (2, "failed key", "2 failed keys"),
        (2, "구", "2 구"),
    ],
)
def test_what_is_counted_has_its_plural(number: int, word: str, expected: str) -> None:
    assert counted(number, word) == expected
