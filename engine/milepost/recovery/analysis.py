"""Whether a session wants to be recovered, why, and how urgently: a decision from facts alone.

- A living session is never touched: where nothing has happened in it for long, that is reported.
- What was stopped on purpose, has ended, or holds data alone needs nothing.
- A session is unrecoverable only where nothing can be read, not even an older version or a backup.
- `is_held` marks what recovery must leave alone until somebody has looked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from milepost.model.retrying import recoverable
from milepost.model.status import SessionStatus
from milepost.storage.location import command
from milepost.text import counted
from milepost.types import RecoveryPriority, RecoveryReason, SessionKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from milepost.model.consistency import Finding
    from milepost.model.state import ActiveBatch, SessionState, Suspect
    from milepost.model.status import Judgement
    from milepost.session.view import View
    from milepost.types import RecoveryConfig

URGENT_SHARE: Final = 0.5
"""A batch of which more than this is done is carried on first."""

_FINDINGS_TOLD: Final = 3
"""More of them are in what the hint shows."""


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


Judged: TypeAlias = NoRecoveryNeeded | RequiresRecovery
"""What can be said of a session that was read."""


def analyze(view: View, config: RecoveryConfig, *, store: str, now_ns: int) -> Judged:
    """Judge one session of the store at that path, as it was read."""
    state, judgement = view.state, view.judgement
    if state.kind is SessionKind.DATA:
        return NoRecoveryNeeded(detail="it holds data alone")
    if judgement.status is SessionStatus.RUNNING:
        return _living(state, judgement, config, now_ns)
    if view.is_lossy:
        lost = [each.message for each in view.findings if each.is_error]
        return RequiresRecovery(
            reason=RecoveryReason.DAMAGED,
            priority=RecoveryPriority.HIGH,
            detail="; ".join(lost[:_FINDINGS_TOLD]),
            is_held=True,
            hint="put the file back from another copy, or accept the loss and go on from what is"
            f" sure: {command(store, 'restore', state.session_id)}",
        )
    if judgement.status in {SessionStatus.STOPPED, SessionStatus.COMPLETED}:
        return NoRecoveryNeeded(detail=judgement.reason)
    if judgement.status is SessionStatus.FAILED:
        return _failed(state, judgement, config, store)
    return _unfinished(view, config)


def hold_back(
    status: RequiresRecovery, findings: Iterable[Finding], *, session: str, store: str
) -> RequiresRecovery:
    """The same, held back where something about the session cannot be right; notices do not."""
    errors = [each.message for each in findings if each.is_error]
    if not errors:
        return status
    return msgspec.structs.replace(
        status,
        detail=f"its state does not add up: {'; '.join(errors[:_FINDINGS_TOLD])}",
        is_held=True,
        hint=f"look at it: {command(store, 'show', session)}",
    )


def _living(
    state: SessionState, judgement: Judgement, config: RecoveryConfig, now_ns: int
) -> Judged:
    quiet_seconds = (now_ns - state.updated_ns) / 1e9
    if state.execution is None or quiet_seconds < config.stalled_after_seconds:
        return NoRecoveryNeeded(detail=judgement.reason)
    return RequiresRecovery(
        reason=RecoveryReason.STALLED,
        priority=RecoveryPriority.LOW,
        detail=f"{judgement.reason}, and nothing has happened in it for"
        f" {counted(round(quiet_seconds / 60), 'minute')}",
        is_held=True,
        hint="look at its process; a living session is never touched",
    )


def _failed(
    state: SessionState, judgement: Judgement, config: RecoveryConfig, store: str
) -> Judged:
    count = len(recoverable(state, config.max_recovery_attempts))
    if not count:
        again = command(store, "retry", state.session_id)
        return NoRecoveryNeeded(detail=f"{judgement.reason}; to try again: {again}")
    return RequiresRecovery(
        reason=RecoveryReason.RECOVERABLE_FAILURES,
        priority=RecoveryPriority.MEDIUM,
        detail=f"{judgement.reason}, {count:,} of them may be tried again",
    )


def _unfinished(view: View, config: RecoveryConfig) -> RequiresRecovery:
    state, judgement = view.state, view.judgement
    detail = judgement.reason
    poison = [each for each in view.suspects if each.deaths >= config.max_recovery_attempts]
    if poison:
        reason, priority = RecoveryReason.POISONED, RecoveryPriority.HIGH
        detail += f"; {_poisonous(state, poison)}"
    elif any(each.is_error for each in view.findings):
        reason, priority = RecoveryReason.DAMAGED, _priority(state, config)
        detail += "; files of it are damaged, and what they held was read from elsewhere"
    elif judgement.status is SessionStatus.STALE:
        reason, priority = RecoveryReason.STALE_SESSION, RecoveryPriority.LOW
    elif state.active_batches:
        reason, priority = RecoveryReason.INTERRUPTED_BATCH, _priority(state, config)
    elif state.completed_batches or state.failed_batches:
        reason, priority = RecoveryReason.INTERRUPTED_BETWEEN_BATCHES, RecoveryPriority.MEDIUM
    else:
        reason, priority = RecoveryReason.INTERRUPTED_BEFORE_FIRST, RecoveryPriority.LOW
    return RequiresRecovery(reason=reason, priority=priority, detail=detail)


def _poisonous(state: SessionState, poison: list[Suspect]) -> str:
    first = poison[0]
    batch = f"batch {state.key_of(first.batch)!r}"
    what = batch if first.key is None else f"item {first.key!r} of {batch}"
    return f"{what} killed its process {counted(first.deaths, 'time')} in a row, alone"


def share_done(batch: ActiveBatch) -> float:
    """Share of a batch that is finished; 0 where its size is not known.

    Of growing work it is the share of what is known of it, so the most that it can be.
    """
    expected = batch.items_expected
    return min(1.0, batch.items_finished / expected) if expected else 0.0


def _priority(state: SessionState, config: RecoveryConfig) -> RecoveryPriority:
    """By the share of the fullest batch in hand."""
    share = max(map(share_done, state.active_batches.values()), default=0.0)
    if share > URGENT_SHARE:
        return RecoveryPriority.HIGH
    if share >= config.partial_recovery_threshold:
        return RecoveryPriority.MEDIUM
    return RecoveryPriority.LOW
