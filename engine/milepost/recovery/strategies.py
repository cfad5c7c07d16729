"""How a session is made ready: which strategy, and the one event that carries it out.

- By default nothing that was acknowledged is ever done again. Where items are recorded, work goes
  on inside the batches in hand. Thresholds decide only where nothing but counts was recorded, so
  that nobody can know which items they were.
- A strategy that a caller forces does what it says, also to completed batches.
- The event holds the batches by number, so that the fold needs no setting, and doing it again after
  a kill finds nothing left to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from milepost.errors import ConfigurationError
from milepost.model.retrying import recoverable
from milepost.recovery.analysis import share_done
from milepost.types import RecoveryReason, RecoveryStrategy

if TYPE_CHECKING:
    from milepost.model.state import ActiveBatch, RecoveryMark, SessionState
    from milepost.types import RecoveryConfig

WORTH_RESUMING: Final = 0.2
"""A batch that only reported counts is resumed above this share, and begun anew up to it."""


class ResumedBatch(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="resumed"):
    """The batches in hand go on.

    Attributes:
        batches: Key of each, and how many of its items are finished.
    """

    batches: dict[str, int]


class RestartedFailedBatches(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="restarted_failed"
):
    """Failed batches wait to be tried again.

    Attributes:
        batch_numbers: Their numbers.
    """

    batch_numbers: list[int]


class PartialRecovery(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="partial"):
    """What was begun from one batch on begins anew.

    Attributes:
        completed_batches: How many batches stay completed.
        restart_from_batch: Number of the first that begins anew.
        remaining_batches: How many are to be done; `None` where the total is not known.
    """

    completed_batches: int
    restart_from_batch: int
    remaining_batches: int | None


class FullRestart(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="full"):
    """Everything begins anew.

    Attributes:
        total_batches: How many there were; `None` where that was not known.
    """

    total_batches: int | None


BatchRecoveryResult: TypeAlias = (
    ResumedBatch | RestartedFailedBatches | PartialRecovery | FullRestart
)
"""What a recovery did."""


class Decision(NamedTuple):
    """What is to be done, in numbers.

    Attributes:
        strategy: How.
        result: What it comes to.
        batches: Failed batches that wait again.
        reset: Begun batches that begin anew.
        from_batch: Where a partial recovery begins.
    """

    strategy: RecoveryStrategy
    result: BatchRecoveryResult
    batches: list[int]
    reset: list[int]
    from_batch: int | None


def decide(
    state: SessionState,
    reason: RecoveryReason,
    config: RecoveryConfig,
    *,
    strategy: RecoveryStrategy | None = None,
    from_batch: int | None = None,
) -> Decision:
    """The strategy for a session, or the one that a caller forces.

    Errors: `ConfigurationError` for a strategy that cannot be carried out, naming why.
    """
    if from_batch is not None:
        if strategy not in {None, RecoveryStrategy.PARTIAL_RECOVERY}:
            raise ConfigurationError("from_batch goes with partial recovery alone")
        return _from_batch(state, from_batch)
    if strategy is None:
        return _default(state, reason, config)
    if strategy is RecoveryStrategy.FULL_RESTART:
        return Decision(strategy, FullRestart(total_batches=state.total_batches), [], [], None)
    if strategy is RecoveryStrategy.PARTIAL_RECOVERY:
        return _from_batch(state, _first_unfinished(state))
    if strategy is RecoveryStrategy.RESTART_FAILED_BATCHES:
        return _failed_again(state, config)
    return _resume(state)


def left_by(state: SessionState, mark: RecoveryMark) -> BatchRecoveryResult:
    """What a recovery came to, in a state to which nothing happened since."""
    if mark.strategy is RecoveryStrategy.FULL_RESTART:
        return FullRestart(total_batches=state.total_batches)
    if mark.strategy is RecoveryStrategy.RESTART_FAILED_BATCHES:
        return RestartedFailedBatches(batch_numbers=sorted(state.pending_batches))
    if mark.strategy is RecoveryStrategy.PARTIAL_RECOVERY:
        return _partial(state, [], min(state.pending_batches, default=0)).result
    return _resume(state).result


def _default(state: SessionState, reason: RecoveryReason, config: RecoveryConfig) -> Decision:
    if reason is RecoveryReason.RECOVERABLE_FAILURES:
        return _failed_again(state, config)
    anew = sorted(
        batch.batch_number
        for batch in state.active_batches.values()
        if _is_not_worth_resuming(batch, config)
    )
    return _partial(state, anew, anew[0]) if anew else _resume(state)


def _is_not_worth_resuming(batch: ActiveBatch, config: RecoveryConfig) -> bool:
    """Only counts were recorded, and few: nobody knows which items they were."""
    if not batch.is_counted or not batch.items_total or not batch.items_finished:
        return False
    share = share_done(batch)
    return share < config.partial_recovery_threshold or share <= WORTH_RESUMING


def _resume(state: SessionState) -> Decision:
    active = (batch for _, batch in sorted(state.active_batches.items()))
    batches = {batch.batch_id: batch.items_finished for batch in active}
    return Decision(
        RecoveryStrategy.RESUME_CURRENT_BATCH, ResumedBatch(batches=batches), [], [], None
    )


def _failed_again(state: SessionState, config: RecoveryConfig) -> Decision:
    numbers = recoverable(state, config.max_recovery_attempts)
    if not numbers:
        raise ConfigurationError(
            f"session {state.session_id!r} has no failed batch that may be tried again",
            hint="a retry by hand puts back all that failed, whatever their limits",
        )
    return Decision(
        RecoveryStrategy.RESTART_FAILED_BATCHES,
        RestartedFailedBatches(batch_numbers=numbers),
        numbers,
        [],
        None,
    )


def _from_batch(state: SessionState, first: int) -> Decision:
    begun = {
        *state.completed_batches,
        *state.active_batches,
        *state.failed_batches,
        *state.pending_batches,
    }
    last = max([*begun, (state.total_batches or 0) - 1])
    if not 0 <= first <= last:
        raise ConfigurationError(
            f"session {state.session_id!r} has no batch {first}",
            hint=f"its batches are numbered from 0 to {last}" if last >= 0 else "it has none yet",
        )
    return _partial(state, sorted(number for number in begun if number >= first), first)


def _first_unfinished(state: SessionState) -> int:
    number = 0
    while number in state.completed_batches:
        number += 1
    if number and number == state.total_batches:
        raise ConfigurationError(
            f"all {number:,} batches of session {state.session_id!r} are completed",
            hint="name the batch from which on they are to be done again, with from_batch",
        )
    return number


def _partial(state: SessionState, reset: list[int], first: int) -> Decision:
    kept = len(state.completed_batches.keys() - set(reset))
    total = state.total_batches
    return Decision(
        RecoveryStrategy.PARTIAL_RECOVERY,
        PartialRecovery(
            completed_batches=kept,
            restart_from_batch=first,
            remaining_batches=None if total is None else total - kept,
        ),
        [],
        reset,
        first,
    )
