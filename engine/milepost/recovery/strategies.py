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
from milepost.recovery.analysis import recoverable_failures, share_done
from milepost.types import RecoveryReason, RecoveryStrategy

if TYPE_CHECKING:
    from milepost.model.state import ActiveBatch, SessionState
    from milepost.types import RecoveryConfig

WORTH_RESUMING: Final = 0.2
"""Share of a batch that only reported counts, above which it is resumed rather than begun anew."""


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
    if from_batch is not None and strategy not in {None, RecoveryStrategy.PARTIAL_RECOVERY}:
        raise ConfigurationError("from_batch goes with partial recovery alone")
    if from_batch is not None:
        return _from_batch(state, from_batch)
    if strategy is None:
        return _default(state, reason, config)
    if strategy is RecoveryStrategy.FULL_RESTART:
        return Decision(strategy, FullRestart(total_batches=state.total_batches), [], [], None)
    if strategy is RecoveryStrategy.PARTIAL_RECOVERY:
        return _from_batch(state, _first_unfinished(state))
    if strategy is RecoveryStrategy.RESTART_FAILED_BATCHES:
        chosen = recoverable_failures(state, config)
        if not chosen:
            raise ConfigurationError(
                f"session {state.session_id!r} has no failed batch that may be tried again",
                hint="milepost retry puts back all that failed, whatever their limits",
            )
        return _failed_again(chosen)
    return _resume(sorted(state.active_batches.values(), key=lambda b: b.batch_number))


def _default(state: SessionState, reason: RecoveryReason, config: RecoveryConfig) -> Decision:
    if reason is RecoveryReason.RECOVERABLE_FAILURES:
        return _failed_again(recoverable_failures(state, config))
    active = sorted(state.active_batches.values(), key=lambda batch: batch.batch_number)
    anew = [batch for batch in active if _is_not_worth_resuming(batch)]
    if not anew:
        return _resume(active)
    return _partial(state, [batch.batch_number for batch in anew])


def _is_not_worth_resuming(batch: ActiveBatch) -> bool:
    """Only counts were recorded, and few: nobody knows which items they were."""
    return (
        batch.is_counted
        and bool(batch.items_total)
        and batch.items_finished > 0
        and share_done(batch) <= WORTH_RESUMING
    )


def _resume(active: list[ActiveBatch]) -> Decision:
    return Decision(
        RecoveryStrategy.RESUME_CURRENT_BATCH,
        ResumedBatch(batches={batch.batch_id: batch.items_finished for batch in active}),
        [],
        [],
        None,
    )


def _failed_again(numbers: list[int]) -> Decision:
    return Decision(
        RecoveryStrategy.RESTART_FAILED_BATCHES,
        RestartedFailedBatches(batch_numbers=numbers),
        numbers,
        [],
        None,
    )


def _from_batch(state: SessionState, first: int) -> Decision:
    if first < 0 or (state.total_batches is not None and first >= max(1, state.total_batches)):
        raise ConfigurationError(
            f"session {state.session_id!r} has no batch {first}",
            hint=f"its batches are numbered from 0 to {(state.total_batches or 1) - 1}",
        )
    groups = (
        state.completed_batches,
        state.active_batches,
        state.failed_batches,
        state.pending_batches,
    )
    begun = {number for group in groups for number in group}
    return _partial(state, sorted(number for number in begun if number >= first), first)


def _first_unfinished(state: SessionState) -> int:
    number = 0
    while number in state.completed_batches:
        number += 1
    return number


def _partial(state: SessionState, reset: list[int], first: int | None = None) -> Decision:
    first = min(reset) if first is None else first
    kept = sum(number not in set(reset) for number in state.completed_batches)
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
