"""When a piece of work is started again, and when it is given up: a decision from marks alone.

- A run that got on is followed by the next at once, and so is the first one that is seen.
- A run that got on with nothing is followed after a wait, which doubles each time.
- After `max_recovery_attempts` such waits in a row without progress it is given up. So poison is
  always met before the end: the death of several things at once blames none of them, what then dies
  alone is failed after that many deaths, and being failed is progress.
- Progress is more than there ever was before, so work that begins itself anew each time ends too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from milepost.types import ItemStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from milepost.model.state import ActiveBatch, SessionState
    from milepost.types import RecoveryConfig

WAIT_SECONDS_MAX: Final = 600.0
_DOUBLINGS_MAX: Final = 60
"""Beyond it every wait is at its bound anyway, and a float would overflow at some time."""


def settled(state: SessionState) -> int:
    """How much of a session will never be done again: what is finished, and what failed for good.

    What failed and may be tried again is none of it: it waits for better weather, and so do we.
    """
    sums = state.session_statistics
    for_good = sum(not each.is_recoverable for each in state.failed_batches.values())
    for batch in _unfinished(state):
        for item in batch.open.values():
            for_good += item.status is ItemStatus.FAILED and not item.is_recoverable
    finished = sums.total_items_processed + sums.total_items_skipped
    return finished + len(state.completed_batches) + for_good


def _unfinished(state: SessionState) -> Iterator[ActiveBatch]:
    yield from state.active_batches.values()
    yield from state.pending_batches.values()
    for failed in state.failed_batches.values():
        yield failed.partial_progress


class Pace:
    """What is known of one piece of work's runs, and what follows from it.

    Attributes:
        restarts: How many in a row were allowed since the last run that got on, this one included.
    """

    def __init__(self, config: RecoveryConfig) -> None:
        self._config = config
        self._best: dict[str, int] = {}
        self.restarts = 0

    def after_run(self, marks: Mapping[str, int]) -> float | None:
        """Seconds to wait before the next run; `None` to give up.

        `marks` say how much is settled of each session that the work writes. A session that was not
        there before proves nothing: a program may begin another one each time.
        """
        got_on = any(mark > self._best.get(name, mark) for name, mark in marks.items())
        for name, mark in marks.items():
            self._best[name] = max(mark, self._best.get(name, mark))
        self.restarts = 1 if got_on else self.restarts + 1
        if self.restarts > 1 + self._config.max_recovery_attempts:
            return None
        if self.restarts == 1:
            return 0.0
        delay = self._config.recovery_delay_seconds
        wait = delay * 2.0 ** min(self.restarts - 2, _DOUBLINGS_MAX)
        return min(wait, max(WAIT_SECONDS_MAX, delay))
