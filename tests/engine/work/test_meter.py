"""What a batch took of the machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from milepost.work.meter import Meter

if TYPE_CHECKING:
    from milepost.model.state import BatchMetrics


def read(**fields: Any) -> BatchMetrics:
    given: dict[str, Any] = {
        "items_processed": 0,
        "items_failed": 0,
        "items_skipped": 0,
        "active_seconds": 0.0,
        "counters": {},
    }
    return Meter().read(**(given | fields))


@pytest.mark.parametrize("active_seconds", [0.0, -5.0])
def test_nothing_in_no_time_is_no_number(active_seconds: float) -> None:
    metrics = read(active_seconds=active_seconds)
    assert metrics.items_per_second is None
    assert metrics.error_rate is None
    metrics = read(items_processed=5, active_seconds=active_seconds)
    assert metrics.items_per_second is None
    assert metrics.error_rate == 0.0


def test_speed_counts_all_that_was_finished() -> None:
    metrics = read(items_processed=6, items_failed=2, items_skipped=2, active_seconds=4.0)
    assert metrics.items_per_second == 2.5
    assert metrics.error_rate == 0.25


def test_no_items_in_some_time_are_no_speed_of_infinity() -> None:
    assert read(active_seconds=4.0).items_per_second == 0.0


def test_known_counters_have_their_fields_and_the_others_stay_together() -> None:
    counters = {"network_requests": 7, "database_operations": 3, "pages": 2}
    metrics = read(counters=counters)
    assert metrics.network_requests_count == 7
    assert metrics.database_operations_count == 3
    assert metrics.counters == {"pages": 2}
    assert counters == {"network_requests": 7, "database_operations": 3, "pages": 2}
    assert read().network_requests_count == 0


def test_cpu_is_a_share_of_wall_time() -> None:
    meter = Meter()
    sum(range(200_000))
    metrics = meter.read(
        items_processed=1, items_failed=0, items_skipped=0, active_seconds=1.0, counters={}
    )
    assert metrics.cpu_usage_percent is not None
    assert metrics.cpu_usage_percent >= 0


def test_memory_is_known_with_psutil() -> None:
    pytest.importorskip("psutil", reason="memory is measured where psutil is installed")
    memory = read().memory_usage_mb
    assert memory is not None
    assert memory > 1


def test_without_psutil_memory_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert read().memory_usage_mb is None
