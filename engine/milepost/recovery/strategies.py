"""How a session is made ready: which strategy, and the one event that carries it out.

- By default nothing that was acknowledged is ever done again. Where items are recorded, work goes
  on inside the batches in hand. Thresholds decide only where nothing but counts was recorded, so
  that nobody can know which items they were.
- A strategy that a caller forces does what it says, also to completed batches; and so do the
  thresholds, where a caller wants all of it decided by them.
- The event holds the batches by number, so that the fold needs no setting, and doing it again after
  a kill finds nothing left to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from milepost.errors import ConfigurationError
from milepost.model.recoveries import (
    BatchRecoveryResult,
    FullRestart,
    PartialRecovery,
    RestartedFailedBatches,
    ResumedBatch,
)
from milepost.model.retrying import recoverable
from milepost.model.state import RecoveryMark
from milepost.recovery.analysis import share_done
from milepost.types import Outcome, RecoveryReason, RecoveryStrategy

if TYPE_CHECKING:
    from milepost.model.state import ActiveBatch, SessionState
    from milepost.types import RecoveryConfig

WORTH_RESUMING: Final = 0.2
"""A batch that only reported counts is resumed above this share, and begun anew up to it."""
WORTH_KEEPING: Final = 0.5
"""By progress, a session goes on where more than this share of its batches is completed."""


class Decision(NamedTuple):
    """What is to be done, in numbers.

    Attributes:
        strategy: How.
        result: What it comes to.
        batches: Failed batches that wait again.
        reset: Begun batches that begin anew.
        from_batch: Where a partial recovery begins.
        done_by: The latest recovery, where it did this and nothing happened since.
    """

    strategy: RecoveryStrategy
    result: BatchRecoveryResult
    batches: list[int]
    reset: list[int]
    from_batch: int | None
    done_by: RecoveryMark | None = None


def decide(
    state: SessionState,
    reason: RecoveryReason,
    config: RecoveryConfig,
    *,
    strategy: RecoveryStrategy | None = None,
    from_batch: int | None = None,
    by_progress: bool = False,
) -> Decision:
    """The strategy for a session, or the one that a caller forces.

    Errors: `ConfigurationError` for a strategy that cannot be carried out, naming why.
    """
    is_forced(strategy, from_batch, by_progress=by_progress)
    if from_batch is not None:
        return _from_batch(state, from_batch)
    done = _done_before(state, config, strategy, by_progress=by_progress)
    if done is not None:
        return done
    if by_progress:
        return _by_progress(state, config)
    if strategy is None:
        return _default(state, reason, config)
    if strategy is RecoveryStrategy.FULL_RESTART:
        return _all_anew(state)
    if strategy is RecoveryStrategy.PARTIAL_RECOVERY:
        return _from_first_unfinished(state)
    if strategy is RecoveryStrategy.RESTART_FAILED_BATCHES:
        return _failed_again(state, config)
    return _resume(state)


def is_forced(
    strategy: RecoveryStrategy | None, from_batch: int | None, *, by_progress: bool
) -> bool:
    """Whether a caller decides anything.

    Errors: `ConfigurationError` for two things that do not go together.
    """
    if by_progress and (strategy is not None or from_batch is not None):
        raise ConfigurationError(
            "by_progress lets the thresholds decide, so it goes with no strategy and no from_batch",
            hint="leave one of them out",
        )
    if from_batch is not None and strategy not in {None, RecoveryStrategy.PARTIAL_RECOVERY}:
        raise ConfigurationError("from_batch goes with partial recovery alone")
    return by_progress or strategy is not None or from_batch is not None


def _done_before(
    state: SessionState,
    config: RecoveryConfig,
    strategy: RecoveryStrategy | None,
    *,
    by_progress: bool,
) -> Decision | None:
    """What the latest recovery came to, where nothing happened since and the same is wanted."""
    mark = state.recovery
    if mark is None or mark.result is None or mark.sequence != state.sequence:
        return None
    if by_progress:
        # Any other took out of hand what the thresholds would judge: a second look would find
        # nothing begun, and so begin more and more anew.
        resume = RecoveryStrategy.RESUME_CURRENT_BATCH
        if mark.strategy is resume and _by_progress(state, config).strategy is not resume:
            return None
    elif strategy not in {None, mark.strategy}:
        return None
    return Decision(mark.strategy, mark.result, [], [], None, done_by=mark)


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


def _by_progress(state: SessionState, config: RecoveryConfig) -> Decision:
    """What the thresholds alone say, also where that does acknowledged work again.

    | in hand | batches completed | |
    |---|---|---|
    | nothing, and failures may be tried again | | the failed batches once more |
    | a batch worth it, above a fifth | | resume |
    | a batch worth it, up to a fifth | | from the first unfinished batch on anew |
    | nothing worth it | more than half; any, where the total is not known | the same |
    | nothing worth it | fewer | everything anew |

    The fullest batch in hand counts, and it is worth it from `partial_recovery_threshold` on.
    """
    shares = [_share(batch) for batch in state.active_batches.values()]
    if not shares and recoverable(state, config.max_recovery_attempts):
        return _failed_again(state, config)
    if shares and max(shares) >= config.partial_recovery_threshold:
        return _resume(state) if max(shares) > WORTH_RESUMING else _from_first_unfinished(state)
    completed, total = len(state.completed_batches), state.total_batches
    is_worth_keeping = completed > (0 if total is None else total * WORTH_KEEPING)
    return _from_first_unfinished(state) if is_worth_keeping else _all_anew(state)


def _share(batch: ActiveBatch) -> float:
    """Share of a batch that is finished; all, where nobody can say of how much it is."""
    return 1.0 if batch.items_expected is None and batch.items_finished else share_done(batch)


def _all_anew(state: SessionState) -> Decision:
    result = FullRestart(total_batches=state.total_batches)
    return Decision(RecoveryStrategy.FULL_RESTART, result, [], [], None)


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
    last = max([*_begun(state), (state.total_batches or 0) - 1])
    if not 0 <= first <= last:
        raise ConfigurationError(
            f"session {state.session_id!r} has no batch {first}",
            hint=f"its batches are numbered from 0 to {last}" if last >= 0 else "it has none yet",
        )
    return _anew_from(state, first)


def _from_first_unfinished(state: SessionState) -> Decision:
    number = 0
    while number in state.completed_batches:
        number += 1
    is_last = number == state.total_batches or (
        state.outcome is Outcome.COMPLETED and number > max(_begun(state), default=-1)
    )
    if number and is_last:
        raise ConfigurationError(
            f"all {number:,} batches of session {state.session_id!r} are completed",
            hint="name the batch from which on they are to be done again, with from_batch",
        )
    return _anew_from(state, number)


def _anew_from(state: SessionState, first: int) -> Decision:
    return _partial(state, sorted(number for number in _begun(state) if number >= first), first)


def _begun(state: SessionState) -> set[int]:
    return {
        *state.completed_batches,
        *state.active_batches,
        *state.failed_batches,
        *state.pending_batches,
    }


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
