"""Running a job: plan, workers, tries, ends, signals.

- Batches run in this order: interrupted ones, pending ones, failed ones that may be tried again.
- A batch is tried up to `attempts` times where its error is recoverable, with growing waits; each
  try is recorded. What fails for good is recorded, and the run goes on.
- A signal lets every worker finish the item in hand.
- What the run before died of is settled first: it is recorded, and what died alone too often in a
  row is failed as poison.
- An error of the store itself (full, superseded, poisoned) ends the run: no body is to blame. So do
  an executor's own, and failures in a row beyond `give_up_after`: an outage is no batch's fault.
- What is done with one batch is written once, as steps. Who runs the steps decides what running a
  body and waiting mean: in this thread, in one of several, or as a task of an event loop.
"""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from milepost.errors import ConfigurationError
from milepost.jobs import notices
from milepost.jobs.outage import Outage
from milepost.jobs.place import Place
from milepost.jobs.progress import display
from milepost.jobs.remote import Remote, WorkerDiedError
from milepost.jobs.result import JobResult
from milepost.jobs.signals import StopSignals
from milepost.jobs.workers import BatchEnd, Workers
from milepost.session.batch import Batch
from milepost.session.host import StopRequested
from milepost.session.outcomes import Retry, Skip
from milepost.session.stops import counting, is_stop_within
from milepost.storage.values import plain_value
from milepost.text import counted, say
from milepost.types import BatchStatus, ItemStatus, Key, Outcome
from milepost.work.returned import check_body

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator

    from milepost.jobs.host import WhenComplete
    from milepost.jobs.job import Job
    from milepost.jobs.progress import ProgressFactory
    from milepost.jobs.tasks import Tasks
    from milepost.model.events import BatchFailed
    from milepost.session.plan import Plan
    from milepost.session.session import Session
    from milepost.store import Store
    from milepost.types import Durability
    from milepost.work.pool import ExecutorOrFactory

POLL_SECONDS: Final = 0.1


class RunBody(NamedTuple):
    """A step: run the body of the job on a batch; what it raises is thrown in."""

    batch: Batch


class Wait(NamedTuple):
    """A step: wait before the next try."""

    seconds: float


Step: TypeAlias = RunBody | Wait


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
        params: Any,
        give_up_after: int,
        executor: ExecutorOrFactory | None,
    ) -> None:
        self._job = job
        self._place = Place(job.name, store, durability, job.config)
        self._workers = workers
        self._attempts = attempts
        self._plan: Plan = plan
        self._when_complete = when_complete
        self._total = total
        self._progress = progress
        self._quiet = progress is False
        self._params = None if params is None else plain_value(params, "params")
        self._give_up_after = give_up_after
        self._executor = executor
        self._crew: Workers | Tasks | None = None
        self._remote: Remote | None = None
        self._session: Session

    def run(self) -> JobResult:
        """Carry the job on to its end, or to the end of what this run may do."""
        session = self._open()
        try:
            with StopSignals(session.request_stop) as signals:
                try:
                    result = self._prepare(session)
                    if result is None:
                        with display(session, self._progress or False):
                            self._run_batches(session)
                        result = self._conclude(session)
                    return result
                except StopRequested:
                    self._stopped(session, signals)
                signals.raise_stop()
        except BaseException as error:
            self._note_error(session, error)
            raise
        finally:
            self._let_go(session)

    def _open(self) -> Session:
        session = self._place.open()
        self._session = session
        return session

    def _note_error(self, session: Session, error: BaseException) -> None:
        if session.closed:
            return
        stopped = isinstance(error, KeyboardInterrupt)
        if not isinstance(error, Exception):
            self._say(f"{session.name}: ended at once; what was in hand runs again next time")
        with contextlib.suppress(Exception):
            # The error on its way is the one to see.
            plain = isinstance(error, Exception)
            reason = error if plain else f"{type(error).__name__} ended it"
            session.end(Outcome.STOPPED if stopped else Outcome.INTERRUPTED, reason)

    def _let_go(self, session: Session) -> None:
        if self._remote is not None:
            self._remote.close()
        try:
            session.close()
        finally:
            self._place.leave()

    def _stopped(self, session: Session, signals: StopSignals) -> None:
        on_purpose = signals.received in {None, signal.SIGINT}
        session.end(Outcome.STOPPED if on_purpose else Outcome.INTERRUPTED)
        self._say(f"{session.name}: stopped after the items in hand; {self._place.again}")

    def _prepare(self, session: Session) -> JobResult | None:
        """Begin this run; a result where there is nothing to do."""
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
            raise notices.ended_error(session)
        if self._params is not None:
            session.keep_params(self._params)
        session.settle_death()
        if not (self._quiet or self._place.is_off):
            notices.say_start(session, in_items=False)
        if not ended or self._plan == "extend":
            ended = not self._ensure_plan(session) and ended
        if ended and not session.recoverable():
            return self._nothing_to_do(session)
        session.begin_execution()
        if self._executor is not None:
            self._remote = Remote(self._job, session, self._executor, self._workers, self._is_over)
        return None

    def _conclude(self, session: Session) -> JobResult:
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
            self._say(notices.waiting_line(session, count, session.batch_word))
        else:
            self._say(notices.complete_line(session))
        return self._result(session, did_nothing=True)

    # All batches.

    def _run_batches(self, session: Session) -> None:
        outage = Outage(session, self._give_up_after)
        if self._workers > 1:
            self._crew = Workers(session, self._workers, self._work, outage)
            self._crew.run()
            return
        for number in session.to_do():
            if session.stop_requested:
                raise StopRequested
            ending = self._work(number)
            if ending is not None:
                session.end_batches([ending])
            outage.note([number])

    # One batch: who runs its steps.

    def _work(self, number: int) -> BatchEnd | None:
        """Run one batch; return how it ends, `None` if its body ended it itself."""
        steps = self._steps(number)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Wait):
                    self._sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    self._run_body(step.batch)
                except BaseException as error:
                    step = steps.throw(counting(error, self._session))
                else:
                    step = steps.send(None)
        except StopIteration as end:
            ending: BatchEnd | None = end.value
            return ending

    def _run_body(self, batch: Batch) -> None:
        if self._remote is not None:
            self._remote.run(batch)
            return
        try:
            returned = self._job(batch)
        except (KeyboardInterrupt, SystemExit) as error:
            if not is_stop_within(error, self._session):
                raise
            raise StopRequested from None
        check_body(returned, f"the function of batch {batch.key!r}")

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._refuse_when_over()
            time.sleep(min(POLL_SECONDS, left))

    def _refuse_when_over(self) -> None:
        if self._is_over():
            raise StopRequested

    def _is_over(self) -> bool:
        """Whether nothing more is to be begun."""
        return self._session.stop_requested or (self._crew is not None and self._crew.is_over)

    # One batch: its steps.

    def _steps(self, number: int) -> Generator[Step, None, BatchEnd | None]:
        """What is to be done with one batch, and how it ends; `None` if its body ended it."""
        session = self._session
        batch = session.start_batch(session.batch(number).key)
        attempt = 1
        while True:
            skipped = _skipped(batch)
            try:
                yield RunBody(batch)
            except SystemExit as error:
                # It has no traceback that would show where it came from; a signal's needs none.
                if not session.stop_requested:
                    self._say(
                        f"{session.name}: batch {batch.key!r} called for the end of the program:"
                        f" {error!r}"
                    )
                raise
            except Skip as skip:
                if self._ended_by_body(batch):
                    return None
                in_hand = _in_hand(batch)
                if len(in_hand) > 1:
                    return self._failing(batch, _unclear(in_hand), recoverable=False)
                for key in in_hand:
                    batch.update_item(key, ItemStatus.SKIPPED, skip.reason or None)
                if _skipped(batch) == skipped:
                    return batch.ending  # it was said of the batch as a whole
                batch.begin_again()  # it was said of an item, and there may be more of them
            except Exception as error:
                if session.closed:
                    raise
                if self._ended_by_body(batch):
                    return None
                if self._is_no_bodys(error):
                    raise
                _, _, recoverable = session.judge(error)
                recoverable = recoverable and not isinstance(error, WorkerDiedError)
                if not recoverable or attempt == self._attempts:
                    return self._failing(batch, error, recoverable=recoverable)
                after = error.after_seconds if isinstance(error, Retry) else None
                delay = self._job.backoff.delay_seconds(attempt) if after is None else after
                batch.attempt_failed(error, delay)
                yield Wait(delay)
                attempt += 1
                batch.begin_again()
            else:
                return None if self._ended_by_body(batch) else batch.ending

    def _is_no_bodys(self, error: Exception) -> bool:
        """Whether this ends the run, and no body is to blame for it."""
        if self._remote is not None and self._remote.is_fault(error):
            return True
        return self._session.is_no_bodys(error)

    @staticmethod
    def _failing(batch: Batch, error: Exception, *, recoverable: bool) -> Callable[[], BatchFailed]:
        return lambda: batch.failing(error, recoverable=recoverable)

    @staticmethod
    def _ended_by_body(batch: Batch) -> bool:
        return batch.status is not BatchStatus.PROCESSING

    # What it says.

    def _result(self, session: Session, *, did_nothing: bool) -> JobResult:
        state = session.live  # nobody changes it any more
        return JobResult(
            name=session.name,
            store="" if self._place.is_off else session.store_path,
            outcome=state.outcome or Outcome.COMPLETED,
            completed=len(state.completed_batches),
            failures={each.batch_id: each.error_message for each in state.failed_batches.values()},
            did_nothing=did_nothing,
            statistics=session.statistics,
            region_type=session.batch_word,
        )

    def _say_end(self, session: Session, result: JobResult) -> None:
        items = counted(result.statistics.total_items_processed, "item")
        batches = counted(result.completed, session.batch_word)
        if not result.failures:
            self._say(f"{session.name}: complete, {batches}, {items}")
            return
        failed = counted(len(result.failures), session.batch_word)
        self._say(f"{session.name}: ended with {failed} failed, {batches} completed, {items}")
        for key, reason in list(result.failures.items())[: notices.FAILURES_TOLD_MAX]:
            self._say(notices.failure_line(session, key, reason))
        left = len(result.failures) - len(session.recoverable())
        if left and not self._place.is_off:
            self._say(notices.waiting_line(session, left, session.batch_word))

    def _say(self, line: str) -> None:
        if not self._quiet:
            say(line)


def _skipped(batch: Batch) -> int:
    recorded = batch.recorded
    return recorded.items_skipped if recorded is not None else 0


def _in_hand(batch: Batch) -> list[Key]:
    recorded = batch.recorded
    items = recorded.open.values() if recorded is not None and recorded.items_processing else ()
    return [item.item_id for item in items if item.status is ItemStatus.PROCESSING]


def _unclear(in_hand: list[Key]) -> ConfigurationError:
    return ConfigurationError(
        f"Skip was raised with {len(in_hand)} items in hand, so nobody can tell which is meant",
        hint="in the body of a map call its skip(), or raise Skip in the function",
    )
