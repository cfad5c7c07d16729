"""How the work goes since its latest recovery: counted from a state alone."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from milepost.model.estimate import progress
from milepost.recovery.analysis import share_done

if TYPE_CHECKING:
    from milepost.model.state import SessionState


class RecoveryMonitorResult(msgspec.Struct, frozen=True, kw_only=True):
    """How the work goes since its latest recovery.

    Attributes:
        session_id: Of which session.
        overall_progress: Share of the session that is finished, 0 to 1; `None` if its size is
            unknown.
        current_batch_progress: Share of the batches in hand that is finished, 0 to 1; `None` with
            nothing in hand, or where its size is unknown.
        items_since_recovery: Items finished since then; from the beginning where there was none.
            What had failed then and fails again is not counted.
        batches_since_recovery: Batches completed since then.
        recovery_successful: Whether any work was acknowledged since.
        recovered_at: When it was recovered; `None` if never.
        estimated_completion: When it should be done; `None` if that is unknown.
    """

    session_id: str
    overall_progress: float | None
    current_batch_progress: float | None
    items_since_recovery: int
    batches_since_recovery: int
    recovery_successful: bool
    recovered_at: datetime | None
    estimated_completion: datetime | None


def measure(state: SessionState) -> RecoveryMonitorResult:
    """What a state says of the work since its latest recovery."""
    mark, sums = state.recovery, state.session_statistics
    shares = [share_done(each) for each in state.active_batches.values() if each.items_expected]
    done = sums.total_items_processed + sums.total_items_skipped - (mark.items_done if mark else 0)
    # Failed items that are tried again leave this count first: that takes nothing back.
    failed = sums.total_items_failed - (mark.items_failed if mark else 0)
    items = max(0, done) + max(0, failed)
    batches = max(0, len(state.completed_batches) - (mark.batches_completed if mark else 0))
    return RecoveryMonitorResult(
        session_id=state.session_id,
        overall_progress=progress(state),
        current_batch_progress=sum(shares) / len(shares) if shares else None,
        items_since_recovery=items,
        batches_since_recovery=batches,
        recovery_successful=items > 0 or batches > 0,
        recovered_at=mark.recovered_at if mark else None,
        estimated_completion=state.estimated_completion,
    )
