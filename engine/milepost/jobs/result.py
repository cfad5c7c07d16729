"""How a run of a job ended."""

from __future__ import annotations

import msgspec

from milepost.errors import JobFailedError
from milepost.model.state import SessionStatistics
from milepost.storage.location import command
from milepost.text import counted
from milepost.types import Outcome

EXIT_FAILED_BATCHES = 3


class JobResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run of a job ended.

    Attributes:
        name: The session's name.
        store: Absolute path of the store it is in; empty where milepost is off.
        outcome: `COMPLETED`, or `FAILED` with failed batches.
        completed: How many batches are completed, over all runs.
        failures: Key of each failed batch to why it failed.
        did_nothing: Whether there was nothing to do.
        statistics: Running sums over the whole session.
        region_type: What a batch of it is called.
    """

    name: str
    store: str
    outcome: Outcome
    completed: int
    failures: dict[str, str]
    did_nothing: bool
    statistics: SessionStatistics
    region_type: str = "batch"

    @property
    def exit_code(self) -> int:
        """What a script should exit with: 0, or 3 with failed batches."""
        return EXIT_FAILED_BATCHES if self.failures else 0

    def raise_for_failures(self) -> None:
        """Raise `JobFailedError` if batches stand as failed."""
        if self.failures:
            key, reason = next(iter(self.failures.items()))
            raise JobFailedError(
                f"{counted(len(self.failures), self.region_type)} of {self.name!r} failed, for"
                f" example {key!r}: {reason}",
                failures=self.failures,
                hint=f"see them: {command(self.store, 'show', self.name, '--failed')};"
                f" try again: {command(self.store, 'retry', self.name)}"
                if self.store
                else "milepost is off and kept nothing: run it all again",
            )
