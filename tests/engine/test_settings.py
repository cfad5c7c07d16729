"""Settings come from the environment where a program hands none in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

import milepost
from milepost.settings import as_environment, from_environment

if TYPE_CHECKING:
    from pathlib import Path

KINDS: list[type[msgspec.Struct]] = [
    milepost.TrackerConfig,
    milepost.StoreConfig,
    milepost.RecoveryConfig,
    milepost.JobConfig,
]


def test_no_two_groups_share_a_field() -> None:
    names = [field.name for kind in KINDS for field in msgspec.structs.fields(kind)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_the_environment_is_the_default(kind: type[msgspec.Struct]) -> None:
    assert from_environment(kind, {"MILEPOST_STORE": "x", "OTHER": "1"}) == kind()


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_comes_back_from_its_variables(kind: type[msgspec.Struct]) -> None:
    assert from_environment(kind, as_environment(kind())) == kind()


def test_what_was_changed_comes_back_from_its_variables() -> None:
    config = milepost.RecoveryConfig(
        auto_recovery_enabled=False, max_recovery_attempts=7, recovery_delay_seconds=1e-7
    )
    assert from_environment(milepost.RecoveryConfig, as_environment(config)) == config
    store = milepost.StoreConfig(backup_path="/some where")
    assert from_environment(milepost.StoreConfig, as_environment(store)) == store


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_can_be_set(kind: type[msgspec.Struct]) -> None:
    for field in msgspec.structs.fields(kind):
        default = getattr(kind(), field.name)
        text: str
        expected: object
        if isinstance(default, bool):
            text, expected = ("off", False) if default else ("yes", True)
        elif isinstance(default, int):
            text, expected = "7", 7
        elif isinstance(default, float):
            text, expected = "0.25", 0.25
        else:
            text, expected = "somewhere", "somewhere"
        found = from_environment(kind, {f"MILEPOST_{field.name.upper()}": text})
        assert getattr(found, field.name) == expected
        assert msgspec.structs.replace(found, **{field.name: default}) == kind()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MILEPOST_MAX_RECOVERY_ATTEMPTS", "many"),
        ("MILEPOST_MAX_RECOVERY_ATTEMPTS", "1.5"),
        ("MILEPOST_MAX_RECOVERY_ATTEMPTS", "0"),
        ("MILEPOST_MAX_RECOVERY_ATTEMPTS", ""),
        ("MILEPOST_RECOVERY_DELAY_SECONDS", "nan"),
        ("MILEPOST_RECOVERY_DELAY_SECONDS", "-1"),
        ("MILEPOST_AUTO_RECOVERY_ENABLED", "perhaps"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(milepost.ConfigurationError) as caught:
        from_environment(milepost.RecoveryConfig, {name: text})
    assert name.removeprefix("MILEPOST_").lower() in str(caught.value).lower()


def test_a_store_takes_what_it_is_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILEPOST_MAX_RECOVERY_ATTEMPTS", "9")
    monkeypatch.setenv("MILEPOST_MAX_STATE_HISTORY", "2")
    store = milepost.Store(tmp_path / "s", config=milepost.StoreConfig())
    assert store.recovery.max_recovery_attempts == 9
    assert store.config.max_state_history == 10, "what a program hands in goes first"
