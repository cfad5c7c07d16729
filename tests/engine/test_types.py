"""Enums as they stand on disk, and settings that refuse what cannot work."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from milepost.errors import ConfigurationError
from milepost.types import (
    BatchErrorType,
    BatchPhase,
    BatchStatus,
    CheckpointType,
    ItemStatus,
    JobConfig,
    Outcome,
    RecoveryConfig,
    SessionKind,
    StoreConfig,
    TrackerConfig,
    label,
)

CONFIGS: list[Any] = [TrackerConfig, StoreConfig, RecoveryConfig, JobConfig]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (ItemStatus, "pending processing completed failed skipped"),
        (BatchStatus, "pending processing completed failed"),
        (
            BatchPhase,
            "initializing data_collecting data_processing data_validating data_saving finalizing",
        ),
        (
            BatchErrorType,
            (
                "network_error database_error validation_error timeout_error"
                " resource_exhaustion unknown_error"
            ),
        ),
        (
            CheckpointType,
            "batch_start batch_progress batch_complete batch_error session_start session_complete",
        ),
        (Outcome, "completed failed stopped interrupted"),
        (SessionKind, "work data"),
    ],
)
def test_the_numbers_of_enums_are_part_of_the_format(kind: Any, names: str) -> None:
    assert [label(member) for member in kind] == names.split()
    assert [int(member) for member in kind] == list(range(len(names.split())))
    for member in kind:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(member)) == int(member)


def test_the_defaults_are_what_is_promised() -> None:
    tracker, store, recovery, job = (kind() for kind in CONFIGS)
    assert tracker.checkpoint_interval_seconds == 30
    assert tracker.max_detailed_progress_items == 10_000
    assert tracker.enable_item_tracking
    assert tracker.enable_performance_metrics
    assert tracker.sync_interval_seconds == 1
    assert store.enable_compression
    assert store.max_state_history == 10
    assert store.cleanup_interval_hours == 24
    assert store.backup_enabled
    assert store.backup_path is None
    assert recovery.auto_recovery_enabled
    assert recovery.max_recovery_attempts == 3
    assert recovery.recovery_delay_seconds == 10
    assert recovery.partial_recovery_threshold == 0.1
    assert recovery.consistency_check_enabled
    assert recovery.stale_after_seconds == 60
    assert recovery.stalled_after_seconds == 3_600
    assert job.enabled
    assert job.auto_resume
    assert job.batch_name is None


@pytest.mark.parametrize("kind", CONFIGS)
def test_settings_are_frozen(kind: Any) -> None:
    config = kind()
    with pytest.raises(AttributeError):
        setattr(config, config.__struct_fields__[0], 1)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (TrackerConfig, "checkpoint_interval_seconds", 0),
        (TrackerConfig, "checkpoint_interval_seconds", -1),
        (TrackerConfig, "checkpoint_interval_seconds", math.nan),
        (TrackerConfig, "checkpoint_interval_seconds", "30"),
        (TrackerConfig, "checkpoint_interval_seconds", None),
        (TrackerConfig, "sync_interval_seconds", 0),
        (TrackerConfig, "sync_interval_seconds", -0.5),
        (TrackerConfig, "max_detailed_progress_items", -1),
        (TrackerConfig, "max_detailed_progress_items", 1.5),
        (TrackerConfig, "max_detailed_progress_items", "10"),
        (StoreConfig, "max_state_history", 0),
        (StoreConfig, "max_state_history", -3),
        (StoreConfig, "max_state_history", 2.5),
        (StoreConfig, "max_state_history", "3"),
        (StoreConfig, "cleanup_interval_hours", 0),
        (StoreConfig, "cleanup_interval_hours", "24"),
        (RecoveryConfig, "max_recovery_attempts", 0),
        (RecoveryConfig, "max_recovery_attempts", "3"),
        (RecoveryConfig, "recovery_delay_seconds", -1),
        (RecoveryConfig, "partial_recovery_threshold", 1.1),
        (RecoveryConfig, "partial_recovery_threshold", -0.1),
        (RecoveryConfig, "partial_recovery_threshold", None),
        (RecoveryConfig, "stale_after_seconds", 0),
        (RecoveryConfig, "stalled_after_seconds", -5),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(kind: Any, field: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"{field} is ") as caught:
        kind(**{field: value})
    assert repr(value) in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (TrackerConfig, "checkpoint_interval_seconds", 0.01),
        (TrackerConfig, "checkpoint_interval_seconds", math.inf),
        (TrackerConfig, "max_detailed_progress_items", 0),
        (StoreConfig, "max_state_history", 1),
        (RecoveryConfig, "max_recovery_attempts", 1),
        (RecoveryConfig, "recovery_delay_seconds", 0),
        (RecoveryConfig, "partial_recovery_threshold", 0),
        (RecoveryConfig, "partial_recovery_threshold", 1),
    ],
)
def test_a_value_at_the_edge_is_accepted(kind: Any, field: str, value: object) -> None:
    assert getattr(kind(**{field: value}), field) == value


def test_without_item_tracking_no_detail_is_kept() -> None:
    assert TrackerConfig(max_detailed_progress_items=7).item_cap == 7
    assert TrackerConfig(enable_item_tracking=False).item_cap == 0
