"""Several batches at once: threads that run them, one thread that commits their ends.

- Workers hand the ends of their batches to the thread that started them, which commits all that are
  there with one sync. A batch is in hand until then, and its worker takes no other: a death costs
  at most one batch a worker.
- While there are suspects of a death, one batch runs at a time, theirs first: what dies alone can
  be told from its innocent neighbours.
- After a stop, what still works when the grace is over is left behind, unacknowledged, in daemon
  threads whose further calls raise.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from milepost.errors import OutageError
from milepost.jobs.signals import GRACE_SECONDS
from milepost.model.events import BatchCompleted, BatchFailed
from milepost.session.host import StopRequested

if TYPE_CHECKING:
    from milepost.jobs.outage import Outage
    from milepost.session.session import Session

BatchEnd: TypeAlias = Callable[[], BatchCompleted | BatchFailed]
"""Makes the event that ends a batch; it is asked for with the session's lock held."""

_POLL_SECONDS: Final = 0.1
_ALONE_POLL_SECONDS: Final = 0.01


class _Ended(NamedTuple):
    """What a worker has to say of a batch."""

    number: int
    ending: BatchEnd | None
    error: BaseException | None


class Workers:
    """The threads of one run."""

    def __init__(
        self,
        session: Session,
        count: int,
        work: Callable[[int], BatchEnd | None],
        outage: Outage,
    ) -> None:
        """`work` runs the batch of a number; it returns how it ends, `None` if it ended itself."""
        self._session = session
        self._work = work
        self._outage = outage
        self._numbers = session.to_do()
        self._handing_out = threading.Lock()
        self._changed = threading.Condition()
        self._ends: queue.SimpleQueue[_Ended] = queue.SimpleQueue()
        self._in_hand: set[int] = set()
        self._give_up = False
        self._is_stopped = False
        self._threads = [
            threading.Thread(target=self._run, name=f"milepost-worker-{index}", daemon=True)
            for index in range(count)
        ]

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be begun: somebody asked to stop, or a worker failed."""
        return self._session.stop_requested or self._give_up

    def run(self) -> None:
        """Run all batches; an error of a worker that is no batch's is raised here.

        Errors: `StopRequested` where somebody asked to stop.
        """
        try:
            for thread in self._threads:
                thread.start()
            self._commit_ends()
        except BaseException:
            with self._changed:
                self._give_up = True
                self._changed.notify_all()
            raise

    def _run(self) -> None:
        number = -1
        try:
            while (taken := self._take()) is not None:
                number = taken
                self._hand_in(number, self._work(number))
        except StopRequested:
            with self._changed:
                self._is_stopped = self._give_up = True  # it may be another session's stop
                self._in_hand.discard(number)
                self._changed.notify_all()
        except BaseException as error:  # raised again in the thread that started us
            self._give_up = True
            self._ends.put(_Ended(number, None, error))

    def _take(self) -> int | None:
        """The next batch, once it may run; `None` where there is no more."""
        with self._handing_out:
            while self._in_hand and self._session.live.suspects and not self.is_over:
                time.sleep(_ALONE_POLL_SECONDS)
            number = None if self.is_over else next(self._numbers, None)
            if number is not None:
                with self._changed:
                    self._in_hand.add(number)
            return number

    def _hand_in(self, number: int, ending: BatchEnd | None) -> None:
        """Have the end of a batch committed; return once it is."""
        self._ends.put(_Ended(number, ending, None))
        with self._changed:
            self._changed.wait_for(lambda: number not in self._in_hand or self._give_up)

    def _commit_ends(self) -> None:
        """Commit what ended, together, until all workers are through."""
        session = self._session
        deadline: float | None = None
        failure: BaseException | None = None
        while True:
            alive = any(thread.is_alive() for thread in self._threads)
            ended = _drain(self._ends, wait=alive)
            failure = failure or next((each.error for each in ended if each.error), None)
            session.end_batches([each.ending for each in ended if each.ending is not None])
            try:
                self._outage.note(each.number for each in ended if each.error is None)
            except OutageError as error:  # what is in hand may still end
                failure = failure or error
                self._give_up = True
            with self._changed:
                self._in_hand.difference_update(each.number for each in ended)
                self._changed.notify_all()
            if not alive and not ended:
                break
            if self.is_over or failure is not None:
                deadline = deadline or time.monotonic() + GRACE_SECONDS
                if time.monotonic() > deadline:
                    break  # what is still in hand is dropped: it was never acknowledged
        if failure is not None:
            raise failure
        if session.stop_requested or self._is_stopped:
            raise StopRequested


def _drain(ends: queue.SimpleQueue[_Ended], *, wait: bool) -> list[_Ended]:
    """All ends that are there; at least one, or a short wait, while workers live."""
    found: list[_Ended] = []
    with contextlib.suppress(queue.Empty):
        found.append(ends.get(timeout=_POLL_SECONDS) if wait else ends.get_nowait())
        while True:
            found.append(ends.get_nowait())
    return found
