from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from milepost_cli import output


def test_what_a_terminal_would_act_on_is_escaped() -> None:
    harmful = "a\x1b[2Jb\x9bc\nd\re\tf\u202eg\u2028h\x7f\ud800"
    assert output.safe(harmful) == ("a\\x1b[2Jb\\x9bc\\nd\\re\\tf\\u202eg\\u2028h\\x7f\\ud800")


def test_people_s_text_stays_as_it_is() -> None:
    assert output.safe("지역-수집 é 🙂") == "지역-수집 é 🙂"


def test_json_is_safe_on_a_terminal_and_means_the_same() -> None:
    value = {"text": "a\x1b\x9b\u202e\u2028한"}
    text = output.encode(value)
    assert not any(character in text for character in "\x1b\x9b\u202e\u2028")
    assert "한" in text
    assert json.loads(text) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "null"),
        (float("inf"), "null"),
        (1.5, "1.5"),
        (b"\x00\xff", '"AP8="'),
        (
            {
                1: {
                    2,
                },
                (3, 4): None,
            },
            '{"1": [2], "[3, 4]": null}',
        ),
        (datetime(2026, 7, 1, 3, 2, 1, 5, UTC), '"2026-07-01T03:02:01.000005Z"'),
        (
            datetime(2026, 7, 1, 3, tzinfo=timezone(timedelta(hours=9))),
            '"2026-06-30T18:00:00.000000Z"',
        ),
        (date(2026, 7, 1), '"2026-07-01"'),
        (True, "true"),
        (2**70, str(2**70)),
    ],
)
def test_everything_a_store_can_hold_has_a_json_form(value: object, text: str) -> None:
    assert output.encode(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (200, "3m20s"), (7500, "2h05m"), (273_600, "3d4h")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_columns_line_up_where_characters_are_two_cells_wide() -> None:
    assert output.columns([["지역", "x"], ["abcde", "y"]]) == ["지역   x", "abcde  y"]


def test_columns_that_yield_make_room_one_after_the_other() -> None:
    rows = [["서울특별시 종로구", "failed", "x" * 20], ["b", "completed", "y"]]
    assert output.columns(rows, room=50, yielding=(0, 2)) == output.columns(rows)
    narrow = output.columns(rows, room=45, yielding=(0, 2))
    assert narrow[0] == "서울특별시 …  failed     " + "x" * 20
    assert narrow[1] == "b             completed  y"
    narrower = output.columns(rows, room=35, yielding=(0, 2))
    assert narrower[0] == "서울특별…   failed     " + "x" * 11 + "…"


def test_colour_does_not_count_in_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = output.status("failed")
    assert coloured != "failed"
    assert output.columns([[coloured, "x"], ["stopped", "y"]])[0] == f"{coloured}   x"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.status("failed") == "failed"


def test_times_are_utc_to_the_microsecond() -> None:
    assert output.iso_ns(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456Z"
    assert output.clock("2023-11-14T22:13:20.123456Z") == "2023-11-14 22:13:20 UTC"
