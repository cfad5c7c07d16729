"""Several batches at once as tasks of an event loop, and one task that commits their ends.

The rules are those of `Workers`: ends are committed together, a batch is in hand until its end is
on the disk, suspects run alone, and after a stop what still works when the grace is over is left.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from milepost.errors import OutageError
from milepost.jobs.signals import GRACE_SECONDS
from milepost.session.aside import aside
from milepost.session.host import StopRequested

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from milepost.jobs.outage import Outage
    from milepost.jobs.workers import BatchEnd
    from milepost.session.session import Session

_POLL_SECONDS: Final = 0.1
_ALONE_POLL_SECONDS: Final = 0.01


class Tasks:
    """The tasks of one run."""

    def __init__(
        self,
        session: Session,
        count: int,
        work: Callable[[int], Awaitable[BatchEnd | None]],
        outage: Outage,
    ) -> None:
        """`work` runs the batch of a number; it returns how it ends, `None` if it ended itself."""
        self._session = session
        self._count = count
        self._work = work
        self._outage = outage
        self._numbers = session.to_do()
        self._handing_out = asyncio.Lock()
        self._in_hand = 0
        self._ended: list[tuple[int, BatchEnd | None, asyncio.Future[None]]] = []
        self._news = asyncio.Event()
        self._give_up = False
        self._is_stopped = False
        self._failure: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be begun: somebody asked to stop, or a task failed."""
        return self._session.stop_requested or self._give_up

    async def run(self) -> None:
        """Run all batches; an error of a task that is no batch's is raised here.

        Errors: `StopRequested` where somebody asked to stop.
        """
        committer = asyncio.create_task(self._commit_ends())
        tasks = [asyncio.create_task(self._run()) for _ in range(self._count)]
        try:
            await self._watch(tasks, committer)
        finally:
            self._give_up = True
            for task in (*tasks, committer):
                task.cancel()
            await asyncio.gather(*tasks, committer, return_exceptions=True)
        if self._failure is not None:
            raise self._failure
        if self._session.stop_requested or self._is_stopped:
            raise StopRequested

    async def _watch(self, tasks: list[asyncio.Task[None]], committer: asyncio.Task[None]) -> None:
        """Until all tasks are through, or the grace after a stop or a failure is over."""
        deadline: float | None = None
        while not all(task.done() for task in tasks):
            await asyncio.wait(
                [task for task in (*tasks, committer) if not task.done()],
                timeout=_POLL_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if committer.done():
                committer.result()  # it ends by an error only, and nothing is committed any more
            for task in tasks:
                if task.done() and (error := task.exception()) is not None:
                    self._fail(error)
            if self.is_over:
                deadline = deadline or time.monotonic() + GRACE_SECONDS
                if time.monotonic() > deadline:
                    return  # what is still in hand is dropped: it was never acknowledged

    def _fail(self, error: BaseException) -> None:
        """Begin nothing more, and end with this; what is in hand may still end."""
        self._failure = self._failure or error
        self._give_up = True

    async def _run(self) -> None:
        while (number := await self._take()) is not None:
            try:
                ending = await self._work(number)
            except StopRequested:
                self._is_stopped = self._give_up = True  # it may be another session's stop
                self._in_hand -= 1
                return
            await self._hand_in(number, ending)

    async def _take(self) -> int | None:
        """The next batch, once it may run; `None` where there is no more."""
        async with self._handing_out:
            while self._in_hand and self._session.live.suspects and not self.is_over:  # noqa: ASYNC110  # what clears them is no event of this loop
                await asyncio.sleep(_ALONE_POLL_SECONDS)
            number = None if self.is_over else await aside(self._next_number)
            self._in_hand += number is not None
            return number

    def _next_number(self) -> int | None:
        return next(self._numbers, None)

    async def _hand_in(self, number: int, ending: BatchEnd | None) -> None:
        """Have the end of a batch committed; return once it is."""
        committed = asyncio.get_running_loop().create_future()
        self._ended.append((number, ending, committed))
        self._news.set()
        await committed
        self._in_hand -= 1

    async def _commit_ends(self) -> None:
        """Commit what ended, together, for as long as there are tasks."""
        while True:
            await self._news.wait()
            self._news.clear()
            ended, self._ended = self._ended, []
            endings = [ending for _, ending, _ in ended if ending is not None]
            await aside(self._session.end_batches, endings)
            try:
                await aside(self._outage.note, [number for number, _, _ in ended])
            except OutageError as error:
                self._fail(error)
            for _, _, committed in ended:
                if not committed.done():
                    committed.set_result(None)
