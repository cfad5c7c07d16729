from __future__ import annotations

import re

import milepost
from milepost_cli import exit_codes


def public_errors() -> list[type[milepost.MilepostError]]:
    members = [getattr(milepost, name) for name in milepost.__all__]
    return [m for m in members if isinstance(m, type) and issubclass(m, milepost.MilepostError)]


def test_every_public_error_has_a_row_of_its_own() -> None:
    missing = [kind.__name__ for kind in public_errors() if kind not in exit_codes.CODES]
    assert missing == []


def test_the_table_holds_nothing_but_public_errors() -> None:
    assert set(exit_codes.CODES) == set(public_errors())


def test_every_code_of_the_table_is_documented() -> None:
    assert exit_codes.__doc__ is not None
    documented = {int(code) for code in re.findall(r"\b\d+\b", exit_codes.__doc__)}
    assert set(exit_codes.CODES.values()) <= documented


def test_the_codes_that_scripts_rely_on() -> None:
    expected = {
        milepost.MilepostError: 1,
        milepost.ConfigurationError: 2,
        milepost.JobFailedError: 3,
        milepost.StoreNotFoundError: 10,
        milepost.SessionNotFoundError: 10,
        milepost.AlreadyLockedError: 11,
        milepost.SupersededError: 11,
        milepost.DamagedError: 12,
        milepost.ChecksumMismatchError: 12,
        milepost.UnsupportedVersionError: 13,
    }
    assert {kind: exit_codes.CODES[kind] for kind in expected} == expected


def test_an_error_without_a_row_takes_the_code_above_it() -> None:
    class Nearer(milepost.AlreadyLockedError):
        pass

    assert exit_codes.code_of(Nearer("x")) == exit_codes.LOCKED
    assert exit_codes.code_of(ValueError("x")) == exit_codes.FAILED
    assert exit_codes.code_of(KeyboardInterrupt()) == exit_codes.INTERRUPTED
