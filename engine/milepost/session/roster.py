"""Which batches a session has: the plan, numbers by key, and what is to be done next.

- A batch has one number and one key. The plan gives its batches the numbers from 0; batches begun
  by hand get the next free ones.
- The plan is read when it is first needed: a retry or a restart needs none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from milepost.errors import ConfigurationError
from milepost.model import events as e
from milepost.model.retrying import recoverable
from milepost.session import plan as plans
from milepost.session.arguments import check_choice
from milepost.storage.location import command
from milepost.types import BatchStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from milepost.session.writer import Writer
    from milepost.snapshots.segments import PlannedBatch


class Roster:
    """The batches of one living session. Methods that change it want the writer's lock held."""

    def __init__(self, writer: Writer, max_recovery_attempts: int) -> None:
        self._writer = writer
        self._max_recovery_attempts = max_recovery_attempts
        self._plan_read: list[PlannedBatch] | None = None
        self._numbers_made: dict[str, int] | None = None
        self._next_number = 0

    @property
    def _plan(self) -> list[PlannedBatch]:
        if self._plan_read is None:
            writer = self._writer
            self._plan_read = plans.load(writer.folder, writer.backups(), writer.state)
        return self._plan_read

    @property
    def _numbers(self) -> dict[str, int]:
        if self._numbers_made is None:
            self._numbers_made = plans.index(self._writer.state, self._plan)
            self._next_number = 1 + max(self._numbers_made.values(), default=-1)
        return self._numbers_made

    def forget(self) -> None:
        """Read all anew when it is next needed: the plan changed."""
        self._plan_read = None
        self._numbers_made = None

    # One batch.

    def planned(self, number: int) -> PlannedBatch | None:
        """What the plan says of a batch; `None` for one that was begun by hand."""
        return self._plan[number] if 0 <= number < len(self._plan) else None

    def label_of(self, number: int) -> str | None:
        """What the plan calls a batch."""
        planned = self.planned(number)
        return planned.label if planned is not None else None

    def number_of(self, key: str) -> int | None:
        """The number of a batch; `None` for a key that is not known."""
        return self._numbers.get(key)

    def number_for(self, key: str, number: int | None) -> int:
        """The number under which a batch is to be begun.

        Errors: `ConfigurationError` where key and number do not belong together.
        """
        if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers are not all typed
            raise ConfigurationError(f"a batch key is text, not {type(key).__name__}: {key!r}")
        known = self._numbers.get(key)
        if number is None:
            return self._next_number if known is None else known
        if number < 0 or isinstance(number, bool):
            raise ConfigurationError(f"batch {key!r} cannot have number {number!r}")
        if known is not None and known != number:
            raise ConfigurationError(f"batch {key!r} is number {known}, not {number}")
        if known is None and self._writer.state.batch_status(number) is not None:
            owner = next(name for name, each in self._numbers.items() if each == number)
            raise ConfigurationError(f"batch number {number} belongs to {owner!r}, not to {key!r}")
        return number

    def refuse_started(self, key: str, number: int, *, may_reopen: bool) -> None:
        """Raise for a batch that is completed, or begun here and not ended."""
        state = self._writer.state
        done = state.completed_batches.get(number)
        # One that kept no items has nothing to go on with.
        if done is not None and (not may_reopen or done.progress is None):
            site = self._writer.site
            raise ConfigurationError(
                f"batch {key!r} is completed",
                hint="ask session.is_done(key) first; to do it all again:"
                f" {command(site.store_path, 'restart', site.name)}",
            )
        active = state.active_batches.get(number)
        if active is not None and active.resumed_ns:
            raise ConfigurationError(f"batch {key!r} is begun already and not ended")

    def note(self, key: str, number: int) -> None:
        """Know a batch that was begun."""
        self._numbers[key] = number
        self._next_number = max(self._next_number, number + 1)

    # All batches.

    def ensure_plan(
        self,
        source: Iterable[Any] | Callable[[], Iterable[Any]],
        *,
        key: Callable[[Any], Any] | None,
        label: Callable[[Any], str] | None,
        plan: str,
    ) -> int:
        """Seal the plan if it is not sealed, or add what is new; returns how many were added.

        The source is asked without the lock, so that nothing waits for a slow one.
        """
        check_choice("plan", plan, plans.PLANS)
        writer = self._writer
        with writer.lock:
            writer.ready()
            if writer.state.plan and plan == "frozen":
                return 0
        fresh = plans.enumerate_batches(source, key=key, label=label)
        with writer.lock:
            writer.ready()
            writer.check_turn()
            if writer.state.plan:
                fresh = [each for each in fresh if each.key not in self._numbers]
            self._seal(fresh)
            # It is read back: this proves the file, and payloads look the same in every run.
            self.forget()
            return len(fresh)

    def _seal(self, fresh: list[PlannedBatch]) -> None:
        writer = self._writer
        first = writer.state.planned
        self._refuse_unplanned(fresh, first)
        parts = plans.seal(writer, fresh, first=first)
        events: list[e.BatchEvent] = [
            e.PlanSealed(
                writer.next_sequence + index,
                writer.now_ns(),
                e.NO_BATCH,
                part.path,
                part.first,
                part.count,
            )
            for index, part in enumerate(parts)
        ]
        if events:
            writer.commit_all(events, durable=True)

    def _refuse_unplanned(self, fresh: list[PlannedBatch], first: int) -> None:
        """A batch begun by hand may hold a number that the plan is about to give away."""
        taken = [key for key, number in self._numbers.items() if number >= first]
        if fresh and taken:
            raise ConfigurationError(
                f"batch {taken[0]!r} was begun by hand, and its number belongs to the plan",
                hint="plan first, then begin further batches; or use a session of its own for them",
            )

    def to_do(self) -> Iterator[int]:
        """Numbers of the planned batches to run now: interrupted, pending, then failed ones."""
        state = self._writer.state
        planned = len(self._plan)
        # What was in hand when a process died comes first: it is to run alone.
        suspects = {each.batch for each in state.suspects}
        interrupted = sorted(
            (number for number in state.active_batches if number < planned),
            key=lambda number: (number not in suspects, number),
        )
        failed = [number for number in self.recoverable() if number < planned]
        yield from interrupted
        begun = {*interrupted, *failed}
        for number in range(planned):
            if number not in begun and state.batch_status(number) is BatchStatus.PENDING:
                yield number
        yield from failed

    def pending(self) -> list[int]:
        """Numbers of all batches that wait: planned and never begun, or put back."""
        state = self._writer.state
        numbers = {*range(state.planned), *state.pending_batches}
        return sorted(n for n in numbers if state.batch_status(n) is BatchStatus.PENDING)

    def recoverable(self) -> list[int]:
        """Numbers of the failed batches that a run tries again by itself."""
        return recoverable(self._writer.state, self._max_recovery_attempts)
