"""Running a job in an event loop, which never waits for a disk: batches are tasks of it.

The bodies of a coroutine function run in the loop, those of a plain one in threads.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from milepost.jobs.outage import Outage
from milepost.jobs.progress import display
from milepost.jobs.runner import POLL_SECONDS, Runner, Step, Wait
from milepost.jobs.signals import StopSignals
from milepost.jobs.tasks import Tasks
from milepost.session.aside import aside
from milepost.session.mapping import is_async
from milepost.session.workload import StopRequested

if TYPE_CHECKING:
    from collections.abc import Generator

    from milepost.jobs.result import JobResult
    from milepost.jobs.workers import BatchEnd
    from milepost.session.session import Session


class AsyncRunner(Runner):
    """One run of one job in a running event loop."""

    async def run_async(self) -> JobResult:
        """The same in a running event loop, which never waits for a disk; batches are tasks."""
        session = await aside(self._open)
        try:
            with StopSignals(session.request_stop) as signals:
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
            await aside(self._note_error, session, error)
            raise
        finally:
            await aside(self._let_go, session)

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
                try:
                    if is_async(self._job.function):
                        await self._job(step.batch)
                    else:
                        await aside(self._run_body, step.batch)
                except BaseException as raised:
                    error = raised
            step, ending = await aside(_next_step, steps, error)
        return ending

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
