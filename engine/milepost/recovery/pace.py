"""When a piece of work is started again, and when it is given up: a decision from marks alone.

- A run that got on is followed by the next at once.
- A run that got on with nothing is followed by the next at once the first time, then after waits
  that double.
- A death that something in hand was blamed for is no reason to give up: what kills its process
  again and again is failed as poison after so many deaths, and the rest goes on. All other runs
  that got on with nothing are counted, and `max_recovery_attempts` in a row are the end. So every
  piece of work comes to an end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from milepost.model.state import SessionState
    from milepost.types import RecoveryConfig

WAIT_SECONDS_MAX: Final = 600.0


class Mark(NamedTuple):
    """How far a piece of work is.

    Attributes:
        done: Everything that was ever finished; it grows with each acknowledgement.
        blamed: Everything that was ever blamed for a death and is not settled.
    """

    done: int = 0
    blamed: int = 0

    @classmethod
    def of(cls, states: list[SessionState]) -> Mark:
        """The mark of the sessions that a piece of work writes."""
        return cls(
            sum(
                state.items_finished + len(state.completed_batches) + len(state.failed_batches)
                for state in states
            ),
            sum(1 + suspect.deaths for state in states for suspect in state.suspects),
        )


class Pace:
    """What is known of one piece of work's runs, and what follows from it.

    Attributes:
        idle_runs: Runs in a row that got on with nothing.
        unexplained: Those of them that nothing was blamed for.
    """

    def __init__(self, config: RecoveryConfig, mark: Mark) -> None:
        self._config = config
        self._best = mark.done
        self._blamed = mark.blamed
        self.idle_runs = 0
        self.unexplained = 0

    def after_run(self, mark: Mark) -> float | None:
        """Seconds to wait before the next run; `None` to give up."""
        if mark.done > self._best:
            self.idle_runs = self.unexplained = 0
        else:
            self.idle_runs += 1
            self.unexplained = 0 if mark.blamed > self._blamed else self.unexplained + 1
        self._best = max(self._best, mark.done)
        self._blamed = mark.blamed
        if self.unexplained >= self._config.max_recovery_attempts:
            return None
        if self.idle_runs <= 1:
            return 0.0
        try:
            wait = self._config.recovery_delay_seconds * 2.0 ** (self.idle_runs - 2)
        except OverflowError:
            return WAIT_SECONDS_MAX
        return min(wait, max(WAIT_SECONDS_MAX, self._config.recovery_delay_seconds))
