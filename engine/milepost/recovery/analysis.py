"""Whether a session wants to be recovered, why, and how urgently: a decision from facts alone.

- A living session is never touched: where nothing has happened in it for long, that is reported.
- What was stopped on purpose, has ended, or holds data alone needs nothing.
- A session is unrecoverable only where nothing can be read, not even an older version or a backup.
- `is_held` marks what recovery must leave alone until somebody has looked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from milepost.model import consistency
from milepost.model.status import SessionStatus
from milepost.types import RecoveryPriority, RecoveryReason, SessionKind

if TYPE_CHECKING:
    from milepost.model.state import ActiveBatch, SessionState
    from milepost.session.view import View
    from milepost.types import RecoveryConfig

URGENT_SHARE: Final = 0.5
"""A batch of which more than this is done is carried on first."""


class NoRecoveryNeeded(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="none"):
    """Nothing is to be done.

    Attributes:
        detail: Why not, for people.
    """

    detail: str


class RequiresRecovery(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="required"):
    """The session wants to be carried on.

    Attributes:
        reason: Why.
        priority: In which order.
        detail: The same for people.
        is_held: Whether it must be left alone until somebody has looked.
        hint: What to try where it is held.
    """

    reason: RecoveryReason
    priority: RecoveryPriority
    detail: str
    is_held: bool = False
    hint: str = ""


class Unrecoverable(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="unrecoverable"
):
    """There is nothing to work from.

    Attributes:
        reason: Why, for people.
        tried: What was tried, and what was wrong with it.
        hint: What to try.
    """

    reason: str
    tried: list[tuple[str, str]]
    hint: str = ""


RecoveryStatus: TypeAlias = NoRecoveryNeeded | RequiresRecovery | Unrecoverable
"""One of the three."""


def analyze(view: View, config: RecoveryConfig, *, now_ns: int) -> RecoveryStatus:
    """Judge one session, as it was read."""
    state, judgement = view.state, view.judgement
    if state.kind is SessionKind.DATA:
        return NoRecoveryNeeded(detail=judgement.reason)
    if judgement.status is SessionStatus.RUNNING:
        return _living(state, config, now_ns)
    if view.is_lossy:
        lost = [each.message for each in view.findings if each.is_error]
        return RequiresRecovery(
            reason=RecoveryReason.DAMAGED,
            priority=RecoveryPriority.HIGH,
            detail="; ".join(lost[:3]),
            is_held=True,
            hint="milepost restore NAME accepts the loss and goes on from what is sure",
        )
    status = _unfinished(view, config)
    if config.consistency_check_enabled and isinstance(status, RequiresRecovery):
        return _held_back(status, consistency.check(state))
    return status


def _living(state: SessionState, config: RecoveryConfig, now_ns: int) -> RecoveryStatus:
    quiet_seconds = (now_ns - state.updated_ns) / 1e9
    if state.execution is None or quiet_seconds < config.stalled_after_seconds:
        return NoRecoveryNeeded(detail="a process is writing it")
    return RequiresRecovery(
        reason=RecoveryReason.STALLED,
        priority=RecoveryPriority.LOW,
        detail=f"it lives, and nothing has happened in it for {quiet_seconds / 60:,.0f} minutes",
        is_held=True,
        hint="look at its process: a living session is never touched",
    )


def _unfinished(view: View, config: RecoveryConfig) -> RecoveryStatus:
    state, judgement = view.state, view.judgement
    if judgement.status is SessionStatus.STOPPED:
        return NoRecoveryNeeded(detail=judgement.reason)
    if judgement.status is SessionStatus.COMPLETED:
        return NoRecoveryNeeded(detail=judgement.reason)
    if judgement.status is SessionStatus.FAILED:
        count = len(recoverable_failures(state, config))
        if not count:
            return NoRecoveryNeeded(detail=f"{judgement.reason}; milepost retry tries them again")
        return RequiresRecovery(
            reason=RecoveryReason.RECOVERABLE_FAILURES,
            priority=RecoveryPriority.MEDIUM,
            detail=f"{judgement.reason}, {count:,} of them may be tried again",
        )
    if any(each.deaths >= config.max_recovery_attempts for each in state.suspects):
        return RequiresRecovery(
            reason=RecoveryReason.POISONED,
            priority=RecoveryPriority.HIGH,
            detail=f"something in it killed its process {config.max_recovery_attempts} times in a"
            " row, alone",
        )
    if any(each.is_error for each in view.findings):
        return RequiresRecovery(
            reason=RecoveryReason.DAMAGED,
            priority=_priority(state, config),
            detail="files of it are damaged; it was read whole from an older version or a backup",
        )
    if judgement.status is SessionStatus.STALE:
        reason, priority = RecoveryReason.STALE_SESSION, RecoveryPriority.LOW
    elif state.active_batches:
        reason, priority = RecoveryReason.INTERRUPTED_BATCH, _priority(state, config)
    elif state.completed_batches or state.failed_batches:
        reason, priority = RecoveryReason.INTERRUPTED_BETWEEN_BATCHES, RecoveryPriority.MEDIUM
    else:
        reason, priority = RecoveryReason.INTERRUPTED_BEFORE_FIRST, RecoveryPriority.LOW
    return RequiresRecovery(reason=reason, priority=priority, detail=judgement.reason)


def _held_back(status: RequiresRecovery, findings: list[consistency.Finding]) -> RequiresRecovery:
    errors = [each.message for each in findings if each.is_error]
    if not errors:
        return status
    return RequiresRecovery(
        reason=status.reason,
        priority=status.priority,
        detail=f"its state does not add up: {'; '.join(errors[:3])}",
        is_held=True,
        hint="milepost show NAME --json lists all findings; restore NAME VERSION goes back",
    )


def share_done(batch: ActiveBatch) -> float:
    """Share of a batch that is finished; 0 where its size is not known."""
    return min(1.0, batch.items_finished / batch.items_total) if batch.items_total else 0.0


def _priority(state: SessionState, config: RecoveryConfig) -> RecoveryPriority:
    """By the share of the fullest batch in hand."""
    share = max(map(share_done, state.active_batches.values()), default=0.0)
    if share > URGENT_SHARE:
        return RecoveryPriority.HIGH
    if share >= config.partial_recovery_threshold:
        return RecoveryPriority.MEDIUM
    return RecoveryPriority.LOW


def recoverable_failures(state: SessionState, config: RecoveryConfig) -> list[int]:
    """Numbers of the failed batches that may be tried again by themselves."""
    return sorted(
        number
        for number, failed in state.failed_batches.items()
        if failed.is_recoverable and failed.retry_count < config.max_recovery_attempts
    )
