"""What a piece of work took of the machine: time, CPU, memory."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from milepost.model.state import BatchMetrics, success_rate


class Meter:
    """Measures the process while a batch runs in it.

    CPU and memory are the whole process's: batches that run at once share them.
    """

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def read(
        self,
        *,
        items_processed: int,
        items_failed: int,
        items_skipped: int,
        active_seconds: float,
        counters: dict[str, int],
    ) -> BatchMetrics:
        """The metrics of a batch that ends now; safe for zero items and no time at all."""
        wall = time.perf_counter() - self._wall
        cpu = time.process_time() - self._cpu
        finished = items_processed + items_failed + items_skipped
        rate = success_rate(items_processed, items_failed)
        own = dict(counters)
        return BatchMetrics(
            items_per_second=finished / active_seconds if active_seconds > 0 else None,
            memory_usage_mb=_resident_mb(),
            cpu_usage_percent=100 * cpu / wall if wall > 0 else None,
            network_requests_count=own.pop("network_requests", 0),
            database_operations_count=own.pop("database_operations", 0),
            error_rate=None if rate is None else 1 - rate,
            counters=own,
        )


def _resident_mb() -> float | None:
    """Resident memory in MiB; `None` where psutil is not installed or may not look."""
    with contextlib.suppress(Exception):
        import psutil  # noqa: PLC0415  # optional, and slow to import

        process: Any = psutil.Process()
        return float(process.memory_info().rss) / (1 << 20)
    return None
