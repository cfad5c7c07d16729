from __future__ import annotations

import pytest

from milepost.text import shortened, text_width


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
