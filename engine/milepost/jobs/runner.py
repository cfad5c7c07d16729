"""Running a job: plan, workers, tries, ends, signals.

- Batches run in this order: interrupted ones, pending ones, failed ones that may be tried again.
- A batch is tried up to `attempts` times where its error is recoverable, with growing waits; each
  try is recorded. What fails for good is recorded, and the run goes on.
- A signal lets every worker finish the item in hand.
- What the run before died of is settled first: it is recorded, and what died alone too often in a
  row is failed as poison.
- An error of the store itself (full, superseded, poisoned) ends the run: no body is to blame.
"""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING, Any

from milepost.errors import (
    ClosedError,
    ConfigurationError,
    FormatError,
    StorageError,
    SupersededError,
    UnfinishedError,
)
from milepost.jobs import notices
from milepost.jobs.loop import open_store
from milepost.jobs.progress import display
from milepost.jobs.result import JobResult
from milepost.jobs.signals import StopSignals
from milepost.jobs.workers import BatchEnd, Workers
from milepost.session.items import StopRequested
from milepost.types import BatchStatus, Outcome

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from milepost.jobs.job import Job
    from milepost.jobs.loop import WhenComplete
    from milepost.jobs.progress import ProgressFactory
    from milepost.model.events import BatchFailed
    from milepost.session.batch import Batch
    from milepost.session.plan import Plan
    from milepost.session.session import Session
    from milepost.store import Store
    from milepost.types import Durability

_POLL_SECONDS = 0.1
_OUR_FAULT = (StorageError, SupersededError, ClosedError, FormatError)


class Runner:
    """One run of one job."""

    def __init__(
        self,
        job: Job[..., Any],
        *,
        store: Store | str | os.PathLike[str] | None,
        workers: int,
        attempts: int,
        durability: Durability,
        plan: Plan,
        when_complete: WhenComplete,
        total: int | None,
        progress: bool | ProgressFactory | None,
    ) -> None:
        self._job = job
        self._store = open_store(store)
        self._workers = workers
        self._attempts = attempts
        self._durability: Durability = durability
        self._plan: Plan = plan
        self._when_complete = when_complete
        self._total = total
        self._progress = progress
        self._quiet = progress is False
        self._crew: Workers | None = None
        self._session: Session

    def run(self) -> JobResult:
        """Carry the job on to its end, or to the end of what this run may do."""
        session = self._store.session(self._job.name, durability=self._durability, execute=False)
        self._session = session
        try:
            with StopSignals(session.request_stop) as signals:
                result = self._run_or_stop(session, signals)
                if result is None:
                    signals.raise_stop()
                return result
        except BaseException as error:
            if not session.closed:
                stopped = isinstance(error, KeyboardInterrupt)
                if not isinstance(error, Exception):
                    self._say(
                        f"{session.name}: ended at once; what was in hand runs again next time"
                    )
                with contextlib.suppress(Exception):
                    # The error on its way is the one to see.
                    plain = isinstance(error, Exception)
                    reason = error if plain else f"{type(error).__name__} ended it"
                    session.end(Outcome.STOPPED if stopped else Outcome.INTERRUPTED, reason)
            raise
        finally:
            session.close()

    def _run_or_stop(self, session: Session, signals: StopSignals) -> JobResult | None:
        try:
            return self._run(session)
        except StopRequested:
            self._stopped(session, signals)
            return None

    def _stopped(self, session: Session, signals: StopSignals) -> None:
        on_purpose = signals.received in {None, signal.SIGINT}
        session.end(Outcome.STOPPED if on_purpose else Outcome.INTERRUPTED)
        self._say(f"{session.name}: stopped after the items in hand; run it again to carry on")

    def _run(self, session: Session) -> JobResult:
        if not session.live.plan and session.live.key_of(0) is not None:
            raise ConfigurationError(
                f"session {session.name!r} was made by a loop or by hand, not by a job",
                hint="give the job a name of its own",
            )
        ended = session.live.outcome is not None
        if ended and self._when_complete == "restart":
            session.restart()
            ended = False
        elif ended and self._when_complete == "error":
            raise UnfinishedError(
                notices.complete_line(session), hint=notices.command(session, "restart")
            )
        session.settle_death()
        if not self._quiet:
            notices.say_start(session, in_items=False)
        if not ended or self._plan == "extend":
            ended = not self._ensure_plan(session) and ended
        if ended and not session.recoverable():
            return self._nothing_to_do(session)
        session.begin_execution()
        with display(session, self._progress or False):
            if self._workers == 1:
                self._run_here(session)
            else:
                self._crew = Workers(
                    session, self._workers, lambda number: self._work(session, number)
                )
                self._crew.run()
        session.complete()
        result = self._result(session, did_nothing=False)
        self._say_end(session, result)
        return result

    def _ensure_plan(self, session: Session) -> int:
        """Seal the plan or what is new of it; returns how many batches that adds."""
        if self._total is not None and not session.live.plan:
            session.set_total_batches(self._total)
        added = session.ensure_plan(
            self._job.batches, key=self._job.key, label=self._job.label, plan=self._plan
        )
        if self._total is not None:
            session.set_total_batches(session.plan_size)  # it was a guess, and may be too high
        return added

    def _nothing_to_do(self, session: Session) -> JobResult:
        if session.live.failed_batches:
            count = len(session.live.failed_batches)
            self._say(notices.waiting_line(session, count, "batch"))
        else:
            self._say(notices.complete_line(session))
        return self._result(session, did_nothing=True)

    # One batch after another, in the main thread.

    def _run_here(self, session: Session) -> None:
        for number in session.to_do():
            if session.stop_requested:
                raise StopRequested
            ending = self._work(session, number)
            if ending is not None:
                session.end_batches([ending])

    # One batch.

    def _work(self, session: Session, number: int) -> BatchEnd | None:
        """Run one batch with its tries; return how it ends, `None` if its body ended it itself."""
        batch = session.start_batch(session.batch(number).key)
        for attempt in range(1, self._attempts + 1):
            try:
                self._job(batch)
            except _OUR_FAULT:
                if session.closed or not self._ended_by_body(batch):
                    raise
                return None
            except SystemExit as error:
                # It has no traceback that would show where it came from; a signal's needs none.
                if not session.stop_requested:
                    self._say(
                        f"{session.name}: batch {batch.key!r} called for the end of the program:"
                        f" {error!r}"
                    )
                raise
            except Exception as error:
                if self._ended_by_body(batch):
                    return None
                failing = self._failing(batch, error)
                _, _, recoverable = session.judge(error)
                if not recoverable or attempt == self._attempts:
                    return failing
                self._wait_for_next_try(session, batch, error, attempt)
            else:
                return None if self._ended_by_body(batch) else batch.ending
        raise AssertionError("a last try returns")

    @staticmethod
    def _failing(batch: Batch, error: Exception) -> Callable[[], BatchFailed]:
        return lambda: batch.failing(error)

    @staticmethod
    def _ended_by_body(batch: Batch) -> bool:
        return batch.status is not BatchStatus.PROCESSING

    def _wait_for_next_try(
        self, session: Session, batch: Batch, error: Exception, attempt: int
    ) -> None:
        delay = self._job.backoff.delay_seconds(attempt)
        batch.attempt_failed(error, delay)
        until = time.monotonic() + delay
        while (left := until - time.monotonic()) > 0:
            if session.stop_requested or (self._crew is not None and self._crew.is_over):
                raise StopRequested
            time.sleep(min(_POLL_SECONDS, left))
        batch.begin_again()

    # What it says.

    def _result(self, session: Session, *, did_nothing: bool) -> JobResult:
        state = session.live  # nobody changes it any more
        return JobResult(
            name=session.name,
            store=session.store_path,
            outcome=state.outcome or Outcome.COMPLETED,
            completed=len(state.completed_batches),
            failures={each.batch_id: each.error_message for each in state.failed_batches.values()},
            did_nothing=did_nothing,
            statistics=session.statistics,
        )

    def _say_end(self, session: Session, result: JobResult) -> None:
        items = notices.counted(result.statistics.total_items_processed, "item")
        batches = notices.counted(result.completed, "batch")
        if not result.failures:
            self._say(f"{session.name}: complete, {batches}, {items}")
            return
        failed = notices.counted(len(result.failures), "batch")
        self._say(f"{session.name}: ended with {failed} failed, {batches} completed, {items}")
        for key, reason in list(result.failures.items())[:3]:
            self._say(f"{session.name}: failed: {key}: {reason:.200}")
        left = len(result.failures) - len(session.recoverable())
        if left:
            self._say(notices.waiting_line(session, left, "batch"))

    def _say(self, line: str) -> None:
        if not self._quiet:
            notices.say(line)
