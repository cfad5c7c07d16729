"""Running a job in an event loop, which never waits for a disk: batches are tasks of it.

The bodies of a coroutine function run in the loop, those of a plain one in threads.
"""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Any

from milepost.jobs.outage import Outage
from milepost.jobs.progress import display
from milepost.jobs.runner import POLL_SECONDS, Runner, Step, Wait
from milepost.jobs.signals import StopSignals
from milepost.jobs.tasks import Tasks
from milepost.session.aside import aside
from milepost.session.host import StopRequested
from milepost.session.mapping import is_async
from milepost.session.stops import counting, is_stop_within
from milepost.work.executors import Threads
from milepost.work.returned import check_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator

    from milepost.jobs.job import Job
    from milepost.jobs.result import JobResult
    from milepost.jobs.workers import BatchEnd
    from milepost.session.batch import Batch
    from milepost.session.session import Session


class AsyncRunner(Runner):
    """One run of one job in a running event loop."""

    def __init__(self, job: Job[..., Any], **options: Any) -> None:
        super().__init__(job, **options)
        self._bodies = Threads(self._workers)

    async def run_async(self) -> JobResult:
        """The same in a running event loop, which never waits for a disk; batches are tasks."""
        session = await self._open_async()
        signals = StopSignals(session.request_stop)
        try:
            with signals:
                try:
                    result = await aside(self._prepare, session)
                    if result is None:
                        with display(session, self._progress or False):
                            await self._run_batches_async(session)
                        result = await aside(self._conclude, session)
                    return result
                except StopRequested:
                    await aside(self._stopped, session, signals)
                signals.raise_stop()
        except BaseException as error:
            # Where a signal ends the loop, its tasks are only told that they are cancelled.
            is_cut = isinstance(error, asyncio.CancelledError) and signals.received == signal.SIGINT
            await aside(self._note_error, session, KeyboardInterrupt() if is_cut else error)
            raise
        finally:
            self._bodies.shutdown(wait=False, cancel_futures=True)
            await aside(self._let_go, session)

    async def _open_async(self) -> Session:
        try:
            return await aside(self._open)
        except asyncio.CancelledError:
            # It was not stopped half way, so it may be open.
            session: Session | None = getattr(self, "_session", None)
            if session is not None:
                await aside(session.close)
            raise

    async def _run_batches_async(self, session: Session) -> None:
        outage = Outage(session, self._give_up_after)
        self._crew = Tasks(session, self._workers, self._work_async, outage)
        await self._crew.run()

    async def _work_async(self, number: int) -> BatchEnd | None:
        steps = self._steps(number)
        step, ending = await aside(_next_step, steps, None)
        while step is not None:
            error: BaseException | None = None
            if isinstance(step, Wait):
                await self._sleep_async(step.seconds)
            else:
                running, cancels = self._begin_body(step.batch), _cancels()
                try:
                    await running
                except asyncio.CancelledError as raised:
                    error = raised if _cancels() > cancels else _given_up(raised)
                except BaseException as raised:
                    error = counting(raised, self._session)
            step, ending = await aside(_next_step, steps, error)
        return ending

    def _begin_body(self, batch: Batch) -> Awaitable[None]:
        """Begin a body. What is raised here, where no thread can be started, is not the body's."""
        if is_async(self._job.function):
            return self._run_coroutine(batch)
        # A body that hangs must not keep us: it is left behind when we end.
        return asyncio.wrap_future(self._bodies.submit(self._run_plain, batch))

    async def _run_coroutine(self, batch: Batch) -> None:
        try:
            returned = await self._job(batch)
        except (KeyboardInterrupt, SystemExit) as error:
            # Out of a task they would end the event loop, and cut all other batches in hand.
            if not is_stop_within(error, self._session):
                raise
            raise StopRequested from None
        check_body(returned, f"the function of batch {batch.key!r}")

    def _run_plain(self, batch: Batch) -> None:
        try:
            self._run_body(batch)
        except StopIteration as error:  # it would mean another thing to a coroutine
            raise RuntimeError(f"StopIteration was raised: {error}") from error

    async def _sleep_async(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._refuse_when_over()
            await asyncio.sleep(min(POLL_SECONDS, left))


def _next_step(
    steps: Generator[Step, None, BatchEnd | None], error: BaseException | None
) -> tuple[Step | None, BatchEnd | None]:
    """The next step, or `None` and the end; a `StopIteration` cannot cross from thread to task."""
    try:
        return (steps.send(None) if error is None else steps.throw(error)), None
    except StopIteration as end:
        return None, end.value


def _cancels() -> int:
    """How often somebody cancelled the task that we are; a body may have kept that to itself."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _given_up(error: asyncio.CancelledError) -> Exception:
    """What a body met that waited for something cancelled: a failure, and no end of the run."""
    failure = RuntimeError("what it waited for was cancelled")
    failure.__cause__ = error
    return failure
